//! The audit trail: what agent and manager record, and in which order.
//!
//! A record is on the disk before the act that it is about, and what must not happen without one does not. A crash can
//! leave a record of an act that did not happen, or the same record twice, with the same `auditID`. What happens in any
//! case waits only briefly for its record. `core::audit` knows what a record looks like, the trail where it goes.

pub mod file;
pub mod given;
pub mod published;
pub mod writer;

mod recent;

use std::{future::Future, sync::Arc};

use thiserror::Error;

use self::recent::{Recent, act};
use super::{clock::Clock, metrics::Metrics};
use crate::{
    api::{ExecBatch, ExecRequest, Requester},
    core::{
        audit::{
            batch::Act,
            event::Event,
            key,
            redact::CommandDetail,
            subject::{Client, Subject},
        },
        ids::{ExecRef, RequestKey},
        kill::Cause,
        outcome::Outcome,
        request::NotBound,
        transition::Binding,
    },
};

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the audit log cannot be written: {0}")]
pub struct Unavailable(pub String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// It is kept, and written later: its act happens anyway.
    Keep,
    /// It is dropped: its act will not happen.
    Drop,
}

pub trait Trail: Clone + Send + Sync + 'static {
    /// Adds a record. When this is `Ok` it survives a crash.
    fn add(&self, event: Event, otherwise: Otherwise) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Whether a record could be written now, as far as can be seen; what was kept is written.
    fn available(&self) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Nothing may happen without a record.
    pub required: bool,
    pub command: CommandDetail,
}

/// Records what happens to requests and batches: each act once, however often it is retried.
#[derive(Clone)]
pub struct Audit<T> {
    trail: T,
    policy: Policy,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    recent: Recent,
}

#[derive(Clone, Debug)]
pub struct Session {
    subject: Subject,
    by: Requester,
    client: Client,
    id: String,
}

impl<T: Trail> Audit<T> {
    pub fn new(trail: T, policy: Policy, clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        Self { trail, policy, clock, metrics, recent: Recent::default() }
    }

    pub fn subject(&self, request: &ExecRequest) -> Result<Subject, NotBound> {
        Subject::of(request, self.policy.command)
    }

    /// The same, of a request of which only the key is known.
    pub fn unread(&self, key: &RequestKey) -> Subject {
        Subject::known_by_key(key, self.policy.command)
    }

    /// A batch; `None` if it has no key.
    pub fn batch(&self, batch: &ExecBatch) -> Option<Subject> {
        Subject::of_batch(batch, self.policy.command)
    }

    /// Whether a record could be written, to be asked before work is taken up.
    pub async fn available(&self) -> Result<(), Unavailable> {
        if self.policy.required { self.trail.available().await } else { Ok(()) }
    }

    /// Before a request is bound.
    pub async fn bound(&self, request: &Subject, to: &Binding, image: Option<&str>) -> Result<(), Unavailable> {
        self.before(request.bound(to, image, self.clock.now())).await
    }

    /// Before a command is started.
    pub async fn started(&self, request: &Subject, exec: &ExecRef) -> Result<(), Unavailable> {
        self.before(request.started(exec, self.clock.now())).await
    }

    /// Before a client is connected to a command. The session has to be [`detached`](Self::detached).
    pub async fn attached(&self, subject: Subject, by: &Requester, client: Client) -> Result<Session, Unavailable> {
        let event = subject.attached(by, &client, self.clock.now());
        let id = event.note(key::SESSION).unwrap_or_default().to_owned();
        self.before(event).await?;
        Ok(Session { subject, by: by.clone(), client, id })
    }

    pub async fn detached(&self, session: Session) {
        let Session { subject, by, client, id } = session;
        self.anyhow(subject.detached(&by, &client, &id, self.clock.now())).await;
    }

    /// Before the first signal to a command that is to be ended.
    pub async fn cancelled(&self, request: &Subject, cause: Cause) {
        self.anyhow(request.cancelled(cause, self.clock.now())).await;
    }

    /// Before the outcome of a request is reported.
    pub async fn ended(&self, request: &Subject, outcome: &Outcome) {
        self.anyhow(request.ended(outcome, self.clock.now())).await;
    }

    /// Before a batch is planned, approved, released or deleted, or its end or that of its requests is reported.
    pub async fn batch_does(&self, batch: &Subject, act: &Act) -> Result<(), Unavailable> {
        let event = batch.batch_did(act, self.clock.now());
        match act {
            Act::Planned { .. } | Act::Approved { .. } | Act::Released { .. } | Act::Expired => {
                self.before(event).await
            }
            // These have happened.
            Act::RequestsGone { .. } | Act::Finished { .. } => {
                self.anyhow(event).await;
                Ok(())
            }
        }
    }

    /// Before an act that may need its record.
    async fn before(&self, event: Event) -> Result<(), Unavailable> {
        if !self.policy.required {
            self.anyhow(event).await;
            return Ok(());
        }
        self.add(event, Otherwise::Drop).await
    }

    /// An act that happens in any case.
    async fn anyhow(&self, event: Event) {
        // A failure is counted and logged, and the record is kept.
        drop(self.add(event, Otherwise::Keep).await);
    }

    async fn add(&self, event: Event, otherwise: Otherwise) -> Result<(), Unavailable> {
        let (act, verb, object) = (act(&event), event.verb, event.object_ref.clone());
        if self.recent.has(&act) {
            return Ok(());
        }
        let added = self.trail.add(event, otherwise).await;
        if added.is_ok() || otherwise == Otherwise::Keep {
            self.recent.add(act);
        }
        match &added {
            Ok(()) => self.metrics.recorded(verb),
            Err(error) => {
                let (kind, object) =
                    object.map(|object| (object.resource, format!("{}/{}", object.namespace, object.name))).unzip();
                tracing::error!(kind, object, %verb, %error, "not recorded");
                self.metrics.unrecorded.inc();
            }
        }
        added
    }
}

#[cfg(test)]
mod tests;
