//! The audit trail: who ran what, where, when, why, with which outcome.
//!
//! `event` is one record, an `audit.k8s.io/v1` Event; `subject` makes one for each act on a
//! request, `batch` for each act on a batch; `redact` decides how much of a command goes into
//! it; `chain` joins the records of one writer so that none can be changed unnoticed; `verify`
//! checks a chain; `anchor` says which published head is whose, and `examine` holds all chains
//! against them; `complete` checks that a request has all its records, and `whole` that a batch
//! has, of which `members` are the requests; `verdict` puts all of that into words. Where the
//! lines are kept is not known here. `docs/audit.md` has the format for readers.

pub mod anchor;
pub mod batch;
pub mod chain;
pub mod complete;
pub mod event;
pub mod examine;
pub mod finding;
mod identity;
pub mod key;
mod members;
pub mod redact;
pub mod subject;
pub mod verdict;
pub mod verify;
mod whole;
