//! Collecting the evidence of an end: when there is enough of it, and when no more can be expected.

use std::time::Duration;

use super::outcome::{EngineWord, Evidence, StreamEnd, Testimony, Verdict, judge};

/// How long the parts of the evidence may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The engine may call an exec running for so long whose process has ended.
    pub notices_within: Duration,
    /// The same, where its container's run is over, too.
    pub notices_over_within: Duration,
    /// An exit may take so long, after it was noticed.
    pub tells_within: Duration,
    /// The engine's own word, where the kernel has told a code already.
    pub first_word: Duration,
    /// The exit of an exec that the engine no longer knows.
    pub recalls_within: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Silent,
    /// Something that is of no use.
    Useless,
    Absent,
    /// It takes it for running.
    Runs,
    /// It has ended, or has never run.
    Over(Option<EngineWord>),
}

#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// How long after the first one.
    pub after: Duration,
    pub answer: Answer,
    /// The exit that the engine has announced, if it has.
    pub exit: Option<Testimony>,
    /// Whether its exits are heard: those of the past have come, or are coming.
    pub exits_are_heard: bool,
    /// The code that the kernel kept, if it did.
    pub kernel: Option<i32>,
    /// Whether its process lives, whatever the engine says.
    pub lives: bool,
    /// Whether its container's run is over, too, as far as that matters.
    pub over: bool,
    pub stream: StreamEnd,
}

/// The looks so far.
#[derive(Clone, Debug)]
pub struct Collection {
    patience: Patience,
    /// From the first look on.
    until: Duration,
}

impl Collection {
    pub const fn new(patience: Patience) -> Self {
        Self { patience, until: patience.tells_within }
    }

    /// Concludes, or asks for another look.
    pub fn weigh(&mut self, look: &Look) -> Option<Verdict> {
        let Look { answer, exit, kernel, lives, .. } = *look;
        let word = match answer {
            Answer::Over(word) => word,
            Answer::Silent | Answer::Useless | Answer::Absent | Answer::Runs => None,
        };
        // Nothing more will come.
        let spoken = word.is_some() && exit.is_some() && !lives;
        // An engine that is down knows nothing of it any more when it is back, and may take the agent along.
        let kernel_counts = spoken || answer == Answer::Silent || look.after >= self.patience.first_word;
        match judge(&Evidence { word, exit, kernel: kernel.filter(|_| kernel_counts), stream: look.stream }) {
            Verdict::Undecided if spoken => return Some(Verdict::Undecided),
            Verdict::Undecided => {}
            // The kernel has seen it run.
            Verdict::StartFailed if kernel.is_some() => {}
            verdict @ (Verdict::StartFailed | Verdict::Exited(_)) => return Some(verdict),
        }
        self.wait(look);
        (look.after >= self.until).then_some(Verdict::Undecided)
    }

    /// The clock runs only once there is nothing left to wait for.
    fn wait(&mut self, look: &Look) {
        let wait = match look.answer {
            Answer::Absent | Answer::Runs | Answer::Over(_) if look.lives => true,
            // Kernel and container have settled it.
            Answer::Runs if look.over => look.after < self.patience.notices_over_within,
            Answer::Runs => look.after < self.patience.notices_within,
            // Of the past its exits tell as soon as they are heard.
            Answer::Absent if look.exits_are_heard => {
                self.until = self.until.min(look.after + self.patience.recalls_within);
                false
            }
            Answer::Silent => true,
            Answer::Useless | Answer::Absent | Answer::Over(_) => false,
        };
        if wait {
            self.until = look.after + self.patience.tells_within;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::ExitCodeSource, core::outcome::Exit};

    const PATIENCE: Patience = Patience {
        notices_within: Duration::from_secs(600),
        notices_over_within: Duration::from_secs(20),
        tells_within: Duration::from_secs(60),
        first_word: Duration::from_secs(1),
        recalls_within: Duration::from_secs(2),
    };

    fn look(after: u64, answer: Answer) -> Look {
        let after = Duration::from_secs(after);
        let stream = StreamEnd::Broken;
        Look { after, answer, exit: None, exits_are_heard: true, kernel: None, lives: false, over: false, stream }
    }

    fn word(code: i32, certain: bool, ran: bool) -> Answer {
        Answer::Over(Some(EngineWord { testimony: Testimony { code, certain }, ran }))
    }

    fn exited(code: i32, source: ExitCodeSource) -> Option<Verdict> {
        Some(Verdict::Exited(Exit { code, source }))
    }

    #[test]
    fn one_look_is_enough_or_is_not() {
        use ExitCodeSource::{Engine, Event, Kernel};
        let doubtful = Some(Testimony { code: 8, certain: false });
        let sure = Some(Testimony { code: 7, certain: true });
        let rows = [
            ("a word that is certain", look(0, word(7, true, true)), exited(7, Engine)),
            ("a word that is not", look(0, word(9, false, true)), None),
            ("both have spoken", Look { exit: doubtful, ..look(0, word(9, false, true)) }, Some(Verdict::Undecided)),
            (
                "both have spoken of what lives",
                Look { exit: doubtful, lives: true, ..look(0, word(9, false, true)) },
                None,
            ),
            ("an exit", Look { exit: sure, ..look(0, Answer::Absent) }, exited(7, Event)),
            ("the kernel comes second", Look { kernel: Some(7), ..look(0, word(9, false, true)) }, None),
            ("but comes", Look { kernel: Some(7), ..look(1, word(9, false, true)) }, exited(7, Kernel)),
            ("at once if the engine is down", Look { kernel: Some(7), ..look(0, Answer::Silent) }, exited(7, Kernel)),
            ("no process", look(0, word(9, false, false)), Some(Verdict::StartFailed)),
            ("no process, and the kernel saw one", Look { kernel: Some(7), ..look(0, word(9, false, false)) }, None),
        ];
        for (name, look, expected) in rows {
            assert_eq!(Collection::new(PATIENCE).weigh(&look), expected, "{name}");
        }
    }

    /// Seconds after which nothing more is expected, if every look shows the same.
    fn given_up(look: impl Fn(u64) -> Look) -> Option<u64> {
        let mut collection = Collection::new(PATIENCE);
        (0..10_000).find(|second| collection.weigh(&look(*second)) == Some(Verdict::Undecided))
    }

    #[test]
    fn each_kind_of_silence_has_its_patience() {
        assert_eq!(given_up(|at| look(at, Answer::Absent)), Some(2));
        assert_eq!(given_up(|at| Look { exits_are_heard: at >= 9, ..look(at, Answer::Absent) }), Some(11));
        assert_eq!(given_up(|at| Look { exits_are_heard: false, ..look(at, Answer::Absent) }), Some(60));
        assert_eq!(given_up(|at| look(at, word(9, false, true))), Some(60));
        assert_eq!(given_up(|at| look(at, Answer::Over(None))), Some(60));
        assert_eq!(given_up(|at| look(at, Answer::Useless)), Some(60));
        assert_eq!(given_up(|at| look(at, Answer::Runs)), Some(659), "it may be slow to notice, and then to tell");
        assert_eq!(given_up(|at| Look { over: true, ..look(at, Answer::Runs) }), Some(79), "with its container");
        assert_eq!(given_up(|at| Look { over: at >= 90, ..look(at, Answer::Runs) }), Some(149));
        assert_eq!(given_up(|at| Look { over: true, lives: true, ..look(at, Answer::Runs) }), None, "it will end");
        assert_eq!(given_up(|at| look(at, Answer::Silent)), None, "it will answer again");
        assert_eq!(given_up(|at| Look { lives: true, ..look(at, Answer::Absent) }), None, "it will end");
    }
}
