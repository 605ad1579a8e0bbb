//! The head of a chain that is published in a Lease, and must not be taken back silently: a chain that turns out to be
//! shorter says so first.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use tokio::time::timeout;

use super::writer::Log;
use crate::{
    api::names,
    core::audit::chain::{Head, published},
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// The head in the Lease from before this writer began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// It could not be read yet.
    Unread,
    /// This head, which the chain does not mention yet.
    Untold(Head),
    /// None, or the chain mentions it: its own head may be published.
    Told,
}

/// Reads the Lease at the start of a writer. A head is for the writer's first record.
pub async fn ask(leases: &Api<Lease>, name: &str, writer: &str) -> (Before, Option<Head>) {
    let why = match timeout(TIMEOUT, leases.get_opt(name)).await {
        Ok(Ok(lease)) => return (Before::Told, lease.and_then(|lease| head_of(&lease, writer))),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    tracing::warn!(
        lease = name,
        why,
        "it is not known yet whether lines are missing at the end of the audit log; reading the Lease again later"
    );
    (Before::Unread, None)
}

pub fn head_of(lease: &Lease, writer: &str) -> Option<Head> {
    let heads = lease.metadata.annotations.as_ref()?.get(names::AUDIT_HEADS_ANNOTATION)?;
    published(heads).into_iter().find(|own| own.writer == writer)?.head.parse().ok()
}

impl Before {
    /// The Lease was read, before anything was published by this process.
    pub fn read(&mut self, head: Option<Head>) {
        if *self == Self::Unread {
            *self = head.map_or(Self::Told, Self::Untold);
        }
    }

    pub async fn head(&mut self, log: &Log) -> Head {
        match self {
            Self::Untold(head) => match log.tell_published(head.clone()).await {
                Ok(()) => {
                    *self = Self::Told;
                    log.head()
                }
                // It stays published until the chain mentions it.
                Err(_) => head.clone(),
            },
            Self::Unread | Self::Told => log.head(),
        }
    }
}
