//! The second request for one target of a batch. It never starts.
//!
//! A batch that is planned anew, after an older state of the API server was restored, has new requests for the same pods.
//! What the first one has done, or may have done, the node still knows: that is what the second one tells.

use k8s_openapi::jiff::Timestamp;

use super::{ids::RequestUid, outcome::Outcome};
use crate::api::Reason;

/// What is remembered of the request that holds a target.
#[derive(Clone, Debug, PartialEq)]
pub struct First {
    pub uid: RequestUid,
    /// How it ended; `None` if it has not, as far as the journal knows.
    pub outcome: Option<Outcome>,
}

impl First {
    /// How a second request for the same target ends, which was never started.
    pub fn outcome_of_second(&self, at: Timestamp) -> Outcome {
        let Self { uid, outcome } = self;
        if let Some(first) = outcome {
            let message = format!(
                "this request was not started, because request {uid} of the same batch had the pod before; of that one: {}",
                first.message
            );
            return Outcome { message, at, ..first.clone() };
        }
        let message = format!(
            "request {uid} of the same batch has the pod, and its command runs or may yet: this request was not started, and never will be"
        );
        Outcome { reason: Reason::TargetTaken, ..Outcome::lost(message, None, at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{ExitCodeSource, OutputStatus, Phase},
        core::outcome::Exit,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn the_second_tells_how_the_first_ended_and_that_it_was_another() {
        let exit = Exit { code: 3, source: ExitCodeSource::Engine };
        for first in [
            Outcome::exited(exit, OutputStatus::default(), at(5)),
            Outcome::refused(Reason::ContainerDied, "gone", at(5)),
            Outcome::lost("lost", None, at(5)),
        ] {
            let second = First { uid: "u".into(), outcome: Some(first.clone()) }.outcome_of_second(at(9));
            assert!(second.message.contains("request u ") && second.message.ends_with(&first.message), "{second:?}");
            assert_eq!(Outcome { message: first.message.clone(), at: first.at, ..second }, first);
        }
    }

    #[test]
    fn what_the_first_does_is_not_said_to_be_known_while_it_runs() {
        let second = First { uid: "u".into(), outcome: None }.outcome_of_second(at(9));
        assert_eq!((second.reason, second.reason.final_phase()), (Reason::TargetTaken, Phase::Unknown));
        assert!(second.may_have_run && second.exit.is_none(), "{second:?}");
    }
}
