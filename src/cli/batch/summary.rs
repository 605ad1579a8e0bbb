//! A batch in words, as one page: who, what, where, when, why, its plan, what came of it, and what to do next.
//! Pure: the time is an argument.

use k8s_openapi::jiff::Timestamp;

use super::{
    children::Children,
    gathered,
    report::{ledger, next, without_success},
    words,
};
use crate::{
    api::{BatchPhase, ExecBatch, ExecBatchStatus, conditions::ConditionType},
    cli::{
        report::describe::Pace,
        say::{
            page::{Colour, Page},
            shell::shell_words,
            summary::{between, who},
        },
    },
};

/// Of a digest, where its beginning is enough to tell it from others.
const SHORT: usize = 12;

pub fn summary(
    batch: &ExecBatch,
    children: &Children,
    now: Timestamp,
    colours: bool,
    plugin: impl Fn(&str) -> String,
) -> Page {
    let empty = ExecBatchStatus::default();
    let status = batch.status.as_ref().unwrap_or(&empty);
    let meta = &batch.metadata;
    let [name, namespace] = [&meta.name, &meta.namespace].map(|field| field.as_deref().unwrap_or_default());
    let line = |page: Page, heading: &str, text: &str| page.line(&format!("  {heading:<9}{text}"));
    let mut page = Page::in_colour(colours).painted(&format!("xb/{name} in namespace {namespace}"), Colour::Bold).end();
    page = line(page, "Who", &who(batch.spec.requested_by.as_ref()));
    page = line(page, "What", &what(batch));
    page = line(page, "Where", &words::place(&batch.spec.targets));
    page = line(page, "When", &when(batch, status, now));
    page = line(page, "Why", batch.spec.reason.as_deref().unwrap_or("no reason given"));
    page = line(page, "How", &how(batch));
    page = line(page, "Plan", &plan(batch, status));
    page = page.text(&format!("  {:<9}", "Outcome")).painted(&status.phase.to_string(), colour(status.phase));
    let state = words::state(batch);
    let after = state.strip_prefix(&status.phase.to_string());
    page = page.line(&after.map_or_else(|| format!(": {state}"), str::to_owned));
    if words::frozen(status).is_some() {
        page = line(page, "Targets", &words::counts(status));
        for sentence in without_success(&ledger(status), children) {
            page = line(page, "", &sentence);
        }
    }
    page = groups(page, status, children, &plugin);
    page = conditions(page, status);
    line(page, "Next", &next(batch, plugin))
}

const fn colour(phase: BatchPhase) -> Colour {
    match phase {
        BatchPhase::Succeeded => Colour::Green,
        BatchPhase::Failed => Colour::Red,
        BatchPhase::Pending | BatchPhase::Planning | BatchPhase::Planned | BatchPhase::Running | BatchPhase::Paused => {
            Colour::Yellow
        }
    }
}

/// What each of its requests runs.
pub fn what(batch: &ExecBatch) -> String {
    let spec = &batch.spec.template.spec;
    let env = spec.env.iter().map(|variable| variable.name.as_str()).collect::<Vec<_>>().join(", ");
    let with = [
        spec.user.as_ref().map(|user| format!("as user {user}")),
        spec.working_dir.as_ref().map(|folder| format!("in {folder}")),
        (!env.is_empty()).then(|| format!("with {env}")),
        spec.tty.then(|| "with a terminal".to_owned()),
        spec.stdin.is_some().then(|| "with input from the batch".to_owned()),
    ];
    let (command, with) = (shell_words(&spec.command), with.into_iter().flatten().collect::<Vec<_>>().join("; "));
    if with.is_empty() { command } else { format!("{command}   ({with})") }
}

fn when(batch: &ExecBatch, status: &ExecBatchStatus, now: Timestamp) -> String {
    let Some(created) = batch.metadata.creation_timestamp.as_ref().map(|time| time.0) else {
        return "not created".to_owned();
    };
    let at = |time: Timestamp| time.strftime("%H:%M:%S").to_string();
    let (started, finished) =
        (status.start_time.as_ref().map(|time| time.0), status.completion_time.as_ref().map(|time| time.0));
    let then = match (started, finished) {
        (None, None) => String::new(),
        (None, Some(finished)) => format!(", given up {}", at(finished)),
        (Some(started), None) => format!(", first released {}, for {} now", at(started), between(started, now)),
        (Some(started), Some(finished)) => {
            format!(", first released {}, took {}", at(started), between(started, finished))
        }
    };
    format!("created {} ({} ago){then}", created.strftime("%Y-%m-%dT%H:%M:%SZ"), between(created, now))
}

fn how(batch: &ExecBatch) -> String {
    let approval = if batch.spec.approval.required { "; only once somebody else has approved it" } else { "" };
    format!("{}{approval}", Pace::of(batch).words())
}

fn plan(batch: &ExecBatch, status: &ExecBatchStatus) -> String {
    let Some(plan) = &status.plan else { return "not planned yet".to_owned() };
    let (Some(total), Some(digest)) = (plan.total, &plan.digest) else {
        return format!("number {} is being made", plan.number);
    };
    let released = format!("{} released, {} active", status.released, status.active);
    let approved = if batch.spec.approval.plan_digest.is_empty() { "" } else { ", approved" };
    format!("{total} targets, {released}; digest {digest}{approved}")
}

fn groups(mut page: Page, status: &ExecBatchStatus, children: &Children, plugin: &impl Fn(&str) -> String) -> Page {
    if status.groups.is_empty() {
        return page;
    }
    page = page.line("  Groups of equal results:");
    for group in &status.groups {
        let output = group
            .stdout_sha256
            .as_ref()
            .map_or_else(String::new, |digest| format!(", output {}", digest.chars().take(SHORT).collect::<String>()));
        let whole = if group.output_complete == Some(false) { ", may be incomplete" } else { "" };
        let members = gathered::members(group, children);
        let who = if members.is_empty() { format!("indexes {}", group.indexes) } else { members };
        let logs = plugin(&format!("logs {}", group.example));
        page = page.line(&format!("    {:>5}  {}{output}{whole}: {who}   ({logs})", group.count, gathered::end(group)));
    }
    match status.others {
        Some(others) if others > 0 => page.line(&format!("    {others:>5}  in no group")),
        Some(_) | None => page,
    }
}

/// But for the one of the outcome.
fn conditions(page: Page, status: &ExecBatchStatus) -> Page {
    let told = |kind: &str| kind != ConditionType::Finished.as_str();
    status.conditions.iter().filter(|condition| told(&condition.type_)).fold(page, |page, condition| {
        let message = if condition.message.is_empty() { String::new() } else { format!(": {}", condition.message) };
        let (kind, truth, reason) = (&condition.type_, &condition.status, &condition.reason);
        page.line(&format!("  {kind} is {truth} ({reason}){message}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        cli::batch::{
            children::tests::{child, exited},
            words::tests::{object, status},
        },
        core::printable::is_printable,
    };

    fn finished() -> (serde_json::Value, Children) {
        let mut children = Children::of("u");
        children.count_only(1);
        for (index, code) in [(0, 0), (1, 0), (2, 3), (3, 0)] {
            children.see(child(index, exited(code, "")));
        }
        let ends = |count: i32, indexes: &str| json!({"count": count, "indexes": indexes});
        let group = |count: i32, indexes: &str, reason: &str, code: i32, example: &str| {
            json!({"count": count, "indexes": indexes, "reason": reason, "exitCode": code, "example": example,
                "stdoutSHA256": "0123456789abcdef", "outputComplete": true})
        };
        let more = json!({
            "released": 4, "succeeded": ends(3, "0-1,3"), "failed": ends(1, "2"), "others": 0,
            "startTime": "2026-01-02T03:04:07.000000Z",
            "groups": [group(3, "0-1,3", "Completed", 0, "b-x-0"), group(1, "2", "NonZeroExitCode", 3, "b-x-2")],
        });
        let mut batch = object(status("Failed", "TargetsFailed", "of 4 targets 3 succeeded", &more));
        batch["spec"]["reason"] = json!("CHG-1");
        batch["spec"]["requestedBy"] = json!({"username": "jane", "groups": ["system:authenticated", "dba"]});
        (batch, children)
    }

    fn told(batch: &serde_json::Value, children: &Children) -> String {
        let batch = serde_json::from_value(batch.clone()).expect("a batch");
        let now = "2026-01-02T03:14:05Z".parse().expect("a time");
        summary(&batch, children, now, false, |verb| format!("x {verb}")).as_str().to_owned()
    }

    #[test]
    fn a_batch_is_told_from_who_to_what_is_next() {
        let (batch, children) = finished();
        assert_eq!(
            told(&batch, &children),
            "\
xb/b in namespace shop
  Who      jane (dba)
  What     uname -r
  Where    pods with app=db
  When     created 2026-01-02T03:04:05Z (10 min 0 s ago), first released 03:04:07, took 58 s
  Why      CHG-1
  How      1 at a time, up to 100%; no more once more than 0 ended without success (StopReleasing)
  Plan     4 targets, 4 released, 0 active; digest d1
  Outcome  Failed (TargetsFailed): of 4 targets 3 succeeded
  Targets  3 succeeded, 1 failed
           1 failed (NonZeroExitCode, exit code 3): db-2
  Groups of equal results:
        3  Completed, exit code 0, output 0123456789ab: db-[0-1,3]   (x logs b-x-0)
        1  NonZeroExitCode, exit code 3, output 0123456789ab: db-2   (x logs b-x-2)
  Next     read its output: x logs xb/b; run it again there: x rerun xb/b --failed
"
        );
    }

    #[test]
    fn nobody_can_write_a_line_of_it() {
        let (mut batch, children) = finished();
        let lines = told(&batch, &children).lines().count();
        let forged = "x\u{1b}[1A\n  Who      nobody\u{202e}";
        batch["spec"]["reason"] = json!(forged);
        batch["spec"]["template"]["spec"]["command"] = json!([forged]);
        batch["spec"]["requestedBy"]["username"] = json!(forged);
        batch["status"]["conditions"][0]["message"] = json!(forged);
        batch["status"]["groups"][0]["reason"] = json!(forged);
        let text = told(&batch, &children);
        assert_eq!(text.lines().count(), lines, "{text}");
        assert!(text.chars().all(|c| is_printable(c) || c == '\n'), "{text:?}");
    }

    #[test]
    fn one_that_nobody_has_looked_at_is_told_too() {
        let text = told(&object(json!(null)), &Children::default());
        for line in ["  Plan     not planned yet\n", "  Outcome  Pending: waiting for the execlet manager\n"] {
            assert!(text.contains(line), "{text}");
        }
    }
}
