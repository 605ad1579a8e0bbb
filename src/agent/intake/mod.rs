//! What comes in: the requests of this node, and whose turn it is.

pub mod desk;
