//! A request in words: who, what, where, when, why, what became of it, and what
//! to do next. Pure: it is told the time.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::{
    duration,
    shell::shell_words,
    speech::{Colour, paint},
    tails::tail_bytes,
    words,
};
use crate::api::{ExecRequest, ExecRequestStatus, OutputStatus, Phase, StreamStatus};

/// Lines of each tail that are shown.
const TAIL_LINES: usize = 10;

/// The request in words; `plugin` makes of a verb with its arguments what to type.
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
    line("Why", request.spec.reason.clone().unwrap_or_else(|| "no reason was given".to_owned()));
    line("Outcome", outcome(request, status, colours));
    if let Some(output) = &status.output {
        line("Output", output_words(output));
    }
    line("Next", next(name, request, status, plugin));
    if let Some(output) = &status.output {
        tail(&mut lines, "Standard output", &output.stdout);
        tail(&mut lines, "Standard error", &output.stderr);
    }
    lines.join("\n") + "\n"
}

fn who(request: &ExecRequest) -> String {
    let Some(by) = &request.spec.requested_by else { return "not recorded".to_owned() };
    let groups: Vec<&str> =
        by.groups.iter().map(String::as_str).filter(|group| *group != "system:authenticated").collect();
    if groups.is_empty() { by.username.clone() } else { format!("{} ({})", by.username, groups.join(", ")) }
}

fn what(request: &ExecRequest) -> String {
    let spec = &request.spec;
    let mut text = shell_words(&spec.command);
    let mut with = Vec::new();
    if let Some(user) = &spec.user {
        with.push(format!("as user {user}"));
    }
    if let Some(folder) = &spec.working_dir {
        with.push(format!("in {folder}"));
    }
    if !spec.env.is_empty() {
        let names: Vec<&str> = spec.env.iter().map(|variable| variable.name.as_str()).collect();
        with.push(format!("with {}", names.join(", ")));
    }
    if spec.tty {
        with.push("with a terminal".to_owned());
    }
    if let Some(stdin) = &spec.stdin {
        with.push(if stdin.attach.is_some() { "input from a client" } else { "input from the request" }.to_owned());
    }
    if !with.is_empty() {
        text = format!("{text}   ({})", with.join("; "));
    }
    text
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
    let born = format!("created {} ({} ago)", created.strftime("%Y-%m-%dT%H:%M:%SZ"), between(created, now));
    let at = |time: Timestamp| time.strftime("%H:%M:%S").to_string();
    // The creation is told in whole seconds: how long after it something was, is not known.
    match (started, finished) {
        (None, None) => born,
        (Some(started), None) => format!("{born}, started {}, runs for {}", at(started), between(started, now)),
        (Some(started), Some(finished)) => {
            format!("{born}, started {}, ran for {}", at(started), between(started, finished))
        }
        (None, Some(finished)) => format!("{born}, given up {}", at(finished)),
    }
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
        (Some(reason), false) => format!("may not be complete: {reason}"),
        (None, false) => "may not be complete".to_owned(),
    };
    format!("{} B on standard output, {} B on standard error; {whole}", output.stdout.bytes, output.stderr.bytes)
}

fn next(name: &str, request: &ExecRequest, status: &ExecRequestStatus, plugin: impl Fn(&str) -> String) -> String {
    let verb = |verb: &str| plugin(&format!("{verb} {name}"));
    let waits_for_input = request.spec.stdin.as_ref().is_some_and(|stdin| stdin.attach.is_some());
    match status.phase {
        Phase::Pending => format!("wait: {}; or give up: {}", verb("wait"), verb("cancel")),
        Phase::Bound if waits_for_input => format!("start it: {}", verb("attach -i")),
        Phase::Bound | Phase::Running => {
            format!("follow: {}; or end it: {}", verb("attach"), verb("cancel"))
        }
        Phase::Failed if status.start_time.is_none() => {
            "nothing ran: mend what is wrong, then create it again".to_owned()
        }
        Phase::Succeeded | Phase::Failed => format!("all of its output: {}", verb("logs")),
        Phase::Unknown => "look what it has done before you run it again: it may have run".to_owned(),
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
    lines.push(format!("  {heading}{}:", if cut { ", its end" } else { "" }));
    // Somebody's output in somebody else's terminal: no control characters.
    let plain = |line: &&str| line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
    lines.extend(shown.iter().map(|line| {
        format!("    {}", {
            let text: String = plain(line);
            text
        })
    }));
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
