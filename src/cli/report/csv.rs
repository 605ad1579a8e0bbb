//! The report as CSV (RFC 4180), for spreadsheets: one line for each index. No cell is a formula.

use super::value::{Command, Report, Same};
use crate::core::printable::one_line;

const COLUMNS: [&str; 17] = [
    "index",
    "pod",
    "podUID",
    "container",
    "node",
    "request",
    "end",
    "reason",
    "exitCode",
    "started",
    "finished",
    "result",
    "outputComplete",
    "stdoutSHA256",
    "stdout",
    "stderr",
    "message",
];

/// What begins a formula, in one program or another.
const FORMULAS: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

pub fn csv(report: &Report) -> String {
    let mut text = line(&COLUMNS.map(str::to_owned));
    for command in &report.commands {
        let same = command.result.and_then(|number| report.results.get(number - 1));
        text.push_str(&line(&cells(command, same)));
    }
    text
}

fn cells(command: &Command, same: Option<&Same>) -> [String; COLUMNS.len()] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let time = |time: Option<k8s_openapi::jiff::Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    [
        command.index.to_string(),
        command.pod.clone(),
        text(&command.pod_uid),
        text(&command.container),
        text(&command.node),
        text(&command.request),
        command.end.to_owned(),
        command.reason.clone(),
        command.exit_code.map(|code| code.to_string()).unwrap_or_default(),
        time(command.started),
        time(command.finished),
        command.result.map(|number| number.to_string()).unwrap_or_default(),
        same.and_then(|same| same.output_complete).map(|complete| complete.to_string()).unwrap_or_default(),
        same.and_then(|same| same.stdout.sha256.clone()).unwrap_or_default(),
        same.map(|same| same.stdout.text.clone()).unwrap_or_default(),
        same.map(|same| same.stderr.text.clone()).unwrap_or_default(),
        command.message.clone(),
    ]
}

fn line(cells: &[String]) -> String {
    cells.iter().map(|text| cell(text)).collect::<Vec<_>>().join(",") + "\r\n"
}

/// One line between quotes. A quote before what would be a formula makes it text.
fn cell(text: &str) -> String {
    let text = one_line(text.trim_end_matches('\n'));
    let begins = text.trim_start_matches([' ', '\'', '"', '\u{a0}', '\u{3000}']).starts_with(FORMULAS);
    let before = if begins { "'" } else { "" };
    format!("\"{before}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::report::fixture::report, core::printable::is_printable};

    #[test]
    fn no_cell_is_a_formula_or_ends_its_line() {
        for (text, wanted) in [
            ("plain", "\"plain\""),
            ("=cmd|' /C calc'!A0", "\"'=cmd|' /C calc'!A0\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            (" =1", "\"' =1\""),
            ("\"=1", "\"'\"\"=1\""),
            ("\u{ff1d}1", "\"'\u{ff1d}1\""),
            ("\t=1", "\"\\t=1\""),
            ("a\",\"b", "\"a\"\",\"\"b\""),
            ("a\r\n=1\n", "\"a\\r\\n=1\""),
            ("1\u{2028}2\0", "\"1\\u{2028}2\\x00\""),
        ] {
            assert_eq!(cell(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn there_is_one_line_for_each_index() {
        let report = report();
        let text = csv(&report);
        assert_eq!(text.matches("\r\n").count(), report.commands.len() + 1);
        assert!(text.chars().all(|c| is_printable(c) || c == '\r' || c == '\n'), "{text:?}");
        for line in text.split_terminator("\r\n") {
            assert!(!line.contains(['\r', '\n']), "{line:?}");
            let quotes = line.matches('"').count();
            assert!(line.starts_with('"') && line.ends_with('"') && quotes % 2 == 0, "{line}");
            assert!(!FORMULAS.iter().any(|sign| line.contains(&format!(",\"{sign}"))), "{line}");
        }
    }
}
