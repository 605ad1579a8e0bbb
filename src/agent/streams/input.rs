//! Input of a command from a client: who holds it, and how it comes from there.
//!
//! One client at a time. What it sends waits for the command, and the client for it. Nothing is taken from it before
//! somebody takes it for the command: whoever leaves before that has given nothing that could be lost.

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::hub::Hub;
use crate::wire::words::InputError;

/// Messages of clients that wait for the command.
pub(crate) const WAITING: usize = 2;

/// What comes from clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fed {
    /// Input.
    Bytes(Bytes),
    /// Its end.
    End,
    /// The client that held it has gone, and no other has come.
    Gone,
}

#[derive(Debug, Default)]
struct State {
    holder: Option<String>,
    /// Whoever held it last has gone, and the command has not heard of it.
    left: bool,
    /// Taken from clients, and not by the command.
    waiting: VecDeque<Fed>,
    /// Whether somebody takes it for the command.
    taken: bool,
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
    changed: watch::Sender<()>,
    given_up: CancellationToken,
}

impl Default for Input {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::channel(()).0, given_up: CancellationToken::new() }
    }
}

/// The input is held by a client, for as long as it has this.
pub struct Hold(Arc<Hub>);

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

impl Hold {
    /// Waits until the command has room for more, also if nobody is there to take it. `false`: it takes no more.
    /// Safe to cancel: then it was not given.
    pub async fn send(&self, fed: Fed) -> bool {
        let input = &self.0.input;
        let mut fed = Some(fed);
        let given = input.until(|state| {
            if state.closed.is_some() {
                return Some(false);
            }
            if !state.taken || state.waiting.len() >= WAITING {
                return None;
            }
            state.waiting.extend(fed.take());
            Some(true)
        });
        let given = given.await;
        input.changed.send_replace(());
        given
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.input.change(|state| {
            state.holder = None;
            state.left = true;
        });
    }
}

impl Input {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether it can be had now.
    ///
    /// # Errors
    /// When it cannot.
    pub fn is_free(&self) -> Result<(), InputError> {
        self.state().is_free()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.changed.send_replace(());
        changed
    }

    /// Waits until the state is such, and gives what was found in it.
    async fn until<T>(&self, mut find: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = find(&mut self.state()) {
                return found;
            }
            if changes.changed().await.is_err() {
                // The sender is this value's own.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes the input of the hub's command for `client`.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn hold(hub: &Arc<Hub>, client: &str) -> Result<Hold, InputError> {
        hub.input.change(|state| {
            state.is_free()?;
            state.holder = Some(client.to_owned());
            state.left = false;
            Ok(())
        })?;
        hub.client_arrived();
        Ok(Hold(Arc::clone(hub)))
    }

    /// Nobody can have it from now on.
    pub fn close(&self, why: InputError) {
        self.change(|state| {
            state.closed.get_or_insert(why);
            state.waiting.clear();
        });
    }

    /// Whether a client holds it now.
    pub fn is_held(&self) -> bool {
        self.state().holder.is_some()
    }

    /// Waits until a client holds it.
    pub async fn held(&self) {
        self.until(|state| state.holder.is_some().then_some(())).await;
    }

    /// From now on it is taken for the command.
    pub fn open(&self) {
        // Whoever waits is not woken for nothing.
        if !self.state().taken {
            self.change(|state| state.taken = true);
        }
    }

    /// From now on it is not, until it is opened again. Gives what was taken from clients, whose next message waits.
    pub fn stop(&self) -> Vec<Fed> {
        self.change(|state| {
            state.taken = false;
            state.waiting.drain(..).collect()
        })
    }

    /// Waits until a client has come, be it that it has gone again.
    pub async fn came(&self) {
        self.until(|state| (state.holder.is_some() || state.left || !state.waiting.is_empty()).then_some(())).await;
    }

    /// Waits for what comes next. Safe to cancel.
    pub async fn next(&self) -> Fed {
        let next = self.until(|state| {
            let gone = state.left && state.holder.is_none();
            state.waiting.pop_front().or_else(|| {
                state.left = false;
                gone.then_some(Fed::Gone)
            })
        });
        let next = next.await;
        // There is room for more.
        self.changed.send_replace(());
        next
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::agent::streams::hub::Hubs;

    fn bytes(text: &'static str) -> Fed {
        Fed::Bytes(text.into())
    }

    /// Whether it is there at once.
    async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        timeout(Duration::ZERO, future).await.ok()
    }

    #[tokio::test]
    async fn what_one_client_has_given_comes_before_what_the_next_one_gives() {
        let hub = Hubs::default().of(&"u".into());
        hub.input.open();
        let first = Input::hold(&hub, "me").expect("the input");
        assert!(first.send(bytes("one ")).await);
        drop(first);
        let second = Input::hold(&hub, "you").expect("the input");
        assert!(second.send(bytes("two ")).await);
        assert_eq!(now(second.send(bytes("three"))).await, None, "the queue has a bound, whoever fills it");
        assert_eq!(hub.input.next().await, bytes("one "));
        assert_eq!(now(second.send(bytes("three"))).await, Some(true));
        drop(second);
        for expected in [bytes("two "), bytes("three"), Fed::Gone] {
            assert_eq!(now(hub.input.next()).await, Some(expected));
        }
        assert_eq!(now(hub.input.next()).await, None, "it has gone once");
    }

    #[tokio::test]
    async fn nothing_is_taken_from_a_client_before_somebody_takes_it_for_the_command() {
        let hub = Hubs::default().of(&"u".into());
        let hold = Input::hold(&hub, "me").expect("the input");
        assert_eq!(now(hold.send(bytes("early"))).await, None);
        hub.input.open();
        assert_eq!(now(hold.send(bytes("in time"))).await, Some(true));
        assert_eq!(hub.input.stop(), [bytes("in time")]);
        assert_eq!(now(hold.send(bytes("late"))).await, None, "its next message waits, and is not lost");
        hub.input.close(InputError::Ended);
        assert_eq!(now(hold.send(bytes("too late"))).await, Some(false));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_takes_it_from_one_that_goes_is_never_said_not_to_hold_it() {
        let hub = Hubs::default().of(&"u".into());
        let clients = (0..4).map(|_| {
            let hub = Arc::clone(&hub);
            tokio::task::spawn_blocking(move || {
                for _ in 0..20_000 {
                    if let Ok(hold) = Input::hold(&hub, "me") {
                        assert!(hub.input.is_held());
                        drop(hold);
                    }
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.expect("a client");
        }
        assert!(!hub.input.is_held());
    }
}
