//! The page: one file that needs no network and runs nothing, whatever is in it.

use super::{
    captured::Captured,
    safe::Html,
    timeline::{clock, timeline, took},
    value::{Audit, Command, Report, Same},
};
use crate::cli::say::shell::shell_words;

const HEAD: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
    "<meta name=\"color-scheme\" content=\"light dark\">\n",
);

pub fn html(report: &Report) -> String {
    let mut page = Html::default();
    page.ours(HEAD).ours("<title>").text(&format!("Batch {}/{}", report.namespace, report.name));
    page.ours("</title>\n<style>\n").ours(include_str!("style.css")).ours("</style>\n</head>\n<body>\n");
    head(&mut page, report);
    facts(&mut page, report);
    if let Some(audit) = &report.audit {
        verdict(&mut page, audit);
    }
    page.ours("<h2>When each command ran</h2>\n");
    timeline(&mut page, report);
    page.ours(
        "<h2>Results</h2>\n<p class=\"small\">Targets that ended the same are together: the same reason, exit code ",
    );
    page.ours("and output.</p>\n");
    if report.results.is_empty() {
        page.ours("<p>There are none.</p>\n");
    }
    report.results.iter().for_each(|same| result(&mut page, same));
    targets(&mut page, report);
    page.ours("<footer>Made by kubectl execlet ").ours(env!("CARGO_PKG_VERSION")).ours(" at ");
    page.text(&clock(report.made_at)).ours(" UTC, of ExecBatch ").text(&report.uid);
    page.ours(". Marked like <i>\\x1b</i>: a character that is not printable.</footer>\n</body>\n</html>\n");
    page.into_text()
}

fn head(page: &mut Html, report: &Report) {
    page.ours("<h1>Batch ")
        .text(&report.name)
        .ours(" in ")
        .text(&report.namespace)
        .ours("</h1>\n<p class=\"lead\"><b>");
    page.text(&report.phase.to_string()).ours("</b>");
    if report.reason != report.phase.to_string() {
        page.ours(" (").text(&report.reason).ours(")");
    }
    page.ours(": ").text(&report.message).ours("</p>\n<ul class=\"counts\">");
    for (class, word, count) in report.counts.all() {
        if count > 0 || class == "succeeded" {
            page.ours("<li><b class=\"").ours(class).ours("\">").number(count).ours("</b>").ours(word).ours("</li>");
        }
    }
    page.ours("</ul>\n");
    for note in &report.notes {
        page.ours("<p class=\"note\">").text(note).ours("</p>\n");
    }
}

fn facts(page: &mut Html, report: &Report) {
    page.ours("<dl>\n");
    for (name, value) in report.facts() {
        page.ours("<dt>").ours(name).ours("</dt><dd>").text(&value).ours("</dd>\n");
    }
    page.ours("<dt>Command</dt><dd><code>").text(&shell_words(&report.what.command)).ours("</code></dd>\n");
    if let Some(digest) = &report.plan.digest {
        page.ours("<dt>Plan digest</dt><dd><code>").text(digest).ours("</code></dd>\n");
    }
    page.ours("</dl>\n");
}

fn verdict(page: &mut Html, audit: &Audit) {
    page.ours("<h2>Audit trail</h2>\n");
    let class = match (audit.intact, audit.anchored) {
        (true, true) => "succeeded",
        (true, false) => "unknown",
        (false, _) => "failed",
    };
    page.ours("<p class=\"note ").ours(class).ours("\">").ours(audit.words()).ours("</p>\n<pre>\n");
    for line in &audit.lines {
        page.text(line).ours("\n");
    }
    page.ours("</pre>\n");
}

fn result(page: &mut Html, same: &Same) {
    page.ours("<details open><summary><span class=\"").ours(same.end).ours("\">").number(same.count).ours(" × ");
    page.text(&same.title()).ours("</span>: ").text(&same.pods).ours("</summary>\n<p class=\"small\">Result ");
    page.number(i64::try_from(same.number).unwrap_or(i64::MAX)).ours(", indexes ").text(&same.indexes).ours("</p>\n");
    if !same.message.is_empty() {
        page.ours("<p>").text(&same.message).ours("</p>\n");
    }
    if let Some(why) = same.incomplete() {
        page.ours("<p class=\"note\">").text(&why).ours("</p>\n");
    }
    stream(page, "Standard output", &same.stdout);
    stream(page, "Standard error", &same.stderr);
    page.ours("</details>\n");
}

fn stream(page: &mut Html, name: &'static str, captured: &Captured) {
    if captured.bytes == 0 && captured.text.is_empty() {
        return;
    }
    page.ours("<p class=\"small\">").ours(name).ours(", ").number(captured.bytes).ours(" bytes");
    for note in captured.notes() {
        page.ours("; ").text(&note);
    }
    if let Some(digest) = &captured.sha256 {
        page.ours("; SHA-256 <code>").text(digest).ours("</code>");
    }
    page.ours("</p>\n");
    if !captured.text.is_empty() {
        // The first line end of a pre is not shown.
        page.ours("<pre>\n").output(&captured.text).ours("</pre>\n");
    }
}

fn targets(page: &mut Html, report: &Report) {
    page.ours("<h2>Targets</h2>\n<div class=\"wide\"><table>\n<thead><tr><th class=\"number\">#</th><th>Pod</th>");
    page.ours(
        "<th>End</th><th class=\"number\">Code</th><th>Reason</th><th>Started</th><th class=\"number\">Took</th>",
    );
    page.ours("<th>Node</th><th class=\"number\">Result</th><th>Message</th></tr></thead>\n<tbody>\n");
    report.commands.iter().for_each(|command| target(page, command));
    page.ours("</tbody></table></div>\n");
}

fn target(page: &mut Html, command: &Command) {
    let code = command.exit_code.map(|code| code.to_string()).unwrap_or_default();
    let started = command.started.map(clock).unwrap_or_default();
    let took = command.started.zip(command.finished).map(|(from, to)| took(from, to)).unwrap_or_default();
    let result = command.result.map(|number| number.to_string()).unwrap_or_default();
    page.ours("<tr><td class=\"number\">").number(command.index).ours("</td><td title=\"").attribute(&command.title());
    page.ours("\">").text(&command.pod).ours("</td><td><span class=\"").ours(command.end).ours("\">");
    page.ours(command.end)
        .ours("</span></td><td class=\"number\">")
        .text(&code)
        .ours("</td><td>")
        .text(&command.reason);
    page.ours("</td><td>").text(&started).ours("</td><td class=\"number\">").text(&took).ours("</td><td>");
    page.text(command.node.as_deref().unwrap_or_default()).ours("</td><td class=\"number\">").text(&result);
    page.ours("</td><td class=\"message\">").text(&command.message).ours("</td></tr>\n");
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
