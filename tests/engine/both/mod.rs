//! What holds on every engine.

mod command;
mod containers;
mod input;
mod output;
mod refusals;
mod terminal;
