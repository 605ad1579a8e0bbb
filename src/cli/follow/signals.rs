//! The signals that the plugin listens for: to end, to stop and go on, and a new size of its terminal.

use std::{future::poll_fn, task::Poll};

use rustix::process::{Signal as ToSelf, getpid, kill_process};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

use crate::cli::{
    error::Error,
    say::terminal::{self, Size},
};

#[derive(Debug)]
pub struct Stops([(SignalKind, Signal); 4]);

impl Stops {
    pub fn listen() -> Result<Self, Error> {
        let on = |kind| Ok((kind, listen(kind)?));
        Ok(Self([
            on(SignalKind::interrupt())?,
            on(SignalKind::terminate())?,
            on(SignalKind::hangup())?,
            on(SignalKind::quit())?,
        ]))
    }

    pub async fn next(&mut self) -> SignalKind {
        poll_fn(|context| {
            let mut all = self.0.iter_mut();
            let next = all.find_map(|(kind, signal)| signal.poll_recv(context).is_ready().then_some(*kind));
            next.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(Error::local("cannot listen for signals"))
}

/// The size of the terminal, now and whenever it changes; `None` without a terminal, or if the command has none.
pub fn sizes(tty: bool) -> Result<(watch::Receiver<Option<Size>>, AbortOnDropHandle<()>), Error> {
    let mut changed = listen(SignalKind::window_change())?;
    let size = move || terminal::size().filter(|_| tty);
    let (sender, receiver) = watch::channel(size());
    let task = tokio::spawn(async move {
        while changed.recv().await.is_some() {
            sender.send_replace(size());
        }
    });
    Ok((receiver, AbortOnDropHandle::new(task)))
}

/// A raw terminal that is restored while the plugin is stopped (SIGTSTP).
#[derive(Debug)]
pub struct HeldTerminal {
    _suspend: AbortOnDropHandle<()>,
}

impl HeldTerminal {
    pub fn take() -> Result<Self, Error> {
        let on = |kind: ToSelf| listen(SignalKind::from_raw(kind.as_raw()));
        let (mut stop, mut go_on) = (on(ToSelf::TSTP)?, on(ToSelf::CONT)?);
        terminal::make_raw().map_err(Error::local("cannot take the terminal"))?;
        let suspend = tokio::spawn(async move {
            while stop.recv().await.is_some() {
                let was_raw = terminal::is_raw();
                terminal::restore();
                // STOP cannot be caught. It may stop this thread last, which therefore does nothing more
                // until CONT. If the size has changed, the kernel signals that then.
                kill_process(getpid(), ToSelf::STOP).unwrap_or_default();
                if go_on.recv().await.is_some() && was_raw {
                    // If the terminal is no longer ours, its new owner's settings stand.
                    drop(terminal::make_raw());
                }
            }
        });
        Ok(Self { _suspend: AbortOnDropHandle::new(suspend) })
    }
}

impl Drop for HeldTerminal {
    fn drop(&mut self) {
        terminal::restore();
    }
}
