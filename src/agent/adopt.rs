//! Adopt: a command that an earlier agent started runs on. Its output from then
//! on is lost, its end is not, and what may end it still does.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use super::{
    hub::{Hub, Written},
    memory::Memory,
    node::{Node, World},
    oversee::{News, Overseen},
    settle,
    witness::{self, Seen},
    work::Watched,
};
use crate::{
    core::{
        decide::{Entry, Stage, Wanted},
        ids::{ExecRef, ProcessRef},
    },
    engine::{Engine, EngineError},
    infra::kernel::Kernel,
    wire::words::InputError,
};

/// Pause between two looks at an exec whose process is not known.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Waits for the end and concludes. The agent may be told to stop before: nothing is lost by
/// leaving it to the next one.
pub(super) async fn adopt<W: World>(
    node: &Node<W>,
    wanted: Wanted<'_>,
    exec: &ExecRef,
    process: Option<ProcessRef>,
    memory: &Memory<W>,
    news: &mut watch::Receiver<News>,
    hub: &Arc<Hub>,
) -> Watched {
    let (key, request) = (memory.key(), wanted.request());
    hub.unheard(node.spool.size(key), Written::UNKNOWN);
    hub.input.close(InputError::Lost);
    tracing::info!(request = %key, uid = %key.uid, exec = %exec.id, ?process, "adopted");
    node.metrics.running.inc();
    let death = node.deaths.of(&exec.id);
    let pipes = match memory.entry() {
        Some(Entry { stage: Stage::Running { pipes, .. }, .. }) => pipes,
        Some(_) | None => process.map(|process| node.kernel.output_pipes(process)).unwrap_or_default(),
    };
    if memory.entry().is_none() {
        memory.note_adopted(exec, process, pipes.clone()).await;
    }
    let (tell, seen) = watch::channel(Seen { process, pipes, ..Seen::default() });
    let ended_by = OnceLock::new();
    let overseen = Overseen { node, wanted, exec, memory, news, hub, seen, ended_by: &ended_by };
    let watched = tokio::select! {
        biased;
        () = node.stopping.cancelled() => Watched::Left,
        outcome = async {
            let exit = until_end(node, memory, exec, &tell).await;
            settle::unseen(node, memory, exec, request, exit, &ended_by).await
        } => Watched::Ended(outcome),
        survivors = overseen.oversee() => Watched::Ended(settle::survived(node, request, &survivors).await),
    };
    drop(death);
    node.metrics.running.dec();
    watched
}

/// Waits until the process has ended, or the engine says that there is none. Gives the exit code
/// if the kernel tells it.
async fn until_end<W: World>(
    node: &Node<W>,
    memory: &Memory<W>,
    exec: &ExecRef,
    tell: &watch::Sender<Seen>,
) -> Option<i32> {
    let known = tell.borrow().process;
    if let Some(process) = known {
        return node.kernel.ended(process).await;
    }
    let mut death = node.deaths.of(&exec.id);
    loop {
        match node.engine.inspect_exec(&exec.id).await {
            Ok(state) => {
                if let Some(process) = state.pid.and_then(|pid| witness::process_of(node, memory, exec, pid)) {
                    let pipes = node.kernel.output_pipes(process);
                    tell.send_modify(|seen| (seen.process, seen.pipes) = (Some(process), pipes.clone()));
                    let ((), exit) =
                        tokio::join!(memory.note_process(exec, process, pipes), node.kernel.ended(process));
                    return exit;
                }
                if state.code.is_some() {
                    return None;
                }
            }
            Err(EngineError::NoSuchExec(_)) => return None,
            Err(_) => {}
        }
        tokio::select! {
            biased;
            _ = death.wait() => return None,
            () = sleep(LOOK_EVERY) => {}
        }
    }
}
