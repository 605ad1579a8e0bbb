//! What somebody with a log in their hands can do to it, and what `execlet audit verify` says: the real program
//! on real files. The anchor, a Lease, is not in their hands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "tests: a failure is to be loud, and helpers read better so"
)]

mod batches;
mod log;

use execlet::core::{
    audit::chain::{Head, NO_LINE},
    printable::is_printable,
};
use serde_json::{Value, json};

use log::{
    Case, N1, anew, annotated, chain, event, genuine, has_fifo, lease, request_and_records, request_and_records_with,
};

struct Row {
    name: &'static str,
    /// Makes the files.
    make: fn(&Case),
    arguments: &'static str,
    /// What must be said; with exit code 1.
    said: &'static str,
}

const USUAL: &str = "--lease leases n1";

const fn row(name: &'static str, make: fn(&Case), arguments: &'static str, said: &'static str) -> Row {
    Row { name, make, arguments, said }
}

/// The log made anew under another writer's name, beside the Lease of the genuine one.
fn renamed(case: &Case, writer: &str) {
    case.usual();
    case.log("n1", 1, &anew(writer, Head::start()));
}

fn after_the_head() -> Head {
    Head { sequence: 6, sha256: "7".repeat(64) }
}

/// Genuine, but for this line at the end, after the head.
fn with_tail(case: &Case, change: fn(String) -> String) {
    let (lines, heads) = genuine();
    let (tail, _) = chain(N1, heads[5].clone(), &[event(7), event(8)]);
    case.lease_of(&heads[5]);
    let changed = change(String::from_utf8(tail[0].clone()).expect("text"));
    case.log("n1", 1, &[lines, vec![changed.into_bytes(), tail[1].clone()]].concat());
}

const NAMES: &[Row] = &[
    row("a space behind the name", |case| renamed(case, "agent/n1 "), USUAL, "name of no agent"),
    row("and nothing but that", |case| renamed(case, "agent/n1 "), "n1", "name of no agent"),
    row("a space before it", |case| renamed(case, " agent/n1"), USUAL, "name of no agent"),
    row("a line end in it", |case| renamed(case, "agent/n1\n"), USUAL, "\"agent/n1\\n\""),
    row("another case", |case| renamed(case, "agent/N1"), USUAL, "name of no agent"),
    row("a letter of another alphabet", |case| renamed(case, "\u{430}gent/n1"), USUAL, "\"\\u{430}gent/n1\""),
    row(
        "the same, and the line with its verdict",
        |case| renamed(case, "\u{430}gent/n1"),
        USUAL,
        "\\u{430}gent/n1: intact",
    ),
    row("a space of no width", |case| renamed(case, "agent/n1\u{200b}"), USUAL, "\"agent/n1\\u{200b}\""),
    row("a terminal's escapes", |case| renamed(case, "agent/n1\u{1b}[2K"), USUAL, "\\u{1b}[2K"),
    row("a node that is not there", |case| renamed(case, "agent/n7"), USUAL, "no Lease names \"agent/n7\""),
    row("a manager", |case| renamed(case, "manager/m"), USUAL, "no Lease names \"manager/m\""),
    row("the genuine one is then missing", |case| renamed(case, "agent/n7"), USUAL, "agent/n1: its chain is missing"),
    row(
        "a chain without an anchor is let through, and the one with an anchor is missed all the same",
        |case| renamed(case, "agent/n7"),
        "--allow-unanchored --lease leases n1",
        "agent/n1: its chain is missing",
    ),
    row(
        "most lines of the directory are another writer's",
        |case| {
            case.usual();
            case.log("n1", 7, &[anew("agent/n7", Head::start()), anew("agent/n7", after_the_head())].concat());
        },
        USUAL,
        "agent/n1: its chain is missing",
    ),
];

const LINES: &[Row] = &[
    row(
        "made anew under its own name",
        |case| {
            case.usual();
            case.log("n1", 1, &anew(N1, Head::start()));
        },
        USUAL,
        "changed",
    ),
    row(
        "made anew so that it begins after the head",
        |case| {
            let (_, heads) = genuine();
            case.log("n1", 7, &anew(N1, after_the_head()));
            case.lease_of(&heads[5]);
        },
        USUAL,
        "nothing vouches for its chain: that begins with line 7",
    ),
    row(
        "the same, against a head that was copied by hand",
        |case| case.log("n1", 7, &anew(N1, after_the_head())),
        concat!("--head 6:", "0000000000000000000000000000000000000000000000000000000000000001", " n1"),
        "nothing vouches for its chain",
    ),
    row(
        "a second chain, in a directory of the first",
        |case| {
            case.usual();
            case.log("n1/more", 7, &anew(N1, after_the_head()));
        },
        USUAL,
        "agent/n1: it has one chain, and ",
    ),
    row(
        "two copies: which of them goes on genuinely?",
        |case| {
            case.usual();
            case.log("copy", 1, &genuine().0);
        },
        "--lease leases n1 copy",
        "agent/n1: it has one chain, and ",
    ),
    row(
        "a key is there twice, after the head",
        |case| {
            let (lines, heads) = genuine();
            case.lease_of(&heads[5]);
            let tail = String::from_utf8(chain(N1, heads[5].clone(), &[event(7)]).0.remove(0)).expect("text");
            let twice = tail.replace("\"annotations\":{", "\"annotations\":{\"execlet.dev/writer\":\"agent/n2\",");
            assert_ne!(twice, tail);
            case.log("n1", 1, &[lines, vec![twice.into_bytes()]].concat());
        },
        USUAL,
        "not a record",
    ),
    row("a line has a space too many", |case| with_tail(case, |line| line + " "), USUAL, "changed"),
    row("a line ends as in DOS", |case| with_tail(case, |line| line + "\r"), USUAL, "changed"),
    row(
        "a line has no letter more than its half",
        |case| with_tail(case, |l| l[..40].to_owned()),
        USUAL,
        "not a record",
    ),
    row(
        "the last line has no end",
        |case| {
            case.usual();
            case.put("n1/audit-000000000007.jsonl", "{\"kind\":");
        },
        USUAL,
        "truncated: its end is missing",
    ),
    row(
        "its times go back",
        |case| {
            let (_, heads) = genuine();
            case.lease_of(&heads[5]);
            case.log("n1", 1, &chain(N1, Head::start(), &(1..=6).rev().map(event).collect::<Vec<_>>()).0);
        },
        USUAL,
        "changed",
    ),
];

const FILES: &[Row] = &[
    row(
        "an empty directory",
        |case| {
            case.usual();
            case.put("n2/lock", "");
        },
        "--lease leases n1 n2",
        "n2: found no audit log",
    ),
    row(
        "a file without a record",
        |case| {
            case.usual();
            case.put("n2/audit-000000000001.jsonl", "");
        },
        "--lease leases n1 n2",
        "it has no record of an audit log",
    ),
    row(
        "the last file has a name by which it is not read",
        |case| {
            let (lines, heads) = genuine();
            case.log("n1", 1, &lines[..3]);
            case.put("n1/audit-000000000004.jsonl.old", [lines[3..].join(&b'\n'), b"\n".to_vec()].concat());
            case.lease_of(&heads[5]);
        },
        USUAL,
        "had reached line 6",
    ),
    row(
        "a file in the middle was left out",
        |case| {
            let (lines, heads) = genuine();
            case.log("n1", 1, &lines[..2]);
            case.log("n1", 5, &lines[4..]);
            case.lease_of(&heads[5]);
        },
        USUAL,
        "lines 3 to 4 are missing",
    ),
    row(
        "a file is none, and would never end",
        |case| {
            case.usual();
            assert!(has_fifo(&case.path("n1/audit-000000000007.jsonl")));
        },
        USUAL,
        "is no file",
    ),
];

const LEASES: &[Row] = &[
    row(
        "the Lease of another node",
        |case| {
            case.usual();
            case.leases("leases", &[lease("execlet-agent.n2", &[("agent/n2", &genuine().1[5])])]);
        },
        USUAL,
        "no Lease names \"agent/n1\"",
    ),
    row(
        "a log that was not given",
        |case| {
            case.usual();
            let head = &genuine().1[5];
            let others = [("execlet-agent.n1", N1), ("execlet-agent.n2", "agent/n2")];
            case.leases("leases", &others.map(|(name, writer)| lease(name, &[(writer, head)])));
        },
        USUAL,
        "agent/n2: its chain is missing: it reached line 6",
    ),
    row(
        "its annotation is gone",
        |case| {
            case.usual();
            let other = lease("execlet-manager", &[("manager/m", &genuine().1[5])]);
            case.log("m", 1, &anew("manager/m", Head::start()));
            case.leases("leases", &[annotated("execlet-agent.n1", json!({})), other]);
        },
        USUAL,
        "agent/n1: no Lease that was given has its head",
    ),
    row(
        "its annotation cannot be read",
        |case| {
            case.usual();
            let broken = annotated("execlet-agent.n1", json!({"execlet.dev/audit-heads": "[{\"writer\":"}));
            case.leases("leases", &[broken, lease("execlet-agent.n2", &[("agent/n2", &genuine().1[5])])]);
        },
        USUAL,
        "cannot be read",
    ),
    row(
        "the agent of another node names the head",
        |case| {
            let (_, heads) = genuine();
            let forged = anew(N1, Head::start());
            case.log("n1", 1, &forged);
            let head = chain(N1, Head::start(), &(11..=16).map(event).collect::<Vec<_>>()).1;
            let (own, other) =
                (lease("execlet-agent.n1", &[(N1, &heads[5])]), lease("execlet-agent.n2", &[(N1, &head[5])]));
            case.leases("leases", &[own, other]);
        },
        USUAL,
        "for which it does not speak",
    ),
    row(
        "a Lease of somebody else names it",
        |case| {
            case.usual();
            case.leases("leases", &[lease("mine", &[(N1, &genuine().1[5])])]);
        },
        USUAL,
        "it speaks for nobody",
    ),
    row(
        "a Lease of the same name in another namespace",
        |case| {
            case.usual();
            let mut other = lease("execlet-agent.n7", &[("agent/n7", &genuine().1[5])]);
            other["metadata"]["namespace"] = json!("shop");
            case.leases("leases", &[lease("execlet-agent.n1", &[(N1, &genuine().1[5])]), other]);
        },
        USUAL,
        "are of the namespaces execlet and shop",
    ),
    row(
        "it is no Lease",
        |case| {
            case.usual();
            let mut object = lease("execlet-agent.n1", &[(N1, &genuine().1[5])]);
            object["kind"] = json!("ConfigMap");
            case.leases("leases", &[object]);
        },
        USUAL,
        "where a Lease was expected",
    ),
    row(
        "the head of a chain without a line",
        |case| {
            case.usual();
            case.lease_of(&Head { sequence: 0, sha256: NO_LINE.to_owned() });
        },
        USUAL,
        "nothing vouches for its chain",
    ),
    row(
        "an earlier Lease fits, and a later one does not",
        |case| {
            let (lines, heads) = genuine();
            case.log("n1", 1, &[lines[..3].to_vec(), anew(N1, heads[2].clone())].concat());
            case.leases("later", &[lease("execlet-agent.n1", &[(N1, &heads[5])])]);
            case.lease_of(&heads[2]);
        },
        "--lease later --lease leases n1",
        "changed",
    ),
    row(
        "whose chain was asked for has no head",
        Case::usual,
        "--writer agent/n1 --writer agent/n7 --lease leases n1",
        "agent/n7: no Lease that was given has its head",
    ),
];

/// Writes what the API server is said to have had, with this change.
fn export(case: &Case, change: fn(&mut Value)) {
    let mut request = request_and_records(case);
    change(&mut request);
    case.put("requests", json!({"kind": "List", "items": [request]}).to_string());
}

const WITH_REQUESTS: &str = "--requests requests --lease leases n1";

const EXPORTS: &[Row] = &[
    row(
        "another code",
        |case| export(case, |r| r["status"]["exitCode"] = json!(0)),
        WITH_REQUESTS,
        "no record says so",
    ),
    row(
        "it was deleted, and its command killed",
        |case| {
            export(case, |r| {
                for condition in r["status"]["conditions"].as_array_mut().expect("conditions") {
                    condition["reason"] = json!("Deleted");
                }
            });
        },
        WITH_REQUESTS,
        "its command was killed (Deleted), but no record says so",
    ),
    row(
        "another requester",
        |case| export(case, |r| r["spec"]["requestedBy"]["username"] = json!("bob")),
        WITH_REQUESTS,
        "records of another requester: \"alice\"",
    ),
    row(
        "no requester",
        |case| export(case, |r| r["spec"]["requestedBy"] = Value::Null),
        WITH_REQUESTS,
        "records of another requester: \"alice\"",
    ),
    row(
        "another command",
        |case| export(case, |r| r["spec"]["command"] = json!(["true"])),
        WITH_REQUESTS,
        "records of another command",
    ),
    row(
        "another name",
        |case| export(case, |r| r["metadata"]["name"] = json!("other")),
        WITH_REQUESTS,
        "by another name: \"shop/r\"",
    ),
    row(
        "it has not finished",
        |case| export(case, |r| r["status"]["completionTime"] = Value::Null),
        WITH_REQUESTS,
        "it has a record of its end, and has not finished",
    ),
    row("no status", |case| export(case, |r| r["status"] = Value::Null), WITH_REQUESTS, "and has not finished"),
    row(
        "another UID",
        |case| export(case, |r| r["metadata"]["uid"] = json!("u-2")),
        WITH_REQUESTS,
        "no record says so",
    ),
    row("no UID", |case| export(case, |r| r["metadata"]["uid"] = Value::Null), WITH_REQUESTS, "has no UID"),
];

#[test]
fn what_was_done_to_a_log_is_found() {
    let mut passed = Vec::new();
    for Row { name, make, arguments, said } in [NAMES, LINES, FILES, LEASES, EXPORTS].into_iter().flatten() {
        let case = Case::new();
        make(&case);
        let (heard, code) = case.verify(arguments);
        if code != 1 || !heard.contains(said) {
            passed.push(format!("{name}: exit {code}, without {said:?}:\n{heard}"));
        }
    }
    assert!(passed.is_empty(), "{} were not found:\n{}", passed.len(), passed.join("\n"));
}

const FINE: &[Row] = &[
    row("genuine", Case::usual, USUAL, "n1: intact: 6 records in 1 files, from line 1, "),
    row("checked", Case::usual, USUAL, "checked against the published head (line 6; 0 records after it"),
    row("without an anchor", Case::usual, "n1", "no head to check against: whole in itself"),
    row("given twice", Case::usual, "--lease leases n1 ./n1 n1/audit-000000000001.jsonl", "6 records in 1 files"),
    row(
        "a head that is older than the end",
        |case| {
            case.usual();
            case.lease_of(&genuine().1[3]);
        },
        USUAL,
        "(line 4; 2 records after it that nothing vouches for yet)",
    ),
    row(
        "what was rotated away",
        |case| {
            let (lines, heads) = genuine();
            case.log("n1", 4, &lines[3..]);
            case.lease_of(&heads[5]);
        },
        USUAL,
        "from line 4 (the lines before it are not here: rotated, or removed)",
    ),
    row(
        "a head of before the rotation, and one of after it",
        |case| {
            let (lines, heads) = genuine();
            case.log("n1", 4, &lines[3..]);
            case.leases("before", &[lease("execlet-agent.n1", &[(N1, &heads[1])])]);
            case.lease_of(&heads[4]);
        },
        "--lease before --lease leases n1",
        "(line 5; 1 records after it",
    ),
    row(
        "one of several nodes, on purpose",
        |case| {
            case.usual();
            let head = &genuine().1[5];
            let others = [("execlet-agent.n1", N1), ("execlet-agent.n2", "agent/n2")];
            case.leases("leases", &others.map(|(name, writer)| lease(name, &[(writer, head)])));
        },
        "--writer agent/n1 --lease leases n1",
        "checked against the published head",
    ),
    row(
        "a manager of long ago, on purpose",
        |case| {
            case.usual();
            case.log("m", 1, &anew("manager/m", Head::start()));
        },
        "--allow-unanchored --lease leases n1 m",
        "manager/m: intact: 6 records in 1 files, from line 1, 0 starts, 0 reported cuts, 0 lost, no head",
    ),
    row(
        "as exported",
        |case| export(case, |_| ()),
        WITH_REQUESTS,
        "1 finished requests were compared, 0 had not finished, 0 gaps",
    ),
];

#[test]
fn what_is_as_it_was_written_passes() {
    for Row { name, make, arguments, said } in FINE {
        let case = Case::new();
        make(&case);
        let (heard, code) = case.verify(arguments);
        assert!(code == 0 && heard.contains(said), "{name}: exit {code}, without {said:?}:\n{heard}");
    }
}

#[test]
fn a_lease_and_a_head_that_was_copied_by_hand_do_not_go_together() {
    let case = Case::new();
    case.usual();
    let (said, code) = case.verify(&format!("--lease leases --head 6:{NO_LINE} n1"));
    assert_eq!(code, 2, "{said}");
}

/// Would erase a line, and write one of the program's own.
const FORGED: &str = "x\u{1b}[1A\u{1b}[2K\nforged: intact\u{202e}\u{9b}1A\u{2028}\u{200b}\r";

/// Another chain, made in a folder of such a name by a writer of such a name, with a line that is none.
fn beside(case: &Case, words: &str) {
    let lines = [anew(&format!("agent/n7{words}"), Head::start()), vec![b"none".to_vec()]].concat();
    case.log(&format!("more/n7{words}"), 1, &lines);
}

#[test]
fn nobody_can_write_a_line_of_what_is_said_of_a_log() {
    for (make, arguments, quoted) in [
        (request_and_records_with as fn(&Case, &str) -> Value, "show n1", 6),
        // Each gap names the request, and its UID.
        (request_and_records_with, "verify --requests requests --lease leases n1", 6),
        (
            |case, words| {
                beside(case, words);
                request_and_records_with(case, "")
            },
            "verify --lease leases n1 more",
            4,
        ),
    ] {
        let said = ["", FORGED].map(|words| {
            let case = Case::new();
            let mut request = make(&case, words);
            request["status"]["exitCode"] = json!(0);
            request["status"]["nodeName"] = json!("n9");
            request["spec"]["requestedBy"]["username"] = json!("bob");
            case.put("requests", request.to_string());
            case.audit(arguments).0
        });
        let [plain, forged] = &said;
        assert_eq!(forged.lines().count(), plain.lines().count(), "{arguments}: {forged}");
        assert!(forged.chars().all(|c| is_printable(c) || c == '\n'), "{arguments}: {forged:?}");
        assert!(forged.matches("forged: intact").count() >= quoted, "{arguments}: {forged}");
    }
}
