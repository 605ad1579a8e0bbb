//! The audit trail: who ran what, where, when, why, with which outcome.
//!
//! `event` is one record, an `audit.k8s.io/v1` Event; `subject` makes one for each
//! act on a request; `redact` decides how much of a command goes into it; `chain`
//! joins the records of one writer so that none can be changed unnoticed; `verify`
//! checks a chain; `anchor` says which published head is whose, and `examine` holds all
//! chains against them; `complete` checks that a request has all its records. Where
//! the lines are kept is not known here. `docs/audit.md` has the format for readers.

pub mod anchor;
pub mod batch;
pub mod chain;
pub mod complete;
pub mod event;
pub mod examine;
pub mod finding;
mod identity;
pub mod key;
pub mod redact;
pub mod subject;
pub mod verify;
