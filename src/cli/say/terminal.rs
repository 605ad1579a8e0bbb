//! Our own terminal: raw while a command has it, and always restored.
//!
//! Whoever makes it raw restores it on every return and every signal that is listened
//! for; the last words of a panic ([`super::last_words`]) cover the rest.

use std::{
    io::{self, IsTerminal as _},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use rustix::{
    fs::{Stat, fstat},
    termios::{self, OptionalActions, Termios},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: u16,
    pub rows: u16,
}

/// The settings from before the terminal became raw, while it is.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether standard input is the command's.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// From now on standard input is the command's.
pub fn take() {
    TAKEN.store(true, Ordering::Relaxed);
}

/// Whether somebody else can be typed to: standard input is a terminal, and not the command's.
pub fn is_free() -> bool {
    !TAKEN.load(Ordering::Relaxed) && io::stdin().is_terminal()
}

/// Whether standard output and standard error are the same terminal.
pub fn is_shared() -> bool {
    let device = |of: rustix::io::Result<Stat>| of.map(|stat| stat.st_rdev).ok();
    device(fstat(io::stdout())) == device(fstat(io::stderr()))
}

pub fn make_raw() -> io::Result<()> {
    let before = termios::tcgetattr(io::stdin())?;
    let mut raw = before.clone();
    raw.make_raw();
    // Saved first: whatever happens from here on is undone.
    *BEFORE.lock() = Some(before);
    Ok(termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?)
}

pub fn restore() {
    if let Some(before) = BEFORE.lock().take() {
        // If this fails the terminal is gone, and nobody is left to be told.
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &before).unwrap_or_default();
    }
}

/// Whether lines must end with a carriage return.
pub fn is_raw() -> bool {
    BEFORE.lock().is_some()
}

/// The size of the terminal, on whichever of the standard streams is one.
pub fn size() -> Option<Size> {
    let of = |size: rustix::io::Result<termios::Winsize>| {
        let size = size.ok().filter(|size| size.ws_col > 0 && size.ws_row > 0)?;
        Some(Size { columns: size.ws_col, rows: size.ws_row })
    };
    of(termios::tcgetwinsize(io::stdout()))
        .or_else(|| of(termios::tcgetwinsize(io::stdin())))
        .or_else(|| of(termios::tcgetwinsize(io::stderr())))
}
