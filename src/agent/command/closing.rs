//! Closing: when no end of a command's output can be expected any more.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{container, running::RunningCommand, seen::Seen};
use crate::{agent::node::World, core::pauses::Pauses};

/// So long after the end of a process it is looked at whether its container has ended, too, and then so often at least.
const LOOK_AFTER: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long output may come after the end of its container.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// Waits until no end of the stream can be expected any more, and says why: for so long after that of the process, or a
/// little after that of its container, for which an engine may leave it open.
pub(super) async fn stays_open<W: World>(
    RunningCommand { node, exec, .. }: RunningCommand<'_, W>,
    mut seen: watch::Receiver<Seen>,
    closes_within: Duration,
) -> &'static str {
    let mut seen_too = seen.clone();
    let of_container = async {
        after_end(&mut seen_too, Some(LOOK_AFTER)).await;
        let mut pauses = Pauses::new(LOOK_AFTER, LOOK_EVERY);
        while !container::is_over(node, exec).await.unwrap_or(false) {
            sleep(pauses.next_pause()).await;
        }
        // What is on its way comes first.
        sleep(LAST_OUTPUT).await;
    };
    tokio::select! {
        biased;
        () = of_container => "the container has ended",
        () = after_end(&mut seen, Some(closes_within)) => "the process has ended",
    }
}

/// Waits until the process has ended, and for so much longer.
pub(super) async fn after_end(seen: &mut watch::Receiver<Seen>, time: Option<Duration>) {
    let noticed = seen.wait_for(|seen| seen.noticed.is_some()).await.ok().and_then(|seen| seen.noticed);
    at(noticed.zip(time).map(|(noticed, time)| noticed + time)).await;
}

/// Waits until then; for ever, if there is no such time.
pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
