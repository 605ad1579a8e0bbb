//! The exit code of a process that is not our child: the kernel keeps it for
//! whoever holds a pidfd that was opened before the end.
//!
//! Linux 6.15 and later, by the ioctl `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`. No
//! crate offers it safely, so this file has the one unsafe block of the project.
#![allow(unsafe_code, reason = "one ioctl, which fills a struct of plain numbers")]

use std::os::fd::AsFd;

use rustix::{
    io::Errno,
    ioctl::{Updater, ioctl, opcode},
};

/// `PIDFD_INFO_EXIT` of linux/pidfd.h.
const INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info` of linux/pidfd.h, as it was when the exit code came into it.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pid: u32,
    thread_group: u32,
    parent: u32,
    ids: [u32; 8],
    exit_code: i32,
}

const GET_INFO: rustix::ioctl::Opcode = opcode::read_write::<PidfdInfo>(0xFF, 11);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It ended with this code, 128 + N for signal N.
    Code(i32),
    /// Its parent has not taken note of its end yet: ask again.
    NotYet,
    /// This kernel does not tell.
    Never,
}

pub(super) fn ask(pidfd: impl AsFd) -> Told {
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the opcode names this very struct, with its size; the kernel writes numbers into it.
    let asked = unsafe { ioctl(pidfd, Updater::<GET_INFO, PidfdInfo>::new(&mut info)) };
    match asked {
        Ok(()) if info.mask & INFO_EXIT != 0 => Told::Code(decode(info.exit_code)),
        Ok(()) | Err(Errno::SRCH) => Told::NotYet,
        Err(_) => Told::Never,
    }
}

/// The code of a wait status, as a shell has it.
fn decode(status: i32) -> i32 {
    match status & 0x7f {
        0 => (status >> 8) & 0xff,
        signal => 128 + signal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_is_decoded_as_a_shell_does() {
        assert_eq!([0, 3 << 8, 255 << 8, 15, 9, 0x80 + 11].map(decode), [0, 3, 255, 143, 137, 139]);
    }
}
