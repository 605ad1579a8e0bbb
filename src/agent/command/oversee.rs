//! Oversee: while a command runs, see to it that it ends when it is to end.

use std::{sync::OnceLock, time::Duration};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    kill,
    running::{News, RunningCommand, Survivors},
    seen::Seen,
};
use crate::{
    agent::node::World,
    api::ExecRequest,
    core::{
        decide::{RequestView, cause_to_kill},
        entry::Terms,
        kill::{Cause, DEFAULT_GRACE, Kill},
        request::{BoundRequest, is_being_deleted},
    },
    infra::{kernel::Kernel, requests::Requests},
};

/// How long the kernel's witness may take to find a process that has just started.
const WITNESS_PATIENCE: Duration = Duration::from_secs(3);
/// Pause before a request that seems to be gone is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Overseen<'a, W: World> {
    pub(crate) attended: RunningCommand<'a, W>,
    pub(crate) news: &'a mut watch::Receiver<News>,
    pub(crate) seen: watch::Receiver<Seen>,
    /// Set with the first signal that reached a process.
    pub(crate) ended_by: &'a OnceLock<Cause>,
}

/// What was read last of a request.
enum Latest {
    Bound(Box<BoundRequest>),
    Unbound,
    Gone,
    Unread(Option<Terms>),
}

impl Latest {
    fn of(wanted: RequestView<'_>) -> Self {
        match wanted {
            RequestView::Request(request) => Self::Bound(Box::new(request.clone())),
            RequestView::Unbound => Self::Unbound,
            RequestView::Gone => Self::Gone,
            RequestView::Unread(terms) => Self::Unread(terms),
        }
    }

    fn wanted(&self) -> RequestView<'_> {
        match self {
            Self::Bound(request) => RequestView::Request(request),
            Self::Unbound => RequestView::Unbound,
            Self::Gone => RequestView::Gone,
            Self::Unread(terms) => RequestView::Unread(*terms),
        }
    }

    fn see(&mut self, found: Option<&ExecRequest>) {
        match found.map(|found| (BoundRequest::try_from(found), is_being_deleted(found))) {
            // Nobody binds again what is being deleted.
            None | Some((Err(_), true)) => *self = Self::Gone,
            Some((Ok(request), _)) => *self = Self::Bound(Box::new(request)),
            // What it was bound to is known better here.
            Some((Err(_), false)) => {}
        }
    }
}

impl<W: World> Overseen<'_, W> {
    /// Waits until the command is to end, and ends it. Returns only if processes of it do not die.
    pub(crate) async fn oversee(mut self) -> Survivors {
        let RunningCommand { node, wanted, exec, memory, hub } = self.attended;
        let mut kill = if let Some(kill) = memory.entry().and_then(|entry| entry.kill) {
            // Begun by the agent before this one.
            self.ended_by.get_or_init(|| kill.cause);
            kill
        } else {
            let mut current = Latest::of(wanted);
            let cause = tokio::select! {
                biased;
                cause = self.cause(&mut current) => cause,
                () = hub.input.given_up() => Cause::Disconnected,
            };
            self.await_witness().await;
            node.audit.cancelled(&memory.subject(), cause).await;
            // One that is gone now may have been read before, by this agent or by an earlier one.
            let terms = current.wanted().terms().or_else(|| memory.terms());
            let grace = terms.map_or(DEFAULT_GRACE, |terms| terms.grace);
            Kill::new(cause, node.kernel.uptime(), grace)
        };
        let key = memory.key();
        tracing::info!(request = %key, uid = %key.uid, exec = %exec.id, cause = ?kill.cause, grace = ?kill.grace, "ending the command");
        memory.note_kill(exec, kill.clone()).await;
        let living = kill::watched(&self.attended, &kill, &self.seen, self.ended_by).await;
        {
            let seen = self.seen.borrow();
            kill = Kill { process: seen.process, pipes: seen.pipes.clone(), survivors: true, ..kill };
        }
        memory.note_kill(exec, kill.clone()).await;
        Survivors { cause: kill.cause, living }
    }

    /// Waits until the command's own process is known, and with it the pipes that it writes to. Once
    /// it is gone, nothing else tells which processes without its environment are of the command.
    async fn await_witness(&self) {
        let mut seen = self.seen.clone();
        let known = seen.wait_for(|seen| seen.process.is_some() || seen.ended.is_some());
        // One that is not found in this time is gone, or cannot be told from others.
        drop(timeout(WITNESS_PATIENCE, known).await);
    }

    async fn cause(&mut self, current: &mut Latest) -> Cause {
        loop {
            let wanted = current.wanted();
            let running = self.running(wanted.request());
            if let Some(cause) = cause_to_kill(&wanted, running) {
                return cause;
            }
            let deadline = wanted.terms().and_then(|terms| terms.active);
            let left = deadline.zip(running).map(|(deadline, running)| deadline.saturating_sub(running));
            let waiting = self.next(current);
            match left {
                // Whether it came in time or not, everything is looked at again.
                Some(left) => drop(timeout(left, waiting).await),
                None => waiting.await,
            }
        }
    }

    /// Waits until the request has changed.
    async fn next(&mut self, current: &mut Latest) {
        if self.news.changed().await.is_err() {
            // Nobody watches any more: the agent stops.
            return std::future::pending().await;
        }
        let news = self.news.borrow_and_update().clone();
        match news {
            News::None => {}
            News::Changed(request) => {
                current.see(Some(&request));
            }
            News::Left => loop {
                match self.attended.node.requests.get(self.attended.memory.key()).await {
                    Ok(found) => return current.see(found.as_ref()),
                    Err(error) => {
                        tracing::debug!(request = %self.attended.memory.key(), %error, "whether it was deleted is not known yet");
                        sleep(ASK_AGAIN).await;
                    }
                }
            },
        }
    }

    fn running(&self, current: Option<&BoundRequest>) -> Option<Duration> {
        if let Some(started) = self.attended.memory.entry().and_then(|entry| entry.started) {
            return Some(self.attended.node.kernel.uptime().saturating_sub(started));
        }
        // The journal is lost: the status has the time of day.
        let committed = current?.committed_at?;
        self.attended.node.clock.now().duration_since(committed).try_into().ok()
    }
}
