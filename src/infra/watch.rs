//! Watches that do not go on where that might tell nothing.
//!
//! A watch goes on from the version that it has told last. After an older state of the API server was restored there is no
//! such version yet, and the watch is silent until there is: what was set back, and what was changed until then, it never
//! tells. Whoever restores stops the API servers first. So a watch that could not be opened again begins anew, with a list,
//! as an API server that has just started demands of most watches anyway.

use std::{fmt::Debug, time::Duration};

use futures::{Stream, StreamExt, stream};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        utils::Backoff as _,
        watcher::{self, Error, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::retry::WatchPauses;

/// A watch that has gone on for so long is one that can be opened: the next pause is short again.
const STEADY: Duration = Duration::from_secs(60);

pub fn watch<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = Result<Event<K>, Error>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    anew(move || watcher(api.clone(), config.clone()).backoff(WatchPauses::default()).boxed())
}

/// Whether a watch that has failed so must not go on where it was.
pub fn has_lost_its_place(error: &Error) -> bool {
    match error {
        // There it is, and has only too much to do.
        Error::WatchStartFailed(kube::Error::Api(status)) => status.code != 429,
        Error::WatchStartFailed(_) => true,
        Error::InitialListFailed(_) | Error::WatchError(_) | Error::WatchFailed(_) | Error::NoResourceVersion => false,
    }
}

fn anew<S, T>(mut open: impl FnMut() -> S + Send) -> impl Stream<Item = Result<T, Error>> + Send
where
    S: Stream<Item = Result<T, Error>> + Unpin + Send,
    T: Send,
{
    let first = (open(), Instant::now(), false);
    // Its pauses are not those of the watch, which are short again after each list.
    stream::unfold((first, open, WatchPauses::default()), |(last, mut open, mut pauses)| async move {
        let (mut events, mut since, is_lost) = last;
        if is_lost {
            if since.elapsed() > STEADY {
                pauses.reset();
            }
            sleep(pauses.next().unwrap_or_default()).await;
            (events, since) = (open(), Instant::now());
        }
        let event = events.next().await?;
        let is_lost = event.as_ref().is_err_and(has_lost_its_place);
        Some((event, ((events, since, is_lost), open, pauses)))
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::infra::call::refused;

    fn unreachable() -> kube::Error {
        kube::Error::Service(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)))
    }

    /// What is told by watches of which the first ends with this error, and how many there were.
    async fn told(error: Error) -> (Vec<i32>, usize) {
        let mut opened = 0;
        let mut error = Some(error);
        let open = || {
            opened += 1;
            let first = error.take().map(|error| [Ok(1), Err(error), Ok(2)]);
            let events = first.map_or_else(|| vec![Ok(10)], Vec::from);
            stream::iter(events)
        };
        let told: Vec<i32> = anew(open).filter_map(|event| async move { event.ok() }).collect().await;
        (told, opened)
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_never_can_be_opened_is_tried_ever_more_seldom() {
        let open = || stream::iter([Ok(1), Err(Error::WatchStartFailed(refused(403)))]);
        let begun = Instant::now();
        let listed = anew(open).filter(|event| std::future::ready(event.is_ok()));
        assert_eq!(listed.take(20).count().await, 20);
        assert!(begun.elapsed() > Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_could_not_be_opened_again_begins_anew() {
        for error in [unreachable(), refused(410), refused(500), refused(503)] {
            assert_eq!(told(Error::WatchStartFailed(error)).await, (vec![1, 10], 2));
        }
        for error in [
            Error::WatchStartFailed(refused(429)),
            Error::WatchFailed(unreachable()),
            Error::InitialListFailed(unreachable()),
        ] {
            let what = error.to_string();
            assert_eq!(told(error).await, (vec![1, 2], 1), "{what}");
        }
    }
}
