//! The programs themselves, where they need no cluster.

mod credential;
mod printing;
