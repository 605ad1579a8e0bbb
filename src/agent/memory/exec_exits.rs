//! The exits of execs, as the engine announces them: one stream for the whole agent, and whoever
//! waits for the end of an exec is told.
//!
//! The stream may break, and an engine remembers only its last exits. So one that comes is evidence, and one that does
//! not come proves nothing.

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

use crate::{
    core::{ids::ExecId, outcome::Testimony},
    engine::Engine,
    infra::health::Readiness,
};

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

#[derive(Clone, Default)]
pub struct ExecExits(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    waiters: HashMap<ExecId, watch::Sender<Option<Testimony>>>,
    unasked: VecDeque<(ExecId, Testimony)>,
    heard: bool,
}

impl Book {
    fn remember(&mut self, exec: ExecId, testimony: Testimony) {
        self.unasked.push_back((exec, testimony));
        if self.unasked.len() > REMEMBERED {
            self.unasked.pop_front();
        }
    }
}

/// The event of one exec, when it has come. Dropping it ends the wait.
pub struct AwaitedExit {
    exec: ExecId,
    testimony: watch::Receiver<Option<Testimony>>,
    exec_exits: ExecExits,
}

impl ExecExits {
    /// Begins to wait for the end of an exec. To be sure of the event, begin before the start.
    pub fn of(&self, exec: &ExecId) -> AwaitedExit {
        let mut book = self.lock();
        let known = book.unasked.iter().position(|(died, _)| died == exec);
        let known = known.and_then(|place| book.unasked.remove(place)).map(|(_, testimony)| testimony);
        let sender = book.waiters.entry(exec.clone()).or_insert_with(|| watch::channel(known).0);
        AwaitedExit { exec: exec.clone(), testimony: sender.subscribe(), exec_exits: self.clone() }
    }

    /// Listens to the engine until `shutdown`. What ended while no agent listened is told too, as far back as the engine
    /// remembers.
    pub async fn listen<E: Engine>(self, engine: Arc<E>, readiness: Readiness, shutdown: CancellationToken) {
        let mut since = Timestamp::UNIX_EPOCH;
        while !shutdown.is_cancelled() {
            let from = since.checked_sub(OVERLAP).unwrap_or(since).max(Timestamp::UNIX_EPOCH);
            let mut events = engine.exits(Some(from));
            let why = loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    event = timeout(SETTLED, events.next()) => match event {
                        Err(_) => self.hear(&readiness),
                        Ok(Some(Ok(died))) => {
                            since = since.max(died.at);
                            self.tell(died.exec, died.testimony);
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

    fn tell(&self, exec: ExecId, testimony: Testimony) {
        let mut book = self.lock();
        match book.waiters.get(&exec) {
            Some(sender) => drop(sender.send_replace(Some(testimony))),
            None => book.remember(exec, testimony),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock()
    }
}

impl AwaitedExit {
    pub fn testimony(&self) -> Option<Testimony> {
        *self.testimony.borrow()
    }
}

impl Drop for AwaitedExit {
    fn drop(&mut self) {
        let mut book = self.exec_exits.lock();
        // This one is still counted.
        if book.waiters.get(&self.exec).is_some_and(|sender| sender.receiver_count() <= 1) {
            book.waiters.remove(&self.exec);
            // Whoever waits for it next has not heard it.
            if let Some(testimony) = self.testimony() {
                book.remember(self.exec.clone(), testimony);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(code: i32) -> Testimony {
        Testimony { code, certain: true }
    }

    #[tokio::test]
    async fn whoever_waits_is_told_and_nobody_else_is_remembered() {
        let exec_exits = ExecExits::default();
        let exec_exit = exec_exits.of(&"e".into());
        exec_exits.tell("other".into(), code(1));
        assert_eq!(exec_exit.testimony(), None);
        exec_exits.tell("e".into(), code(3));
        assert_eq!(exec_exit.testimony(), Some(code(3)));
        let second = exec_exits.of(&"e".into());
        drop(exec_exit);
        assert_eq!(second.testimony(), Some(code(3)));
        drop(second);
        assert!(exec_exits.lock().waiters.is_empty());
        assert_eq!(
            exec_exits.of(&"e".into()).testimony(),
            Some(code(3)),
            "it has not ended less because nobody waits any more"
        );
    }

    #[test]
    fn an_end_that_was_told_before_anybody_asked_is_known() {
        let exec_exits = ExecExits::default();
        exec_exits.tell("e".into(), code(7));
        assert_eq!(exec_exits.of(&"e".into()).testimony(), Some(code(7)));
        for n in 0..REMEMBERED {
            exec_exits.tell(format!("other-{n}").as_str().into(), code(0));
        }
        assert_eq!(exec_exits.of(&"e".into()).testimony(), None, "what is remembered is bounded");
    }
}
