//! Questions to whoever sits at the terminal.

use std::{io, thread};

use tokio::sync::oneshot;

/// The next line that is typed. Reading it cannot be taken back: the thread ends with it, or with the program.
pub fn line() -> oneshot::Receiver<String> {
    let (tell, told) = oneshot::channel();
    thread::spawn(move || {
        let mut line = String::new();
        // What cannot be read is no answer.
        if io::stdin().read_line(&mut line).is_ok() {
            drop(tell.send(line.trim().to_lowercase()));
        }
    });
    told
}

/// What is to become of a batch when Ctrl-C was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Leave,
    Cancel,
    GoOn,
}

impl Choice {
    pub const QUESTION: &'static str =
        "Ctrl-C: type l to leave, and the batch goes on; c to cancel it; or Enter to go on watching: ";

    pub fn of(answer: &str) -> Self {
        match answer {
            "l" | "leave" => Self::Leave,
            "c" | "cancel" => Self::Cancel,
            _ => Self::GoOn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_answer_cancels() {
        for (answer, choice) in [
            ("l", Choice::Leave),
            ("cancel", Choice::Cancel),
            ("", Choice::GoOn),
            ("y", Choice::GoOn),
            ("canc", Choice::GoOn),
        ] {
            assert_eq!(Choice::of(answer), choice, "{answer}");
        }
    }
}
