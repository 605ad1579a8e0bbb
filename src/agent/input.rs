//! Input of a command from a client: who holds it, and how it comes from there.
//!
//! One client at a time. What it sends waits for the command, and the client for it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::hub::Hub;

/// Messages of a client that wait for the command.
const WAITING: usize = 2;

/// What the client that holds the input sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fed {
    /// Input.
    Bytes(Bytes),
    /// Its end.
    End,
}

/// Why a client cannot have the input.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InputError {
    /// Another has it.
    #[error("the input is held by {0}: attach without stdin to watch")]
    Held(String),
    /// It was ended.
    #[error("the input was ended already: attach without stdin to watch")]
    Ended,
    /// It cannot reach the command any more.
    #[error(
        "the input cannot reach the command any more: the agent was restarted and has lost the connection; attach without stdin to watch"
    )]
    Lost,
}

#[derive(Debug, Default)]
struct State {
    holder: Option<String>,
    /// That of the holder, until the command takes it.
    source: Option<mpsc::Receiver<Fed>>,
    closed: Option<InputError>,
}

impl State {
    fn is_free(&self) -> Result<(), InputError> {
        let held = self.holder.clone().map(InputError::Held);
        self.closed.clone().or(held).map_or(Ok(()), Err)
    }
}

/// The input of one command.
#[derive(Debug)]
pub struct Input {
    state: Mutex<State>,
    held: watch::Sender<bool>,
    given_up: CancellationToken,
}

impl Default for Input {
    fn default() -> Self {
        Self { state: Mutex::default(), held: watch::channel(false).0, given_up: CancellationToken::new() }
    }
}

/// The input is held by a client, for as long as it has this.
pub struct Hold {
    hub: Arc<Hub>,
    sender: mpsc::Sender<Fed>,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

impl Hold {
    /// Waits until the command has room for more. `false`: it takes no more.
    pub async fn send(&self, fed: Fed) -> bool {
        self.sender.send(fed).await.is_ok()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.hub.input.state().holder = None;
        self.hub.input.held.send_replace(false);
    }
}

impl Input {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it can be had now.
    ///
    /// # Errors
    /// When it cannot.
    pub fn is_free(&self) -> Result<(), InputError> {
        self.state().is_free()
    }

    /// Takes the input of the hub's command for `client`.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn hold(hub: &Arc<Hub>, client: &str) -> Result<Hold, InputError> {
        let mut state = hub.input.state();
        state.is_free()?;
        let (sender, source) = mpsc::channel(WAITING);
        state.holder = Some(client.to_owned());
        state.source = Some(source);
        drop(state);
        hub.input.held.send_replace(true);
        hub.client_arrived();
        Ok(Hold { hub: Arc::clone(hub), sender })
    }

    /// Nobody can have it from now on.
    pub fn close(&self, why: InputError) {
        let mut state = self.state();
        state.closed.get_or_insert(why);
        state.source = None;
    }

    /// Whether a client holds it now.
    #[must_use]
    pub fn is_held(&self) -> bool {
        *self.held.borrow()
    }

    /// Waits until a client holds it.
    pub async fn held(&self) {
        let mut held = self.held.subscribe();
        // The sender is this value's own.
        let _held = held.wait_for(|held| *held).await.is_ok();
    }

    /// Waits for a client, and gives what it sends.
    pub async fn source(&self) -> mpsc::Receiver<Fed> {
        let mut held = self.held.subscribe();
        loop {
            if let Some(source) = self.state().source.take() {
                return source;
            }
            if held.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The client is gone, and the command is to end with it.
    pub fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Waits until that is so.
    pub async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}
