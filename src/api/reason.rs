//! Why a request is in its phase: one list of words.
//!
//! The same word is the reason of the condition and of the Event, and the label of the metric.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::status::Phase;

macro_rules! reasons {
    ($( $(#[$doc:meta])* $name:ident => $phase:ident, )*) => {
        /// The reason of a condition, an Event or a metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Reason {
            $( $(#[$doc])* $name, )*
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Reason] = &[$( Reason::$name, )*];

            /// The word itself, in `CamelCase`.
            pub const fn as_str(self) -> &'static str {
                match self { $( Reason::$name => stringify!($name), )* }
            }

            /// The phase of a request that *ended* for this reason.
            pub const fn final_phase(self) -> Phase {
                match self { $( Reason::$name => Phase::$phase, )* }
            }
        }
    };
}

reasons! {
    /// The manager has not looked at the request yet.
    Pending => Failed,
    /// The pod is not running yet.
    PodNotRunning => Failed,
    /// No agent on the pod's node renews its Lease.
    AgentNotReady => Failed,
    /// The node's container engine, or the runtime of the container, is not one that execlet works with, or the container's
    /// processes cannot be told from others: nothing ran.
    RuntimeNotSupported => Failed,
    /// An admission policy is missing or altered: nothing is bound until it is restored.
    AdmissionNotReady => Failed,
    /// Admission is switched off in this installation. Only an Event on the manager's pod.
    AdmissionOff => Failed,
    /// The request is bound to a node and waits for its agent.
    Bound => Failed,
    /// The command was committed: it runs, or is about to.
    Running => Failed,

    /// The targets of the batch are being listed, and a request is made for each.
    Planning => Failed,
    /// Every target of the batch has its request, and no other will ever have one.
    Planned => Failed,
    /// The batch waits for somebody to approve its plan.
    ApprovalRequired => Failed,
    /// Somebody has approved the plan of the batch.
    Approved => Failed,
    /// The batch waits because `suspend` is set.
    Suspended => Failed,
    /// The batch waits for `releaseLimit` to be raised.
    ReleaseLimit => Failed,

    /// The command ended with exit code 0; all those of a batch did.
    Completed => Succeeded,
    /// The command ended with another exit code.
    NonZeroExitCode => Failed,
    /// The container engine could not start the command: nothing ran.
    StartFailed => Failed,
    /// `startingDeadlineSeconds` passed before the command could start: nothing ran.
    StartingDeadlineExceeded => Failed,
    /// `activeDeadlineSeconds` passed while the command ran, and it was ended.
    DeadlineExceeded => Failed,
    /// `cancel` was set: the command was ended, or never ran.
    Canceled => Failed,
    /// The request was deleted: the command was ended, or never ran.
    Deleted => Failed,
    /// The requester lacks a right, or nobody vouches for who that is: nothing ran.
    Forbidden => Failed,
    /// The request is not what its batch says, or its batch does not let it run: nothing ran.
    BatchMismatch => Failed,
    /// The agent could not hold the request against its batch, so it started nothing.
    BatchNotChecked => Failed,
    /// There is no such pod.
    PodNotFound => Failed,
    /// The name belongs to another pod now.
    PodReplaced => Failed,
    /// The pod has no such container.
    ContainerNotFound => Failed,
    /// The container is not running, or is paused.
    ContainerNotRunning => Failed,
    /// The container ended or was restarted while the command ran, or before it could start.
    ContainerDied => Failed,
    /// The request cannot be read, or the container engine refuses it.
    InvalidRequest => Failed,
    /// The agent cannot write its journal, so it starts nothing.
    NodeDiskFull => Failed,
    /// The audit log cannot be written, and nothing may run unrecorded.
    AuditUnavailable => Failed,
    /// The command ended, but its input was cut short, so its exit code proves nothing.
    InputLost => Failed,
    /// Not every target of the batch succeeded.
    TargetsFailed => Failed,
    /// More targets of the batch ended without success than may: the others never ran.
    TooManyFailed => Failed,
    /// The batch found no target: nothing ran.
    NoTargets => Failed,
    /// The batch found more targets than `maxTargets`: nothing ran.
    TooManyTargets => Failed,
    /// The requests of the batch would hold more than the API server should: nothing ran.
    PlanTooLarge => Failed,
    /// The API server refused a request of the batch, so none was released: nothing ran.
    PlanRefused => Failed,
    /// Nothing of the batch was released for so long that it was given up: nothing ran.
    NotReleased => Failed,
    /// The command was to be ended, but some of its processes are still alive.
    KillFailed => Unknown,
    /// The command's node is gone, or its agent has been silent for too long.
    NodeLost => Unknown,
    /// An earlier request of the same batch holds the same pod, and has not ended: this one was not started.
    TargetTaken => Unknown,
    /// The command may have run; how it ended cannot be known.
    OutcomeLost => Unknown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
