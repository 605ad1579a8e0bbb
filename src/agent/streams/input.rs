//! The input of a command from a client: who holds it, and how it comes from there.
//!
//! One client at a time. A client waits until the command takes what it sends. Nothing is taken from it while nobody
//! takes it for the command: a client that leaves before that has given nothing that could be lost.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    core::ids::RequestUid,
    wire::{base64_text, words::InputError},
};

/// Most bytes of a client's message. client-go sends 32 KiB and one.
pub const MESSAGE_BYTES: usize = 256 * 1024;
/// Messages of clients that wait for the command.
const WAITING: usize = 2;

/// Most bytes that one agent leaves pending to the next: a message that is on its way, and those that wait.
pub(crate) const PENDING_BYTES: usize = (1 + WAITING) * MESSAGE_BYTES;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InputState {
    /// Bytes.
    pub(crate) delivered: u64,
    /// Taken from a client, and not delivered.
    #[serde(with = "base64_text")]
    pub(crate) pending: Bytes,
    /// The end of the input follows what is pending.
    pub(crate) ending: bool,
    /// The whole input was delivered, and its end.
    pub(crate) ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fed {
    Bytes(Bytes),
    End,
    /// The client that held the input has left, and no other has come.
    Gone,
}

/// Of what was taken from clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Arrival {
    /// There is no place where it outlives this agent.
    #[default]
    Unconfirmed,
    /// It is on its way to such a place.
    UnderWay,
    Confirmed,
}

#[derive(Debug, Default)]
struct State {
    holder: Option<String>,
    /// The last holder has left, and [`Input::next`] has not said so.
    left: bool,
    /// Taken from clients, not yet by the command.
    waiting: VecDeque<Fed>,
    /// Whether somebody takes input for the command.
    taken: bool,
    arrival: Arrival,
    closed: Option<InputError>,
}

impl State {
    /// Something of what waits is taken.
    fn take(&mut self) {
        if !self.waiting.is_empty() && self.arrival == Arrival::Confirmed {
            self.arrival = Arrival::UnderWay;
        }
    }

    fn is_free(&self) -> Result<(), InputError> {
        let held = self.holder.clone().map(InputError::Held);
        self.closed.clone().or(held).map_or(Ok(()), Err)
    }
}

/// The requests whose input a client has taken, until somebody asks.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    of: Mutex<HashSet<RequestUid>>,
    some: Notify,
}

impl Arrivals {
    fn add(&self, uid: &RequestUid) {
        self.of.lock().insert(uid.clone());
        self.some.notify_one();
    }

    /// Waits until there are some, and takes them.
    pub(super) async fn next(&self) -> HashSet<RequestUid> {
        loop {
            let arrived = std::mem::take(&mut *self.of.lock());
            if !arrived.is_empty() {
                return arrived;
            }
            self.some.notified().await;
        }
    }
}

#[derive(Debug)]
pub struct Input {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    given_up: CancellationToken,
    /// Where to say that a client has taken it.
    arrivals: Option<(RequestUid, Arc<Arrivals>)>,
}

/// Holds the input for a client, for as long as it exists.
#[derive(Debug)]
pub struct Hold(Arc<Input>);

impl Hold {
    /// Waits until the command has room for more. `false`: it takes no more. Cancel-safe: then nothing was given.
    pub async fn send(&self, fed: Fed) -> bool {
        let mut fed = Some(fed);
        let given = self.0.until(|state| {
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
        self.0.changed.send_replace(());
        given
    }

    /// Waits until what was given is where it outlives this agent, if there is such a place.
    pub async fn arrived(&self) {
        let arrived = |state: &mut State| {
            let arrived = match state.arrival {
                Arrival::Unconfirmed => true,
                Arrival::UnderWay => false,
                Arrival::Confirmed => state.waiting.is_empty(),
            };
            (arrived || state.closed.is_some()).then_some(())
        };
        self.0.until(arrived).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.holder = None;
            state.left = true;
        });
    }
}

impl Input {
    pub(super) fn new(arrivals: Option<(RequestUid, Arc<Arrivals>)>) -> Self {
        let (state, changed) = (Mutex::default(), watch::channel(()).0);
        Self { state, changed, given_up: CancellationToken::new(), arrivals }
    }

    /// Whether a client could take it now; the error says why not.
    pub fn is_free(&self) -> Result<(), InputError> {
        self.state.lock().is_free()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state.lock());
        self.changed.send_replace(());
        changed
    }

    async fn until<T>(&self, mut find: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = find(&mut self.state.lock()) {
                return found;
            }
            if changes.changed().await.is_err() {
                // Never: the sender is this value's own.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes the input for `client`; the error says why it cannot be had.
    pub fn hold(self: &Arc<Self>, client: &str) -> Result<Hold, InputError> {
        self.change(|state| {
            state.is_free()?;
            state.holder = Some(client.to_owned());
            state.left = false;
            Ok(())
        })?;
        if let Some((uid, arrivals)) = &self.arrivals {
            arrivals.add(uid);
        }
        Ok(Hold(Arc::clone(self)))
    }

    /// Nobody can take it from now on. The first reason stands.
    pub fn close(&self, why: InputError) {
        self.change(|state| {
            state.closed.get_or_insert(why);
            state.waiting.clear();
        });
    }

    pub fn is_held(&self) -> bool {
        self.state.lock().holder.is_some()
    }

    pub async fn held(&self) {
        self.until(|state| state.holder.is_some().then_some(())).await;
    }

    /// From now on it is told when what was taken is where it outlives this agent.
    pub fn confirm(&self) {
        self.change(|state| {
            if state.arrival == Arrival::Unconfirmed {
                state.arrival = Arrival::Confirmed;
            }
        });
    }

    /// All that was taken is where it outlives this agent.
    pub fn handed_over(&self) {
        // Wakes nobody for nothing.
        if self.state.lock().arrival == Arrival::UnderWay {
            self.change(|state| state.arrival = Arrival::Confirmed);
        }
    }

    /// From now on somebody takes it for the command.
    pub fn open(&self) {
        // Wakes nobody for nothing.
        if !self.state.lock().taken {
            self.change(|state| state.taken = true);
        }
    }

    /// From now on nobody does, until it is opened again. Returns what was taken from clients; their next message waits.
    pub fn stop(&self) -> Vec<Fed> {
        self.change(|state| {
            state.taken = false;
            state.take();
            state.waiting.drain(..).collect()
        })
    }

    /// Waits until a client has come, even if it has left since.
    pub async fn came(&self) {
        self.until(|state| (state.holder.is_some() || state.left || !state.waiting.is_empty()).then_some(())).await;
    }

    /// Waits for what comes next. Cancel-safe.
    pub async fn next(&self) -> Fed {
        let next = self.until(|state| {
            let gone = state.left && state.holder.is_none();
            state.take();
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

    /// The client has left, and the command is to end with it.
    pub fn give_up(&self) {
        self.given_up.cancel();
    }

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
        let first = hub.input.hold("me").expect("the input");
        assert!(first.send(bytes("one ")).await);
        drop(first);
        let second = hub.input.hold("you").expect("the input");
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
        let hold = hub.input.hold("me").expect("the input");
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
                    if let Ok(hold) = hub.input.hold("me") {
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
