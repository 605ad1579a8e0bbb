//! Limits how often something is logged that strangers can cause.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Rarely(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    passed_over: u64,
}

impl Rarely {
    /// Counts an occurrence. If it is to be logged, gives how many there were since the last time.
    pub fn happened(&self) -> Option<u64> {
        let mut state = self.0.lock();
        state.passed_over += 1;
        if state.said.is_some_and(|said| said.elapsed() < EVERY) {
            return None;
        }
        state.said = Some(Instant::now());
        Some(std::mem::take(&mut state.passed_over))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_said_at_once_and_then_once_a_minute_with_how_often_it_was() {
        let rarely = Rarely::default();
        assert_eq!(rarely.happened(), Some(1));
        for _ in 0..1000 {
            assert_eq!(rarely.happened(), None);
        }
        advance(EVERY).await;
        assert_eq!(rarely.happened(), Some(1001));
        assert_eq!(rarely.happened(), None);
    }
}
