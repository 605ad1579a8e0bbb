//! A request in words: who, what, where, when, why, its outcome, and what to do next.
//! Pure: the time is an argument.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::{
    duration,
    page::{Colour, Page},
    shell::shell_words,
    tails::tail_bytes,
    words,
};
use crate::{
    api::{ExecRequest, ExecRequestStatus, OutputStatus, Phase, Requester, StreamStatus},
    cli::request::{may_have_run, takes_input},
};

const TAIL_LINES: usize = 10;

/// The request in words; `plugin` makes of a verb and its arguments what to type.
pub fn summary(request: &ExecRequest, now: Timestamp, colours: bool, plugin: impl Fn(&str) -> String) -> Page {
    let empty = ExecRequestStatus::default();
    let status = request.status.as_ref().unwrap_or(&empty);
    let meta = &request.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let line = |page: Page, heading: &str, text: &str| page.line(&format!("  {heading:<9}{text}"));
    let mut page = Page::in_colour(colours).painted(&format!("{name} in namespace {namespace}"), Colour::Bold).end();
    page = line(page, "Who", &who(request.spec.requested_by.as_ref()));
    page = line(page, "What", &what(request));
    page = line(page, "Where", &place(request, status));
    page = line(page, "When", &when(request, status, now));
    page = line(page, "Why", request.spec.reason.as_deref().unwrap_or("no reason given"));
    page = outcome(page.text(&format!("  {:<9}", "Outcome")), request, status).end();
    if let Some(output) = &status.output {
        page = line(page, "Output", &output_words(output));
    }
    page = line(page, "Next", &next(request, status, |verb| plugin(&format!("{verb} {name}"))));
    if let Some(output) = &status.output {
        page = tail(page, "Standard output", &output.stdout);
        page = tail(page, "Standard error", &output.stderr);
    }
    page
}

pub fn who(by: Option<&Requester>) -> String {
    let Some(by) = by else { return "not recorded".to_owned() };
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

pub fn between(from: Timestamp, to: Timestamp) -> String {
    duration::words(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}

fn outcome(page: Page, request: &ExecRequest, status: &ExecRequestStatus) -> Page {
    let colour = match status.phase {
        Phase::Succeeded => Colour::Green,
        Phase::Failed => Colour::Red,
        Phase::Unknown | Phase::Pending | Phase::Bound | Phase::Running => Colour::Yellow,
    };
    let code = match (status.exit_code, status.exit_code_source) {
        (Some(code), Some(source)) => format!(" (exit code {code}, by {source:?})"),
        (Some(code), None) => format!(" (exit code {code})"),
        (None, _) => String::new(),
    };
    page.painted(&status.phase.to_string(), colour).text(&format!("{code}: {}", words::state(request)))
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

fn tail(page: Page, heading: &str, stream: &StreamStatus) -> Page {
    let bytes = tail_bytes(stream);
    if bytes.is_empty() {
        return page;
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let shown = &all[all.len().saturating_sub(TAIL_LINES)..];
    let cut = stream.truncated || shown.len() < all.len();
    let page = page.line(&format!("  {heading}{}:", if cut { " (end)" } else { "" }));
    shown.iter().fold(page, |page, line| page.text("    ").output(line).end())
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
