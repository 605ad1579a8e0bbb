//! The signals that the plugin listens for, and the size of its terminal.

use rustix::process::{Signal as ToSelf, getpid, kill_process};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use crate::cli::{
    error::Error,
    say::terminal::{self, Raw, Size},
};

/// Somebody wants the plugin to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Ctrl-C.
    Interrupt,
    /// `kill`.
    Terminate,
    /// The terminal has gone.
    HangUp,
    /// Ctrl-\.
    Quit,
}

impl Stop {
    /// 128 and the signal's number, as a shell says it.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::HangUp => 129,
            Self::Interrupt => 130,
            Self::Quit => 131,
            Self::Terminate => 143,
        }
    }
}

/// The signals that end a program.
#[derive(Debug)]
pub struct Stops {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    quit: Signal,
}

impl Stops {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn listen() -> Result<Self, Error> {
        let on = |kind| signal(kind).map_err(Error::local("cannot listen for signals"));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
            quit: on(SignalKind::quit())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Stop {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Stop::Interrupt,
            Some(()) = self.terminate.recv() => Stop::Terminate,
            Some(()) = self.hang_up.recv() => Stop::HangUp,
            Some(()) = self.quit.recv() => Stop::Quit,
        }
    }
}

/// A task that ends with its owner.
#[derive(Debug)]
pub struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Owned {
    /// Runs until its owner goes.
    pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

/// The size of the terminal, now and whenever it changes.
///
/// # Errors
/// When the system does not let us listen.
pub fn sizes() -> Result<(watch::Receiver<Option<Size>>, Owned), Error> {
    let mut changed = signal(SignalKind::window_change()).map_err(Error::local("cannot listen for signals"))?;
    let (sender, receiver) = watch::channel(terminal::size());
    let task = Owned::spawn(async move {
        while changed.recv().await.is_some() {
            sender.send_replace(terminal::size());
        }
    });
    Ok((receiver, task))
}

/// A raw terminal that lets itself be stopped (SIGTSTP) and continued.
#[derive(Debug)]
pub struct HeldTerminal {
    _raw: Raw,
    _suspend: Owned,
}

impl HeldTerminal {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When there is none.
    pub fn take() -> Result<Self, Error> {
        let on = |kind: ToSelf| {
            signal(SignalKind::from_raw(kind.as_raw())).map_err(Error::local("cannot listen for signals"))
        };
        let (mut stop, mut go_on) = (on(ToSelf::TSTP)?, on(ToSelf::CONT)?);
        let raw = Raw::enter().map_err(Error::local("cannot take the terminal"))?;
        let suspend = Owned::spawn(async move {
            while stop.recv().await.is_some() {
                let was_raw = terminal::is_raw();
                terminal::restore();
                // STOP cannot be caught. It may take hold of this thread last, which therefore does
                // nothing more before it is told to go on. Of a new size the kernel tells then itself.
                kill_process(getpid(), ToSelf::STOP).unwrap_or_default();
                if go_on.recv().await.is_some() && was_raw {
                    // If it is not ours any longer, its new owner's settings stand.
                    drop(terminal::make_raw());
                }
            }
        });
        Ok(Self { _raw: raw, _suspend: suspend })
    }
}
