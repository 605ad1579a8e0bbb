//! The plugin's exit codes: the command's own, and codes above 120 for everything else.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::signal::unix::SignalKind;

use crate::api::{
    BatchPhase, ExecBatchStatus, ExecRequestStatus, Phase, Reason,
    conditions::{self, ConditionType, Truth},
};

/// At the end of `--help` of the verbs that follow.
pub const HELP: &str = "\
Exit codes: the command's own. 121: nothing ran, and nothing will. 122: the plugin stopped following, and the command or
batch goes on. 123: it may have run, and how it ended is not known. 125: the plugin failed. Of a batch: 0 if all
succeeded, 1 if some did not, 121 if nothing ran, 123 if some may have run, which wins over 1.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// Success; also after detaching.
    pub const SUCCESS: Self = Self(0);
    /// The command ended with 0, but its request failed: its input was cut short, for example.
    pub const NOT_SUCCESS: Self = Self(1);
    /// Nothing ran and nothing will: it is safe to try again.
    pub const NEVER_RAN: Self = Self(121);
    /// The plugin stopped following; the command may still run.
    pub const LEFT: Self = Self(122);
    /// The command may have run, and how it ended is not known.
    pub const UNKNOWN: Self = Self(123);
    /// The command was ended by its deadline; the same code as `timeout` gives.
    pub const DEADLINE: Self = Self(124);
    /// The plugin failed: wrong arguments, no API server, no permission.
    pub const FAILED: Self = Self(125);
    /// The command could not be started: no such program, user or directory. Nothing ran.
    pub const NOT_STARTED: Self = Self(126);
    pub const CANCELED: Self = Self(130);

    /// The exit code of a request's outcome; `None` while it has none.
    pub fn of(status: &ExecRequestStatus) -> Option<Self> {
        status.completion_time.as_ref()?;
        Some(match status.phase {
            Phase::Succeeded => Self::SUCCESS,
            Phase::Failed => Self::of_failed(status),
            // A finished request is in none of the other three.
            Phase::Unknown | Phase::Pending | Phase::Bound | Phase::Running => Self::UNKNOWN,
        })
    }

    /// The exit code of a batch's outcome; `None` while it has none.
    pub fn of_batch(status: &ExecBatchStatus) -> Option<Self> {
        status.completion_time.as_ref()?;
        Some(Self::so_far(status).unwrap_or(match status.phase {
            BatchPhase::Succeeded => Self::SUCCESS,
            BatchPhase::Pending
            | BatchPhase::Planning
            | BatchPhase::Planned
            | BatchPhase::Running
            | BatchPhase::Paused
            | BatchPhase::Failed => Self::NEVER_RAN,
        }))
    }

    /// That of the targets that are accounted for; `None` if none of them ran, and none may have.
    pub const fn so_far(status: &ExecBatchStatus) -> Option<Self> {
        if status.unknown.count > 0 {
            Some(Self::UNKNOWN)
        } else if status.succeeded.count == 0 && status.failed.count == 0 {
            None
        } else if status.failed.count > 0 || status.not_run.count > 0 {
            Some(Self::NOT_SUCCESS)
        } else {
            Some(Self::SUCCESS)
        }
    }

    pub fn of_stream(status: &Status) -> Self {
        if status.status.as_deref() == Some("Success") {
            return Self::SUCCESS;
        }
        let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
        let mut codes = causes.filter(|cause| cause.reason.as_deref() == Some("ExitCode"));
        let code = codes.next().and_then(|cause| cause.message.as_deref()?.parse().ok());
        code.filter(|code| *code != 0).map_or(Self::UNKNOWN, Self)
    }

    /// 128 and the number of the signal that ended the plugin, as a shell has it.
    pub fn of_signal(signal: SignalKind) -> Self {
        Self(u8::try_from(128 + signal.as_raw_value()).unwrap_or(Self::FAILED.0))
    }

    fn of_failed(status: &ExecRequestStatus) -> Self {
        let condition = |kind| conditions::get(&status.conditions, kind);
        let reason = condition(ConditionType::Finished).map_or("", |finished| finished.reason.as_str());
        if reason == Reason::Canceled.as_str() {
            Self::CANCELED
        } else if reason == Reason::DeadlineExceeded.as_str() {
            Self::DEADLINE
        } else if reason == Reason::StartFailed.as_str() {
            Self::NOT_STARTED
        } else if condition(ConditionType::Started).is_some_and(|started| started.status == Truth::False.as_str()) {
            Self::NEVER_RAN
        } else {
            let code = status.exit_code.and_then(|code| u8::try_from(code).ok());
            code.filter(|code| *code != 0).map_or(Self::NOT_SUCCESS, Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
    use serde_json::json;

    use super::*;

    fn finished(phase: Phase, reason: Reason, started: Truth, code: Option<i32>) -> ExecRequestStatus {
        let mut status = ExecRequestStatus { phase, exit_code: code, ..Default::default() };
        let now = Timestamp::UNIX_EPOCH;
        status.completion_time = Some(MicroTime(now));
        conditions::set(&mut status.conditions, ConditionType::Finished, Truth::True, reason, "", None, now);
        conditions::set(&mut status.conditions, ConditionType::Started, started, reason, "", None, now);
        status
    }

    #[test]
    fn every_outcome_has_its_code() {
        for (phase, reason, started, code, expected) in [
            (Phase::Succeeded, Reason::Completed, Truth::True, Some(0), 0),
            (Phase::Failed, Reason::NonZeroExitCode, Truth::True, Some(3), 3),
            (Phase::Failed, Reason::NonZeroExitCode, Truth::True, Some(125), 125),
            (Phase::Failed, Reason::ContainerDied, Truth::True, Some(137), 137),
            (Phase::Failed, Reason::ContainerDied, Truth::False, None, 121),
            (Phase::Failed, Reason::PodNotFound, Truth::False, None, 121),
            (Phase::Failed, Reason::StartingDeadlineExceeded, Truth::False, None, 121),
            (Phase::Failed, Reason::StartFailed, Truth::False, None, 126),
            (Phase::Failed, Reason::DeadlineExceeded, Truth::True, Some(143), 124),
            // Ended by a kind answer to SIGTERM: still not a success.
            (Phase::Failed, Reason::DeadlineExceeded, Truth::True, Some(0), 124),
            (Phase::Failed, Reason::Canceled, Truth::True, Some(0), 130),
            (Phase::Failed, Reason::Canceled, Truth::False, None, 130),
            (Phase::Failed, Reason::NonZeroExitCode, Truth::True, Some(0), 1),
            (Phase::Unknown, Reason::OutcomeLost, Truth::True, None, 123),
            (Phase::Unknown, Reason::KillFailed, Truth::True, Some(0), 123),
        ] {
            let status = finished(phase, reason, started, code);
            assert_eq!(Exit::of(&status), Some(Exit(expected)), "{phase} {reason} {code:?}");
        }
    }

    #[test]
    fn a_batch_has_one_code_for_all_its_targets() {
        for (phase, [succeeded, failed, not_run, unknown, skipped], expected) in [
            ("Succeeded", [4, 0, 0, 0, 0], 0),
            ("Succeeded", [3, 0, 0, 0, 1], 0),
            // No targets, and that is fine; or all were skipped.
            ("Succeeded", [0, 0, 0, 0, 0], 0),
            ("Succeeded", [0, 0, 0, 0, 4], 0),
            ("Failed", [3, 1, 0, 0, 0], 1),
            ("Failed", [3, 0, 1, 0, 0], 1),
            ("Failed", [0, 4, 0, 0, 0], 1),
            ("Failed", [0, 0, 4, 0, 0], 121),
            // It was refused before it had a plan.
            ("Failed", [0, 0, 0, 0, 0], 121),
            ("Failed", [0, 0, 3, 1, 0], 123),
            ("Failed", [2, 1, 0, 1, 0], 123),
        ] {
            let count = |count: i32| json!({"count": count});
            let mut status = json!({
                "phase": phase, "completionTime": "2026-01-02T03:04:05.000000Z", "succeeded": count(succeeded),
                "failed": count(failed), "notRun": count(not_run), "unknown": count(unknown), "skipped": count(skipped),
            });
            let exit =
                |status: &serde_json::Value| Exit::of_batch(&serde_json::from_value(status.clone()).expect("a status"));
            assert_eq!(exit(&status), Some(Exit(expected)), "{status}");
            status["completionTime"] = json!(null);
            assert_eq!(exit(&status), None);
        }
    }

    #[test]
    fn a_last_frame_tells_the_code_or_none() {
        let told = |status: &crate::api::ExecResult| {
            Exit::of_stream(&serde_json::from_value(json!(status)).expect("a Status"))
        };
        assert_eq!(told(&crate::api::ExecResult::of_exit_code(0)), Exit::SUCCESS);
        assert_eq!(told(&crate::api::ExecResult::of_exit_code(137)), Exit(137));
        assert_eq!(told(&crate::api::ExecResult::of_error("lost")), Exit::UNKNOWN);
    }

    #[test]
    fn what_has_not_finished_has_no_code() {
        assert_eq!(Exit::of(&ExecRequestStatus { exit_code: Some(0), ..Default::default() }), None);
    }
}
