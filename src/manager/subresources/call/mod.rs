//! One call: what is asked for, whether it may be, and how many at a time.

pub(crate) mod authorize;
pub(crate) mod limits;
pub(crate) mod serve;
