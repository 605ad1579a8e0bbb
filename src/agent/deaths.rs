//! The engine's `exec_die` events: one stream for the whole agent, and whoever
//! waits for the end of an exec is told.
//!
//! The stream may break, and the engine remembers only its last 256 events. So
//! an event that comes is evidence, and one that does not come proves nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{core::ids::ExecId, engine::Engine, infra::health::Readiness};

/// Pause before the stream is opened again.
const RECONNECT: Duration = Duration::from_secs(1);
/// The stream is asked to begin so much before the last event seen: events are not strictly in order.
const OVERLAP: SignedDuration = SignedDuration::from_secs(10);
/// Name in `/readyz`.
pub const CHECK: &str = "engine-events";

type Waiters = HashMap<ExecId, watch::Sender<Option<i32>>>;

/// Who waits for which exec.
#[derive(Clone, Default)]
pub struct Deaths(Arc<Mutex<Waiters>>);

/// The event of one exec, when it has come. Dropping it ends the wait.
pub struct Death {
    exec: ExecId,
    code: watch::Receiver<Option<i32>>,
    deaths: Deaths,
}

impl Deaths {
    /// Begins to wait for the end of an exec. To be sure of the event, begin before the start.
    #[must_use]
    pub fn of(&self, exec: &ExecId) -> Death {
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = waiters.entry(exec.clone()).or_insert_with(|| watch::channel(None).0);
        Death { exec: exec.clone(), code: sender.subscribe(), deaths: self.clone() }
    }

    /// Listens to the engine until `shutdown`.
    pub async fn listen<E: Engine>(
        self,
        engine: Arc<E>,
        readiness: Readiness,
        shutdown: CancellationToken,
        begin: Timestamp,
    ) {
        let mut since = begin;
        while !shutdown.is_cancelled() {
            let from = since.checked_sub(OVERLAP).unwrap_or(since);
            let mut events = engine.exec_deaths(Some(from));
            readiness.ready(CHECK);
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    event = events.next() => match event {
                        Some(Ok(died)) => {
                            since = since.max(died.at);
                            self.tell(&died.exec, died.code);
                        }
                        Some(Err(error)) => {
                            tracing::warn!(%error, "the engine's events broke off");
                            readiness.not_ready(CHECK, error.to_string());
                            break;
                        }
                        None => {
                            readiness.not_ready(CHECK, "the engine closed its events");
                            break;
                        }
                    },
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RECONNECT) => {}
            }
        }
    }

    fn tell(&self, exec: &ExecId, code: i32) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(exec) {
            sender.send_replace(Some(code));
        }
    }
}

impl Death {
    /// The code in the event, if it has come.
    #[must_use]
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

impl Drop for Death {
    fn drop(&mut self) {
        let mut waiters = self.deaths.0.lock().unwrap_or_else(PoisonError::into_inner);
        // This one is still counted.
        if waiters.get(&self.exec).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiters.remove(&self.exec);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_told_and_nobody_else_is_remembered() {
        let deaths = Deaths::default();
        let mut death = deaths.of(&"e".into());
        deaths.tell(&"other".into(), 1);
        assert_eq!(death.code(), None);
        deaths.tell(&"e".into(), 3);
        assert_eq!((death.wait().await, death.code()), (3, Some(3)));
        let second = deaths.of(&"e".into());
        drop(death);
        assert_eq!(second.code(), Some(3));
        drop(second);
        assert!(deaths.0.lock().expect("a lock").is_empty());
    }
}
