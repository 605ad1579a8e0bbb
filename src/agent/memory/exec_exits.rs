//! The engine's `exec_die` events: one stream for the whole agent, and whoever
//! waits for the end of an exec is told.
//!
//! The stream may break, and the engine remembers only its last 256 events. So
//! an event that comes is evidence, and one that does not come proves nothing.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{core::ids::ExecId, engine::Engine, infra::health::Readiness};

/// Pause before the stream is opened again.
const RECONNECT: Duration = Duration::from_secs(1);
/// The stream is asked to begin so much before the last event seen: events are not strictly in order.
const OVERLAP: SignedDuration = SignedDuration::from_secs(10);
/// Name in `/readyz`.
pub const CHECK: &str = "engine-events";

/// Ends that are remembered though nobody waits for them yet: after a restart of the agent the
/// engine tells of them before the requests are in hand.
const REMEMBERED: usize = 1024;
/// A stream that has not failed for so long is taken to work.
const SETTLED: Duration = Duration::from_secs(1);

/// Who waits for which exec.
#[derive(Clone, Default)]
pub struct ExecExits(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    waiters: HashMap<ExecId, watch::Sender<Option<i32>>>,
    unasked: VecDeque<(ExecId, i32)>,
    heard: bool,
}

impl Book {
    fn remember(&mut self, exec: ExecId, code: i32) {
        self.unasked.push_back((exec, code));
        if self.unasked.len() > REMEMBERED {
            self.unasked.pop_front();
        }
    }
}

/// The event of one exec, when it has come. Dropping it ends the wait.
pub struct ExecExit {
    exec: ExecId,
    code: watch::Receiver<Option<i32>>,
    exec_exits: ExecExits,
}

impl ExecExits {
    /// Begins to wait for the end of an exec. To be sure of the event, begin before the start.
    pub fn of(&self, exec: &ExecId) -> ExecExit {
        let mut book = self.lock();
        let known = book.unasked.iter().position(|(died, _)| died == exec);
        let known = known.and_then(|place| book.unasked.remove(place)).map(|(_, code)| code);
        let sender = book.waiters.entry(exec.clone()).or_insert_with(|| watch::channel(known).0);
        ExecExit { exec: exec.clone(), code: sender.subscribe(), exec_exits: self.clone() }
    }

    /// Listens to the engine until `shutdown`. What ended while no agent listened is told too, as far back as the engine
    /// remembers.
    pub async fn listen<E: Engine>(self, engine: Arc<E>, readiness: Readiness, shutdown: CancellationToken) {
        let mut since = Timestamp::UNIX_EPOCH;
        while !shutdown.is_cancelled() {
            let from = since.checked_sub(OVERLAP).unwrap_or(since).max(Timestamp::UNIX_EPOCH);
            let mut events = engine.exec_deaths(Some(from));
            let why = loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    event = timeout(SETTLED, events.next()) => match event {
                        Err(_) => self.hear(&readiness),
                        Ok(Some(Ok(died))) => {
                            since = since.max(died.at);
                            self.tell(died.exec, died.code);
                            self.hear(&readiness);
                        }
                        Ok(Some(Err(error))) => break error.to_string(),
                        Ok(None) => break "the engine closed them".to_owned(),
                    },
                }
            };
            tracing::warn!(why, "the engine's events broke off");
            self.lock().heard = false;
            readiness.not_ready(CHECK, why);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = sleep(RECONNECT) => {}
            }
        }
    }

    /// Whether the engine's events are heard: those of the past have come, or are coming.
    pub(crate) fn are_heard(&self) -> bool {
        self.lock().heard
    }

    fn hear(&self, readiness: &Readiness) {
        self.lock().heard = true;
        readiness.ready(CHECK);
    }

    fn tell(&self, exec: ExecId, code: i32) {
        let mut book = self.lock();
        match book.waiters.get(&exec) {
            Some(sender) => drop(sender.send_replace(Some(code))),
            None => book.remember(exec, code),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock()
    }
}

impl ExecExit {
    /// The code in the event, if it has come.
    pub fn code(&self) -> Option<i32> {
        *self.code.borrow()
    }

    /// Waits for the event. It may never come.
    pub async fn wait(&mut self) -> i32 {
        let came = self.code.wait_for(Option::is_some).await.map(|code| *code);
        match came {
            Ok(Some(code)) => code,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for ExecExit {
    fn drop(&mut self) {
        let mut book = self.exec_exits.lock();
        // This one is still counted.
        if book.waiters.get(&self.exec).is_some_and(|sender| sender.receiver_count() <= 1) {
            book.waiters.remove(&self.exec);
            // Whoever waits for it next has not heard it.
            if let Some(code) = self.code() {
                book.remember(self.exec.clone(), code);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_told_and_nobody_else_is_remembered() {
        let exec_exits = ExecExits::default();
        let mut exec_exit = exec_exits.of(&"e".into());
        exec_exits.tell("other".into(), 1);
        assert_eq!(exec_exit.code(), None);
        exec_exits.tell("e".into(), 3);
        assert_eq!((exec_exit.wait().await, exec_exit.code()), (3, Some(3)));
        let second = exec_exits.of(&"e".into());
        drop(exec_exit);
        assert_eq!(second.code(), Some(3));
        drop(second);
        assert!(exec_exits.lock().waiters.is_empty());
        assert_eq!(exec_exits.of(&"e".into()).code(), Some(3), "it has not ended less because nobody waits any more");
    }

    #[test]
    fn an_end_that_was_told_before_anybody_asked_is_known() {
        let exec_exits = ExecExits::default();
        exec_exits.tell("e".into(), 7);
        assert_eq!(exec_exits.of(&"e".into()).code(), Some(7));
        for n in 0..REMEMBERED {
            exec_exits.tell(format!("other-{n}").as_str().into(), 0);
        }
        assert_eq!(exec_exits.of(&"e".into()).code(), None, "what is remembered is bounded");
    }
}
