//! One object as it changes, and waiting for what it becomes.

use std::{future::pending, sync::Arc, time::Duration};

use kube::Api;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    followed::Followed,
    news::{self, News},
};
use crate::{
    api::ExecRequest,
    cli::{
        cluster::connection::{Cluster, SILENCE},
        error::Error,
        say::speech::Speech,
    },
};

/// How long the API server may be silent before the plugin gives up.
pub const PATIENCE: Duration = Duration::from_secs(300);
const TICK: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct View<K> {
    object: Arc<K>,
    gone: Option<Gone>,
    trouble: Option<Trouble>,
    /// When the API server was last in trouble.
    troubled: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    /// `object` is what it was in the end.
    Seen,
    Unseen,
}

#[derive(Clone, Debug)]
struct Trouble {
    since: Instant,
    refused: bool,
    why: String,
}

pub struct Watched<K = ExecRequest> {
    view: watch::Receiver<View<K>>,
    pub speech: Speech,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
pub enum Reached<K = ExecRequest> {
    Here(Arc<K>),
    /// It was deleted, and this is what it was in the end.
    Deleted(Arc<K>),
    /// It is gone. This is what was last seen of it: it may have gone on since, and finished.
    Vanished(Arc<K>),
}

/// An object as it was last seen.
#[derive(Clone, Debug)]
pub struct Look<K>(View<K>);

impl<K: Followed> Look<K> {
    pub fn object(&self) -> &Arc<K> {
        &self.0.object
    }

    /// Where it ends, if it is gone.
    pub fn gone(&self) -> Option<Reached<K>> {
        let object = self.0.object.clone();
        self.0.gone.map(|gone| match gone {
            Gone::Seen => Reached::Deleted(object),
            Gone::Unseen => Reached::Vanished(object),
        })
    }

    /// Why there is no news, if that is so.
    ///
    /// # Errors
    /// If there will not be any.
    pub fn trouble(&self) -> Result<Option<&str>, Error> {
        match &self.0.trouble {
            None => Ok(None),
            Some(trouble) if trouble.refused || trouble.since.elapsed() > PATIENCE => Err(failed(&self.0, trouble)),
            Some(trouble) => Ok(Some(&trouble.why)),
        }
    }
}

impl<K: Followed> Watched<K> {
    pub fn new(cluster: &Cluster, object: K, speech: &Speech) -> Self {
        let first = object.clone();
        let view = View { object: Arc::new(object), gone: None, trouble: None, troubled: None };
        let (sender, view) = watch::channel(view);
        let api = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let task = tokio::spawn(async move {
            news::watch(api, &first, |news| sender.send_modify(|view| update(view, news))).await;
            // Who waits for a change waits for the channel, too.
            pending::<()>().await;
        });
        Self { view, speech: speech.clone(), _task: AbortOnDropHandle::new(task) }
    }

    pub fn last(&self) -> Arc<K> {
        self.view.borrow().object.clone()
    }

    pub fn name(&self) -> String {
        self.view.borrow().object.name()
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

    /// Waits until another connection, on which nothing comes, has to be taken for dead: the object has finished, or
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
            if !here || self.last().has_finished() {
                over.get_or_insert_with(Instant::now);
            }
            if troubled || over.is_some_and(|over: Instant| over.elapsed() >= SILENCE) {
                return format!("nothing received for {} s", begun.elapsed().as_secs());
            }
            sleep(TICK).await;
        }
    }

    pub fn look(&mut self) -> Look<K> {
        Look(self.view.borrow_and_update().clone())
    }

    /// Waits for a change since the last look, but not for long.
    pub async fn change(&mut self) {
        // A closed channel would be a watch that has ended, which none does; the tick goes on.
        drop(timeout(TICK, self.view.changed()).await);
    }

    /// Waits until the object is so, or is gone; shows the progress meanwhile.
    pub async fn until(&mut self, holds: impl Fn(&K) -> bool) -> Result<Reached<K>, Error> {
        loop {
            let (look, speech) = (self.look(), self.speech.clone());
            let object = look.object();
            if holds(object) {
                speech.clear();
                return Ok(Reached::Here(object.clone()));
            }
            if let Some(gone) = look.gone() {
                speech.clear();
                return Ok(gone);
            }
            match look.trouble().inspect_err(|_| speech.clear())? {
                None => speech.progress(&format!("{}: {}", object.name(), object.in_words())),
                Some(why) => {
                    speech.trouble(&format!("{}: the API server does not answer: {why}; retrying", object.name()));
                }
            }
            self.change().await;
        }
    }
}

fn update<K>(view: &mut View<K>, news: News<K>) {
    match news {
        News::Here(object) => view.object = (*object).into(),
        News::Deleted(object) => (view.object, view.gone) = ((*object).into(), Some(Gone::Seen)),
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

fn failed<K: Followed>(view: &View<K>, trouble: &Trouble) -> Error {
    Error::Unwatched { name: view.object.name(), why: trouble.why.clone() }
}
