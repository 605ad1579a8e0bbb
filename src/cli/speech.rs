//! What the plugin says itself, on standard error: sentences, and one line of
//! progress that is overwritten and leaves nothing behind.
//!
//! Progress and colour are for a terminal only, colour only without `NO_COLOR`.

use std::{
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{duration, terminal};

/// Before each sentence, so that it is not taken for the command's own.
const WHO: &str = "execlet: ";
/// What is done sooner needs no word.
const UNSAID: Duration = Duration::from_millis(700);
const ERASE: &str = "\r\x1b[K";

/// The plugin's voice.
#[derive(Clone, Debug)]
pub struct Speech {
    is_terminal: bool,
    quiet: bool,
    since: Instant,
    shown: Arc<Mutex<bool>>,
}

impl Speech {
    /// On standard error; a quiet one shows no progress.
    pub fn new(quiet: bool) -> Self {
        Self {
            is_terminal: terminal::errors_are_terminal(),
            quiet,
            since: Instant::now(),
            shown: Arc::new(Mutex::new(false)),
        }
    }

    /// A sentence that stays.
    pub fn say(&self, sentence: &str) {
        self.clear();
        let end = if terminal::is_raw() { "\r\n" } else { "\n" };
        write(&format!("{WHO}{sentence}{end}"));
    }

    /// What is being waited for.
    pub fn progress(&self, text: &str) {
        let waited = self.since.elapsed();
        if !self.is_terminal || self.quiet || waited < UNSAID {
            return;
        }
        let columns = terminal::size().map_or(80, |size| usize::from(size.columns));
        write(&format!("{ERASE}{}", line(text, waited, columns)));
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Takes the line of progress away.
    pub fn clear(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *shown) {
            write(ERASE);
        }
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

fn write(text: &str) {
    // A standard error that is closed is no reason to end a command's stream.
    drop(io::stderr().lock().write_all(text.as_bytes()));
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
