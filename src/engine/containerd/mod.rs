//! containerd, as the kubelet uses it: what its calls mean.
//!
//! It is asked over its own API, not over the kubelet's, which gives an exec neither a name nor an end. Callers name its
//! execs; it keeps codes until they are deleted, and survives a client that goes away. `docs/containerd.md` has what it
//! really does.

pub mod calls;
pub mod connection;
pub mod folder;
pub mod messages;
pub mod output;
pub mod process;
pub mod root;
pub mod user;
