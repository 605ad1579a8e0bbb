//! What the plugin says on standard error: sentences, and a progress line that is overwritten and leaves
//! nothing behind.
//!
//! Progress and colour are only for a terminal, colour only without `NO_COLOR`.

use std::{
    io::{self, IsTerminal as _},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{duration, terminal};
use crate::core::printable::{is_printable, one_line};

/// Before each sentence, to tell it from the command's output.
const WHO: &str = "execlet: ";
/// A wait that is shorter shows no progress.
const QUIET_WAIT: Duration = Duration::from_millis(700);
/// Trouble that is over sooner is not mentioned.
const QUIET_TROUBLE: Duration = Duration::from_secs(5);
const ERASE: &str = "\r\x1b[K";

#[derive(Clone)]
pub struct Speech {
    is_terminal: bool,
    quiet: bool,
    since: Instant,
    shown: Arc<Mutex<bool>>,
    trouble: Arc<Mutex<Option<Trouble>>>,
    to: Arc<Mutex<dyn io::Write + Send>>,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Instant,
    said: bool,
}

impl Speech {
    /// Speaks on standard error; shows no progress if `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { is_terminal: io::stderr().is_terminal(), ..Self::to(quiet, io::stderr()) }
    }

    /// Speaks to something that is not a terminal.
    pub fn to(quiet: bool, to: impl io::Write + Send + 'static) -> Self {
        Self {
            is_terminal: false,
            quiet,
            since: Instant::now(),
            shown: Arc::default(),
            trouble: Arc::default(),
            to: Arc::new(Mutex::new(to)),
        }
    }

    pub const fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub fn say(&self, sentence: &str) {
        self.erase();
        let end = if terminal::is_raw() { "\r\n" } else { "\n" };
        self.write(&format!("{WHO}{}{end}", one_line(sentence)));
    }

    pub fn progress(&self, text: &str) {
        let waited = self.since.elapsed();
        if !self.is_terminal || self.quiet || waited < QUIET_WAIT {
            return;
        }
        let columns = terminal::size().map_or(80, |size| usize::from(size.columns));
        self.write(&format!("{ERASE}{}", line(text, waited, columns)));
        *self.shown.lock() = true;
    }

    /// Tells of trouble that is being waited out: as progress where that is shown, else as a sentence, once, if
    /// it lasts.
    pub fn trouble(&self, text: &str) {
        if self.is_terminal && !self.quiet {
            return self.progress(text);
        }
        let mut trouble = self.trouble.lock();
        let trouble = trouble.get_or_insert_with(|| Trouble { since: Instant::now(), said: false });
        if !trouble.said && trouble.since.elapsed() >= QUIET_TROUBLE {
            trouble.said = true;
            self.say(text);
        }
    }

    /// Takes the progress line away, and ends the trouble.
    pub fn clear(&self) {
        *self.trouble.lock() = None;
        self.erase();
    }

    fn erase(&self) {
        if std::mem::take(&mut *self.shown.lock()) {
            self.write(ERASE);
        }
    }

    fn write(&self, text: &str) {
        // A closed standard error is no reason to end a command's stream.
        drop(self.to.lock().write_all(text.as_bytes()));
    }
}

/// A progress line that fits: the time is always seen.
fn line(text: &str, waited: Duration, columns: usize) -> String {
    let tail = format!(" ({})", duration::words(Duration::from_secs(waited.as_secs())).replace(".0", ""));
    let room = columns.saturating_sub(1 + WHO.len() + tail.chars().count());
    let text: String = text.chars().map(|c| if is_printable(c) { c } else { ' ' }).collect();
    if text.chars().count() <= room {
        return format!("{WHO}{text}{tail}");
    }
    let cut: String = text.chars().take(room.saturating_sub(3)).collect();
    format!("{WHO}{}...{tail}", cut.trim_end())
}

pub fn colours() -> bool {
    colours_on(&io::stdout())
}

pub fn colours_on(stream: &impl io::IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    stream.is_terminal() && !refused && !dumb
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::follow::scripted::Kept;

    #[tokio::test(start_paused = true)]
    async fn trouble_that_lasts_is_said_once_where_there_is_no_progress() {
        let heard = Kept::default();
        let speech = Speech::to(false, heard.clone());
        speech.trouble("r: no answer");
        speech.clear();
        for said in ["", "execlet: r: no answer\n", ""] {
            speech.trouble("r: no answer");
            assert_eq!(heard.text(), said);
            tokio::time::advance(QUIET_TROUBLE).await;
        }
        speech.clear();
        speech.trouble("r: no answer again");
        tokio::time::advance(QUIET_TROUBLE).await;
        speech.trouble("r: no answer again");
        assert_eq!(heard.text(), "execlet: r: no answer again\n");
    }

    #[test]
    fn a_sentence_is_one_line_whoever_is_quoted() {
        let heard = Kept::default();
        Speech::to(false, heard.clone()).say("r: it says\x1b[1A\x1b[2K\nexeclet: r: \u{202e}done\r");
        assert_eq!(heard.text(), "execlet: r: it says\\x1b[1A\\x1b[2K\\nexeclet: r: \\u{202e}done\\r\n");
    }

    #[test]
    fn a_line_of_progress_fits_the_terminal_and_keeps_the_time() {
        let second = Duration::from_secs(3);
        assert_eq!(line("r: waiting", second, 80), "execlet: r: waiting (3 s)");
        let cut = line("r: waiting for the pod to run", second, 30);
        assert_eq!(cut, "execlet: r: waiting... (3 s)");
        assert!(cut.chars().count() < 30);
        assert_eq!(line("two\nlines\x1b[2J", second, 80), "execlet: two lines [2J (3 s)");
        // Narrower than makes sense: no panic.
        assert!(line("x", second, 3).ends_with("(3 s)"));
    }
}
