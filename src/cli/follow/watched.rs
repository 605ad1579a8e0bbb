//! One request as it changes, and waiting for what it becomes.

use std::{future::pending, sync::Arc, time::Duration};

use kube::ResourceExt as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::news::{self, News};
use crate::{
    api::ExecRequest,
    cli::{
        cluster::connection::{Cluster, SILENCE},
        error::Error,
        request::is_finished,
        say::{speech::Speech, words},
    },
};

/// How long the API server may be silent before the plugin gives up.
pub const PATIENCE: Duration = Duration::from_secs(300);
const TICK: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct View {
    request: Arc<ExecRequest>,
    gone: Option<Gone>,
    trouble: Option<Trouble>,
    /// When the API server was last in trouble.
    troubled: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    /// `request` is what it was in the end.
    Seen,
    Unseen,
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
    /// It was deleted, and this is what it was in the end.
    Deleted(Arc<ExecRequest>),
    /// It is gone. This is what was last seen of it: it may have run since, and finished.
    Vanished(Arc<ExecRequest>),
}

impl Watched {
    pub fn new(cluster: &Cluster, request: ExecRequest, speech: &Speech) -> Self {
        let first = request.clone();
        let view = View { request: Arc::new(request), gone: None, trouble: None, troubled: None };
        let (sender, view) = watch::channel(view);
        let api = cluster.requests();
        let task = tokio::spawn(async move {
            news::watch(api, &first, |news| sender.send_modify(|view| update(view, news))).await;
            // Who waits for a change waits for the channel, too.
            pending::<()>().await;
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
        self.view.borrow().gone.is_some()
    }

    pub fn check_patience(&self) -> Result<(), Error> {
        let view = self.view.borrow();
        match &view.trouble {
            Some(trouble) if trouble.since.elapsed() > PATIENCE => Err(failed(&view, trouble)),
            Some(_) | None => Ok(()),
        }
    }

    /// Waits until another connection, on which nothing comes, has to be taken for dead: the request has finished, or
    /// the API server was not heard from meanwhile. Where there will not be `another`, only if that lasts. Says why.
    pub async fn unheard(&self, another: bool) -> String {
        let begun = Instant::now();
        let mut over = None;
        loop {
            let (troubled, here) = {
                let view = self.view.borrow();
                let lasting = view.trouble.as_ref().map(|trouble| trouble.since.max(begun));
                let long = lasting.is_some_and(|since| since.elapsed() >= if another { SILENCE } else { PATIENCE });
                let back = view.trouble.is_none() && view.troubled.is_some_and(|at| at > begun);
                (long || back && another, view.gone.is_none())
            };
            if !here || is_finished(&self.last()) {
                over.get_or_insert_with(Instant::now);
            }
            if troubled || over.is_some_and(|over: Instant| over.elapsed() >= SILENCE) {
                return format!("nothing received for {} s", begun.elapsed().as_secs());
            }
            sleep(TICK).await;
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
            if let Some(gone) = view.gone {
                speech.clear();
                return Ok(match gone {
                    Gone::Seen => Reached::Deleted(view.request),
                    Gone::Unseen => Reached::Vanished(view.request),
                });
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

fn update(view: &mut View, news: News) {
    match news {
        News::Here(request) => view.request = (*request).into(),
        News::Deleted(request) => (view.request, view.gone) = ((*request).into(), Some(Gone::Seen)),
        News::Vanished => view.gone = Some(Gone::Unseen),
        News::Nothing => {}
        News::Trouble(news::Trouble { refused, why, .. }) => {
            let since = view.trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
            view.troubled = Some(Instant::now());
            view.trouble = Some(Trouble { since, refused, why });
            return;
        }
    }
    view.trouble = None;
}

fn failed(view: &View, trouble: &Trouble) -> Error {
    Error::Unwatched { name: view.request.name_any(), why: trouble.why.clone() }
}
