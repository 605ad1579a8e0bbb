//! The timeline: when each command ran. A drawing whose widths are shares of the page, so that its letters keep their size.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::{
    safe::Html,
    value::{Command, Report},
};
use crate::cli::say::duration;

/// Up to so many have their names beside them.
const NAMED: usize = 40;
/// In pixels: of one that is named, of one that is not, and of all together where there are too many for that.
const NAMED_HEIGHT: f64 = 30.0;
const HEIGHT: f64 = 6.0;
const MOST_HEIGHT: f64 = 1600.0;
const MARKS: i32 = 4;

/// What ran, and in which time all of it did.
struct Ran<'a> {
    commands: Vec<(&'a Command, Timestamp, Timestamp)>,
    from: Timestamp,
    to: Timestamp,
}

impl<'a> Ran<'a> {
    /// `None`: nothing ran.
    fn of(report: &'a Report) -> Option<Self> {
        let ran = |command: &'a Command| {
            let started = command.started?;
            Some((command, started, command.finished.unwrap_or(report.until()).max(started)))
        };
        let commands: Vec<_> = report.commands.iter().filter_map(ran).collect();
        let first = commands.iter().map(|(_, started, _)| *started).min()?;
        let last = commands.iter().map(|(_, _, finished)| *finished).max()?;
        Some(Self { from: report.started.unwrap_or(first).min(first), to: last, commands })
    }

    /// Where it is between the first and the last moment, in hundredths.
    fn place(&self, at: Timestamp) -> f64 {
        let seconds = |time: Timestamp| time.duration_since(self.from).as_secs_f64();
        let all = seconds(self.to);
        if all > 0.0 { (seconds(at) / all * 100.0).clamp(0.0, 100.0) } else { 0.0 }
    }
}

pub(super) fn took(from: Timestamp, to: Timestamp) -> String {
    duration::words(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}

pub(super) fn timeline(page: &mut Html, report: &Report) {
    let Some(ran) = Ran::of(report) else {
        page.ours("<p>No command was started.</p>\n");
        return;
    };
    let count = ran.commands.len();
    let named = count <= NAMED;
    #[allow(clippy::cast_precision_loss, reason = "at most ten thousand")]
    let count = count as f64;
    let each = if named { NAMED_HEIGHT } else { HEIGHT.min(MOST_HEIGHT / count) };
    page.ours("<svg width=\"100%\" height=\"").decimal(each * count);
    page.ours("\" role=\"img\" aria-label=\"When each command ran\">\n");
    for mark in 0..=MARKS {
        let x = f64::from(mark * 100 / MARKS);
        page.ours("<line x1=\"").decimal(x).ours("%\" x2=\"").decimal(x).ours("%\" y1=\"0\" y2=\"100%\"/>\n");
    }
    let mut y = 0.0;
    for (command, started, finished) in &ran.commands {
        bar(page, &ran, (command, *started, *finished), y, each);
        y += each;
    }
    page.ours("</svg>\n<div class=\"marks\">");
    for mark in 0..=MARKS {
        page.ours("<span>").text(&took(ran.from, at(&ran, mark))).ours("</span>");
    }
    page.ours("</div>\n<p class=\"small\">")
        .text(&clock(ran.from))
        .ours(" to ")
        .text(&clock(ran.to))
        .ours(", UTC</p>\n");
}

fn at(ran: &Ran<'_>, mark: i32) -> Timestamp {
    ran.from.checked_add(ran.to.duration_since(ran.from) * mark / MARKS).unwrap_or(ran.to)
}

pub(super) fn clock(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn bar(
    page: &mut Html,
    ran: &Ran<'_>,
    (command, started, finished): (&Command, Timestamp, Timestamp),
    y: f64,
    each: f64,
) {
    let (from, to) = (ran.place(started), ran.place(finished));
    let label = format!("{} {}: {}", command.index, command.pod, took(started, finished));
    let named = each >= NAMED_HEIGHT;
    if named {
        // On the side where there is room.
        let (x, anchor) = if from > 50.0 { (to, "end") } else { (from, "start") };
        page.ours("<text x=\"")
            .decimal(x)
            .ours("%\" y=\"")
            .decimal(y + 13.0)
            .ours("\" text-anchor=\"")
            .attribute(anchor);
        page.ours("\">").text(&label).ours("</text>");
    }
    let (top, height) = if named { (y + 17.0, 9.0) } else { (y, each * 0.8) };
    page.ours("<rect class=\"").attribute(command.end).ours("\" x=\"").decimal(from).ours("%\" y=\"").decimal(top);
    page.ours("\" width=\"").decimal(to - from).ours("%\" height=\"").decimal(height).ours("\"><title>");
    page.text(&format!("{label}, {}", command.reason)).ours("</title></rect>\n");
}
