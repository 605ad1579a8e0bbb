//! The plugin `kubectl execlet`: one file a verb, over the same API as everybody else's.
//!
//! It knows neither agent nor manager: what it sees is the API server. What a
//! verb takes from the command line stands beside the verb; the program in
//! `bin/kubectl-execlet` puts them together, parses once, and ends with the
//! [`exit`] code that a verb gives.

pub mod attach;
pub mod cancel;
pub mod completion;
pub mod connection;
pub mod describe;
pub mod error;
pub mod exit;
pub mod get;
pub mod logs;
pub mod replay;
pub mod run;
pub mod version;
pub mod wait;

mod attempts;
mod conclude;
mod detach;
mod discovery;
mod duration;
mod follow;
mod input;
mod options;
mod output;
mod passed;
mod print;
mod record;
mod refusal;
mod requests;
#[cfg(test)]
mod scripted;
mod session;
mod signals;
mod speech;
mod summary;
mod terminal;
mod watched;
mod words;

pub use connection::{Cluster, ConnectionArgs};
pub use error::Error;
pub use exit::Exit;

/// Writes text to standard output, and is done.
///
/// # Errors
/// When it cannot be written.
pub fn print_line(text: &str) -> Result<Exit, Error> {
    print::out(text).map(|()| Exit::SUCCESS)
}
