//! What came of a batch, in sentences: how many ended how, who did not succeed and why, and what to do next.

use std::collections::BTreeMap;

use super::{
    children::{Children, Ended},
    fold::fold_within,
    words,
};
use crate::{
    api::{
        BatchPhase, ExecBatch, ExecBatchStatus, Reason,
        conditions::{self, ConditionType, Truth},
    },
    cli::cluster::connection::Cluster,
    core::batch::{end::End, indexes::IndexSet, ledger::Ledger},
};

/// Most characters of the names in a sentence.
const NAMES: usize = 400;

/// How each index ended, as the batch says; where nobody can read that, nothing is said to have ended.
pub fn ledger(status: &ExecBatchStatus) -> Ledger {
    Ledger::of(status).unwrap_or_default()
}

/// `plugin` makes of a verb and its arguments what to type.
pub fn sentences(batch: &ExecBatch, children: &Children, plugin: impl Fn(&str) -> String) -> Vec<String> {
    let empty = ExecBatchStatus::default();
    let status = batch.status.as_ref().unwrap_or(&empty);
    let name = words::typed(batch);
    // How it ended is told with its counts.
    let counted = words::frozen(status).is_some() && status.completion_time.is_none();
    let counts = if counted { format!(" ({})", words::counts(status)) } else { String::new() };
    let mut all = vec![format!("{name}: {}{counts}", words::state(batch))];
    all.extend(without_success(&ledger(status), children));
    if status.phase != BatchPhase::Succeeded {
        all.push(next(batch, plugin));
    }
    all
}

/// Who did not succeed, those together that ended the same: `2 failed (NonZeroExitCode, exit code 3): db-[3,17]`.
pub fn without_success(ledger: &Ledger, children: &Children) -> Vec<String> {
    let mut all = Vec::new();
    for end in End::ALL.into_iter().filter(|end| *end != End::Succeeded) {
        let mut kinds: BTreeMap<(String, Option<i32>), Vec<&Ended>> = BTreeMap::new();
        let mut nameless = IndexSet::default();
        for index in ledger.set(end).iter() {
            match children.ended.get(&index) {
                Some(ended) => kinds.entry((ended.reason.clone(), ended.exit_code)).or_default().push(ended),
                None => {
                    nameless.insert(index);
                }
            }
        }
        let word = words::ended(end);
        all.extend(kinds.into_iter().map(|((reason, code), who)| {
            let code = code.map_or_else(String::new, |code| format!(", exit code {code}"));
            let names = fold_within(who.iter().map(|ended| ended.pod.as_str()), NAMES);
            format!("{} {word} ({reason}{code}): {names}", who.len())
        }));
        if !nameless.is_empty() {
            all.push(format!("{} {word}, and their requests are gone: indexes {nameless}", nameless.len()));
        }
    }
    all
}

/// What to do next.
pub fn next(batch: &ExecBatch, plugin: impl Fn(&str) -> String) -> String {
    let empty = ExecBatchStatus::default();
    let status = batch.status.as_ref().unwrap_or(&empty);
    let plugin = |verb: &str| plugin(&verb.replace('@', &words::typed(batch)));
    let reason = words::why(status).0;
    match status.phase {
        BatchPhase::Pending | BatchPhase::Planning => {
            format!("wait: {}; or give up: {}", plugin("wait @"), plugin("cancel @"))
        }
        BatchPhase::Paused if reason == Reason::ApprovalRequired.as_str() => {
            format!("somebody else lets it run: {}; or end it: {}", plugin("approve @"), plugin("cancel @"))
        }
        BatchPhase::Paused => {
            let look = if status.released > 0 { "look at what came of it" } else { "look at its targets" };
            let go_on = format!("let more run: {}; or end it: {}", plugin("resume @"), plugin("cancel @"));
            format!("{look}: {}; {go_on}", plugin("describe @"))
        }
        BatchPhase::Planned | BatchPhase::Running => {
            format!("follow: {}; or end it: {}", plugin("attach @"), plugin("cancel @"))
        }
        BatchPhase::Succeeded => format!("read its output: {}", plugin("logs @")),
        BatchPhase::Failed => after_failure(status, plugin),
    }
}

fn after_failure(status: &ExecBatchStatus, plugin: impl Fn(&str) -> String) -> String {
    if words::frozen(status).is_none() {
        return "nothing ran: fix the cause, then create it again".to_owned();
    }
    let flags = [(&status.failed, " --failed"), (&status.not_run, " --not-run")];
    let flags: String = flags.into_iter().filter(|(ends, _)| ends.count > 0).map(|(_, flag)| flag).collect();
    let again = if flags.is_empty() {
        String::new()
    } else {
        format!("; run it again there: {}", plugin(&format!("rerun @{flags}")))
    };
    let check = if status.unknown.count > 0 { "check what it did where it may have run; " } else { "" };
    format!("{check}read its output: {}{again}", plugin("logs @"))
}

/// What to do about a batch that the plugin follows no longer.
pub fn left(cluster: &Cluster, batch: &ExecBatch) -> String {
    let name = words::typed(batch);
    let attach = cluster.plugin(&format!("attach {name}"));
    format!("{name} goes on: {attach}, wait {name} or cancel {name}")
}

/// Whether somebody else has to let it run first, and has not.
pub fn waits_for_approval(batch: &ExecBatch) -> bool {
    let approved =
        batch.status.as_ref().and_then(|status| conditions::get(&status.conditions, ConditionType::Approved));
    batch.spec.approval.required && approved.is_none_or(|approved| approved.status != Truth::True.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::batch::{
        children::tests::{child, exited},
        words::tests::{batch, status},
    };

    #[test]
    fn who_did_not_succeed_is_named_with_the_reason_and_the_next_step() {
        let mut children = Children::of("u");
        children.count_only(1);
        for (index, code) in [(0, 0), (1, 3), (2, 3)] {
            children.see(child(index, exited(code, "")));
        }
        let ends = |count: i32, indexes: &str| json!({"count": count, "indexes": indexes});
        let more = json!({"succeeded": ends(1, "0"), "failed": ends(2, "1-2"), "unknown": ends(1, "3")});
        let ended = batch(status("Failed", "TargetsFailed", "of 4 targets 1 succeeded", &more));
        assert_eq!(
            sentences(&ended, &children, |verb| format!("x {verb}")),
            [
                "xb/b: Failed (TargetsFailed): of 4 targets 1 succeeded",
                "2 failed (NonZeroExitCode, exit code 3): db-[1-2]",
                "1 may have run, and their requests are gone: indexes 3",
                "check what it did where it may have run; read its output: x logs xb/b; run it again there: x rerun xb/b --failed",
            ]
        );
        let paused = batch(status("Paused", "ReleaseLimit", "3 of 4 targets are released", &more));
        assert_eq!(
            sentences(&paused, &children, str::to_owned)[0],
            "xb/b: Paused (ReleaseLimit): 3 of 4 targets are released (1 succeeded, 2 failed, 1 may have run)"
        );
    }

    #[test]
    fn what_comes_next_depends_on_where_it_is() {
        let next = |status: Value| next(&batch(status), str::to_owned);
        for (given, told) in [
            (Value::Null, "wait: wait xb/b; or give up: cancel xb/b"),
            (
                status("Paused", "ApprovalRequired", "", &Value::Null),
                "somebody else lets it run: approve xb/b; or end it: cancel xb/b",
            ),
            (
                status("Paused", "ReleaseLimit", "", &Value::Null),
                "look at its targets: describe xb/b; let more run: resume xb/b; or end it: cancel xb/b",
            ),
            (
                status("Paused", "Suspended", "", &json!({"released": 1})),
                "look at what came of it: describe xb/b; let more run: resume xb/b; or end it: cancel xb/b",
            ),
            (status("Running", "Running", "", &Value::Null), "follow: attach xb/b; or end it: cancel xb/b"),
            (status("Succeeded", "Completed", "", &Value::Null), "read its output: logs xb/b"),
            (
                status("Failed", "NoTargets", "", &json!({"plan": {"number": 1}})),
                "nothing ran: fix the cause, then create it again",
            ),
        ] {
            assert_eq!(next(given), told);
        }
    }
}
