//! Pulse: how late this program's tasks have their turn, on a node that is too busy for them.
//!
//! Whoever sees that something has happened learns from it by how much earlier it may have been.

use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until};

/// How often it is taken.
const EVERY: Duration = Duration::from_millis(250);
/// For how long a delay counts, at least.
const MEMORY: Duration = Duration::from_secs(5);

/// Taken by one task, for all.
#[derive(Debug)]
pub struct Pulse(Mutex<Beats>);

#[derive(Debug)]
struct Beats {
    /// When the next one is due.
    due: Instant,
    /// Since when the longest delay is looked for, that one, and the one of the time before.
    since: Instant,
    longest: Duration,
    before: Duration,
}

impl Default for Pulse {
    fn default() -> Self {
        let now = Instant::now();
        Self(Mutex::new(Beats { due: now, since: now, longest: Duration::ZERO, before: Duration::ZERO }))
    }
}

impl Pulse {
    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.0.lock()
    }

    /// Takes it, for ever.
    pub async fn take(self: Arc<Self>) {
        loop {
            let due = self.beats().due;
            sleep_until(due).await;
            let now = Instant::now();
            let mut beats = self.beats();
            beats.longest = beats.longest.max(now.duration_since(due));
            if now.duration_since(beats.since) >= MEMORY {
                beats.before = std::mem::take(&mut beats.longest);
                beats.since = now;
            }
            beats.due = now + EVERY;
        }
    }

    /// The longest delay of late, be it one that lasts. It is long while nobody takes the pulse.
    pub fn delay(&self) -> Duration {
        let now = Instant::now();
        let beats = self.beats();
        beats.before.max(beats.longest).max(now.saturating_duration_since(beats.due))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_delay_counts_while_it_lasts_and_for_a_time_after() {
        let pulse = Arc::new(Pulse::default());
        advance(Duration::from_secs(9)).await;
        assert_eq!(pulse.delay(), Duration::from_secs(9), "nobody takes it");
        let pulse = Arc::new(Pulse::default());
        tokio::spawn(Arc::clone(&pulse).take());
        sleep(Duration::from_secs(3)).await;
        assert!(pulse.delay() < Duration::from_millis(10), "{:?}", pulse.delay());
        // Nobody has a turn meanwhile.
        advance(Duration::from_secs(2)).await;
        assert!(pulse.delay() >= Duration::from_millis(1700), "{:?}", pulse.delay());
        sleep(Duration::from_secs(1)).await;
        assert!(pulse.delay() >= Duration::from_millis(1700), "{:?}", pulse.delay());
        sleep(Duration::from_millis(3500)).await;
        assert!(pulse.delay() >= Duration::from_millis(1700), "{:?}", pulse.delay());
        sleep(MEMORY * 2).await;
        assert!(pulse.delay() < Duration::from_millis(10), "{:?}", pulse.delay());
    }
}
