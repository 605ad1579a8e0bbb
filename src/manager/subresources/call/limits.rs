//! How many streams this replica carries at a time: in all, and for one user.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::metrics::gauge::Gauge;

use crate::infra::refusal::Refusal;

/// The streams that are open.
#[derive(Clone)]
pub(crate) struct StreamLimits(Arc<Inner>);

struct Inner {
    most: usize,
    most_per_user: usize,
    open: Mutex<Open>,
    gauge: Gauge,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_user: HashMap<String, usize>,
}

/// The right to one stream, given back when dropped.
pub(crate) struct Slot {
    inner: Arc<Inner>,
    user: String,
}

impl StreamLimits {
    pub(crate) fn new(most: usize, most_per_user: usize, gauge: Gauge) -> Self {
        Self(Arc::new(Inner { most, most_per_user, open: Mutex::default(), gauge }))
    }

    pub(crate) fn take(&self, user: &str) -> Result<Slot, Refusal> {
        let inner = &self.0;
        let mut open = inner.lock();
        if open.all >= inner.most {
            let message = format!("this manager already carries {} streams, as many as it may: try again", inner.most);
            return Err(Refusal::TooMany(message));
        }
        let of_user = open.by_user.get(user).copied().unwrap_or_default();
        if of_user >= inner.most_per_user {
            let message = format!(
                "user {user:?} already has {of_user} streams here, as many as one may: end some, and try again"
            );
            return Err(Refusal::TooMany(message));
        }
        open.all += 1;
        open.by_user.insert(user.to_owned(), of_user + 1);
        inner.gauge.inc();
        drop(open);
        Ok(Slot { inner: Arc::clone(inner), user: user.to_owned() })
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.inner.lock();
        open.all -= 1;
        self.inner.gauge.dec();
        if let Some(of_user) = open.by_user.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                open.by_user.remove(&self.user);
            }
        }
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
        assert!(streams.take("jane").is_err_and(|refusal| refusal.to_string().contains("jane")));
        let _third = streams.take("joe").expect("another's");
        assert!(streams.take("ann").is_err_and(|refusal| refusal.to_string().contains("this manager")));
        drop(first);
        let again = streams.take("jane").expect("a place that is free again");
        drop(again);
        assert_eq!(streams.0.gauge.get(), 2);
        assert_eq!(streams.0.lock().by_user.len(), 2, "who has none is forgotten");
    }
}
