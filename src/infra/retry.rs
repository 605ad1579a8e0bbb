//! How long a watch lasts, and how soon it is opened again after an error.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use kube::runtime::{utils::Backoff, watcher};

use crate::core::pauses::Pauses;

/// How long one watch lasts, in seconds; the next goes on where it has ended. A watch whose connection is dead is given
/// up 5 s later: soon enough for a request to start within the default deadline of 60 s.
const WATCH_SECONDS: u32 = 30;

/// First pause; doubles up to [`LONGEST`]. Up to as much again is added at random, so that the agents of a cluster do not
/// all come back at once.
const FIRST: Duration = Duration::from_millis(200);
/// Short, so that requests go on within seconds of an API server's return.
const LONGEST: Duration = Duration::from_millis(1500);

pub fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

#[derive(Clone, Debug)]
pub struct WatchPauses(Pauses);

impl Default for WatchPauses {
    fn default() -> Self {
        Self(Pauses::new(FIRST, LONGEST))
    }
}

impl Iterator for WatchPauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0.next_pause();
        let chance = RandomState::new().hash_one(pause) % 1000;
        Some(pause + pause * u32::try_from(chance).unwrap_or(0) / 1000)
    }
}

impl Backoff for WatchPauses {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_start_over() {
        let mut pauses = WatchPauses::default();
        let all: Vec<Duration> = pauses.by_ref().take(6).collect();
        assert!(all[0] >= FIRST && all[0] < FIRST * 2, "{all:?}");
        assert!(all[5] >= LONGEST && all[5] < LONGEST * 2, "{all:?}");
        pauses.reset();
        assert!(pauses.next().is_some_and(|pause| pause < FIRST * 2));
    }
}
