//! The programs themselves, where they need no cluster.

mod printing;
