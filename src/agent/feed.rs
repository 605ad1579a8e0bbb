//! Feed: what goes to a command's standard input, from its request or from a client.
//!
//! Without a terminal the end of the input is told by closing our half of the
//! engine's connection. With one it never is: the engine would take it for the end of
//! the command's output too. There, the end of the input is the terminal's to say.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, Bytes};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    hub::Hub,
    input::{Fed, InputError},
};
use crate::{
    api::{ExecRequestSpec, OnDisconnect},
    engine::ExecInput,
};

/// How long a client whose connection an agent has cut by ending may take to come back.
const COME_BACK: Duration = Duration::from_secs(30);

/// How much of the input has reached the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes.
    pub(super) delivered: u64,
    /// Taken from a client, and not delivered.
    pub(super) pending: Bytes,
    /// The whole input was delivered, and its end.
    pub(super) ended: bool,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The whole input was delivered.
    Ended,
    /// The client that held it has gone without having ended it.
    Gone,
}

enum Source {
    /// All of it is pending.
    Request,
    Client {
        from: Option<mpsc::Receiver<Fed>>,
        on_disconnect: OnDisconnect,
        /// It was there before this agent: until when it may come back.
        missed: Option<Instant>,
    },
    /// There is none, or no more.
    Over,
}

/// The input of one command.
pub(super) struct Feeder {
    hub: Arc<Hub>,
    to: Option<ExecInput>,
    source: Source,
    tty: bool,
    progress: Progress,
}

impl Feeder {
    /// Feeds the command from its beginning, or from where another agent has stopped.
    pub(super) fn new(hub: &Arc<Hub>, spec: &ExecRequestSpec, to: Option<ExecInput>, before: Option<Progress>) -> Self {
        let resumed = before.is_some();
        let mut progress = before.unwrap_or_default();
        let whole = whole(spec);
        let source = match (spec.stdin.as_ref().and_then(|stdin| stdin.attach.as_ref()), whole) {
            _ if progress.ended || to.is_none() => Source::Over,
            (Some(attach), _) => Source::Client {
                from: None,
                on_disconnect: attach.on_disconnect,
                missed: resumed.then(|| Instant::now() + COME_BACK),
            },
            (None, Some(mut whole)) => {
                let delivered = usize::try_from(progress.delivered).unwrap_or(usize::MAX).min(whole.len());
                progress.pending = whole.split_off(delivered);
                Source::Request
            }
            (None, None) => Source::Over,
        };
        if matches!(source, Source::Over) {
            hub.input.close(if progress.ended { InputError::Ended } else { InputError::Lost });
        }
        Self { hub: Arc::clone(hub), to, source, tty: spec.tty, progress }
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Feeds until there is news. May be left at any await.
    pub(super) async fn feed(&mut self) -> News {
        loop {
            let Some(to) = &mut self.to else { return std::future::pending().await };
            if !self.progress.pending.is_empty() {
                match to.write(&self.progress.pending).await {
                    Ok(written) => {
                        self.progress.pending.advance(written);
                        self.progress.delivered += written as u64;
                    }
                    // It takes no more: that is the command's choice.
                    Err(error) => self.over(&error),
                }
                continue;
            }
            match &mut self.source {
                Source::Request => return self.end(),
                Source::Over => return std::future::pending().await,
                Source::Client { from: Some(from), on_disconnect, .. } => match from.recv().await {
                    Some(Fed::Bytes(bytes)) => self.progress.pending = bytes,
                    Some(Fed::End) if !self.tty => return self.end(),
                    Some(Fed::End) => {}
                    None => {
                        let cancel = *on_disconnect == OnDisconnect::Cancel;
                        return self.gone(cancel);
                    }
                },
                Source::Client { from, on_disconnect: OnDisconnect::Cancel, missed: Some(until) } => {
                    match timeout_at(*until, self.hub.input.source()).await {
                        Ok(source) => *from = Some(source),
                        Err(_) => return self.gone(true),
                    }
                }
                Source::Client { from, .. } => *from = Some(self.hub.input.source().await),
            }
        }
    }

    fn gone(&mut self, cancel: bool) -> News {
        if let Source::Client { from, missed, .. } = &mut self.source {
            (*from, *missed) = (None, None);
        }
        if cancel {
            self.hub.input.give_up();
        }
        News::Gone
    }

    fn end(&mut self) -> News {
        self.progress.ended = true;
        self.source = Source::Over;
        if !self.tty
            && let Some(to) = &self.to
        {
            to.close();
        }
        self.hub.input.close(InputError::Ended);
        News::Ended
    }

    fn over(&mut self, error: &std::io::Error) {
        tracing::debug!(%error, "the command takes no more input");
        self.to = None;
        self.source = Source::Over;
        self.progress.pending.clear();
        self.hub.input.close(InputError::Ended);
    }
}

/// The input that the request itself has.
fn whole(spec: &ExecRequestSpec) -> Option<Bytes> {
    let stdin = spec.stdin.as_ref()?;
    match (&stdin.text, &stdin.data) {
        (Some(text), _) => Some(Bytes::copy_from_slice(text.as_bytes())),
        // The definition lets nothing else through than base64.
        (None, Some(data)) => Some(STANDARD.decode(data).unwrap_or_default().into()),
        (None, None) => None,
    }
}
