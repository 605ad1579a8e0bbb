//! Opening a stream again and again: how long to pause, and when to give up.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::watched::{PATIENCE, Watched, is_finished};
use crate::{
    cli::{error, error::Error, say::speech::Speech},
    core::pauses::Pauses,
};

/// Pauses between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long to try to get the output of a request that has finished.
const AFTER_THE_END: Duration = Duration::from_secs(10);

/// The attempts to open one stream.
#[derive(Debug)]
pub struct Attempts {
    pauses: Pauses,
    /// Since when nobody answers at all.
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
    /// One has not failed. It may have been of no use all the same.
    pub fn opened(&mut self) {
        self.unanswered = None;
    }

    /// Pauses after an attempt that has failed; `false` if there is no use in another one.
    ///
    /// # Errors
    /// When the API server is silent for too long.
    pub async fn go_on(&mut self, watched: &Watched, speech: &Speech, source: &kube::Error) -> Result<bool, Error> {
        let request = watched.last();
        let name = request.metadata.name.as_deref().unwrap_or_default();
        let (answer, why) = (error::answer(source), error::explain(source));
        watched.is_heard()?;
        if answer.is_some() {
            self.unanswered = None;
        } else if self.unanswered.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return Err(Error::Unwatched { name: name.to_owned(), why });
        }
        if watched.is_gone() {
            return Ok(false);
        }
        if is_finished(&request) {
            let since = self.after_the_end.get_or_insert_with(Instant::now);
            if since.elapsed() > AFTER_THE_END || answer == Some(404) {
                return Ok(false);
            }
        }
        speech.hitch(&format!("{name}: its output cannot be had yet: {why}; trying on"));
        sleep(self.pauses.next()).await;
        Ok(true)
    }
}
