//! What the plugin says itself, on standard error: sentences, and one line of
//! progress that is overwritten and leaves nothing behind.
//!
//! Progress and colour are for a terminal only, colour only without `NO_COLOR`.

use std::{io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{duration, terminal};

/// Before each sentence, so that it is not taken for the command's own.
const WHO: &str = "execlet: ";
/// What is done sooner needs no word.
const UNSAID: Duration = Duration::from_millis(700);
/// A hitch that is over sooner needs no sentence.
const LASTS: Duration = Duration::from_secs(5);
const ERASE: &str = "\r\x1b[K";

/// The plugin's voice.
#[derive(Clone)]
pub struct Speech {
    is_terminal: bool,
    quiet: bool,
    since: Instant,
    shown: Arc<Mutex<bool>>,
    hitch: Arc<Mutex<Option<Hitch>>>,
    to: Arc<Mutex<dyn io::Write + Send>>,
}

/// Something does not go as it should, and was not told yet or was.
#[derive(Clone, Copy, Debug)]
struct Hitch {
    since: Instant,
    said: bool,
}

impl Speech {
    /// On standard error; a quiet one shows no progress.
    pub fn new(quiet: bool) -> Self {
        let is_terminal = terminal::errors_are_terminal();
        Self { is_terminal, ..Self::to(quiet, io::stderr()) }
    }

    /// To something that is no terminal.
    pub fn to(quiet: bool, to: impl io::Write + Send + 'static) -> Self {
        Self {
            is_terminal: false,
            quiet,
            since: Instant::now(),
            shown: Arc::default(),
            hitch: Arc::default(),
            to: Arc::new(Mutex::new(to)),
        }
    }

    /// A sentence that stays.
    pub fn say(&self, sentence: &str) {
        self.erase();
        let end = if terminal::is_raw() { "\r\n" } else { "\n" };
        self.write(&format!("{WHO}{sentence}{end}"));
    }

    /// What is being waited for.
    pub fn progress(&self, text: &str) {
        let waited = self.since.elapsed();
        if !self.is_terminal || self.quiet || waited < UNSAID {
            return;
        }
        let columns = terminal::size().map_or(80, |size| usize::from(size.columns));
        self.write(&format!("{ERASE}{}", line(text, waited, columns)));
        *self.shown.lock() = true;
    }

    /// What is waited for because something does not go as it should: where nobody sees the progress, a
    /// sentence, once, if it lasts.
    pub fn hitch(&self, text: &str) {
        if self.is_terminal && !self.quiet {
            return self.progress(text);
        }
        let mut hitch = self.hitch.lock();
        let hitch = hitch.get_or_insert_with(|| Hitch { since: Instant::now(), said: false });
        if !hitch.said && hitch.since.elapsed() >= LASTS {
            hitch.said = true;
            self.say(text);
        }
    }

    /// It goes on: takes the line of progress away, and ends a hitch.
    pub fn clear(&self) {
        *self.hitch.lock() = None;
        self.erase();
    }

    fn erase(&self) {
        let mut shown = self.shown.lock();
        if std::mem::take(&mut *shown) {
            self.write(ERASE);
        }
    }

    fn write(&self, text: &str) {
        // A standard error that is closed is no reason to end a command's stream.
        drop(self.to.lock().write_all(text.as_bytes()));
    }
}

/// A line of progress that fits: the time is always seen.
fn line(text: &str, waited: Duration, columns: usize) -> String {
    let tail = format!(" ({})", duration::words(Duration::from_secs(waited.as_secs())).replace(".0", ""));
    let room = columns.saturating_sub(1 + WHO.len() + tail.chars().count());
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() <= room {
        return format!("{WHO}{text}{tail}");
    }
    let cut: String = text.chars().take(room.saturating_sub(3)).collect();
    format!("{WHO}{}...{tail}", cut.trim_end())
}

/// What may be coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// It went well.
    Green,
    /// It did not.
    Red,
    /// It is not known, or not yet.
    Yellow,
    /// A heading.
    Bold,
}

/// Whether standard output takes colours.
pub fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    terminal::output_is_terminal() && !refused && !dumb
}

/// The text in a colour, or as it is.
pub fn paint(text: &str, colour: Colour, colours: bool) -> String {
    let code = match colour {
        Colour::Green => 32,
        Colour::Red => 31,
        Colour::Yellow => 33,
        Colour::Bold => 1,
    };
    if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::follow::scripted::Kept;

    #[tokio::test(start_paused = true)]
    async fn a_hitch_that_lasts_is_said_once_where_there_is_no_progress() {
        let heard = Kept::default();
        let speech = Speech::to(false, heard.clone());
        speech.hitch("r: no answer");
        speech.clear();
        for said in ["", "execlet: r: no answer\n", ""] {
            speech.hitch("r: no answer");
            assert_eq!(heard.text(), said);
            tokio::time::advance(LASTS).await;
        }
        speech.clear();
        speech.hitch("r: no answer again");
        tokio::time::advance(LASTS).await;
        speech.hitch("r: no answer again");
        assert_eq!(heard.text(), "execlet: r: no answer again\n");
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

    #[test]
    fn without_colours_nothing_is_added() {
        assert_eq!(paint("x", Colour::Red, false), "x");
        assert_eq!(paint("x", Colour::Red, true), "\x1b[31mx\x1b[0m");
    }
}
