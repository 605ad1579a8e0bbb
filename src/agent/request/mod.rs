//! The steps of one request, in the order of its way: the loop that decides and dispatches, then prepare, commit,
//! start, attend, settle, report.

pub(crate) mod attend;
pub(crate) mod commit;
pub(crate) mod evidence;
mod executed;
pub(crate) mod finish;
pub(crate) mod held_up;
mod hold;
pub(crate) mod look;
pub(crate) mod prepare;
pub(crate) mod report;
pub(crate) mod settle;
pub(crate) mod start;
pub(crate) mod unread;
pub(crate) mod work;
