//! What becomes of one object, as far as it was seen.
//!
//! The watch goes on from the version that was read, so that nothing between the two is missed. Where the API server
//! knows that version no longer, it is looked again, and that the object is gone says nothing about how it ended.

use std::time::Duration;

use futures::StreamExt as _;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use tokio::time::{Instant, sleep, timeout};

use super::followed::Followed;
use crate::{
    cli::{
        cluster::connection::SILENCE,
        error::{answer, explain},
    },
    infra::retry::WatchPauses,
};

/// How long one watch lasts, in seconds. Where the API server ends it in time, its connection was alive.
const WATCH_SECONDS: u32 = 10;
const _: () = assert!((WATCH_SECONDS as u64) < SILENCE.as_secs(), "the end of a quiet watch must come in time");
/// A watch that ends sooner, without news, is not opened again at once.
const SOON: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub enum News<K> {
    Here(Box<K>),
    /// It was deleted, and this is what it was in the end.
    Deleted(Box<K>),
    /// It is gone: how it ended was not seen.
    Vanished,
    /// The API server answers: there is nothing new.
    Nothing,
    Trouble(Trouble),
}

#[derive(Debug)]
pub struct Trouble {
    /// The API server does not let us see it.
    pub refused: bool,
    pub why: String,
    /// The version that was read is of no use any more.
    outdated: bool,
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        let code = answer(&error);
        // Of an API server that is just starting or has too much to do the version is as good as before.
        let outdated = !matches!(code, None | Some(429 | 503));
        Self { refused: matches!(code, Some(401 | 403)), why: explain(&error), outdated }
    }
}

impl Trouble {
    fn silence() -> Self {
        Self { refused: false, why: format!("nothing received for {} s", SILENCE.as_secs()), outdated: false }
    }
}

/// Tells of an object until it is gone.
pub async fn watch<K: Followed>(api: Api<K>, object: &K, tell: impl Fn(News<K>)) {
    let (name, uid, version) = (object.name_any(), object.uid(), object.resource_version());
    let mut watch = Watch { api, name, uid, version, silent: false, tell };
    let mut pauses = WatchPauses::default();
    loop {
        let begun = Instant::now();
        match watch.once().await {
            Ok(On::Gone) => return,
            Ok(On::More) => pauses = WatchPauses::default(),
            Ok(On::Nothing) if begun.elapsed() >= SOON => pauses = WatchPauses::default(),
            Ok(On::Nothing) => sleep(pauses.next().unwrap_or(SOON)).await,
            Err(trouble) => {
                if trouble.outdated {
                    watch.version = None;
                }
                (watch.tell)(News::Trouble(trouble));
                sleep(pauses.next().unwrap_or(SOON)).await;
            }
        }
    }
}

/// How one watch has ended.
enum On {
    More,
    Nothing,
    Gone,
}

struct Watch<K, F> {
    api: Api<K>,
    name: String,
    uid: Option<String>,
    /// Up to which everything was seen; `None`: look again.
    version: Option<String>,
    /// The last watch was opened, but nothing came: that one can be opened again says little.
    silent: bool,
    tell: F,
}

impl<K: Followed, F: Fn(News<K>)> Watch<K, F> {
    async fn once(&mut self) -> Result<On, Trouble> {
        let mut on = On::Nothing;
        let version = match self.version.take() {
            Some(version) => version,
            None => match self.look().await? {
                Some(version) => version,
                None => return Ok(On::Gone),
            },
        };
        let params = WatchParams::default().fields(&self.fields()).timeout(WATCH_SECONDS);
        self.version = Some(version.clone());
        let mut watch = Box::pin(in_time(self.api.watch(&params, &version)).await??);
        if !self.silent {
            (self.tell)(News::Nothing);
        }
        while let Some(event) = in_time(watch.next()).await.inspect_err(|_| self.silent = true)? {
            self.silent = false;
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    if !self.seen(object) {
                        return Ok(On::Gone);
                    }
                    on = On::More;
                }
                WatchEvent::Deleted(object) => {
                    (self.tell)(if object.uid() == self.uid { News::Deleted(object.into()) } else { News::Vanished });
                    return Ok(On::Gone);
                }
                WatchEvent::Bookmark(mark) => self.version = Some(mark.metadata.resource_version),
                WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
            }
        }
        self.silent = false;
        (self.tell)(News::Nothing);
        Ok(on)
    }

    /// Looks at the object as it is; `None` if it is gone.
    async fn look(&mut self) -> Result<Option<String>, Trouble> {
        let params = ListParams::default().fields(&self.fields());
        let list = in_time(self.api.list(&params)).await??;
        let Some(object) = list.items.into_iter().next() else {
            (self.tell)(News::Vanished);
            return Ok(None);
        };
        Ok(self.seen(object).then(|| list.metadata.resource_version.unwrap_or_default()))
    }

    /// Tells of it; `false` if it is another one that has its name by now.
    fn seen(&mut self, object: K) -> bool {
        let same = object.uid() == self.uid;
        self.version = object.resource_version();
        (self.tell)(if same { News::Here(object.into()) } else { News::Vanished });
        same
    }

    fn fields(&self) -> String {
        format!("metadata.name={}", self.name)
    }
}

/// Whatever takes longer comes over a connection that is dead.
async fn in_time<T>(wanted: impl Future<Output = T>) -> Result<T, Trouble> {
    timeout(SILENCE, wanted).await.map_err(|_| Trouble::silence())
}
