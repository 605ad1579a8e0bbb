//! The way to an agent: where it is, by which token, and how both connections are joined.

pub(crate) mod connect;
pub(crate) mod join;
pub(crate) mod locate;
pub(crate) mod tokens;
