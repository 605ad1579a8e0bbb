//! One running command: its output is pumped, its terminal resized, its process witnessed, and it is killed when it
//! has to end.

pub mod running;

mod closing;
pub(crate) mod container;
pub(crate) mod cut;
pub(crate) mod drain;
pub(crate) mod kill;
pub(crate) mod oversee;
pub(crate) mod pump;
pub(crate) mod received;
pub(crate) mod resize;
pub(crate) mod seen;
pub(crate) mod witness;
