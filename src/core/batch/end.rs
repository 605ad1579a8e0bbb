//! How one target of a batch ended.

use crate::api::{
    ExecRequestStatus, Phase,
    conditions::{self, ConditionType, Truth},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Succeeded,
    /// It ran, and ended in any other way.
    Failed,
    /// It never ran, and never will.
    NotRun,
    /// It may have run.
    Unknown,
    /// The requester may not exec into it, and it was to be skipped then.
    Skipped,
}

impl End {
    pub const ALL: [Self; 5] = [Self::Succeeded, Self::Failed, Self::NotRun, Self::Unknown, Self::Skipped];

    /// How a request ended; `None` if it has not.
    pub fn of(status: &ExecRequestStatus) -> Option<Self> {
        status.completion_time.as_ref()?;
        let started =
            conditions::get(&status.conditions, ConditionType::Started).map(|started| started.status.as_str());
        let is = |truth: Truth| started == Some(truth.as_str());
        Some(match status.phase {
            Phase::Succeeded => Self::Succeeded,
            Phase::Failed if is(Truth::True) => Self::Failed,
            // Its engine could not tell whether it had begun.
            Phase::Failed if is(Truth::Unknown) => Self::Unknown,
            Phase::Failed => Self::NotRun,
            Phase::Unknown | Phase::Pending | Phase::Bound | Phase::Running => Self::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::{
        api::{ExitCodeSource, OutputStatus, Reason},
        core::{
            outcome::{Exit, Outcome},
            transition::Write,
        },
    };

    fn end(committed: bool, outcome: &Outcome) -> Option<End> {
        let mut from = ExecRequestStatus::default();
        if committed {
            let exec =
                serde_json::from_value(serde_json::json!({"id": "e", "container": {"id": "c", "startedAt": ""}}));
            let write = Write { from: &from, generation: Some(1), at: Timestamp::UNIX_EPOCH };
            from = write.committed(&exec.expect("an exec"));
        }
        let status = Write { from: &from, generation: Some(1), at: Timestamp::UNIX_EPOCH }.finished(outcome);
        assert_eq!(End::of(&from), None, "it has not ended");
        End::of(&status)
    }

    #[test]
    fn an_end_is_what_the_status_proves() {
        let at = Timestamp::UNIX_EPOCH;
        let exited = |code| Outcome::exited(Exit { code, source: ExitCodeSource::Engine }, OutputStatus::default(), at);
        for (committed, outcome, wanted) in [
            (true, exited(0), End::Succeeded),
            (true, exited(3), End::Failed),
            (false, Outcome::refused(Reason::PodNotFound, "", at), End::NotRun),
            (false, Outcome::refused(Reason::Forbidden, "", at), End::NotRun),
            (true, Outcome::refused(Reason::StartFailed, "", at), End::NotRun),
            (true, Outcome::lost("", None, at), End::Unknown),
            (true, Outcome::died_early(OutputStatus::default(), at), End::Unknown),
            (true, Outcome::gone_with_container(OutputStatus::default(), at), End::Failed),
            // An older state of the API server was restored, and it had run.
            (false, exited(0), End::Succeeded),
        ] {
            assert_eq!(end(committed, &outcome), Some(wanted), "{outcome:?}");
        }
    }
}
