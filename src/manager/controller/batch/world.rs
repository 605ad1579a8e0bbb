//! What a pass over a batch stands on.
//!
//! Whoever leads may be told to stop at any await, or be late by any time: every write here wins only if nobody has written
//! since its object was read, and what is created is fenced by the number of the plan.

use std::{collections::BTreeMap, future::Future};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use thiserror::Error;

use crate::{
    api::{ExecBatch, ExecBatchStatus, ExecRequest, ExecRequestStatus, Requester},
    core::{
        access::Right,
        admission::Admission,
        batch::{groups::Ending, ledger::Unreadable, seen::Children},
        bind::Agents,
        ids::BatchKey,
        request::NotBound,
    },
    infra::{audit::Unavailable, call::ApiError, requests::Written},
};
pub use crate::{core::audit::batch::Act, manager::controller::write::Change};

pub trait World: Send + Sync + 'static {
    type Agents: Agents + Send + Sync;

    fn now(&self) -> Timestamp;

    fn agents(&self) -> &Self::Agents;

    /// By a quorum read; `None` if it is gone, or if another one has its name.
    fn batch(&self, key: &BatchKey) -> impl Future<Output = Result<Option<ExecBatch>, ApiError>> + Send;

    /// Writes the status of a batch, if nobody has written to it since it was read.
    fn write_batch(
        &self,
        read: &ExecBatch,
        status: ExecBatchStatus,
    ) -> impl Future<Output = Result<Swapped, ApiError>> + Send;

    /// What a watch has told of the unfinished children of this plan. It may be old.
    fn children(&self, key: &BatchKey, plan: i64) -> Children;

    /// By a quorum read, whoever made it.
    fn child(&self, namespace: &str, name: &str) -> impl Future<Output = Result<Option<ExecRequest>, ApiError>> + Send;

    /// Sends one creation.
    fn create(&self, child: &ExecRequest) -> impl Future<Output = Created> + Send;

    /// Records and writes the status of a child, if nobody has written to it since it was read. `vouched_for`: whether the
    /// admission policies vouch for its requester, as was found out now.
    fn write_child(
        &self,
        read: &ExecRequest,
        status: ExecRequestStatus,
        change: Change,
        vouched_for: bool,
    ) -> impl Future<Output = Result<Written, BatchError>> + Send;

    /// Sets `spec.cancel` of a child.
    fn cancel(&self, child: &ExecRequest) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Deletes a child, if it is still the one that was read, as it was read.
    fn delete(&self, child: &ExecRequest) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// All pods that the batch may mean, as they were at one moment: by its selector, of its workload, or of its namespace.
    fn candidates(&self, batch: &ExecBatch) -> impl Future<Output = Result<Candidates, ApiError>> + Send;

    fn pod(&self, namespace: &str, name: &str) -> impl Future<Output = Result<Option<Pod>, ApiError>> + Send;

    /// The state of the policies, read after this call.
    fn admission(&self) -> impl Future<Output = Admission> + Send;

    /// The first of these rights that somebody has not.
    fn lacks(&self, who: &Requester, rights: &[Right]) -> impl Future<Output = Result<Option<Right>, ApiError>> + Send;

    /// How the finished children of this plan ended, without what they wrote.
    fn endings(&self, key: &BatchKey, plan: i64) -> impl Future<Output = Result<Vec<Ending>, ApiError>> + Send;

    /// What a watch has told of the unfinished children of all batches, by the number of their plan. It may be old.
    fn unfinished(&self) -> BTreeMap<BatchKey, Plans>;

    /// Some of all children of all batches that have ended and were never bound, and where the next are, if there are more.
    fn page_of_never_bound(
        &self,
        after: Option<String>,
    ) -> impl Future<Output = Result<(Vec<ExecRequest>, Option<String>), ApiError>> + Send;

    /// Whether a record could be written now, if records are required.
    fn available(&self) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Records an act on a batch, before it happens.
    fn record(&self, batch: &ExecBatch, act: &Act) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// The unfinished children of one batch, by the number of their plan.
pub type Plans = BTreeMap<i64, Children>;

/// The pods that a batch may mean.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    pub pods: Vec<Pod>,
    /// The workload is missing.
    pub no_workload: bool,
}

/// What came of a write to a batch's status.
#[derive(Debug)]
pub enum Swapped {
    Won(Box<ExecBatch>),
    /// Somebody wrote since the batch was read: read again.
    Lost,
    Gone,
    /// The API server will never take it as it is.
    Refused(String),
}

/// What came of a creation.
#[derive(Debug)]
pub enum Created {
    /// As the API server has taken it.
    Made(Box<ExecRequest>),
    /// Something has that name already.
    Exists,
    /// It will not be taken, for this reason.
    Refused(String),
    /// It was surely not taken, and may be the next time.
    NotNow(String),
    /// It may have been taken, may still be taken, or not.
    Doubt(String),
}

#[derive(Debug, Error)]
pub enum BatchError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Audit(#[from] Unavailable),
    #[error(transparent)]
    NoKey(#[from] NotBound),
    #[error("its status cannot be read: {0}")]
    Unreadable(#[from] Unreadable),
    #[error("the API server refuses its status: {0}")]
    Refused(String),
}
