//! When a finished batch is deleted.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::ExecBatch;

/// Whether `ttlSecondsAfterFinished` has passed. Without one a batch stays.
pub fn has_expired(batch: &ExecBatch, now: Timestamp) -> bool {
    let ended = batch.status.as_ref().and_then(|status| status.completion_time.as_ref());
    let (Some(ended), Some(seconds)) = (ended, batch.spec.ttl_seconds_after_finished) else { return false };
    let is_deleted = batch.metadata.deletion_timestamp.is_some();
    !is_deleted && now.duration_since(ended.0) >= SignedDuration::from_secs(seconds.into())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
    use serde_json::json;

    use super::*;
    use crate::{api::ExecBatchStatus, core::batch::fixture::batch};

    #[test]
    fn a_batch_expires_once_its_time_has_passed_since_it_finished() {
        let at = |second| Timestamp::from_second(1_000 + second).expect("a time");
        let of = |ttl: Option<i32>, ended: Option<i64>| {
            let mut batch = batch(&json!({"ttlSecondsAfterFinished": ttl}));
            let completion_time = ended.map(|second| MicroTime(at(second)));
            batch.status = Some(ExecBatchStatus { completion_time, ..ExecBatchStatus::default() });
            batch
        };
        for (ttl, ended, now, wanted) in [
            (None, Some(0), 10_000, false),
            (Some(60), None, 10_000, false),
            (Some(60), Some(0), 59, false),
            (Some(60), Some(0), 60, true),
            (Some(0), Some(0), 0, true),
            // A clock that was wrong.
            (Some(0), Some(5), 0, false),
        ] {
            assert_eq!(has_expired(&of(ttl, ended), at(now)), wanted, "{ttl:?} {ended:?} {now}");
        }
        let mut deleted = of(Some(0), Some(0));
        deleted.metadata.deletion_timestamp = Some(Time(at(0)));
        assert!(!has_expired(&deleted, at(1)), "somebody else has deleted it");
    }
}
