//! What the agent remembers of a request.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    ids::{BootId, ExecRef, ProcessRef, TargetKey},
    kill::Kill,
    outcome::Outcome,
};
use crate::api::ExecRequestSpec;

/// What a request asks for, as far as it takes to look after its command while the request itself cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// Longest time that it may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<Duration>,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Whether it is to have input.
    pub stdin: bool,
}

impl From<&ExecRequestSpec> for Terms {
    fn from(spec: &ExecRequestSpec) -> Self {
        let seconds = |seconds| u64::try_from(seconds).map(Duration::from_secs).ok();
        Self {
            active: spec.active_deadline_seconds.and_then(seconds),
            grace: seconds(spec.termination_grace_period_seconds).unwrap_or_default(),
            stdin: spec.stdin.is_some(),
        }
    }
}

/// How far the agent has come with an exec. Written to disk *before* the act it speaks of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "stage")]
#[allow(clippy::large_enum_variant, reason = "one for each request in hand")]
pub enum Stage {
    /// The exec was created; nothing has run.
    Prepared,
    /// The exec is taken away because it was never started: as soon as it is gone, another one takes its place.
    Fencing,
    /// The engine was asked, or is about to be, to start it.
    Starting,
    Running {
        /// The process, in the node's PID namespace.
        process: ProcessRef,
        /// Inodes of the pipes that it writes to; none with a terminal.
        #[serde(default)]
        pipes: Vec<u64>,
        /// It was seen to have executed the command.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        executed: bool,
    },
    /// It has ended, or never will run.
    Ended { outcome: Outcome },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The exec that was created for it; `None` of what ended before there was one.
    #[serde(with = "no_exec_is_empty")]
    pub exec: Option<ExecRef>,
    /// The boot of the node in which it was created.
    pub boot: BootId,
    pub stage: Stage,
    /// When it was started, as time since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Duration>,
    /// `None` in a record of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    /// Its whole input was delivered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<Kill>,
    /// The target of a batch that it holds: nobody else starts anything there. Of a batch's request for which an exec was
    /// created; `None` in a record of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetKey>,
}

/// That there is none is written as an exec without an ID, as every version of the journal has it.
mod no_exec_is_empty {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::core::ids::{ContainerRef, ExecRef};

    #[allow(clippy::ref_option, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(exec: &Option<ExecRef>, to: S) -> Result<S::Ok, S::Error> {
        let none = || ExecRef { id: "".into(), container: ContainerRef { id: "".into(), started_at: None } };
        exec.clone().unwrap_or_else(none).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ExecRef>, D::Error> {
        Ok(Some(ExecRef::deserialize(from)?).filter(|exec| !exec.id.as_str().is_empty()))
    }
}

impl Entry {
    /// Nothing but its stage is known.
    pub const fn new(exec: Option<ExecRef>, boot: BootId, stage: Stage) -> Self {
        Self { exec, boot, stage, started: None, terms: None, fed: false, kill: None, target: None }
    }

    /// Whether it is about this very exec.
    pub fn is_about(&self, exec: &ExecRef) -> bool {
        self.exec.as_ref().is_some_and(|own| own.id == exec.id)
    }

    /// Whether it is about this very exec, and of this boot: what it says of a process still holds.
    pub fn is_current(&self, exec: &ExecRef, boot: &BootId) -> bool {
        self.is_about(exec) && self.boot == *boot
    }

    /// Whether its command was seen to be executed.
    pub const fn was_executed(&self) -> bool {
        matches!(self.stage, Stage::Running { executed: true, .. })
    }

    /// Whether it is about the exec that was committed.
    pub fn is_of(&self, committed: &ExecRef) -> bool {
        self.exec.as_ref().is_some_and(|exec| exec.stands_for(committed))
    }

    /// Whether its command was started, or may have been.
    pub fn may_have_run(&self) -> bool {
        match &self.stage {
            Stage::Prepared => false,
            Stage::Fencing | Stage::Starting | Stage::Running { .. } => true,
            Stage::Ended { outcome } => outcome.may_have_run,
        }
    }

    /// Whether its command may run now.
    pub const fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Fencing | Stage::Starting | Stage::Running { .. })
    }

    /// Whether something of it may be running, or left alive.
    pub fn needs_looking_after(&self) -> bool {
        self.is_under_way() || self.has_survivors()
    }

    /// Whether processes of it were left alive though they were to be killed.
    pub fn has_survivors(&self) -> bool {
        matches!(self.kill, Some(Kill { survivors: true, .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_an_earlier_version_is_read_and_tells_no_terms() -> Result<(), serde_json::Error> {
        let exec = r#""exec":{"id":"e","container":{"id":"c","startedAt":"t"}}"#;
        let old = format!(r#"{{{exec},"boot":"b","stage":{{"stage":"starting"}},"started":{{"secs":5,"nanos":0}}}}"#);
        let entry: Entry = serde_json::from_str(&old)?;
        assert_eq!((entry.terms, entry.started), (None, Some(Duration::from_secs(5))));
        assert_eq!(entry.target, None);
        let terms = Terms { active: None, grace: Duration::from_secs(10), stdin: true };
        let target = TargetKey { batch: "b".into(), pod: "p".into() };
        let new = Entry { terms: Some(terms), target: Some(target), ..entry };
        assert_eq!(serde_json::from_str::<Entry>(&serde_json::to_string(&new)?)?, new);
        Ok(())
    }
}
