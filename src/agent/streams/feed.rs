//! Feed: what goes to a command's standard input, from its request or from a client.
//!
//! Without a terminal, the end of the input is told by ending the engine's stream of it. With one it never is: an engine
//! may take it for the end of the output too. How input ends at a terminal is for the client to type.

use std::{sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};

use super::input::{Fed, Input, InputState};
use crate::{
    api::{ExecRequestSpec, OnDisconnect},
    engine::ExecInput,
    wire::words::InputError,
};

/// How long a client may take to come back after an agent has cut its connection by ending.
const COME_BACK: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FeedEvent {
    Ended,
    /// The client that held the input has left without having ended it.
    Gone,
}

enum Source {
    /// All of the input is pending.
    Whole,
    Client {
        on_disconnect: OnDisconnect,
        /// For a client of the agent before this one: until when it may come back.
        missed: Option<Instant>,
    },
    /// There is none, or no more.
    Over,
}

pub(crate) struct Feeder {
    input: Arc<Input>,
    to: Option<ExecInput>,
    source: Source,
    tty: bool,
    state: InputState,
}

impl Feeder {
    /// Feeds the command from the beginning of its input, or from where another agent has stopped.
    pub(crate) fn new(
        input: &Arc<Input>,
        spec: &ExecRequestSpec,
        to: Option<ExecInput>,
        before: Option<InputState>,
    ) -> Self {
        if to.as_ref().is_some_and(ExecInput::outlives_agent) {
            input.confirm();
        }
        let resumed = before.is_some();
        let mut state = before.unwrap_or_default();
        let source = match (spec.input_from_client(), spec.own_input().ok().flatten().map(Bytes::from)) {
            _ if state.ended || to.is_none() => Source::Over,
            _ if state.ending => Source::Whole,
            (Some(attach), _) => {
                let missed = resumed.then(|| Instant::now() + COME_BACK);
                Source::Client { on_disconnect: attach.on_disconnect, missed }
            }
            (None, Some(mut whole)) => {
                let delivered = usize::try_from(state.delivered).unwrap_or(usize::MAX).min(whole.len());
                state.pending = whole.split_off(delivered);
                Source::Whole
            }
            // What cannot be read was refused before the exec was created: the command gets nothing of it but the end.
            (None, None) if spec.stdin.is_some() => Source::Whole,
            (None, None) => Source::Over,
        };
        if matches!(source, Source::Over) {
            input.close(if state.ended { InputError::Ended } else { InputError::Lost });
        }
        let feeder = Self { input: Arc::clone(input), to, source, tty: spec.tty, state };
        feeder.resume();
        feeder
    }

    /// Whether the next agent can go on with it, without anything from this one.
    pub(crate) fn may_be_left(&self) -> bool {
        matches!(self.source, Source::Over) || self.to.as_ref().is_some_and(ExecInput::outlives_agent)
    }

    pub(crate) fn progress(&self) -> &InputState {
        &self.state
    }

    /// Takes no more, and returns how far it has come, with everything that was taken. What a client sends from now on
    /// waits, for [`Self::resume`] or for good: the client is not told that it has arrived.
    pub(crate) fn stop(&mut self) -> InputState {
        if let Source::Client { .. } = &self.source {
            let mut pending = BytesMut::from(&self.state.pending[..]);
            for fed in self.input.stop() {
                match fed {
                    Fed::Bytes(bytes) => pending.extend_from_slice(&bytes),
                    Fed::End => self.state.ending |= !self.tty,
                    Fed::Gone => {}
                }
            }
            self.state.pending = pending.freeze();
            if self.state.ending {
                self.source = Source::Whole;
            }
        }
        let mut state = self.state.clone();
        if matches!(self.source, Source::Whole) && !state.ending {
            // The next agent has it from the request.
            state.pending.clear();
        }
        state
    }

    /// Takes from clients, also after a [`Self::stop`], but only once what is pending has gone: it would grow with each
    /// handover.
    pub(crate) fn resume(&self) {
        if let Source::Client { .. } = &self.source
            && self.state.pending.is_empty()
        {
            self.input.open();
        }
    }

    /// Feeds until something happens. Cancel-safe.
    pub(crate) async fn feed(&mut self) -> FeedEvent {
        loop {
            let Some(to) = &mut self.to else { return std::future::pending().await };
            if !self.state.pending.is_empty() {
                match to.write(&self.state.pending).await {
                    Ok(written) => {
                        self.state.pending.advance(written);
                        self.state.delivered += written as u64;
                        if self.state.pending.is_empty() && !self.state.ending {
                            self.input.handed_over();
                        }
                    }
                    // It takes no more: that is the command's choice.
                    Err(error) => self.over(&error),
                }
                continue;
            }
            self.resume();
            match &mut self.source {
                Source::Whole => return self.end().await,
                Source::Over => return std::future::pending().await,
                Source::Client { on_disconnect: OnDisconnect::Cancel, missed: missed @ Some(_) } => {
                    let until = missed.unwrap_or_else(Instant::now);
                    let came = timeout_at(until, self.input.came()).await.is_ok();
                    *missed = None;
                    if !came {
                        return self.gone(true);
                    }
                }
                Source::Client { on_disconnect, .. } => match self.input.next().await {
                    Fed::Bytes(bytes) if bytes.is_empty() => self.input.handed_over(),
                    Fed::Bytes(bytes) => self.state.pending = bytes,
                    // Put down before it is told, which may take a while and be left.
                    Fed::End if !self.tty => {
                        self.state.ending = true;
                        self.source = Source::Whole;
                    }
                    // Nothing is to be done for it.
                    Fed::End => self.input.handed_over(),
                    Fed::Gone => {
                        let cancel = *on_disconnect == OnDisconnect::Cancel;
                        return self.gone(cancel);
                    }
                },
            }
        }
    }

    fn gone(&self, cancel: bool) -> FeedEvent {
        if cancel {
            self.input.give_up();
        }
        FeedEvent::Gone
    }

    async fn end(&mut self) -> FeedEvent {
        if !self.tty
            && let Some(to) = &self.to
            && let Err(error) = to.close().await
        {
            // The command has ended, or will never know.
            tracing::debug!(%error, "the end of the input could not be told");
        }
        self.state.ended = true;
        self.source = Source::Over;
        self.input.close(InputError::Ended);
        FeedEvent::Ended
    }

    fn over(&mut self, error: &std::io::Error) {
        tracing::debug!(%error, "the command takes no more input");
        self.to = None;
        self.source = Source::Over;
        self.state.pending.clear();
        self.input.close(InputError::Ended);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future::BoxFuture};
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixStream,
        time::timeout,
    };

    use super::*;
    use crate::{
        agent::streams::{hub::Hubs, input::PENDING_BYTES},
        engine::{ExecStream, InputSink},
    };

    fn spec(stdin: &serde_json::Value, tty: bool) -> ExecRequestSpec {
        serde_json::from_value(json!({"target": {"podName": "db"}, "command": ["cat"], "stdin": stdin, "tty": tty}))
            .expect("a spec")
    }

    /// The engine's side of a connection, and ours.
    fn connection() -> (UnixStream, ExecStream) {
        let (engine, ours) = UnixStream::pair().expect("a pair");
        (engine, ExecStream::over(ours, Box::new(crate::engine::framing::Raw), bytes::BytesMut::new(), true))
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(30), future).await.expect("in time")
    }

    #[tokio::test]
    async fn the_input_of_a_request_goes_whole_and_its_end_with_it() {
        for stdin in [json!({"text": "hello"}), json!({"data": "aGVsbG8="})] {
            let (mut engine, stream) = connection();
            let hub = Hubs::default().of(&"u".into());
            let mut feeder = Feeder::new(&hub.input, &spec(&stdin, false), stream.input(), None);
            assert_eq!(within(feeder.feed()).await, FeedEvent::Ended);
            let mut all = String::new();
            within(engine.read_to_string(&mut all)).await.expect("read");
            assert_eq!(all, "hello");
            engine.write_all(b"output").await.expect("the other direction stays open");
            assert!(feeder.progress().ended);
            assert_eq!(hub.input.hold("me").err(), Some(InputError::Ended));
        }
    }

    #[tokio::test]
    async fn the_next_agent_goes_on_in_the_middle_of_the_input() {
        let (mut engine, stream) = connection();
        let hub = Hubs::default().of(&"u".into());
        let before = InputState { delivered: 2, ..InputState::default() };
        let mut feeder = Feeder::new(&hub.input, &spec(&json!({"text": "hello"}), false), stream.input(), Some(before));
        assert_eq!(within(feeder.feed()).await, FeedEvent::Ended);
        let mut all = String::new();
        within(engine.read_to_string(&mut all)).await.expect("read");
        assert_eq!(all, "llo");
    }

    #[tokio::test]
    async fn what_is_pending_does_not_grow_with_each_agent() {
        let (_engine, stream) = connection();
        let spec = spec(&json!({"attach": {}}), false);
        let mut left = InputState { pending: vec![b'x'; PENDING_BYTES].into(), ..InputState::default() };
        for _ in 0..3 {
            let hub = Hubs::default().of(&"u".into());
            let hold = hub.input.hold("me").expect("the input");
            let mut feeder = Feeder::new(&hub.input, &spec, stream.input(), Some(left));
            let more = timeout(Duration::ZERO, hold.send(Fed::Bytes("more".into()))).await;
            assert!(more.is_err(), "it waits for what came before");
            left = feeder.stop();
            assert!(left.pending.len() <= PENDING_BYTES);
        }
    }

    #[tokio::test]
    async fn what_a_client_has_sent_goes_to_the_next_agent_with_its_end() {
        let (mut engine, stream) = connection();
        let hub = Hubs::default().of(&"u".into());
        let spec = spec(&json!({"attach": {}}), false);
        let hold = hub.input.hold("me").expect("the input");
        let mut feeder = Feeder::new(&hub.input, &spec, stream.input(), None);
        assert!(hold.send(Fed::Bytes("one ".into())).await);
        let mut first = [0; 4];
        tokio::select! {
            news = feeder.feed() => panic!("{news:?}"),
            read = engine.read_exact(&mut first) => drop(read.expect("read")),
        }
        assert!(hold.send(Fed::Bytes("two".into())).await);
        assert!(hold.send(Fed::End).await);
        let left = feeder.stop();
        assert_eq!(left, InputState { delivered: 4, pending: "two".into(), ending: true, ended: false });
        let late = timeout(Duration::ZERO, hold.send(Fed::Bytes("late".into()))).await;
        assert!(late.is_err(), "what nobody takes is not said to have arrived");
        let mut next = Feeder::new(&Hubs::default().of(&"u".into()).input, &spec, stream.input(), Some(left));
        assert_eq!(within(next.feed()).await, FeedEvent::Ended);
        let mut rest = String::new();
        within(engine.read_to_string(&mut rest)).await.expect("read");
        assert_eq!(rest, "two");
    }

    #[tokio::test]
    async fn a_handover_that_fails_takes_no_input_from_anybody() {
        let (mut engine, stream) = connection();
        let hub = Hubs::default().of(&"u".into());
        let spec = spec(&json!({"attach": {"onDisconnect": "Cancel"}}), false);
        let hold = hub.input.hold("me").expect("the input");
        let mut feeder = Feeder::new(&hub.input, &spec, stream.input(), None);
        assert!(hold.send(Fed::Bytes("before, ".into())).await);
        feeder.stop();
        feeder.resume();
        let client = async {
            assert!(hold.send(Fed::Bytes("after".into())).await);
            assert!(hold.send(Fed::End).await);
        };
        let (news, ()) = within(async { tokio::join!(feeder.feed(), client) }).await;
        assert_eq!(news, FeedEvent::Ended, "the client is not said to have gone");
        assert!(timeout(Duration::ZERO, hub.input.given_up()).await.is_err());
        let mut all = String::new();
        within(engine.read_to_string(&mut all)).await.expect("read");
        assert_eq!(all, "before, after");
    }

    #[tokio::test]
    async fn a_client_that_goes_away_leaves_the_command_waiting_or_ends_it() {
        for (policy, ends) in [("KeepRunning", false), ("Cancel", true)] {
            let (mut engine, stream) = connection();
            let hub = Hubs::default().of(&"u".into());
            let hold = hub.input.hold("me").expect("the input");
            assert!(matches!(hub.input.hold("you").err(), Some(InputError::Held(by)) if by == "me"));
            let stdin = json!({"attach": {"onDisconnect": policy}});
            let mut feeder = Feeder::new(&hub.input, &spec(&stdin, false), stream.input(), None);
            assert!(hold.send(Fed::Bytes("a".into())).await);
            drop(hold);
            assert_eq!(within(feeder.feed()).await, FeedEvent::Gone);
            let given_up = timeout(Duration::ZERO, hub.input.given_up()).await.is_ok();
            assert_eq!(given_up, ends, "{policy}");
            // The next one goes on: the input has not ended.
            let hold = hub.input.hold("you").expect("the input is free");
            assert!(hold.send(Fed::Bytes("b".into())).await);
            assert!(hold.send(Fed::End).await);
            assert_eq!(within(feeder.feed()).await, FeedEvent::Ended);
            let mut all = String::new();
            within(engine.read_to_string(&mut all)).await.expect("read");
            assert_eq!(all, "ab");
        }
    }

    /// A way in that outlives agents, and takes nothing before it is let.
    #[derive(Debug)]
    struct Lasting {
        open: tokio::sync::Semaphore,
        taken: parking_lot::Mutex<Vec<u8>>,
    }

    impl Lasting {
        fn new() -> Arc<Self> {
            Arc::new(Self { open: tokio::sync::Semaphore::new(0), taken: parking_lot::Mutex::default() })
        }
    }

    impl InputSink for Lasting {
        fn write<'a>(&'a self, bytes: &'a [u8]) -> BoxFuture<'a, std::io::Result<usize>> {
            async move {
                self.open.acquire().await.expect("open").forget();
                self.taken.lock().extend_from_slice(&bytes[..1]);
                Ok(1)
            }
            .boxed()
        }

        fn close(&self) -> BoxFuture<'_, std::io::Result<()>> {
            async move {
                self.open.acquire().await.expect("open").forget();
                Ok(())
            }
            .boxed()
        }

        fn outlives_agent(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn a_client_is_told_that_its_input_has_arrived_once_that_outlives_this_agent() {
        let hub = Hubs::default().of(&"u".into());
        let way_in = Lasting::new();
        let to = ExecInput::Sink(Arc::clone(&way_in) as Arc<dyn InputSink>);
        let mut feeder = Feeder::new(&hub.input, &spec(&json!({"attach": {}}), false), Some(to), None);
        assert!(feeder.may_be_left());
        let hold = hub.input.hold("me").expect("the input");
        for (fed, takes) in [(Fed::Bytes("two".into()), 3), (Fed::Bytes(Bytes::new()), 0), (Fed::End, 1)] {
            assert!(hold.send(fed.clone()).await);
            for taken in 0..takes {
                tokio::select! {
                    () = hold.arrived() => panic!("{fed:?} has not arrived after {taken}"),
                    news = feeder.feed() => panic!("{news:?}"),
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
                way_in.open.add_permits(1);
            }
            tokio::select! {
                biased;
                () = within(hold.arrived()) => assert_ne!(fed, Fed::End),
                news = feeder.feed() => assert_eq!((news, fed), (FeedEvent::Ended, Fed::End)),
            }
        }
        within(hold.arrived()).await;
        assert_eq!(*way_in.taken.lock(), b"two");
    }

    #[tokio::test]
    async fn what_does_not_outlive_this_agent_is_not_waited_for() {
        let (_engine, stream) = connection();
        let hub = Hubs::default().of(&"u".into());
        let feeder = Feeder::new(&hub.input, &spec(&json!({"attach": {}}), false), stream.input(), None);
        assert!(!feeder.may_be_left());
        let hold = hub.input.hold("me").expect("the input");
        assert!(hold.send(Fed::Bytes("a".into())).await);
        within(hold.arrived()).await;
    }

    #[tokio::test]
    async fn the_input_of_a_terminal_is_never_closed() {
        let (mut engine, stream) = connection();
        let hub = Hubs::default().of(&"u".into());
        let hold = hub.input.hold("me").expect("the input");
        let mut feeder = Feeder::new(&hub.input, &spec(&json!({"attach": {}}), true), stream.input(), None);
        assert!(hold.send(Fed::End).await);
        assert!(hold.send(Fed::Bytes("on".into())).await);
        drop(hold);
        assert_eq!(within(feeder.feed()).await, FeedEvent::Gone);
        let mut read = [0; 2];
        within(engine.read_exact(&mut read)).await.expect("read");
        assert_eq!(&read, b"on");
        let closed = timeout(Duration::from_millis(50), engine.read(&mut read)).await;
        assert!(closed.is_err(), "{closed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_whose_connection_an_update_has_cut_has_time_to_come_back() {
        let (_engine, stream) = connection();
        let hub = Hubs::default().of(&"u".into());
        let stdin = json!({"attach": {"onDisconnect": "Cancel"}});
        let mut feeder = Feeder::new(&hub.input, &spec(&stdin, false), stream.input(), Some(InputState::default()));
        let begun = Instant::now();
        assert_eq!(feeder.feed().await, FeedEvent::Gone);
        assert!(begun.elapsed() >= COME_BACK);
        hub.input.given_up().await;
    }
}
