//! Results of a batch that are equal, shown once: who has them, what was written, and how that differs from what most
//! have written.

use similar::TextDiff;

use super::{
    children::{Children, Ended},
    fold::fold,
    written::lines,
};
use crate::{
    api::{ExecRequest, StreamStatus, batch::Group},
    cli::{
        error::Error,
        say::page::{Colour, Page},
    },
    core::batch::{
        groups::{Grouped, group},
        indexes::IndexSet,
        ledger::Ledger,
    },
};

const RULE: &str = "----------------";
/// Before each line of a command, which so cannot pass for a heading.
const INDENT: &str = "  ";
/// Lines around each difference.
const CONTEXT: usize = 3;

/// Those that have ended by now, the largest group first.
pub fn groups(children: &Children, ledger: &Ledger) -> Grouped {
    let endings = children.ended.values().map(|ended| ended.ending.clone()).collect();
    group(endings, ledger)
}

/// Who is in a group.
pub fn members(group: &Group, children: &Children) -> String {
    let indexes: IndexSet = group.indexes.parse().unwrap_or_default();
    let pods = indexes.iter().filter_map(|index| children.ended.get(&index)).map(|ended: &Ended| ended.pod.as_str());
    fold(pods)
}

/// How they have ended.
pub fn end(group: &Group) -> String {
    match group.exit_code {
        Some(code) => format!("{}, exit code {code}", group.reason),
        None => group.reason.clone(),
    }
}

/// One group, by one of its requests; `largest` is that of the largest group, with its members, if that is another.
pub fn page(
    page: Page,
    group: &Group,
    members: &str,
    example: Result<&ExecRequest, &Error>,
    largest: Option<(&ExecRequest, &str)>,
) -> Page {
    let heading = format!("{members} ({}): {}", group.count, end(group));
    let page = page.line(RULE).painted(&heading, Colour::Bold).end().line(RULE);
    let example = match example {
        Ok(example) => example,
        Err(why) => return page.line(&format!("(its output could not be read: {why})")),
    };
    let streams = |request: &ExecRequest| {
        request.status.clone().and_then(|status| status.output).map(|output| [output.stdout, output.stderr])
    };
    let Some(own) = streams(example) else { return page };
    let theirs = largest.and_then(|(request, who)| Some((streams(request)?, who)));
    let mut page = page;
    for (at, (name, stream)) in ["standard output", "standard error"].into_iter().zip(&own).enumerate() {
        page = written(page, name, stream, at > 0);
        if let Some((theirs, who)) = &theirs {
            page = differs(page, [who, members], name, &theirs[at], stream);
        }
    }
    page
}

fn written(page: Page, name: &str, stream: &StreamStatus, headed: bool) -> Page {
    let lines = lines(stream);
    let end = if stream.truncated { " (end)" } else { "" };
    let headed = !lines.is_empty() && (headed || stream.truncated);
    let page = if headed { page.line(&format!("{INDENT}{name}{end}:")) } else { page };
    lines.iter().fold(page, |page, line| page.text(INDENT).output(line).end())
}

/// A unified diff, if both have written something, and not the same.
fn differs(page: Page, [theirs, ours]: [&str; 2], name: &str, from: &StreamStatus, to: &StreamStatus) -> Page {
    let text = |stream: &StreamStatus| lines(stream).iter().fold(String::new(), |all, line| all + line + "\n");
    let (from, to) = (text(from), text(to));
    if from == to || from.is_empty() || to.is_empty() {
        return page;
    }
    let diff = TextDiff::from_lines(from.as_str(), to.as_str());
    let page = page.text(INDENT).painted(&format!("--- {theirs} {name}"), Colour::Red).end();
    let page = page.text(INDENT).painted(&format!("+++ {ours} {name}"), Colour::Green).end();
    let text = diff.unified_diff().context_radius(CONTEXT).to_string();
    text.lines().fold(page, |page, line| page.text(INDENT).output(line).end())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        cli::batch::children::tests::{child, exited},
        core::batch::end::End,
    };

    fn told(all: &[(u16, i32, &str)]) -> String {
        let (mut children, mut ledger) = (Children::of("u"), Ledger::default());
        children.count_only(1);
        for (index, code, stdout) in all {
            children.see(child(*index, exited(*code, stdout)));
            ledger.put(*index, if *code == 0 { End::Succeeded } else { End::Failed });
        }
        let groups = groups(&children, &ledger).groups;
        let example = |group: &Group| {
            let (index, code, stdout) = all.iter().find(|(index, ..)| group.example.ends_with(&format!("-{index}")))?;
            Some(child(*index, exited(*code, stdout)))
        };
        let (first, who) = (groups.first().and_then(example), groups.first().map(|group| members(group, &children)));
        let pages = groups.iter().enumerate().fold(Page::default(), |all, (at, group)| {
            let largest = first.as_ref().zip(who.as_deref()).filter(|_| at > 0);
            let gone = Error::Message("it is gone".to_owned());
            page(all, group, &members(group, &children), example(group).as_ref().ok_or(&gone), largest)
        });
        pages.as_str().to_owned()
    }

    #[test]
    fn equal_results_are_shown_once_and_others_with_their_difference() {
        let same = "a\nb\nc\n";
        assert_eq!(
            told(&[(0, 0, same), (1, 0, "a\nB\nc\n"), (2, 0, same), (10, 0, same), (3, 1, "")]),
            "\
----------------
db-[0,2,10] (3): Completed, exit code 0
----------------
  a
  b
  c
----------------
db-1 (1): Completed, exit code 0
----------------
  a
  B
  c
  --- db-[0,2,10] standard output
  +++ db-1 standard output
  @@ -1,3 +1,3 @@
   a
  -b
  +B
   c
----------------
db-3 (1): NonZeroExitCode, exit code 1
----------------
"
        );
    }

    #[test]
    fn equal_output_of_different_codes_is_not_equal_and_nothing_written_is_a_line_of_ours() {
        let text = told(&[(0, 0, "----------------\n\u{1b}[2J"), (1, 1, "----------------\n\u{1b}[2J")]);
        assert_eq!(text.lines().filter(|line| !line.starts_with(' ')).count(), 6, "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains("@@"), "{text}");
    }

    #[test]
    fn what_is_only_the_end_is_called_so() {
        let mut status = exited(0, "z");
        status["output"]["stdout"]["truncated"] = json!(true);
        status["output"]["stderr"] = json!({"tail": "warning", "bytes": 7});
        let group = Group { count: 1, reason: "Completed".to_owned(), ..Group::default() };
        let text = page(Page::default(), &group, "db-0", Ok(&child(0, status)), None);
        assert!(
            text.as_str().ends_with("  standard output (end):\n  z\n  standard error:\n  warning\n"),
            "{}",
            text.as_str()
        );
    }

    #[test]
    fn why_an_output_cannot_be_shown_is_said_in_its_place() {
        let why = Error::Message("getting b-x-2: forbidden\u{1b}[2J".to_owned());
        let text = page(Page::default(), &Group::default(), "db-2", Err(&why), None);
        assert!(
            text.as_str().ends_with("\n(its output could not be read: getting b-x-2: forbidden\\x1b[2J)\n"),
            "{}",
            text.as_str()
        );
    }
}
