//! One request as it changes, and waiting for what it is to become.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::signals::Owned;
use crate::{
    api::ExecRequest,
    cli::{
        cluster::requests::Requests,
        error,
        error::Error,
        say::{speech::Speech, words},
    },
    infra::retry::WatchPauses,
};

/// How long the API server may be silent before the plugin gives up.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How often the progress is told anew.
const TICK: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct View {
    request: Arc<ExecRequest>,
    gone: bool,
    /// Since when the API server does not answer, and what it is.
    trouble: Option<(Instant, Arc<watcher::Error>)>,
}

/// A request that is being watched.
#[derive(Debug)]
pub struct Watched {
    view: watch::Receiver<View>,
    _task: Owned,
}

/// What became of a request that was waited for.
#[derive(Debug)]
pub enum Reached {
    /// It is as wanted.
    Here(Arc<ExecRequest>),
    /// It was deleted; this is what it was.
    Gone(Arc<ExecRequest>),
}

impl Watched {
    /// Watches a request that has just been read.
    pub fn new(requests: &Requests, request: ExecRequest) -> Self {
        let name = request.metadata.name.clone().unwrap_or_default();
        let (sender, view) = watch::channel(View { request: Arc::new(request), gone: false, trouble: None });
        let watch = watcher::watch_object(requests.api.clone(), &name).backoff(WatchPauses::default());
        let task = Owned::spawn(async move {
            let mut watch = Box::pin(watch);
            while let Some(seen) = watch.next().await {
                sender.send_modify(|view| take(view, seen));
            }
        });
        Self { view, _task: task }
    }

    /// The request as it was last seen.
    pub fn last(&self) -> Arc<ExecRequest> {
        self.view.borrow().request.clone()
    }

    /// Whether it has been deleted.
    pub fn is_gone(&self) -> bool {
        self.view.borrow().gone
    }

    /// Whether the API server may still come back.
    ///
    /// # Errors
    /// When it has been silent for too long.
    pub fn is_heard(&self) -> Result<(), Error> {
        let view = self.view.borrow();
        match &view.trouble {
            Some((since, why)) if since.elapsed() > PATIENCE => {
                Err(failed(view.request.metadata.name.as_deref().unwrap_or_default(), why))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Waits until the request is so, or is gone.
    ///
    /// # Errors
    /// When the API server refuses to tell, or is silent for too long.
    pub async fn until(&mut self, speech: &Speech, holds: impl Fn(&ExecRequest) -> bool) -> Result<Reached, Error> {
        loop {
            let view = self.view.borrow_and_update().clone();
            if holds(&view.request) {
                speech.clear();
                return Ok(Reached::Here(view.request));
            }
            if view.gone {
                speech.clear();
                return Ok(Reached::Gone(view.request));
            }
            let name = view.request.metadata.name.as_deref().unwrap_or_default();
            match &view.trouble {
                None => speech.progress(&format!("{name}: {}", words::state(&view.request))),
                Some((since, why)) => {
                    if is_refusal(why) || since.elapsed() > PATIENCE {
                        speech.clear();
                        return Err(failed(name, why));
                    }
                    speech.hitch(&format!("{name}: the API server does not answer: {}", cause(why)));
                }
            }
            // A closed channel is a watch that has ended, which it does not; the tick goes on.
            drop(timeout(TICK, self.view.changed()).await);
        }
    }
}

/// Whether it has finished, in whichever way.
pub fn is_finished(request: &ExecRequest) -> bool {
    request.status.as_ref().is_some_and(|status| status.completion_time.is_some())
}

fn take(view: &mut View, seen: Result<Option<ExecRequest>, watcher::Error>) {
    match seen {
        Ok(Some(request)) if request.metadata.uid == view.request.metadata.uid => {
            view.trouble = None;
            view.request = Arc::new(request);
        }
        // Deleted; or another one has its name by now.
        Ok(None | Some(_)) => {
            view.trouble = None;
            view.gone = true;
        }
        Err(error) => {
            let since = view.trouble.take().map_or_else(Instant::now, |(since, _)| since);
            view.trouble = Some((since, Arc::new(error)));
        }
    }
}

fn is_refusal(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
            matches!(error::answer(error), Some(401 | 403))
        }
        watcher::Error::WatchError(_) | watcher::Error::WatchFailed(_) | watcher::Error::NoResourceVersion => false,
    }
}

fn cause(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error::explain(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

fn failed(name: &str, error: &watcher::Error) -> Error {
    Error::Unwatched { name: name.to_owned(), why: cause(error) }
}
