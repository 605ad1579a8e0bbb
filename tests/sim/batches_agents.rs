//! Agents in an episode with batches, as far as a batch can tell them from real ones: what they start is in a journal for
//! ever, by the request and by its target, and what they report is the truth. The real steps are played elsewhere.

use std::time::Duration;

use execlet::{
    api::{ExecRequest, ExecRequestStatus, ExitCodeSource, OutputStatus, Reason},
    core::{
        ids::{ContainerRef, ExecRef},
        kill::Cause,
        outcome::{Exit, Outcome},
        request::{is_wanted, starting_deadline},
        transition::Write,
    },
};
use tokio::time::{Instant, sleep};

use crate::batches_model::{Memory, Model, NODES, Planted, State};

/// How many of a thousand commands fail.
const FAIL: u64 = 120;

pub async fn agent(model: Model, node: usize) {
    loop {
        sleep(model.millis(20..200)).await;
        let mut state = model.lock();
        if !state.agents_up[node] {
            continue;
        }
        end_what_is_over(&mut state);
        let is_mine = |child: &ExecRequest| {
            let status = child.status.as_ref();
            status.is_some_and(|status| {
                status.node_name.as_deref() == Some(NODES[node]) && status.completion_time.is_none()
            })
        };
        let mine: Vec<ExecRequest> = state.objects.children.values().filter(|child| is_mine(child)).cloned().collect();
        for child in mine {
            // It is busy, or the API server is.
            if state.api_up && !(state.faults && state.random.chance(100)) {
                act(&mut state, &child);
            }
        }
    }
}

/// Commands end, by themselves or because their request is gone. What never started never will then.
fn end_what_is_over(state: &mut State) {
    let children = || state.objects.children.values();
    let unfinished = |child: &&ExecRequest| child.status.as_ref().is_none_or(|status| status.completion_time.is_none());
    let there: Vec<String> = children().filter_map(|child| child.metadata.uid.clone()).collect();
    let open: Vec<String> = children().filter(unfinished).filter_map(|child| child.metadata.uid.clone()).collect();
    let (mut over, mut never) = (Vec::new(), Vec::new());
    for (uid, memory) in &mut state.journal {
        let gone = !there.contains(uid);
        if !memory.started && !open.contains(uid) {
            never.push(uid.clone());
        } else if memory.started && !memory.ended && (gone || Instant::now() >= memory.runs_until) {
            memory.ended = true;
            memory.canceled |= gone && Instant::now() < memory.runs_until;
            over.push((memory.batch.clone(), memory.pod.clone(), memory.code));
        }
    }
    for uid in never {
        state.journal.remove(&uid);
    }
    for (batch, pod, code) in over {
        state.runs.entry((batch, pod)).or_default().code = Some(code);
    }
}

fn act(state: &mut State, child: &ExecRequest) {
    let uid = child.metadata.uid.clone().unwrap_or_default();
    let place = child.spec.batch.clone().expect("a batch");
    let status = child.status.clone().unwrap_or_default();
    let pod = status.pod_uid.clone().unwrap_or_default();
    let at = state.now();
    let write = Write { from: &status, generation: Some(1), at };
    if let Some(memory) = state.journal.get(&uid).cloned() {
        if memory.ended {
            let next = write.finished(&outcome(&memory, at));
            return report(state, child, next);
        }
        if !memory.started {
            return start(state, child, &uid);
        }
        if !is_wanted(child) {
            let memory = state.journal.get_mut(&uid).expect("a memory");
            (memory.canceled, memory.code) = (true, 137);
            memory.runs_until = Instant::now();
        }
        return;
    }
    let knows_targets = state.planted != Some(Planted::NoTargetKey);
    let same_target = |memory: &&Memory| knows_targets && memory.batch == place.uid && memory.pod == pod;
    if let Some(first) = state.journal.values().find(same_target).cloned() {
        if first.ended {
            let next = write.finished(&outcome(&first, at));
            report(state, child, next);
        }
        return;
    }
    if !is_wanted(child) {
        let next = write.finished(&Outcome::refused(Reason::Canceled, "canceled", at));
        return report(state, child, next);
    }
    if starting_deadline(child).is_none_or(|deadline| at >= deadline) {
        let next = write.finished(&Outcome::refused(Reason::StartingDeadlineExceeded, "too late", at));
        return report(state, child, next);
    }
    let long = state.random.chance(100);
    let runs = if long { state.random.millis(2000..20_000) } else { state.random.millis(0..1500) };
    let code = if state.random.chance(FAIL) { 3 } else { 0 };
    let memory = Memory {
        batch: place.uid,
        pod,
        started: false,
        runs_until: Instant::now() + runs,
        code,
        canceled: false,
        ended: false,
    };
    state.journal.insert(uid.clone(), memory);
    let exec = ExecRef {
        id: format!("exec-{uid}").as_str().into(),
        container: ContainerRef { id: "container".into(), started_at: None },
    };
    let next = ExecRequest { status: Some(write.committed(&exec)), ..child.clone() };
    let next = state.store_child(next);
    // Else it crashes here, and starts what it has committed when it is back.
    if !(state.faults && state.random.chance(50)) {
        start(state, &next, &uid);
    }
}

fn start(state: &mut State, child: &ExecRequest, uid: &str) {
    let memory = state.journal.get_mut(uid).expect("a memory");
    memory.started = true;
    memory.runs_until = memory.runs_until.max(Instant::now() + Duration::from_millis(1));
    let pod = memory.pod.clone();
    state.start(child, &pod);
}

fn outcome(memory: &Memory, at: k8s_openapi::jiff::Timestamp) -> Outcome {
    let exit = Exit { code: memory.code, source: ExitCodeSource::Engine };
    let output = OutputStatus { complete: true, ..OutputStatus::default() };
    if memory.canceled {
        return Outcome::killed(Cause::Canceled, Some(exit), output, at);
    }
    Outcome::exited(exit, output, at)
}

fn report(state: &mut State, child: &ExecRequest, status: ExecRequestStatus) {
    let name = child.metadata.name.clone().unwrap_or_default();
    state.note(|| format!("the agent reports {name}: {}", status.phase));
    state.store_child(ExecRequest { status: Some(status), ..child.clone() });
}
