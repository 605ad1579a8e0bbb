//! Opening a stream again and again: how long to pause, and when to give up.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::watched::{PATIENCE, Watched};
use crate::{
    cli::{
        error::{self, Error},
        request::is_finished,
    },
    core::pauses::Pauses,
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long to try to get the output of a request that has finished.
const AFTER_THE_END: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Attempts {
    pauses: Pauses,
    /// Since when there is no answer at all.
    unanswered: Option<Instant>,
    /// Since when they fail though the request has finished.
    after_the_end: Option<Instant>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { pauses: Pauses::new(FIRST_PAUSE, LONGEST_PAUSE), unanswered: None, after_the_end: None }
    }
}

impl Attempts {
    /// An attempt has succeeded; the stream may have been of no use all the same.
    pub fn opened(&mut self) {
        self.unanswered = None;
    }

    /// Pauses after a failed attempt; `false` if another one is of no use.
    pub async fn go_on(&mut self, watched: &Watched, source: &kube::Error) -> Result<bool, Error> {
        let (answer, why) = (error::answer(source), error::explain(source));
        watched.check_patience()?;
        if answer.is_some() {
            self.unanswered = None;
        } else if self.unanswered.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return Err(Error::Unwatched { name: watched.name(), why });
        }
        if watched.is_gone() {
            return Ok(false);
        }
        if is_finished(&watched.last()) {
            let since = self.after_the_end.get_or_insert_with(Instant::now);
            if since.elapsed() > AFTER_THE_END || answer == Some(404) {
                return Ok(false);
            }
        }
        watched.speech.trouble(&format!("{}: its output is not available yet: {why}; retrying", watched.name()));
        sleep(self.pauses.next_pause()).await;
        Ok(true)
    }
}
