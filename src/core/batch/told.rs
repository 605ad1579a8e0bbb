//! Which Events there are of a batch's requests: one on its pod when the command starts, and one on those that were refused.
//! The batch itself has one for each of its phases. Five of each request would be ten thousand of a batch of two thousand.

use crate::{
    api::{ExecRequest, Reason},
    core::outcome::Outcome,
};

/// Whether a request has Events of its own for what it goes through.
pub fn has_events(request: &ExecRequest) -> bool {
    request.spec.batch.is_none()
}

/// Whether it has one for its end. Of what ended with its batch, the batch has it.
pub fn tells_its_end(request: &ExecRequest, outcome: &Outcome) -> bool {
    let with_its_batch = matches!(
        outcome.reason,
        Reason::Canceled | Reason::Deleted | Reason::DeadlineExceeded | Reason::TooManyFailed | Reason::NotReleased
    );
    has_events(request) || !outcome.may_have_run && !with_its_batch
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::{
        api::OutputStatus,
        core::batch::fixture::{batch, held},
    };

    #[test]
    fn only_what_was_refused_of_a_batch_tells_its_end_itself() {
        let child = held(&batch(&json!({})), 0);
        let mut single = child.clone();
        single.spec.batch = None;
        let at = Timestamp::UNIX_EPOCH;
        let refused = |reason| Outcome::refused(reason, "", at);
        for (outcome, told) in [
            (refused(Reason::PodNotFound), true),
            (refused(Reason::Forbidden), true),
            (refused(Reason::BatchMismatch), true),
            (refused(Reason::StartingDeadlineExceeded), true),
            (refused(Reason::Canceled), false),
            (refused(Reason::TooManyFailed), false),
            (refused(Reason::NotReleased), false),
            (Outcome::lost("", None, at), false),
            (Outcome::gone_with_container(OutputStatus::default(), at), false),
        ] {
            assert_eq!(tells_its_end(&child, &outcome), told, "{}", outcome.reason);
            assert!(tells_its_end(&single, &outcome), "{}", outcome.reason);
        }
        assert!(has_events(&single) && !has_events(&child));
    }
}
