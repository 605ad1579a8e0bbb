//! From evidence to outcome: whom to believe about an exit code.
//!
//! An engine tells a code in two ways: when it is asked about an exec, and by an exit that it announces. Either can be
//! wrong, and the engine's own folder knows when: what comes from there says of itself whether it is certain.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::kill::Cause;
use crate::api::{ExecResult, ExitCodeSource, OutputStatus, Reason};

/// How our own stream from the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// We started the exec, alone, and read to the end of an unbroken stream.
    Clean,
    /// It broke, or we never had it.
    Broken,
}

/// A code that the engine tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Testimony {
    pub code: i32,
    /// Whether the engine never tells this code where it is not the true one.
    pub certain: bool,
}

/// What the engine says of an exec that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineWord {
    pub testimony: Testimony,
    /// Whether there ever was a process.
    pub ran: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub word: Option<EngineWord>,
    /// The exit that the engine has announced, if it has.
    pub exit: Option<Testimony>,
    /// The code that the kernel kept for us, if it did.
    pub kernel: Option<i32>,
    pub stream: StreamEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Exited(Exit),
    /// The engine could not start the command; nothing ran, and a code that it tells is not the command's.
    StartFailed,
    Undecided,
}

/// A true exit code, and who told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The code, 128 + N for signal N.
    pub code: i32,
    pub source: ExitCodeSource,
}

/// The trust rule.
pub fn judge(evidence: &Evidence) -> Verdict {
    let exited = |code, source| Verdict::Exited(Exit { code, source });
    match (evidence.exit, evidence.word, evidence.kernel) {
        // An exit proves that there was a process.
        (Some(exit), Some(word), _) if exit.code == word.testimony.code => exited(exit.code, ExitCodeSource::Engine),
        (Some(exit), _, _) if exit.certain => exited(exit.code, ExitCodeSource::Event),
        (_, Some(word), _) if word.testimony.certain && word.ran => exited(word.testimony.code, ExitCodeSource::Engine),
        // The engine does not know, and the kernel saw it end. Where both say the same, the engine is named.
        (_, Some(word), Some(code)) if word.testimony.code == code => exited(code, ExitCodeSource::Engine),
        (Some(exit), _, Some(code)) if exit.code == code => exited(code, ExitCodeSource::Event),
        (_, _, Some(code)) => exited(code, ExitCodeSource::Kernel),
        (None, Some(word), None) if !word.ran => Verdict::StartFailed,
        (None, Some(word), None) if evidence.stream == StreamEnd::Clean => {
            exited(word.testimony.code, ExitCodeSource::Engine)
        }
        (_, Some(_) | None, None) => Verdict::Undecided,
    }
}

/// How a request ends. Written to the journal first, then to the status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub reason: Reason,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    pub may_have_run: bool,
    /// Whether it has run at all is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_doubt: bool,
    /// What it wrote, where it may have run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputStatus>,
    /// When this was concluded.
    pub at: Timestamp,
}

impl Outcome {
    /// The command never ran, and never will.
    pub fn refused(reason: Reason, message: impl Into<String>, at: Timestamp) -> Self {
        Self { reason, message: message.into(), exit: None, may_have_run: false, in_doubt: false, output: None, at }
    }

    /// The command has run, or may have.
    fn ran(reason: Reason, message: String, exit: Option<Exit>, output: Option<OutputStatus>, at: Timestamp) -> Self {
        Self { exit, may_have_run: true, output, ..Self::refused(reason, message, at) }
    }

    pub fn lost(message: impl Into<String>, output: Option<OutputStatus>, at: Timestamp) -> Self {
        Self::ran(Reason::OutcomeLost, message.into(), None, output, at)
    }

    /// Nobody knows whether it ran, for this reason.
    pub fn doubtful(why: impl Into<String>, output: OutputStatus, at: Timestamp) -> Self {
        Self { in_doubt: true, ..Self::lost(why, Some(output), at) }
    }

    pub fn exited(exit: Exit, output: OutputStatus, at: Timestamp) -> Self {
        let (reason, message) = match exit.code {
            0 => (Reason::Completed, "the command ended with exit code 0".to_owned()),
            code => (Reason::NonZeroExitCode, format!("the command ended with exit code {code}{}", signal_hint(code))),
        };
        Self::ran(reason, message, Some(exit), Some(output), at)
    }

    /// The command was ended. Its code is shown if it is known.
    pub fn killed(cause: Cause, exit: Option<Exit>, output: OutputStatus, at: Timestamp) -> Self {
        let ended = match exit {
            Some(exit) => format!("the command was ended with exit code {}{}", exit.code, signal_hint(exit.code)),
            None => "the command was ended, with which exit code is not known".to_owned(),
        };
        let message = format!("{}: {ended}", cause.words());
        Self::ran(cause.reason(), message, exit, Some(output), at)
    }

    pub fn kill_failed(cause: Cause, survivors: &str, output: OutputStatus, at: Timestamp) -> Self {
        let message = format!(
            "{}, but processes of the command do not die: {survivors}; the agent goes on killing them",
            cause.words()
        );
        Self::ran(Reason::KillFailed, message, None, Some(output), at)
    }

    pub fn died_with_container(exit: Exit, output: OutputStatus, at: Timestamp) -> Self {
        let message = format!(
            "the container ended while the command ran: the command ended with exit code {}{}",
            exit.code,
            signal_hint(exit.code)
        );
        Self::ran(Reason::ContainerDied, message, Some(exit), Some(output), at)
    }

    /// The container has ended, and with it all that the engine knew of the command.
    pub fn gone_with_container(output: OutputStatus, at: Timestamp) -> Self {
        let message =
            "the container ended before the engine told how the command ended: it may have run, and has no exit code";
        Self::ran(Reason::ContainerDied, message.to_owned(), None, Some(output), at)
    }

    /// The container has ended, and nobody knows whether the command had begun.
    pub fn died_early(output: OutputStatus, at: Timestamp) -> Self {
        let message = "the container ended before the command was seen to run: it may have run, and has no exit code";
        Self { message: message.to_owned(), in_doubt: true, ..Self::gone_with_container(output, at) }
    }

    /// The same, for a command whose input was cut short by us. What ended by itself may have done so
    /// because of that: its code is shown, and proves nothing.
    pub fn with_input_lost(self) -> Self {
        match (self.reason, self.exit) {
            (Reason::Completed | Reason::NonZeroExitCode, Some(exit)) => {
                let message = format!(
                    "the connection to the command was lost before its whole input was delivered; it ended with exit code {}{}",
                    exit.code,
                    signal_hint(exit.code)
                );
                Self { reason: Reason::InputLost, message, ..self }
            }
            (_, Some(_) | None) => self,
        }
    }

    /// The `metav1.Status` that `kubectl exec` would have received.
    pub fn result(&self) -> ExecResult {
        match self.exit {
            // One that had to be ended has not succeeded, whatever it made of the signal.
            Some(exit) if exit.code != 0 || self.reason == Reason::Completed => ExecResult::of_exit_code(exit.code),
            Some(_) | None => ExecResult::of_error(&self.message),
        }
    }
}

/// Names the signal behind a code above 128, where the convention of shells and runtimes has one.
fn signal_hint(code: i32) -> String {
    const NAMES: [(i32, &str); 8] = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (6, "SIGABRT"),
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (13, "SIGPIPE"),
        (15, "SIGTERM"),
    ];
    NAMES
        .iter()
        .find(|(number, _)| code == 128 + number)
        .map_or_else(String::new, |(number, name)| format!(" (128 + {number}: {name})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAN: bool = true;
    const NEVER: bool = false;

    fn sure(code: i32) -> Testimony {
        Testimony { code, certain: true }
    }

    fn doubtful(code: i32) -> Testimony {
        Testimony { code, certain: false }
    }

    fn word(testimony: Testimony, ran: bool) -> Option<EngineWord> {
        Some(EngineWord { testimony, ran })
    }

    fn engine(code: i32) -> Verdict {
        Verdict::Exited(Exit { code, source: ExitCodeSource::Engine })
    }

    fn event(code: i32) -> Verdict {
        Verdict::Exited(Exit { code, source: ExitCodeSource::Event })
    }

    #[test]
    fn the_trust_rule_holds_row_by_row() {
        use StreamEnd::{Broken, Clean};
        let rows = [
            // word, exit, stream, verdict
            (word(sure(0), RAN), None, Clean, engine(0)),
            (word(sure(7), RAN), None, Broken, engine(7)),
            (word(sure(7), RAN), Some(sure(7)), Clean, engine(7)),
            // both say the same, however doubtful each is alone
            (word(doubtful(9), RAN), Some(sure(9)), Broken, engine(9)),
            (word(sure(9), RAN), Some(doubtful(9)), Broken, engine(9)),
            (word(doubtful(9), RAN), None, Clean, engine(9)),
            // one of the two is wrong
            (word(doubtful(9), RAN), Some(sure(7)), Broken, event(7)),
            (word(sure(7), RAN), Some(doubtful(8)), Broken, engine(7)),
            // or both
            (word(doubtful(9), RAN), Some(doubtful(8)), Broken, Verdict::Undecided),
            (word(doubtful(9), RAN), Some(doubtful(8)), Clean, Verdict::Undecided),
            (word(doubtful(9), RAN), None, Broken, Verdict::Undecided),
            // the engine has forgotten the exec
            (None, Some(sure(3)), Broken, event(3)),
            (None, Some(doubtful(3)), Broken, Verdict::Undecided),
            (None, None, Clean, Verdict::Undecided),
            (None, None, Broken, Verdict::Undecided),
            // a start that failed has no process and no exit
            (word(doubtful(9), NEVER), None, Clean, Verdict::StartFailed),
            (word(sure(8), NEVER), None, Clean, Verdict::StartFailed),
            (word(doubtful(9), NEVER), None, Broken, Verdict::StartFailed),
            // an exit proves a process, whatever the engine's word has not yet noticed
            (word(sure(3), NEVER), Some(sure(3)), Clean, engine(3)),
            (word(doubtful(9), NEVER), Some(doubtful(8)), Broken, Verdict::Undecided),
        ];
        for (word, exit, stream, expected) in rows {
            let evidence = Evidence { word, exit, kernel: None, stream };
            assert_eq!(judge(&evidence), expected, "{evidence:?}");
        }
    }

    #[test]
    fn what_the_kernel_saw_counts_where_the_engine_does_not_know() {
        let kernel = |code| Verdict::Exited(Exit { code, source: ExitCodeSource::Kernel });
        for (word, exit, expected) in [
            (word(sure(7), RAN), Some(sure(7)), engine(7)),
            // the kernel's may be of another process that the agent took for it
            (word(sure(3), RAN), Some(sure(3)), engine(3)),
            (word(sure(3), RAN), None, engine(3)),
            (None, Some(sure(3)), event(3)),
            (word(doubtful(9), RAN), Some(sure(7)), event(7)),
            (word(doubtful(9), RAN), Some(doubtful(8)), kernel(7)),
            (word(doubtful(9), RAN), None, kernel(7)),
            (None, Some(doubtful(8)), kernel(7)),
            (None, None, kernel(7)),
        ] {
            let evidence = Evidence { word, exit, kernel: Some(7), stream: StreamEnd::Broken };
            assert_eq!(judge(&evidence), expected, "{evidence:?}");
        }
    }

    #[test]
    fn a_command_that_was_ended_is_not_said_to_have_succeeded_even_with_code_0() {
        let exit = Exit { code: 0, source: ExitCodeSource::Engine };
        let at = Timestamp::UNIX_EPOCH;
        let outcome = Outcome::killed(Cause::DeadlineExceeded, Some(exit), OutputStatus::default(), at);
        assert_eq!(outcome.reason.final_phase(), crate::api::Phase::Failed);
        assert_eq!(outcome.message, "activeDeadlineSeconds passed: the command was ended with exit code 0");
        assert_eq!(outcome.result().status, "Failure");
    }

    #[test]
    fn a_command_whose_input_was_cut_short_has_not_succeeded_even_with_code_0() {
        let at = Timestamp::UNIX_EPOCH;
        for (code, status) in [(0, "InternalError"), (3, "NonZeroExitCode")] {
            let exit = Exit { code, source: ExitCodeSource::Engine };
            let outcome = Outcome::exited(exit, OutputStatus::default(), at).with_input_lost();
            assert_eq!((outcome.reason, outcome.exit), (Reason::InputLost, Some(exit)));
            assert_eq!(outcome.result().reason.as_deref(), Some(status));
        }
        let killed = Outcome::killed(Cause::Canceled, None, OutputStatus::default(), at);
        assert_eq!(killed.clone().with_input_lost(), killed, "why it ended is known");
    }

    #[test]
    fn a_code_above_128_names_its_signal() {
        let exit = Exit { code: 137, source: ExitCodeSource::Engine };
        let outcome = Outcome::exited(exit, OutputStatus::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(outcome.message, "the command ended with exit code 137 (128 + 9: SIGKILL)");
        assert_eq!(outcome.reason, Reason::NonZeroExitCode);
    }

    #[test]
    fn an_outcome_survives_the_journal() -> Result<(), serde_json::Error> {
        let outcome = Outcome::refused(Reason::PodReplaced, "another pod", Timestamp::UNIX_EPOCH);
        let text = serde_json::to_string(&outcome)?;
        assert_eq!(serde_json::from_str::<Outcome>(&text)?, outcome);
        Ok(())
    }
}
