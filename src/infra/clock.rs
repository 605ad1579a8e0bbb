//! The time of day, as an argument.

use k8s_openapi::jiff::Timestamp;

/// Tells the time of day. Not for measuring how long something takes.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
