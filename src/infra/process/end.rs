//! The end of a process.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    process::{PidfdFlags, pidfd_open},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep},
};

use super::{
    exit::{self, Told},
    stat::{alive, pid_of},
};
use crate::core::ids::ProcessRef;

/// A process has ended before its parent has taken note of it, and only then its code is told.
const PARENT_PATIENCE: Duration = Duration::from_secs(1);
/// First pause before the code is asked for again; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// A handle to whoever has the PID now; `None`: nobody has.
pub(super) fn handle(process: ProcessRef, flags: PidfdFlags) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = pid_of(process) else { return Ok(None) };
    match pidfd_open(pid, flags) {
        Ok(handle) => Ok(Some(handle)),
        Err(Errno::SRCH) => Ok(None),
        // What older kernels say of a PID that is only a session's any more, or a group's, as long as others are in that.
        Err(Errno::INVAL) if !alive(process) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits until this very process has ended. Gives its exit code, 128 + N for signal N, if the
/// kernel tells: Linux 6.15 and later do, of a process that still lived when this was called.
pub async fn ended(process: ProcessRef) -> io::Result<Option<i32>> {
    let Some(handle) = handle(process, PidfdFlags::NONBLOCK)? else { return Ok(None) };
    // Between the two look-ups the PID may have passed to another process.
    if !alive(process) {
        return Ok(None);
    }
    #[expect(
        deprecated,
        reason = "an OwnedFd keeps its one descriptor, which is all that the unsafe successor asks for"
    )]
    let handle = AsyncFd::with_interest(handle, Interest::READABLE)?;
    handle.readable().await?.retain_ready();
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match exit::ask(handle.get_ref()) {
            Told::Code(code) => return Ok(Some(code)),
            Told::NotYet if begun.elapsed() < PARENT_PATIENCE => {}
            Told::NotYet | Told::Never => return Ok(None),
        }
        sleep(pause).await;
        pause *= 2;
    }
}
