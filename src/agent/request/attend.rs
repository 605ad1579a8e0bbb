//! Adopt: a command that an earlier agent started runs on. Its output from then
//! on is lost, its end is not, and what may end it still does.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::{settle, work::Watched};
use crate::{
    agent::{
        command::{
            oversee::{News, Overseen},
            witness::{self, Seen},
        },
        memory::request::Memory,
        node::{Node, World},
        streams::{hub::Hub, ring::Written},
    },
    core::{
        decide::{Entry, Stage, Wanted},
        ids::{ExecRef, ProcessRef},
    },
    infra::kernel::Kernel,
    wire::words::InputError,
};

/// Waits for the end and concludes. The agent may be told to stop before: nothing is lost by
/// leaving it to the next one.
pub(crate) async fn adopt<W: World>(
    node: &Node<W>,
    wanted: Wanted<'_>,
    exec: &ExecRef,
    process: Option<ProcessRef>,
    memory: &Memory<W>,
    news: &mut watch::Receiver<News>,
    hub: &Arc<Hub>,
) -> Watched {
    let (key, request) = (memory.key(), wanted.request());
    hub.log_only(node.spool.size(key), Written::UNKNOWN);
    hub.input.close(InputError::Lost);
    tracing::info!(request = %key, uid = %key.uid, exec = %exec.id, ?process, "adopted");
    node.metrics.running.inc();
    let exec_exit = node.exec_exits.of(&exec.id);
    let pipes = match memory.entry() {
        Some(Entry { stage: Stage::Running { pipes, .. }, .. }) => pipes,
        Some(_) | None => process.map(|process| node.kernel.output_pipes(process)).unwrap_or_default(),
    };
    if memory.entry().is_none() {
        memory.note_adopted(exec, process, pipes.clone()).await;
    }
    let (tell, seen) = watch::channel(Seen { process, pipes, ..Seen::default() });
    let mut ending = seen.clone();
    let ended_by = OnceLock::new();
    let overseen = Overseen { node, wanted, exec, memory, news, hub, seen, ended_by: &ended_by };
    let watched = tokio::select! {
        biased;
        () = node.stopping.cancelled() => Watched::Left,
        outcome = async {
            drop(ending.wait_for(|seen| seen.ended.is_some()).await);
            settle::unseen(node, memory, exec, request, &ending, &ended_by).await
        } => Watched::Ended(outcome),
        never = witness::watch(node, memory, exec, &tell) => match never {},
        survivors = overseen.oversee() => Watched::Ended(settle::survived(node, request, &survivors).await),
    };
    drop(exec_exit);
    node.metrics.running.dec();
    watched
}
