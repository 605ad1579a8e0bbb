//! A batch as a few lines that are drawn again and again: phase, bar, counts, what runs, what failed.
//! Pure: time and size are arguments.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::{
    children::{Children, Ended},
    words,
};
use crate::{
    api::{BatchPhase, ExecBatch, ExecBatchStatus},
    cli::say::{duration, live::Line, page::Colour, terminal::Size},
    core::batch::end::End,
};

/// Columns of the bar.
const BAR: (usize, usize) = (10, 40);
/// Most lines of what failed.
const FAILED: usize = 5;
/// Most targets that are told as running.
const RUNNING: usize = 50;

pub struct View<'a> {
    pub batch: &'a ExecBatch,
    pub children: &'a Children,
    /// Why there is no news.
    pub trouble: Option<&'a str>,
    pub now: Timestamp,
}

pub fn lines(view: &View<'_>, size: Size) -> Vec<Line> {
    let empty = ExecBatchStatus::default();
    let status = view.batch.status.as_ref().unwrap_or(&empty);
    let mut lines = vec![head(view, status, usize::from(size.columns)), counts(status)];
    if let Some(trouble) = view.trouble {
        lines.push(
            Line::default().painted(&format!("the API server does not answer: {trouble}; retrying"), Colour::Yellow),
        );
    } else if !matches!(status.phase, BatchPhase::Running | BatchPhase::Succeeded | BatchPhase::Failed) {
        lines.push(Line::default().text(&words::state(view.batch)));
    }
    if !view.children.running.is_empty() {
        lines.push(running(view));
    }
    let failed = without_success(view.children);
    // Of a low terminal nothing scrolls away.
    let room = usize::from(size.rows).saturating_sub(lines.len() + 2).min(FAILED);
    let left_out = failed.len().saturating_sub(room);
    lines.extend(
        failed.into_iter().take(room).map(|ended| {
            Line::default().text("  ").painted(&ended.pod, Colour::Red).text(&format!(": {}", ended.words))
        }),
    );
    if left_out > 0 && room > 0 {
        lines.push(Line::default().text(&format!("  and {left_out} more without success")));
    }
    lines
}

fn head(view: &View<'_>, status: &ExecBatchStatus, columns: usize) -> Line {
    let name = words::typed(view.batch);
    let colour = match status.phase {
        BatchPhase::Succeeded => Colour::Green,
        BatchPhase::Failed => Colour::Red,
        BatchPhase::Paused => Colour::Yellow,
        BatchPhase::Pending | BatchPhase::Planning | BatchPhase::Planned | BatchPhase::Running => Colour::Bold,
    };
    let phase = if view.batch.spec.cancel && status.completion_time.is_none() {
        "Canceling".to_owned()
    } else {
        status.phase.to_string()
    };
    let line = Line::default().painted(&name, Colour::Bold).text(" ").painted(&phase, colour);
    let took = status.start_time.as_ref().map_or_else(String::new, |start| format!("  {}", since(start.0, view.now)));
    let Some(total) = words::total(status) else { return line };
    let after = format!(" {}/{total}{took}", words::done(status));
    let room = columns.saturating_sub(line.width() + after.len() + 4).min(BAR.1);
    if room < BAR.0 {
        return line.text(&after);
    }
    bar(line.text(" ["), parts(status, total), room).text("]").text(&after)
}

/// How many succeeded, ended otherwise, are active, and are to come.
fn parts(status: &ExecBatchStatus, total: u16) -> [usize; 4] {
    let number = |number: i32| usize::try_from(number).unwrap_or(0);
    let (succeeded, done, active) =
        (number(status.succeeded.count), number(words::done(status)), number(status.active));
    let otherwise = done.saturating_sub(succeeded);
    [succeeded, otherwise, active, usize::from(total).saturating_sub(done + active)]
}

fn bar(line: Line, parts: [usize; 4], width: usize) -> Line {
    let looks = [('#', Some(Colour::Green)), ('x', Some(Colour::Red)), ('>', None), ('-', None)];
    looks.into_iter().zip(cells(parts, width)).fold(line, |line, ((cell, colour), cells)| {
        let text = cell.to_string().repeat(cells);
        match colour {
            Some(colour) => line.painted(&text, colour),
            None => line.text(&text),
        }
    })
}

/// How wide each part is; one that is not empty is seen, if there is room.
fn cells(parts: [usize; 4], width: usize) -> [usize; 4] {
    let total: usize = parts.iter().sum();
    if total == 0 {
        return [0, 0, 0, width];
    }
    let (mut sum, mut before) = (0, 0);
    let mut cells = parts.map(|part| {
        sum += part;
        let until = sum * width / total;
        let cells = until - before;
        before = until;
        cells
    });
    for at in 0..cells.len() {
        let widest = (0..cells.len()).max_by_key(|at| cells[*at]).unwrap_or(0);
        if parts[at] > 0 && cells[at] == 0 && cells[widest] > 1 {
            (cells[at], cells[widest]) = (1, cells[widest] - 1);
        }
    }
    cells
}

fn counts(status: &ExecBatchStatus) -> Line {
    let Some(total) = words::total(status) else { return Line::default().text("  not planned yet") };
    let [_, _, active, to_come] = parts(status, total);
    Line::default().text(&format!("  {}; {active} active, {to_come} to come", words::counts(status)))
}

fn running(view: &View<'_>) -> Line {
    let all = &view.children.running;
    let some = all.values().take(RUNNING).map(|one| match one.since {
        Some(time) => format!("{} ({})", one.pod, since(time, view.now)),
        None => one.pod.clone(),
    });
    let text = some.collect::<Vec<_>>().join(", ");
    Line::default().text(&format!("  {} running: ", all.len())).text(&text)
}

/// In the order of their indexes; those that were not released and never ran come last.
fn without_success(children: &Children) -> Vec<&Ended> {
    let (mut ran, not): (Vec<_>, Vec<_>) = children
        .ended
        .values()
        .filter(|ended| ended.end != End::Succeeded && ended.end != End::Skipped)
        .partition(|ended| ended.end != End::NotRun);
    ran.extend(not);
    ran
}

fn since(from: Timestamp, now: Timestamp) -> String {
    let whole = Duration::try_from(now.duration_since(from)).unwrap_or_default();
    duration::words(Duration::from_secs(whole.as_secs())).replace(".0", "")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::batch::{
        children::tests::{child, exited},
        words::tests::{batch, status},
    };

    fn shown(status: Value, children: &Children, columns: u16, rows: u16) -> Vec<String> {
        let batch = batch(status);
        let now = "2026-01-02T03:05:15Z".parse().expect("a time");
        let view = View { batch: &batch, children, trouble: None, now };
        lines(&view, Size { columns, rows }).iter().map(Line::plain).collect()
    }

    fn some() -> Children {
        let mut children = Children::of("u");
        children.count_only(1);
        for (index, status) in [
            (0, exited(0, "")),
            (1, exited(3, "")),
            (2, json!({"phase": "Running", "startTime": "2026-01-02T03:05:03.000000Z"})),
        ] {
            children.see(child(index, status));
        }
        children
    }

    fn running_status() -> Value {
        let more = json!({"released": 3, "active": 1, "succeeded": {"count": 1}, "failed": {"count": 1},
            "startTime": "2026-01-02T03:05:00.000000Z"});
        status("Running", "Running", "3 of 4 targets are released", &more)
    }

    #[test]
    fn phase_bar_counts_what_runs_and_what_failed_are_seen() {
        assert_eq!(
            shown(running_status(), &some(), 80, 24),
            [
                "xb/b Running [##########xxxxxxxxxx>>>>>>>>>>----------] 2/4  15 s",
                "  1 succeeded, 1 failed; 1 active, 1 to come",
                "  1 running: db-2 (12 s)",
                "  db-1: NonZeroExitCode: the command ended with exit code 3",
            ]
        );
    }

    #[test]
    fn a_narrow_terminal_has_no_bar_and_a_low_one_fewer_lines() {
        let lines = shown(running_status(), &some(), 30, 4);
        assert_eq!(lines[0], "xb/b Running 2/4  15 s");
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(shown(running_status(), &some(), 200, 50)[0].contains("] 2/4"));
    }

    #[test]
    fn what_it_waits_for_is_told() {
        let none = Children::default();
        let paused = status("Paused", "ApprovalRequired", "somebody else has to look", &Value::Null);
        let lines = shown(paused, &none, 80, 24);
        assert_eq!(lines[2], "Paused (ApprovalRequired): somebody else has to look");
        let lines = shown(Value::Null, &none, 80, 24);
        assert_eq!(lines, ["xb/b Pending", "  not planned yet", "waiting for the execlet manager"]);
    }

    #[test]
    fn every_part_of_a_bar_that_is_not_empty_is_seen() {
        for (parts, width, expected) in [
            ([0, 0, 0, 0], 10, [0, 0, 0, 10]),
            ([4, 0, 0, 0], 10, [10, 0, 0, 0]),
            ([1, 1, 1, 1], 10, [2, 3, 2, 3]),
            ([998, 1, 1, 0], 10, [8, 1, 1, 0]),
            ([0, 1, 0, 9999], 10, [0, 1, 0, 9]),
            ([1, 0, 0, 9999], 10, [1, 0, 0, 9]),
        ] {
            let cells = cells(parts, width);
            assert_eq!(cells, expected, "{parts:?}");
            assert_eq!(cells.iter().sum::<usize>(), width);
        }
    }
}
