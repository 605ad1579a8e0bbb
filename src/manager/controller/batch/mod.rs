//! Batches: what the leader does with each, pass by pass.
//!
//! | file | what |
//! |---|---|
//! | `tend` | one pass over one batch: read, decide, act, write |
//! | `planning` | the pass that plans: fence, targets, children, freeze |
//! | `making` | its children: each is asked for until it is made, refused or in doubt |
//! | `pass` | how a pass ends: one write, and when to pass again |
//! | `act` | one child: see how it ended, bind it, end it, cancel it |
//! | `sweep` | children that belong to no plan that counts |
//! | `expiry` | finished batches whose time has passed |
//! | `world` | what a pass stands on: an API server, real or simulated |
//! | `api_server` | the real one |
//! | `cache` | what a watch has told of the children, without what they hold |
//! | `telling` | what people are told of a batch: Events, log, metrics |
//! | `lead` | who tends which batch when |
//!
//! Nothing is remembered between two passes but what a watch tells, and when what waits was last looked at. That decides
//! nothing that cannot be taken back: who leads next, or has led before and wakes up, finds the same.

pub mod act;
pub mod api_server;
pub mod cache;
mod expiry;
pub mod lead;
mod making;
pub mod pass;
pub mod planning;
pub mod sweep;
mod telling;
pub mod tend;
pub mod world;
