//! A request in words: who, what, where, when, why, its outcome, and what to do next.
//! Pure: the time is an argument.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::{
    duration,
    shell::shell_words,
    speech::{Colour, paint},
    tails::tail_bytes,
    words,
};
use crate::{
    api::{ExecRequest, ExecRequestStatus, OutputStatus, Phase, StreamStatus},
    cli::request::{may_have_run, takes_input},
};

const TAIL_LINES: usize = 10;

/// The request in words; `plugin` makes of a verb and its arguments what to type.
pub fn summary(request: &ExecRequest, now: Timestamp, colours: bool, plugin: impl Fn(&str) -> String) -> String {
    let empty = ExecRequestStatus::default();
    let status = request.status.as_ref().unwrap_or(&empty);
    let meta = &request.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let mut lines = vec![paint(&format!("{name} in namespace {namespace}"), Colour::Bold, colours)];
    let mut line = |heading: &str, text: String| lines.push(format!("  {heading:<9}{text}"));
    line("Who", who(request));
    line("What", what(request));
    line("Where", place(request, status));
    line("When", when(request, status, now));
    line("Why", request.spec.reason.clone().unwrap_or_else(|| "no reason given".to_owned()));
    line("Outcome", outcome(request, status, colours));
    if let Some(output) = &status.output {
        line("Output", output_words(output));
    }
    line("Next", next(request, status, |verb| plugin(&format!("{verb} {name}"))));
    if let Some(output) = &status.output {
        tail(&mut lines, "Standard output", &output.stdout);
        tail(&mut lines, "Standard error", &output.stderr);
    }
    lines.join("\n") + "\n"
}

fn who(request: &ExecRequest) -> String {
    let Some(by) = &request.spec.requested_by else { return "not recorded".to_owned() };
    let groups = by.groups.iter().map(String::as_str).filter(|group| *group != "system:authenticated");
    let groups = groups.collect::<Vec<_>>().join(", ");
    if groups.is_empty() { by.username.clone() } else { format!("{} ({groups})", by.username) }
}

fn what(request: &ExecRequest) -> String {
    let spec = &request.spec;
    let env = spec.env.iter().map(|variable| variable.name.as_str()).collect::<Vec<_>>().join(", ");
    let input = if takes_input(request) { "input from a client" } else { "input from the request" };
    let with = [
        spec.user.as_ref().map(|user| format!("as user {user}")),
        spec.working_dir.as_ref().map(|folder| format!("in {folder}")),
        (!env.is_empty()).then(|| format!("with {env}")),
        spec.tty.then(|| "with a terminal".to_owned()),
        spec.stdin.is_some().then(|| input.to_owned()),
    ];
    let (command, with) = (shell_words(&spec.command), with.into_iter().flatten().collect::<Vec<_>>().join("; "));
    if with.is_empty() { command } else { format!("{command}   ({with})") }
}

fn place(request: &ExecRequest, status: &ExecRequestStatus) -> String {
    let pod = &request.spec.target.pod_name;
    let container = status.container.as_ref().or(request.spec.target.container.as_ref());
    let container = container.map_or_else(String::new, |name| format!("container {name} of "));
    let node = status.node_name.as_ref().map_or_else(String::new, |node| format!(", on node {node}"));
    format!("{container}pod {pod}{node}")
}

fn when(request: &ExecRequest, status: &ExecRequestStatus, now: Timestamp) -> String {
    let Some(created) = request.metadata.creation_timestamp.as_ref().map(|time| time.0) else {
        return "not created".to_owned();
    };
    let started = status.start_time.as_ref().map(|time| time.0);
    let finished = status.completion_time.as_ref().map(|time| time.0);
    let at = |time: Timestamp| time.strftime("%H:%M:%S").to_string();
    // The creation time has whole seconds: how long after it something happened is not known.
    let then = match (started, finished) {
        (None, None) => String::new(),
        (None, Some(finished)) => format!(", given up {}", at(finished)),
        (Some(started), None) => format!(", started {}, running for {}", at(started), between(started, now)),
        (Some(started), Some(finished)) => {
            format!(", started {}, ran for {}", at(started), between(started, finished))
        }
    };
    format!("created {} ({} ago){then}", created.strftime("%Y-%m-%dT%H:%M:%SZ"), between(created, now))
}

fn between(from: Timestamp, to: Timestamp) -> String {
    duration::words(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}

fn outcome(request: &ExecRequest, status: &ExecRequestStatus, colours: bool) -> String {
    let colour = match status.phase {
        Phase::Succeeded => Colour::Green,
        Phase::Failed => Colour::Red,
        Phase::Unknown | Phase::Pending | Phase::Bound | Phase::Running => Colour::Yellow,
    };
    let phase = paint(&status.phase.to_string(), colour, colours);
    let code = match (status.exit_code, status.exit_code_source) {
        (Some(code), Some(source)) => format!(" (exit code {code}, by {source:?})"),
        (Some(code), None) => format!(" (exit code {code})"),
        (None, _) => String::new(),
    };
    format!("{phase}{code}: {}", words::state(request))
}

fn output_words(output: &OutputStatus) -> String {
    let whole = match (&output.incomplete_reason, output.complete) {
        (_, true) => "complete".to_owned(),
        (Some(reason), false) => format!("may be incomplete: {reason}"),
        (None, false) => "may be incomplete".to_owned(),
    };
    format!("{} B on standard output, {} B on standard error; {whole}", output.stdout.bytes, output.stderr.bytes)
}

fn next(request: &ExecRequest, status: &ExecRequestStatus, plugin: impl Fn(&str) -> String) -> String {
    match status.phase {
        Phase::Pending => format!("wait: {}; or give up: {}", plugin("wait"), plugin("cancel")),
        Phase::Bound if takes_input(request) => format!("start it: {}", plugin("attach -i")),
        Phase::Bound | Phase::Running => format!("follow: {}; or end it: {}", plugin("attach"), plugin("cancel")),
        Phase::Failed if !may_have_run(request) => "nothing ran: fix the cause, then create it again".to_owned(),
        Phase::Succeeded | Phase::Failed => format!("read its output: {}", plugin("logs")),
        Phase::Unknown => "it may have run: check what it did before you run it again".to_owned(),
    }
}

fn tail(lines: &mut Vec<String>, heading: &str, stream: &StreamStatus) {
    let bytes = tail_bytes(stream);
    if bytes.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let shown = &all[all.len().saturating_sub(TAIL_LINES)..];
    let cut = stream.truncated || shown.len() < all.len();
    lines.push(format!("  {heading}{}:", if cut { " (end)" } else { "" }));
    // Somebody's output in somebody else's terminal: no control characters.
    let plain = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    lines.extend(shown.iter().map(|line| format!("    {}", line.chars().map(plain).collect::<String>())));
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
