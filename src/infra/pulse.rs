//! How late the tasks of this program run on a busy node, and so by how much earlier than it was seen something may have
//! happened.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

const EVERY: Duration = Duration::from_millis(250);
/// How long a delay counts, at least.
const MEMORY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Pulse(Mutex<Beats>);

#[derive(Debug)]
struct Beats {
    due: Instant,
    /// The longest delay since `since`, and the longest of the period before.
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
    /// Takes the pulse. Never returns.
    pub async fn take(self: Arc<Self>) {
        loop {
            let due = self.0.lock().due;
            sleep_until(due).await;
            let now = Instant::now();
            let mut beats = self.0.lock();
            beats.longest = beats.longest.max(now.duration_since(due));
            if now.duration_since(beats.since) >= MEMORY {
                beats.before = std::mem::take(&mut beats.longest);
                beats.since = now;
            }
            beats.due = now + EVERY;
        }
    }

    /// The longest recent delay, including one that still lasts.
    pub fn delay(&self) -> Duration {
        let now = Instant::now();
        let beats = self.0.lock();
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
