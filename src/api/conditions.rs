//! Reading and setting conditions.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use super::{message::cut, reason::Reason};

/// The types of condition that a request or a batch may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// A node, a pod UID and a container have been chosen.
    Bound,
    /// The command was committed and started.
    Started,
    /// Every target of the batch has its request, and no other will ever have one.
    Planned,
    /// Somebody else has approved the plan of the batch.
    Approved,
    /// It has ended, in whichever way.
    Finished,
    /// The command ended with exit code 0; all those of a batch did.
    Succeeded,
    /// kstatus: somebody works on it.
    Reconciling,
    /// kstatus: it ended without success.
    Stalled,
}

impl ConditionType {
    /// The word used in `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bound => "Bound",
            Self::Started => "Started",
            Self::Planned => "Planned",
            Self::Approved => "Approved",
            Self::Finished => "Finished",
            Self::Succeeded => "Succeeded",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }
}

/// The value of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be said.
    Unknown,
}

impl Truth {
    /// The word used in `status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Sets one condition, keeping `lastTransitionTime` while its status stays the same.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: ConditionType,
    truth: Truth,
    reason: Reason,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let mut condition = Condition {
        type_: kind.as_str().into(),
        status: truth.as_str().into(),
        reason: reason.as_str().into(),
        message: cut(message),
        observed_generation: generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|c| c.type_ == kind.as_str()) {
        Some(existing) => {
            if existing.status == condition.status {
                condition.last_transition_time = existing.last_transition_time.clone();
            }
            *existing = condition;
        }
        None => conditions.push(condition),
    }
}

/// Takes a condition away.
pub fn remove(conditions: &mut Vec<Condition>, kind: ConditionType) {
    conditions.retain(|c| c.type_ != kind.as_str());
}

/// One condition, if it is set.
pub fn get(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == kind.as_str())
}
