//! One request as it changes, and waiting for what it becomes.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use kube::{
    ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    api::ExecRequest,
    cli::{
        cluster::connection::Cluster,
        error::{self, Error},
        say::{speech::Speech, words},
    },
    infra::retry::WatchPauses,
};

/// How long the API server may be silent before the plugin gives up.
pub const PATIENCE: Duration = Duration::from_secs(300);
const TICK: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct View {
    request: Arc<ExecRequest>,
    gone: bool,
    trouble: Option<Trouble>,
}

#[derive(Clone, Debug)]
struct Trouble {
    since: Instant,
    refused: bool,
    why: String,
}

pub struct Watched {
    view: watch::Receiver<View>,
    pub speech: Speech,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
pub enum Reached {
    Here(Arc<ExecRequest>),
    /// It was deleted; this is what it was.
    Gone(Arc<ExecRequest>),
}

impl Watched {
    pub fn new(cluster: &Cluster, request: ExecRequest, speech: &Speech) -> Self {
        let watch = watcher::watch_object(cluster.requests(), &request.name_any()).backoff(WatchPauses::default());
        let (sender, view) = watch::channel(View { request: Arc::new(request), gone: false, trouble: None });
        let task = tokio::spawn(async move {
            let mut watch = Box::pin(watch);
            while let Some(seen) = watch.next().await {
                sender.send_modify(|view| update(view, seen));
            }
        });
        Self { view, speech: speech.clone(), _task: AbortOnDropHandle::new(task) }
    }

    pub fn last(&self) -> Arc<ExecRequest> {
        self.view.borrow().request.clone()
    }

    pub fn name(&self) -> String {
        self.view.borrow().request.name_any()
    }

    pub fn is_gone(&self) -> bool {
        self.view.borrow().gone
    }

    pub fn check_patience(&self) -> Result<(), Error> {
        let view = self.view.borrow();
        match &view.trouble {
            Some(trouble) if trouble.since.elapsed() > PATIENCE => Err(failed(&view, trouble)),
            Some(_) | None => Ok(()),
        }
    }

    /// Waits until the request is so, or is gone; shows the progress meanwhile.
    pub async fn until(&mut self, holds: impl Fn(&ExecRequest) -> bool) -> Result<Reached, Error> {
        loop {
            let view = self.view.borrow_and_update().clone();
            let (name, speech) = (view.request.name_any(), &self.speech);
            if holds(&view.request) {
                speech.clear();
                return Ok(Reached::Here(view.request));
            }
            if view.gone {
                speech.clear();
                return Ok(Reached::Gone(view.request));
            }
            match &view.trouble {
                None => speech.progress(&format!("{name}: {}", words::state(&view.request))),
                Some(trouble) if trouble.refused || trouble.since.elapsed() > PATIENCE => {
                    speech.clear();
                    return Err(failed(&view, trouble));
                }
                Some(Trouble { why, .. }) => {
                    speech.trouble(&format!("{name}: the API server does not answer: {why}; retrying"));
                }
            }
            // A closed channel would be a watch that has ended, which none does; the tick goes on.
            drop(timeout(TICK, self.view.changed()).await);
        }
    }
}

fn update(view: &mut View, seen: Result<Option<ExecRequest>, watcher::Error>) {
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
            let since = view.trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
            let (answer, why) = match &error {
                watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
                    (error::answer(error), error::explain(error))
                }
                watcher::Error::WatchFailed(error) => (None, error::explain(error)),
                watcher::Error::WatchError(status) => (None, status.message.clone()),
                watcher::Error::NoResourceVersion => (None, error.to_string()),
            };
            view.trouble = Some(Trouble { since, refused: matches!(answer, Some(401 | 403)), why });
        }
    }
}

fn failed(view: &View, trouble: &Trouble) -> Error {
    Error::Unwatched { name: view.request.name_any(), why: trouble.why.clone() }
}
