//! The audit trail: who ran what, where, when, why, with which outcome.
//!
//! `event` is one record, an `audit.k8s.io/v1` Event; `redact` what of a command
//! goes into it; `chain` joins the records of one writer so that none can be
//! changed unseen; `verify` reads a chain back; `complete` says whether a
//! request has all its records. Where the lines are kept is not known here.
//! `docs/audit.md` has the format for its readers.

pub mod chain;
pub mod complete;
pub mod event;
pub mod redact;
pub mod verify;
