//! The report as Markdown, for tickets. Whatever others wrote is code: nothing of it is markup, a link or a mention.

use super::{
    captured::Captured,
    timeline::{clock, took},
    value::{Command, Report, Same},
};
use crate::{
    cli::say::shell::shell_words,
    core::printable::{is_printable, one_line},
};

pub fn markdown(report: &Report) -> String {
    let mut page = Markdown::default();
    page.ours("# Batch ").code(&report.name).ours(" in ").code(&report.namespace).ours("\n\n**");
    page.code(&report.phase.to_string())
        .ours("** (")
        .code(&report.reason)
        .ours("): ")
        .code(&report.message)
        .ours("\n\n");
    for (_, word, count) in report.counts.all().into_iter().filter(|(end, _, count)| *count > 0 || *end == "succeeded")
    {
        page.ours("- ").code(&count.to_string()).ours(" ").ours(word).ours("\n");
    }
    page.ours("\n");
    for note in &report.notes {
        page.ours("> ").code(note).ours("\n\n");
    }
    page.ours("| | |\n|---|---|\n");
    for (name, value) in report.facts() {
        page.ours("| ").ours(name).ours(" | ").cell(&value).ours(" |\n");
    }
    page.ours("| Command | ").cell(&shell_words(&report.what.command)).ours(" |\n| Plan digest | ");
    page.cell(report.plan.digest.as_deref().unwrap_or_default()).ours(" |\n| Batch UID | ").cell(&report.uid);
    page.ours(" |\n| Report made at | ").cell(&clock(report.made_at)).ours(" |\n");
    if let Some(audit) = &report.audit {
        page.ours("\n## Audit trail\n\n");
        page.ours("**").ours(audit.words()).ours("**\n\n");
        page.fence(&audit.lines.iter().map(|line| one_line(line) + "\n").collect::<String>());
    }
    page.ours("\n## Results\n");
    report.results.iter().for_each(|same| result(&mut page, same));
    page.ours("\n## Targets\n\n| # | Pod | End | Code | Reason | Started | Took | Node | Result | Message |\n");
    page.ours("|---|---|---|---|---|---|---|---|---|---|\n");
    report.commands.iter().for_each(|command| target(&mut page, command));
    page.0
}

fn result(page: &mut Markdown, same: &Same) {
    page.ours("\n### ").code(&same.number.to_string()).ours(": ").code(&same.count.to_string()).ours(" × ");
    page.code(&same.title()).ours("\n\n").code(&same.pods).ours(" (indexes ").code(&same.indexes).ours(")\n");
    for words in [Some(same.message.clone()), same.incomplete()].into_iter().flatten().filter(|words| !words.is_empty())
    {
        page.ours("\n").code(&words).ours("\n");
    }
    stream(page, "Standard output", &same.stdout);
    stream(page, "Standard error", &same.stderr);
}

fn stream(page: &mut Markdown, name: &'static str, captured: &Captured) {
    if captured.bytes == 0 && captured.text.is_empty() {
        return;
    }
    page.ours("\n").ours(name).ours(", ").code(&captured.bytes.to_string()).ours(" bytes");
    for note in captured.notes() {
        page.ours("; ").code(&note);
    }
    page.ours(":\n\n").fence(&captured.text);
}

fn target(page: &mut Markdown, command: &Command) {
    let cells = [
        command.index.to_string(),
        command.pod.clone(),
        command.end.to_owned(),
        command.exit_code.map(|code| code.to_string()).unwrap_or_default(),
        command.reason.clone(),
        command.started.map(clock).unwrap_or_default(),
        command.started.zip(command.finished).map(|(from, to)| took(from, to)).unwrap_or_default(),
        command.node.clone().unwrap_or_default(),
        command.result.map(|number| number.to_string()).unwrap_or_default(),
        command.message.clone(),
    ];
    page.ours("|");
    for cell in cells {
        page.ours(" ").cell(&cell).ours(" |");
    }
    page.ours("\n");
}

#[derive(Debug, Default)]
struct Markdown(String);

impl Markdown {
    fn ours(&mut self, text: &'static str) -> &mut Self {
        self.0.push_str(text);
        self
    }

    /// In one line, between more backticks than it has in a row.
    fn code(&mut self, text: &str) -> &mut Self {
        if !text.is_empty() {
            let text = one_line(text);
            let ticks = "`".repeat(longest_run(&text) + 1);
            // Of a text between two blanks each is taken away.
            self.0.extend([&ticks, " ", &text, " ", &ticks]);
        }
        self
    }

    /// The same in a cell of a table, which ends at any bar.
    fn cell(&mut self, text: &str) -> &mut Self {
        self.code(&one_line(text).replace('|', "\\x7c"))
    }

    /// Lines as they are, between two fences that none of them can be.
    fn fence(&mut self, text: &str) -> &mut Self {
        let fence = "`".repeat(longest_run(text).max(2) + 1);
        self.0.extend([fence.as_str(), "\n"]);
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            for c in line.chars() {
                match c {
                    c if is_printable(c) || c == '\t' => self.0.push(c),
                    c => self.0.push_str(&one_line(c.encode_utf8(&mut [0; 4]))),
                }
            }
            self.0.push('\n');
        }
        self.0.extend([fence.as_str(), "\n"]);
        self
    }
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::report::fixture::{HOSTILE, report};

    #[test]
    fn nothing_that_others_wrote_is_markup() {
        let text = markdown(&report());
        assert!(text.chars().all(|c| is_printable(c) || c == '\n' || c == '\t'), "{text:?}");
        // Whatever is outside of code is ours.
        let mut fence: Option<String> = None;
        for line in text.lines() {
            if let Some(open) = &fence {
                if line == open {
                    fence = None;
                }
                continue;
            }
            if line.starts_with("```") {
                assert!(line.chars().all(|c| c == '`'), "{line}");
                fence = Some(line.to_owned());
                continue;
            }
            let outside = without_code(line);
            for mark in ["<", "[", "](", "http", "@", "\\", "evil"] {
                assert!(!outside.contains(mark), "{mark:?} in {outside:?} of {line:?}");
            }
        }
        assert_eq!(fence, None, "each fence has its end");
        assert!(text.contains("evil"), "{HOSTILE} is there");
    }

    /// A line without its spans of code.
    fn without_code(line: &str) -> String {
        let (mut outside, mut rest) = (String::new(), line);
        while let Some(at) = rest.find('`') {
            outside.push_str(&rest[..at]);
            let ticks = rest[at..].chars().take_while(|c| *c == '`').count();
            let inside = &rest[at + ticks..];
            let mut end = 0;
            loop {
                let next = inside[end..].find('`').map(|at| at + end).expect("a span that ends");
                let run = inside[next..].chars().take_while(|c| *c == '`').count();
                end = next + run;
                if run == ticks {
                    break;
                }
            }
            rest = &inside[end..];
        }
        outside + rest
    }

    #[test]
    fn each_row_has_as_many_cells_as_its_table() {
        let text = markdown(&report());
        let rows = text.lines().skip_while(|line| *line != "## Targets").filter(|line| line.starts_with('|'));
        for row in rows {
            assert_eq!(row.matches('|').count(), 11, "{row}");
        }
    }

    #[test]
    fn a_fence_is_longer_than_any_in_it() {
        let mut page = Markdown::default();
        page.fence("````\r\nx").code("a``b").cell("a|b`");
        assert_eq!(page.0, "`````\n````\\r\nx\n`````\n``` a``b ```\u{60}` a\\x7cb` ``");
    }
}
