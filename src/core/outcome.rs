//! From evidence to outcome: whom to believe about an exit code.
//!
//! The engine's `inspect` and its `exec_die` event can each be wrong when the
//! stream to the client broke: `inspect` then says 126, the event 127, whatever
//! the command really returned. `docs/engine.md` has what was measured.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::kill::Cause;
use crate::api::{ExecResult, ExitCodeSource, OutputStatus, Reason};

/// The code that a broken stream leaves in `inspect`.
const FALSIFIED_INSPECT: i32 = 126;
/// The code that a broken stream leaves in the `exec_die` event.
const FALSIFIED_EVENT: i32 = 127;

/// How our own stream from the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// We started the exec, alone, and read to the end of an unbroken stream.
    Clean,
    /// It broke, or we never had it.
    Broken,
}

/// What `inspect` says of an exec that has a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Exit code.
    pub code: i32,
    /// Whether there ever was a process: `Pid` is not 0.
    pub had_process: bool,
}

/// Everything that is known about the end of an exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The engine's inspect, if it has a code.
    pub inspect: Option<Inspected>,
    /// The code in the engine's `exec_die` event, if there was one.
    pub event: Option<i32>,
    /// The code that the kernel kept for us, if it did.
    pub kernel: Option<i32>,
    /// How our stream ended.
    pub stream: StreamEnd,
}

/// What the evidence proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The command ended with this code.
    Exited(Exit),
    /// The engine could not start the command; nothing ran. The code is the runtime's, not the command's.
    StartFailed,
    /// Nothing that can be relied on.
    Undecided,
}

/// A true exit code, and who told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The code, 128 + N for signal N.
    pub code: i32,
    /// Who told it.
    pub source: ExitCodeSource,
}

/// The trust rule.
pub fn judge(evidence: &Evidence) -> Verdict {
    let exited = |code, source| Verdict::Exited(Exit { code, source });
    match (evidence.event, evidence.inspect, evidence.kernel) {
        // An event proves that there was a process. Any code but the falsified one is real.
        (Some(event), Some(inspect), _) if event == inspect.code => exited(event, ExitCodeSource::Engine),
        (Some(event), _, _) if event != FALSIFIED_EVENT => exited(event, ExitCodeSource::Event),
        (_, Some(inspect), _) if inspect.code != FALSIFIED_INSPECT && inspect.had_process => {
            exited(inspect.code, ExitCodeSource::Engine)
        }
        // The engine does not know, and the kernel saw it end. Where both say the same, the engine is named.
        (_, Some(inspect), Some(code)) if inspect.code == code => exited(code, ExitCodeSource::Engine),
        (Some(event), _, Some(code)) if event == code => exited(code, ExitCodeSource::Event),
        (_, _, Some(code)) => exited(code, ExitCodeSource::Kernel),
        (None, Some(inspect), None) if !inspect.had_process => Verdict::StartFailed,
        (None, Some(inspect), None) if evidence.stream == StreamEnd::Clean => {
            exited(inspect.code, ExitCodeSource::Engine)
        }
        (_, Some(_) | None, None) => Verdict::Undecided,
    }
}

/// How a request ends. Written to the journal first, then to the status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Why, as one word.
    #[serde(with = "reason_as_text")]
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// The exit code, if one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Whether the command ran, or may have.
    pub may_have_run: bool,
    /// What it wrote, where it may have run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputStatus>,
    /// When this was concluded.
    pub at: Timestamp,
}

impl Outcome {
    /// The command never ran, and never will.
    pub fn refused(reason: Reason, message: impl Into<String>, at: Timestamp) -> Self {
        Self { reason, message: message.into(), exit: None, may_have_run: false, output: None, at }
    }

    /// What became of the command cannot be known.
    pub fn lost(message: impl Into<String>, output: Option<OutputStatus>, at: Timestamp) -> Self {
        Self { reason: Reason::OutcomeLost, message: message.into(), exit: None, may_have_run: true, output, at }
    }

    /// The command ended with a code.
    pub fn exited(exit: Exit, output: OutputStatus, at: Timestamp) -> Self {
        let (reason, message) = match exit.code {
            0 => (Reason::Completed, "the command ended with exit code 0".to_owned()),
            code => (Reason::NonZeroExitCode, format!("the command ended with exit code {code}{}", signal_hint(code))),
        };
        Self { reason, message, exit: Some(exit), may_have_run: true, output: Some(output), at }
    }

    /// The command was ended. Its code is shown if it is known.
    pub fn killed(cause: Cause, exit: Option<Exit>, output: OutputStatus, at: Timestamp) -> Self {
        let ended = match exit {
            Some(exit) => format!("the command was ended with exit code {}{}", exit.code, signal_hint(exit.code)),
            None => "the command was ended, with which exit code is not known".to_owned(),
        };
        let message = format!("{}: {ended}", cause.words());
        Self { reason: cause.reason(), message, exit, may_have_run: true, output: Some(output), at }
    }

    /// The command was to be ended, but lives on.
    pub fn kill_failed(cause: Cause, survivors: &str, output: OutputStatus, at: Timestamp) -> Self {
        let message = format!(
            "{}, but processes of the command do not die: {survivors}; the agent goes on killing them",
            cause.words()
        );
        Self { reason: Reason::KillFailed, message, exit: None, may_have_run: true, output: Some(output), at }
    }

    /// The command ended together with its container.
    pub fn died_with_container(exit: Exit, output: OutputStatus, at: Timestamp) -> Self {
        let message = format!(
            "the container ended while the command ran: the command ended with exit code {}{}",
            exit.code,
            signal_hint(exit.code)
        );
        Self { reason: Reason::ContainerDied, message, exit: Some(exit), may_have_run: true, output: Some(output), at }
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

mod reason_as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::api::Reason;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(reason: &Reason, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(reason.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Reason, D::Error> {
        let text = String::deserialize(from)?;
        Reason::ALL
            .iter()
            .find(|r| r.as_str() == text)
            .copied()
            .ok_or_else(|| D::Error::custom(format!("unknown reason {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAN: bool = true;
    const NEVER: bool = false;

    fn inspected(code: i32, had_process: bool) -> Option<Inspected> {
        Some(Inspected { code, had_process })
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
            // inspect, event, stream, verdict
            (inspected(0, RAN), None, Clean, engine(0)),
            (inspected(7, RAN), None, Broken, engine(7)),
            (inspected(7, RAN), Some(7), Clean, engine(7)),
            // a command that really returns the two codes that the engine also invents
            (inspected(126, RAN), None, Clean, engine(126)),
            (inspected(127, RAN), None, Clean, engine(127)),
            (inspected(126, RAN), Some(126), Broken, engine(126)),
            (inspected(127, RAN), Some(127), Broken, engine(127)),
            // a broken stream falsifies one of the two
            (inspected(126, RAN), Some(7), Broken, event(7)),
            (inspected(126, RAN), Some(0), Broken, event(0)),
            (inspected(7, RAN), Some(127), Broken, engine(7)),
            // or both
            (inspected(126, RAN), Some(127), Broken, Verdict::Undecided),
            (inspected(126, RAN), Some(127), Clean, Verdict::Undecided),
            (inspected(126, RAN), None, Broken, Verdict::Undecided),
            // the engine has forgotten the exec
            (None, Some(3), Broken, event(3)),
            (None, Some(127), Broken, Verdict::Undecided),
            (None, None, Clean, Verdict::Undecided),
            (None, None, Broken, Verdict::Undecided),
            // a start that failed has no process and no event
            (inspected(126, NEVER), None, Clean, Verdict::StartFailed),
            (inspected(127, NEVER), None, Clean, Verdict::StartFailed),
            (inspected(126, NEVER), None, Broken, Verdict::StartFailed),
            // an event proves a process, whatever inspect has not yet noticed
            (inspected(3, NEVER), Some(3), Clean, engine(3)),
            (inspected(126, NEVER), Some(127), Broken, Verdict::Undecided),
        ];
        for (inspect, event, stream, expected) in rows {
            let evidence = Evidence { inspect, event, kernel: None, stream };
            assert_eq!(judge(&evidence), expected, "{evidence:?}");
        }
    }

    #[test]
    fn what_the_kernel_saw_counts_where_the_engine_does_not_know() {
        let kernel = |code| Verdict::Exited(Exit { code, source: ExitCodeSource::Kernel });
        for (inspect, event, expected) in [
            (inspected(7, RAN), Some(7), engine(7)),
            // the kernel's may be of another process that the agent took for it
            (inspected(3, RAN), Some(3), engine(3)),
            (inspected(3, RAN), None, engine(3)),
            (None, Some(3), event(3)),
            (inspected(126, RAN), Some(7), event(7)),
            (inspected(126, RAN), Some(127), kernel(7)),
            (inspected(126, RAN), None, kernel(7)),
            (None, Some(127), kernel(7)),
            (None, None, kernel(7)),
        ] {
            let evidence = Evidence { inspect, event, kernel: Some(7), stream: StreamEnd::Broken };
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
