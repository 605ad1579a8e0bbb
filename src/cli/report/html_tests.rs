use super::*;
use crate::{
    cli::report::fixture::{batch, children, report},
    core::printable::is_printable,
};

/// Tags in order, each with its attributes: whatever is between `<` and `>`.
fn tags(page: &str) -> Vec<&str> {
    page.split('<').skip(1).map(|rest| rest.split_once('>').expect("an end of the tag").0).collect()
}

#[test]
fn nothing_that_others_wrote_can_run_or_break_out() {
    let page = html(&report());
    assert!(page.chars().all(|c| is_printable(c) || c == '\n' || c == '\t'));
    let style = page.split_once("<style>").expect("a style").1.split_once("</style>").expect("its end");
    assert_eq!(style.0.trim(), include_str!("style.css").trim(), "it has no word of others");
    let ours = [
        "!doctype", "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "b", "i", "ul", "li", "dl",
        "dt", "dd", "code", "pre", "svg", "line", "rect", "text", "div", "span", "details", "summary", "table",
        "thead", "tbody", "tr", "th", "td", "footer",
    ];
    for tag in tags(&page) {
        let name = tag.trim_start_matches('/').split_whitespace().next().expect("a name");
        assert!(ours.contains(&name), "<{tag}>");
        // A quote of others would make an attribute.
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        assert!(!tag.contains(" on") && !tag.contains("href") && !tag.contains("src="), "<{tag}>");
    }
    assert!(page.contains("&lt;script&gt;evil()") && page.contains("<i>\\x1b</i>[2J"), "it can be read");
    assert!(!page.contains("http://") || page.contains("[evil](http://evil)"), "no address is ours");
    for end in ["pre", "title", "style", "details", "table", "svg", "p", "dd"] {
        let open = tags(&page).iter().filter(|tag| tag.split_whitespace().next() == Some(end)).count();
        assert_eq!(open, tags(&page).iter().filter(|tag| **tag == format!("/{end}")).count(), "{end}");
    }
}

#[test]
fn the_browser_is_told_to_load_and_run_nothing_before_anything_else_is_said() {
    let page = html(&report());
    let policy =
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">";
    assert!(page.find(policy).expect("a policy") < page.find("<title>").expect("a title"));
    assert_eq!(page.matches("http-equiv").count(), 1);
}

#[test]
fn the_page_tells_who_what_why_and_how_each_ended() {
    let page = html(&report());
    for wanted in [
        "<dt>Asked for by</dt><dd>ann (dba)</dd>",
        "<dt>Let run by</dt><dd>ann</dd>",
        "<dt>Targets</dt><dd>12 of plan 1: pods with app=shop</dd>",
        "<dt>Plan digest</dt><dd><code>d00d</code></dd>",
        "2 × Completed, exit code 0</span>: db-[0,10]",
        "not UTF-8: replaced where it is not",
        "the end of 99999 bytes",
        "The output may be incomplete: StreamLost.",
        "its request is gone",
        "The audit logs are not as they should be",
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
    assert_eq!(page.matches("<rect ").count(), 9, "what ran");
    assert_eq!(page.matches("<tr><td").count(), 12, "every index");
}

#[test]
fn no_drawing_is_higher_than_a_page_can_be_and_each_bar_is_in_it() {
    let few = children();
    let mut batch = batch();
    batch.status.as_mut().expect("a status").plan.as_mut().expect("a plan").total = Some(10_000);
    let many: Vec<_> = (0..10_000)
        .map(|index| {
            let mut child = few[0].clone();
            child.spec.batch.as_mut().expect("a batch").index = index;
            child
        })
        .collect();
    let report = Report::of(&batch, &many, crate::cli::report::fixture::at("05:00")).expect("a report");
    let page = html(&report);
    assert_eq!(page.matches("<rect ").count(), 10_000);
    let number = |text: &str, name: &str| -> f64 {
        let rest = text.split_once(&format!("{name}=\"")).expect("an attribute").1;
        rest.split_once(['"', '%']).expect("its end").0.parse().expect("a number")
    };
    let svg = tags(&page).into_iter().find(|tag| tag.starts_with("svg")).expect("a drawing");
    let height = number(svg, "height");
    assert!(height <= 1600.0, "{height}");
    for bar in tags(&page).into_iter().filter(|tag| tag.starts_with("rect")) {
        assert!(number(bar, " x") + number(bar, " width") <= 100.001, "{bar}");
        assert!(number(bar, " y") + number(bar, " height") <= height + 0.001, "{bar}");
    }
}
