//! The kernel's witness of a running exec: which process it is, and when it ended.

use std::{convert::Infallible, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::node::Node;
use crate::{
    core::{
        decide::{Entry, Stage},
        ids::{ExecRef, ProcessRef, RequestKey},
    },
    engine::{Engine, EngineError},
    infra::process,
};

/// First pause between two looks for the process; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What has been seen of an exec's process so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Which process it is. One that ends at once may never be seen.
    pub(super) process: Option<ProcessRef>,
    /// The moment by which it had ended.
    pub(super) ended: Option<Instant>,
}

/// Finds the process of an exec that was just started, notes it in the journal,
/// waits for its end, and tells both as soon as they are known. Never returns.
pub(super) async fn watch<E: Engine>(
    node: &Node<E>,
    request: &RequestKey,
    created: Timestamp,
    exec: &ExecRef,
    tell: &watch::Sender<Seen>,
) -> Infallible {
    if let Some(process) = find(node, exec).await {
        tell.send_modify(|seen| seen.process = Some(process));
        let entry = Entry { exec: exec.clone(), boot: node.boot.clone(), stage: Stage::Running { process } };
        if let Err(error) = node.journal.write(request, created, &entry).await {
            // `starting` still stands in the journal, which is true as well, only less exact.
            tracing::warn!(%request, uid = %request.uid, %error, "the process could not be noted in the journal");
        }
        ended(process).await;
    }
    tell.send_modify(|seen| seen.ended = Some(Instant::now()));
    std::future::pending().await
}

/// Waits for the end of a process, with or without the kernel's help.
pub(super) async fn ended(process: ProcessRef) {
    if let Err(error) = process::ended(process).await {
        tracing::debug!(pid = process.pid, %error, "no pidfd, the process is looked at instead");
        while process::alive(process) {
            sleep(LONGEST_PAUSE).await;
        }
    }
}

/// The process, or `None` if it had ended before it could be found.
async fn find<E: Engine>(node: &Node<E>, exec: &ExecRef) -> Option<ProcessRef> {
    let mut pause = FIRST_PAUSE;
    loop {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        match node.engine.inspect_exec(&exec.id).await {
            Ok(state) => match (state.pid.and_then(process::find), state.code) {
                (Some(process), None) => return Some(process),
                (_, Some(_)) => return None,
                (None, None) => {}
            },
            Err(EngineError::NoSuchExec(_)) => return None,
            Err(error) => tracing::debug!(exec = %exec.id, %error, "the exec could not be inspected"),
        }
    }
}
