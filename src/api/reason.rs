//! Why a request is where it is: one word out of one list.
//!
//! The same word is the condition's reason, the Event's reason and the metric's
//! label.

use std::fmt;

use super::status::Phase;

macro_rules! reasons {
    ($( $(#[$doc:meta])* $name:ident => $phase:ident, )*) => {
        /// The reason of a condition, an Event or a metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// An admission policy is missing or altered: nothing is bound until all of them stand again.
    AdmissionNotReady => Failed,
    /// The installation has no admission policies, by its own choice: an Event says so.
    AdmissionOff => Failed,
    /// The request is bound to a node and waits for its agent.
    Bound => Failed,
    /// The command was committed: it runs, or is about to.
    Running => Failed,

    /// The command ended with exit code 0.
    Completed => Succeeded,
    /// The command ended with another exit code.
    NonZeroExitCode => Failed,
    /// The engine could not start the command: nothing ran.
    StartFailed => Failed,
    /// `startingDeadlineSeconds` passed before the command could start: nothing ran.
    StartingDeadlineExceeded => Failed,
    /// `activeDeadlineSeconds` passed while the command ran, and it was ended.
    DeadlineExceeded => Failed,
    /// `cancel` was set: the command was ended, or never ran.
    Canceled => Failed,
    /// The request was deleted while its command ran, and the command was ended.
    Deleted => Failed,
    /// Its requester may not do that, or cannot be told with certainty: nothing ran.
    Forbidden => Failed,
    /// There is no such pod.
    PodNotFound => Failed,
    /// Another pod stands under the same name.
    PodReplaced => Failed,
    /// The pod has no such container.
    ContainerNotFound => Failed,
    /// The container is not running, or is paused.
    ContainerNotRunning => Failed,
    /// The container ended or was replaced, and the command with it, or before it could start.
    ContainerDied => Failed,
    /// The request cannot be understood or is refused by the engine.
    InvalidRequest => Failed,
    /// The agent cannot write to its disk, and starts nothing that it could not remember.
    NodeDiskFull => Failed,
    /// The audit log cannot be written, and nothing may run that is not recorded.
    AuditUnavailable => Failed,
    /// The command ended, but its input was cut short by us: what it did proves nothing, whatever its code.
    InputLost => Failed,
    /// The command was to be ended, but processes of it live on.
    KillFailed => Unknown,
    /// The node of the command is gone, or its agent has been silent for too long.
    NodeLost => Unknown,
    /// What became of the command cannot be known.
    OutcomeLost => Unknown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
