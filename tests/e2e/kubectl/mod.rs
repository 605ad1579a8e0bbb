//! The commands of kubectl that tests call most, done by this process: the same calls to the API server under the same
//! name, and what kubectl prints of the answer. A process of kubectl costs as much processor time as all of these.
//!
//! What is not understood here is left to kubectl itself: tables, `describe`, `explain`, `apply`, `exec` and whatever else
//! is kubectl's own. A refusal has the API server's message, in one line. More than kubectl does this: `signed`.

mod jsonpath;
mod kinds;
mod object;
mod plan;
mod server;
mod signed;
mod verbs;
mod words;

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Output},
};

pub use server::{admin, wait_on};

/// Whether the API server can set who asks; before Kubernetes 1.36 clients do.
pub fn server_stamps() -> bool {
    wait_on(signed::server_stamps())
}

/// What a command has to say.
#[derive(Debug, Default)]
struct Said {
    out: String,
    err: String,
    failed: bool,
}

impl Said {
    fn refuse(&mut self, why: &str) {
        self.failed = true;
        self.err += why;
        self.err.push('\n');
    }
}

/// Does a command, if it is one that this process can do.
pub fn done_here(args: &[&str], input: &str) -> Option<Output> {
    let words = words::Words::parse(args)?;
    let who = words.who()?;
    let plan = plan::Plan::of(&words, input)?;
    let said = wait_on(verbs::run(who, plan));
    // The upper byte of what `wait` tells is the exit code.
    let status = ExitStatus::from_raw(i32::from(said.failed) << 8);
    Some(Output { status, stdout: said.out.into_bytes(), stderr: said.err.into_bytes() })
}
