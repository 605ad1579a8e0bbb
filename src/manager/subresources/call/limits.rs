//! How many streams this replica carries at a time: in all, and for one user.

use std::sync::Arc;

use axum::http::StatusCode;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::infra::{
    quota::{Permit, Quota},
    refusal::Refusal,
};

#[derive(Clone)]
pub(crate) struct StreamLimits {
    most: usize,
    most_per_user: usize,
    all: Arc<Semaphore>,
    users: Quota<String>,
    open: Gauge,
}

/// The right to one stream, given back when dropped.
pub(crate) struct Place {
    open: Gauge,
    _of_all: OwnedSemaphorePermit,
    _of_user: Permit<String>,
}

impl StreamLimits {
    pub(crate) fn new(most: usize, most_per_user: usize, open: Gauge) -> Self {
        let (all, users) = (Arc::new(Semaphore::new(most)), Quota::new(most_per_user));
        Self { most, most_per_user, all, users, open }
    }

    pub(crate) fn take(&self, user: &str) -> Result<Place, Refusal> {
        let too_many = |message| Refusal::new(StatusCode::TOO_MANY_REQUESTS, message);
        let of_all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| {
            too_many(format!("this manager already carries {} streams, its limit: try again", self.most))
        })?;
        let of_user = self.users.enter(&user.to_owned()).ok_or_else(|| {
            let most = self.most_per_user;
            too_many(format!("user {user:?} already has {most} streams here, the limit: end some, and try again"))
        })?;
        self.open.inc();
        Ok(Place { open: self.open.clone(), _of_all: of_all, _of_user: of_user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_all_together_have_so_many_streams_and_no_more() {
        let streams = StreamLimits::new(3, 2, Gauge::default());
        let first = streams.take("jane").expect("the first");
        let _second = streams.take("jane").expect("the second");
        assert!(streams.take("jane").is_err_and(|refusal| refusal.message.contains("jane")));
        let _third = streams.take("joe").expect("another's");
        assert!(streams.take("ann").is_err_and(|refusal| refusal.message.contains("this manager")));
        drop(first);
        let again = streams.take("jane").expect("a place that is free again");
        drop(again);
        assert_eq!(streams.open.get(), 2);
        assert_eq!(streams.users.kinds(), 2, "who has none is forgotten");
    }
}
