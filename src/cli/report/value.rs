//! The report of a batch as a value: what is in its JSON, and all that the other formats show.
//!
//! Pure: of a batch and its requests, at a time. Each index of the plan is in it, whether its request is there or not.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use serde::Serialize;

use super::{
    captured::Captured,
    describe::{Pace, What},
};
use crate::{
    api::{
        BatchPhase, ExecBatch, ExecBatchStatus, ExecRequest, ExecRequestStatus, Requester,
        batch::Group,
        conditions::{self, ConditionType},
    },
    cli::batch::{fold::fold_within, words::place},
    core::{
        audit::batch::{Word, approved_by, released_by},
        batch::{
            MOST_TARGETS, child,
            end::End,
            groups::{Ending, group_all},
            indexes::IndexSet,
            ledger::{Ledger, Unreadable},
        },
    },
};

/// Of a result, in characters.
const MOST_NAMES: usize = 400;

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// When the report was made.
    pub made_at: Timestamp,
    pub phase: BatchPhase,
    /// Why it is in this phase.
    pub reason: String,
    pub message: String,
    pub requested_by: Option<Requester>,
    pub released_by: Option<Word>,
    pub approval_required: bool,
    pub approved_by: Option<Word>,
    pub why: Option<String>,
    pub what: What,
    /// Which pods were asked for.
    pub targets: String,
    pub pace: Pace,
    pub plan: Planned,
    pub created: Option<Timestamp>,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    pub counts: Counts,
    /// What the reader has to know of this report.
    pub notes: Vec<String>,
    /// Which ended the same, the largest first.
    pub results: Vec<Same>,
    /// One for each index of the plan, in order.
    pub commands: Vec<Command>,
    /// What a verification of the audit logs said, if it was asked for.
    pub audit: Option<Audit>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Planned {
    pub number: i64,
    /// How many targets; 0 if it was never planned.
    pub total: u16,
    pub digest: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub released: i32,
    pub succeeded: u16,
    pub failed: u16,
    pub not_run: u16,
    pub unknown: u16,
    pub skipped: u16,
    pub unfinished: u16,
}

/// Targets that ended the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Same {
    /// From 1 on.
    pub number: usize,
    pub count: i32,
    pub indexes: String,
    /// Their pods, folded; the first of them, if there are many. `commands` has all.
    pub pods: String,
    pub end: &'static str,
    pub reason: String,
    /// Of the first of them.
    pub message: String,
    pub exit_code: Option<i32>,
    pub output_complete: Option<bool>,
    pub incomplete_reason: Option<String>,
    pub stdout: Captured,
    pub stderr: Captured,
}

/// What became of one index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    pub index: u16,
    pub pod: String,
    #[serde(rename = "podUID")]
    pub pod_uid: Option<String>,
    pub container: Option<String>,
    pub node: Option<String>,
    /// The name of its request; `None` if that is gone.
    pub request: Option<String>,
    #[serde(rename = "requestUID")]
    pub request_uid: Option<String>,
    pub end: &'static str,
    pub reason: String,
    pub message: String,
    pub exit_code: Option<i32>,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    /// The number of its result.
    pub result: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Audit {
    pub intact: bool,
    /// Published heads were given to hold them against.
    pub anchored: bool,
    pub lines: Vec<String>,
}

impl Audit {
    /// In one sentence.
    pub const fn words(&self) -> &'static str {
        match (self.intact, self.anchored) {
            (true, true) => "The audit logs are intact, and have every record of this batch.",
            (true, false) => {
                "The audit logs have every record of this batch, and each is whole in itself: without a published head \
                 nothing vouches for them."
            }
            (false, _) => "The audit logs are not as they should be: see below.",
        }
    }
}

impl Report {
    /// # Errors
    /// When the status of the batch contradicts itself.
    pub fn of(batch: &ExecBatch, children: &[ExecRequest], at: Timestamp) -> Result<Self, Unreadable> {
        let empty = ExecBatchStatus::default();
        let status = batch.status.as_ref().unwrap_or(&empty);
        let (meta, plan) = (&batch.metadata, planned(status));
        let uid = meta.uid.clone().unwrap_or_default();
        let children: BTreeMap<u16, &ExecRequest> = children
            .iter()
            .filter_map(|one| Some((child::index_in(one, &uid, plan.number)?, one)))
            .filter(|(index, _)| *index < plan.total)
            .collect();
        let ledger = ledger(status, &children)?;
        let results = results(&ledger, &children);
        let finished = conditions::get(&status.conditions, ConditionType::Finished);
        let mut report = Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid,
            made_at: at,
            phase: status.phase,
            reason: finished.map(|finished| finished.reason.clone()).unwrap_or_default(),
            message: finished.map(|finished| finished.message.clone()).unwrap_or_default(),
            requested_by: batch.spec.requested_by.clone(),
            released_by: (status.released > 0).then(|| released_by(batch)).flatten(),
            approval_required: batch.spec.approval.required,
            approved_by: approved_by(batch),
            why: batch.spec.reason.clone(),
            what: What::of(batch),
            targets: place(&batch.spec.targets),
            pace: Pace::of(batch),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            started: time(status.start_time.as_ref()),
            finished: time(status.completion_time.as_ref()),
            counts: counts(status, &ledger, plan.total),
            notes: Vec::new(),
            commands: commands(&ledger, &children, &results, &plan, status.released),
            results,
            plan,
            audit: None,
        };
        report.notes = notes(&report);
        Ok(report)
    }

    /// When the last of what is shown happened.
    pub fn until(&self) -> Timestamp {
        self.finished.unwrap_or(self.made_at)
    }
}

fn time(time: Option<&MicroTime>) -> Option<Timestamp> {
    time.map(|time| time.0)
}

fn planned(status: &ExecBatchStatus) -> Planned {
    let Some(plan) = &status.plan else { return Planned::default() };
    let total = plan.total.and_then(|total| u16::try_from(total).ok()).unwrap_or(0).min(MOST_TARGETS);
    Planned { number: plan.number, total, digest: plan.digest.clone() }
}

/// As the batch says, and of what it does not account for yet as its requests say.
fn ledger(status: &ExecBatchStatus, children: &BTreeMap<u16, &ExecRequest>) -> Result<Ledger, Unreadable> {
    let mut ledger = Ledger::of(status)?;
    for (index, child) in children {
        if let Some(end) = child.status.as_ref().and_then(End::of) {
            ledger.put(*index, end);
        }
    }
    Ok(ledger)
}

fn counts(status: &ExecBatchStatus, ledger: &Ledger, total: u16) -> Counts {
    let count = |end| ledger.set(end).len();
    Counts {
        released: status.released,
        succeeded: count(End::Succeeded),
        failed: count(End::Failed),
        not_run: count(End::NotRun),
        unknown: count(End::Unknown),
        skipped: count(End::Skipped),
        unfinished: total.saturating_sub(ledger.len()),
    }
}

fn results(ledger: &Ledger, children: &BTreeMap<u16, &ExecRequest>) -> Vec<Same> {
    let endings = children.iter().filter_map(|(index, child)| Ending::of(child, *index)).collect();
    let groups = group_all(endings, ledger);
    (1..).zip(groups).map(|(number, group)| same(number, group, ledger, children)).collect()
}

fn same(number: usize, group: Group, ledger: &Ledger, children: &BTreeMap<u16, &ExecRequest>) -> Same {
    let members: IndexSet = group.indexes.parse().unwrap_or_default();
    let pods = members.iter().filter_map(|index| children.get(&index)).map(|one| one.spec.target.pod_name.as_str());
    let first = members.iter().next();
    let status = first.and_then(|index| children.get(&index)?.status.as_ref());
    let output = status.and_then(|status| status.output.as_ref());
    Same {
        number,
        count: group.count,
        pods: fold_within(pods, MOST_NAMES),
        end: word(first.and_then(|index| ledger.end_of(index))),
        message: status.map(|status| finished(status).1).unwrap_or_default(),
        reason: group.reason,
        exit_code: group.exit_code,
        output_complete: group.output_complete,
        incomplete_reason: output.and_then(|output| output.incomplete_reason.clone()),
        stdout: output.map(|output| Captured::of(&output.stdout)).unwrap_or_default(),
        stderr: output.map(|output| Captured::of(&output.stderr)).unwrap_or_default(),
        indexes: group.indexes,
    }
}

/// As in the status of a batch.
const fn word(end: Option<End>) -> &'static str {
    match end {
        Some(End::Succeeded) => "succeeded",
        Some(End::Failed) => "failed",
        Some(End::NotRun) => "notRun",
        Some(End::Unknown) => "unknown",
        Some(End::Skipped) => "skipped",
        None => "unfinished",
    }
}

fn commands(
    ledger: &Ledger,
    children: &BTreeMap<u16, &ExecRequest>,
    results: &[Same],
    plan: &Planned,
    released: i32,
) -> Vec<Command> {
    let mut result_of = BTreeMap::new();
    for same in results {
        let members: IndexSet = same.indexes.parse().unwrap_or_default();
        result_of.extend(members.iter().map(|index| (index, same.number)));
    }
    let of = |index: u16| {
        let end = word(ledger.end_of(index));
        let mut command = children.get(&index).map_or_else(|| gone(index), |child| command(child, index));
        if end == "unfinished" && i32::from(index) >= released {
            "held until it is released".clone_into(&mut command.message);
        }
        Command { end, result: result_of.get(&index).copied(), ..command }
    };
    (0..plan.total).map(of).collect()
}

fn gone(index: u16) -> Command {
    Command { index, message: "its request is gone".to_owned(), ..Command::default() }
}

fn command(child: &ExecRequest, index: u16) -> Command {
    let empty = ExecRequestStatus::default();
    let (target, status) = (&child.spec.target, child.status.as_ref().unwrap_or(&empty));
    let (reason, message) = finished(status);
    Command {
        index,
        pod: target.pod_name.clone(),
        pod_uid: status.pod_uid.clone().or_else(|| target.pod_uid.clone()),
        container: status.container.clone().or_else(|| target.container.clone()),
        node: status.node_name.clone(),
        request: child.metadata.name.clone(),
        request_uid: child.metadata.uid.clone(),
        end: "",
        reason,
        message,
        exit_code: status.exit_code,
        started: time(status.start_time.as_ref()),
        finished: time(status.completion_time.as_ref()),
        result: None,
    }
}

fn finished(status: &ExecRequestStatus) -> (String, String) {
    conditions::get(&status.conditions, ConditionType::Finished)
        .map(|finished| (finished.reason.clone(), finished.message.clone()))
        .unwrap_or_default()
}

fn notes(report: &Report) -> Vec<String> {
    let gone = report.commands.iter().filter(|command| command.request.is_none()).count();
    let cut = report.results.iter().any(|same| same.stdout.truncated || same.stderr.truncated);
    let unfinished = report.finished.is_none().then(|| {
        format!(
            "The batch has not finished: {} of {} targets are not accounted for.",
            report.counts.unfinished, report.plan.total
        )
    });
    let gone = (gone > 0).then(|| {
        format!("Of {gone} targets the requests are gone: of these only what the batch itself says is known.")
    });
    let cut = cut.then(|| "Of some output only the end is kept here; the digests are of all of it.".to_owned());
    unfinished.into_iter().chain(gone).chain(cut).collect()
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
