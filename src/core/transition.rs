//! The status writes in a request's life: pending, bind, commit, report.
//!
//! Each takes the status that was read and returns the one to write.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

use super::{ids::ExecRef, outcome::Outcome, printable::one_line};
use crate::api::{
    ExecRequestStatus, Phase, Reason,
    conditions::{
        self,
        ConditionType::{self, Bound, Finished, Reconciling, Stalled, Started, Succeeded},
        Truth,
    },
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub node: String,
    pub pod_uid: String,
    pub container: String,
    /// A warning for the condition's message.
    pub caveat: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// As it was read.
    pub from: &'a ExecRequestStatus,
    /// Of the object as it was read.
    pub generation: Option<i64>,
    pub at: Timestamp,
}

impl Write<'_> {
    pub fn pending(&self, reason: Reason, message: &str) -> ExecRequestStatus {
        let mut status = self.start();
        self.set(&mut status, Bound, Truth::False, reason, message);
        self.set(&mut status, Finished, Truth::False, reason, message);
        status
    }

    pub fn bound(&self, binding: &Binding) -> ExecRequestStatus {
        let mut status = self.start();
        status.phase = Phase::Bound;
        status.node_name = Some(binding.node.clone());
        status.pod_uid = Some(binding.pod_uid.clone());
        status.container = Some(binding.container.clone());
        let caveat = binding.caveat.map(|caveat| format!(": {caveat}")).unwrap_or_default();
        let message = format!("bound to container {} on node {}{caveat}", binding.container, binding.node);
        self.set(&mut status, Bound, Truth::True, Reason::Bound, &message);
        self.set(&mut status, Finished, Truth::False, Reason::Bound, "waiting for the agent to start the command");
        self.set(&mut status, Reconciling, Truth::True, Reason::Bound, &message);
        status
    }

    /// Committed to this exec: no other will ever start.
    pub fn committed(&self, exec: &ExecRef) -> ExecRequestStatus {
        let mut status = self.start();
        status.phase = Phase::Running;
        status.exec_id = Some(exec.id.to_string());
        status.container_id = Some(exec.container.id.to_string());
        status.start_time = Some(MicroTime(self.at));
        self.set(&mut status, Started, Truth::True, Reason::Running, "committed to start the command");
        self.set(&mut status, Finished, Truth::False, Reason::Running, "the command is running");
        self.set(&mut status, Reconciling, Truth::True, Reason::Running, "the command is running");
        status
    }

    pub fn finished(&self, outcome: &Outcome) -> ExecRequestStatus {
        let Outcome { reason, message, exit, may_have_run, in_doubt, output, at } = outcome;
        let mut status = self.start();
        status.phase = reason.final_phase();
        status.completion_time = Some(MicroTime(*at));
        status.exit_code = exit.map(|exit| exit.code);
        status.exit_code_source = exit.map(|exit| exit.source);
        status.result = Some(outcome.result());
        status.output.clone_from(output);
        if !may_have_run {
            status.start_time = None;
            self.set(&mut status, Started, Truth::False, *reason, message);
        } else if *in_doubt {
            self.set(&mut status, Started, Truth::Unknown, *reason, message);
        } else if conditions::get(&status.conditions, Started).is_none() {
            // A backup from before the commit was restored.
            let started = if exit.is_some() { Truth::True } else { Truth::Unknown };
            self.set(&mut status, Started, started, *reason, message);
        }
        let succeeded = match status.phase {
            Phase::Succeeded => Truth::True,
            Phase::Unknown => Truth::Unknown,
            Phase::Failed | Phase::Pending | Phase::Bound | Phase::Running => Truth::False,
        };
        self.set(&mut status, Finished, Truth::True, *reason, message);
        self.set(&mut status, Succeeded, succeeded, *reason, message);
        conditions::remove(&mut status.conditions, Reconciling);
        if succeeded != Truth::True {
            self.set(&mut status, Stalled, Truth::True, *reason, message);
        }
        status
    }

    fn start(&self) -> ExecRequestStatus {
        ExecRequestStatus { observed_generation: self.generation, ..self.from.clone() }
    }

    fn set(&self, status: &mut ExecRequestStatus, kind: ConditionType, truth: Truth, reason: Reason, message: &str) {
        // It quotes the runtime, and names: whoever prints a condition may print it as it is.
        let message = one_line(message.trim_end());
        conditions::set(&mut status.conditions, kind, truth, reason, &message, self.generation, self.at);
    }
}

/// For an API server that refused the status as too large.
pub fn without_tails(mut outcome: Outcome) -> Outcome {
    if let Some(output) = &mut outcome.output {
        for stream in [&mut output.stdout, &mut output.stderr] {
            stream.tail = None;
            stream.tail_base64 = None;
            stream.truncated = stream.bytes > 0;
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{ExitCodeSource, OutputStatus},
        core::outcome::Exit,
    };

    fn write(from: &ExecRequestStatus) -> Write<'_> {
        Write { from, generation: Some(1), at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_condition_is_one_line_whoever_it_quotes() {
        let status = ExecRequestStatus::default();
        let pending = write(&status).pending(Reason::PodNotRunning, "it says: no\n\u{1b}[1A\u{202e}yes\n");
        let condition = conditions::get(&pending.conditions, Finished).expect("a condition");
        assert_eq!(condition.message, r"it says: no\n\x1b[1A\u{202e}yes");
    }

    fn truth(status: &ExecRequestStatus, kind: conditions::ConditionType) -> Option<(&str, &str)> {
        conditions::get(&status.conditions, kind).map(|c| (c.status.as_str(), c.reason.as_str()))
    }

    #[test]
    fn a_request_goes_from_pending_over_bound_and_running_to_its_end() {
        let status = write(&ExecRequestStatus::default()).pending(Reason::PodNotRunning, "pod web is Pending");
        assert_eq!(status.phase, Phase::Pending);
        assert_eq!(truth(&status, Finished), Some(("False", "PodNotRunning")));

        let binding = Binding { node: "n1".into(), pod_uid: "u".into(), container: "c".into(), caveat: None };
        let status = write(&status).bound(&binding);
        assert_eq!((status.phase, status.node_name.as_deref()), (Phase::Bound, Some("n1")));
        assert_eq!(truth(&status, Bound), Some(("True", "Bound")));
        assert_eq!(truth(&status, Reconciling), Some(("True", "Bound")));

        let exec = ExecRef {
            id: "e".into(),
            container: crate::core::ids::ContainerRef { id: "c".into(), started_at: Some("t".into()) },
        };
        let status = write(&status).committed(&exec);
        assert_eq!((status.phase, status.exec_id.as_deref()), (Phase::Running, Some("e")));
        assert_eq!(truth(&status, Started), Some(("True", "Running")));

        let exit = Exit { code: 3, source: ExitCodeSource::Engine };
        let outcome = Outcome::exited(exit, OutputStatus::default(), Timestamp::UNIX_EPOCH);
        let status = write(&status).finished(&outcome);
        assert_eq!((status.phase, status.exit_code), (Phase::Failed, Some(3)));
        assert_eq!(truth(&status, Finished), Some(("True", "NonZeroExitCode")));
        assert_eq!(truth(&status, Succeeded), Some(("False", "NonZeroExitCode")));
        assert_eq!(truth(&status, Stalled), Some(("True", "NonZeroExitCode")));
        assert_eq!(truth(&status, Reconciling), None);
        assert_eq!(truth(&status, Started), Some(("True", "Running")));
    }

    #[test]
    fn a_request_that_never_ran_is_not_started() {
        let outcome = Outcome::refused(Reason::PodNotFound, "no pod", Timestamp::UNIX_EPOCH);
        let status = write(&ExecRequestStatus::default()).finished(&outcome);
        assert_eq!(truth(&status, Started), Some(("False", "PodNotFound")));
        assert_eq!((status.exit_code, status.start_time.is_some()), (None, false));
    }

    #[test]
    fn a_request_that_ran_before_its_status_was_set_back_is_not_said_never_to_have_started() {
        let bound = ExecRequestStatus::default();
        let exit = Exit { code: 0, source: ExitCodeSource::Engine };
        let outcome = Outcome::exited(exit, OutputStatus::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(truth(&write(&bound).finished(&outcome), Started), Some(("True", "Completed")));
        let outcome = Outcome::lost("the engine forgot", None, Timestamp::UNIX_EPOCH);
        assert_eq!(truth(&write(&bound).finished(&outcome), Started), Some(("Unknown", "OutcomeLost")));
    }

    #[test]
    fn an_unknown_outcome_is_neither_success_nor_failure() {
        let outcome = Outcome::lost("the engine forgot", None, Timestamp::UNIX_EPOCH);
        let status = write(&ExecRequestStatus::default()).finished(&outcome);
        assert_eq!(status.phase, Phase::Unknown);
        assert_eq!(truth(&status, Succeeded), Some(("Unknown", "OutcomeLost")));
    }

    #[test]
    fn the_same_pending_reason_again_changes_nothing() {
        let first = write(&ExecRequestStatus::default()).pending(Reason::PodNotRunning, "not yet");
        let again =
            Write { from: &first, generation: Some(1), at: Timestamp::MAX }.pending(Reason::PodNotRunning, "not yet");
        assert_eq!(first, again);
    }
}
