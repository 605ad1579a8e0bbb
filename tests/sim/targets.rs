//! Batches in the world of the agent: some requests are a batch's, and after an older state of the API server was restored
//! the batch is planned anew, with a new request for the same pod.

use std::time::Duration;

use execlet::{
    api::{ExecBatch, ExecRequest, ExecRequestStatus, Requester},
    core::{
        access::Right,
        batch::{
            child,
            targets::{Fate, Target},
        },
        digest::sha256,
    },
    infra::{batches::Batches, requests::ApiError},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    model::{Model, NAMESPACE, POD, POD_UID, Planted, State, Truth},
    world::timeout,
};

/// How a record tells its target.
const TARGET: &str = r#","target":{"batch""#;

pub struct SimBatches(pub Model);

impl SimBatches {
    async fn call(&self, call: &'static str) -> Result<(), ApiError> {
        self.0.point().await;
        let fails = { self.0.chance(10) } || !self.0.lock().api_up;
        if fails { Err(timeout(call.to_owned())) } else { Ok(()) }
    }
}

impl Batches for SimBatches {
    async fn get(&self, _: &str, name: &str) -> Result<Option<ExecBatch>, ApiError> {
        self.call("get an ExecBatch").await?;
        Ok(self.0.lock().batches.get(name).cloned())
    }

    async fn lacks(&self, _: &Requester, _: &[Right]) -> Result<Option<Right>, ApiError> {
        self.call("say what somebody may do").await?;
        Ok(None)
    }
}

/// A batch of one target whose requests have this spec, but for their target.
pub fn batch(name: &str, spec: &Value) -> ExecBatch {
    let batch = json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecBatch",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("batch-{name}"), "generation": 1},
        "spec": {"targets": {"all": true}, "template": {"spec": spec}, "requestedBy": {"username": "alice"}},
        "status": {"plan": {"number": 1, "total": 1, "digest": "d"}, "released": 1},
    });
    serde_json::from_value(batch).expect("a batch")
}

/// Plans the batch, which makes the request of its one target.
pub fn plan(state: &mut State, batch: &ExecBatch, uid: &str) -> ExecRequest {
    let number = batch.status.as_ref().and_then(|status| status.plan.as_ref()).map_or(0, |plan| plan.number);
    let target = Target { pod: POD.to_owned(), uid: Some(POD_UID.to_owned()), fate: Fate::Run };
    let mut request = child::child(batch, number, 0, &target).expect("a child");
    let now = state.now();
    let starting = Duration::from_secs(request.spec.starting_deadline_seconds.unsigned_abs().into());
    request.metadata.uid = Some(uid.to_owned());
    request.metadata.generation = Some(1);
    request.metadata.creation_timestamp = Some(Time(now));
    let start_by = Some(MicroTime(now + starting));
    request.status = Some(ExecRequestStatus { start_by, ..ExecRequestStatus::default() });
    let active = request.spec.active_deadline_seconds.map(|seconds| Duration::from_secs(seconds.unsigned_abs().into()));
    state.truth(uid).may_run_for = active;
    state.batches.insert(names_of(batch), batch.clone());
    state.targets.insert(uid.to_owned(), names_of(batch));
    request
}

fn names_of(batch: &ExecBatch) -> String {
    batch.metadata.name.clone().expect("a name")
}

/// Plans these batches anew, each after a while: of their plans the restored state knows nothing.
pub fn plan_anew(model: &Model, batches: Vec<String>) {
    for name in batches {
        let model = model.clone();
        tokio::spawn(async move {
            sleep(model.millis(0..3000)).await;
            let mut state = model.lock();
            let Some(mut batch) = state.batches.get(&name).cloned() else { return };
            let number = {
                let plan = batch.status.as_mut().and_then(|status| status.plan.as_mut()).expect("a plan");
                plan.number += 1;
                plan.number
            };
            let request = plan(&mut state, &batch, &format!("uid-{name}-{number}"));
            state.note(|| format!("{name} is planned anew"));
            state.store(request);
        });
    }
}

/// Whether the request's target is one of a batch that is to be planned anew in this restored state: its request is not there,
/// or nobody had bound it.
pub fn is_forgotten(request: &ExecRequest) -> bool {
    let bound = request.status.as_ref().is_some_and(|status| status.node_name.is_some());
    request.spec.batch.is_some() && !bound
}

impl State {
    /// The request that has run for the same target, which is who its end is the truth of: itself, if none has.
    pub fn runner(&self, uid: &str) -> String {
        let Some(batch) = self.targets.get(uid) else { return uid.to_owned() };
        let of_target = self.targets.iter().filter(|(_, of)| *of == batch).map(|(uid, _)| uid);
        let has_run =
            |uid: &&String| self.truth.get(*uid).is_some_and(|truth: &Truth| truth.starts + truth.failed_starts > 0);
        of_target.filter(has_run).min_by_key(|runner| *runner != uid).cloned().unwrap_or_else(|| uid.to_owned())
    }

    /// Whether it ran nothing itself and tells of another request of its target whose outcome may be lost: that was lost, or
    /// nobody asked how it ended.
    pub fn tells_of_one_that_is_lost(&self, uid: &str) -> bool {
        let Some(batch) = self.targets.get(uid) else { return false };
        let ran_itself = self.truth.get(uid).is_some_and(|truth| truth.starts > 0);
        let mut others = self.targets.iter().filter(|(other, of)| *of == batch && *other != uid);
        !ran_itself
            && others
                .any(|(other, _)| self.truth.get(other).is_some_and(|truth| truth.abandoned || truth.was_taken_away()))
    }

    /// Whichever of its requests it is, a target is started once.
    pub fn check_target(&mut self, uid: &str) {
        let Some(batch) = self.targets.get(uid).cloned() else { return };
        let of_target = self.targets.iter().filter(|(_, of)| **of == batch).map(|(uid, _)| uid);
        let starts: u32 = of_target.filter_map(|uid| self.truth.get(uid)).map(|truth| truth.starts).sum();
        if starts > 1 {
            self.violated(format!("the target of {batch} was started {starts} times, by several requests"));
        }
    }
}

/// Takes away what the records of the journal say of their targets, where that bug is planted. They are as long as before.
pub fn without_targets(planted: Option<Planted>, text: Vec<u8>) -> Vec<u8> {
    if planted != Some(Planted::ForgottenTargets) {
        return text;
    }
    let text = String::from_utf8(text).expect("text");
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    for number in 0..lines.len() {
        let Some(start) = lines[number].find(TARGET) else { continue };
        let (before, rest) = lines[number].split_at(start);
        let (target, after) = rest.split_at(rest.find('}').expect("an end") + 1);
        let without = format!("{before}{after}{}", " ".repeat(target.len()));
        // On a tombstone the digest stands before it, in a record in the next line.
        if let Some((_, json)) = without.split_once(' ').filter(|_| !without.starts_with('{')) {
            lines[number] = format!("{} {json}", sha256(json.as_bytes()));
        } else {
            lines[number + 1] = sha256(without.as_bytes());
            lines[number] = without;
        }
    }
    lines.join("\n").into_bytes()
}
