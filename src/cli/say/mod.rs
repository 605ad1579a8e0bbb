//! What the plugin prints and says: objects, sentences, durations, the terminal.

pub(crate) mod duration;
pub mod last_words;
pub(crate) mod live;
pub(crate) mod page;
pub(crate) mod print;
pub(crate) mod screen;
pub(crate) mod shell;
pub(crate) mod speech;
pub(crate) mod summary;
pub(crate) mod tails;
pub(crate) mod terminal;
pub(crate) mod words;
