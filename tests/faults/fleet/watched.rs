//! A batch, watched from its creation to its end: every write of its status is counted, and held against the one before.

use std::{pin::pin, time::Duration};

use execlet::{
    api::{ExecBatch, ExecBatchStatus},
    core::batch::{end::End, ledger::Ledger, share},
};
use futures::StreamExt;
use kube::{
    Api,
    api::{WatchEvent, WatchParams},
};
use tokio::time::{Instant, sleep};

/// After a watch that ended.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub struct Watched {
    pub writes: u32,
    /// Bytes of the largest status, as JSON.
    pub largest: usize,
    /// How long it took until there was a plan.
    pub planned: Option<Duration>,
    /// The last one.
    pub status: ExecBatchStatus,
}

pub async fn watch_to_its_end(api: Api<ExecBatch>, created: ExecBatch, begun: Instant) -> Watched {
    let [name, version] = [created.metadata.name, created.metadata.resource_version].map(Option::unwrap_or_default);
    let (params, mut version) = (WatchParams::default().fields(&format!("metadata.name={name}")), version);
    let mut watched = Watched::default();
    loop {
        match api.watch(&params, &version).await {
            Ok(events) => {
                let mut events = pin!(events);
                while let Some(event) = events.next().await {
                    match event {
                        Ok(WatchEvent::Modified(batch)) => {
                            version = batch.metadata.resource_version.clone().expect("a version");
                            watched.note(batch, begun);
                            if watched.status.completion_time.is_some() {
                                return watched;
                            }
                        }
                        Ok(WatchEvent::Bookmark(mark)) => version = mark.metadata.resource_version,
                        Ok(event @ (WatchEvent::Added(_) | WatchEvent::Deleted(_) | WatchEvent::Error(_))) => {
                            panic!("writes may have been missed: {event:?}")
                        }
                        Err(error) => println!("the watch of the batch: {error}"),
                    }
                }
            }
            Err(error) => println!("the watch of the batch: {error}"),
        }
        sleep(PAUSE).await;
    }
}

impl Watched {
    fn note(&mut self, batch: ExecBatch, begun: Instant) {
        let status = batch.status.unwrap_or_default();
        let [was, now] = [&self.status, &status].map(|status| Ledger::of(status).expect("each index is in one set"));
        for end in End::ALL {
            for index in was.set(end).iter() {
                assert_eq!(now.end_of(index), Some(end), "what is said of an index stands");
            }
        }
        assert!(status.released >= self.status.released, "what is released stays so");
        if let Some(total) = status.plan.as_ref().and_then(|plan| plan.total) {
            self.planned.get_or_insert(begun.elapsed());
            let most = share::parallelism(&batch.spec, u16::try_from(total).expect("a number of targets"));
            assert!(status.active <= most.into(), "{} are released at a time", status.active);
        }
        self.writes += 1;
        self.largest = self.largest.max(serde_json::to_vec(&status).expect("JSON").len());
        self.status = status;
    }
}
