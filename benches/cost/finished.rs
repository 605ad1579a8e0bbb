//! Requests, each from its creation until it is known to have finished: by one watch for all of them.

use std::{collections::HashMap, pin::pin, sync::Arc};

use anyhow::{Context as _, ensure};
use execlet::api::{ExecRequest, Phase};
use futures::StreamExt as _;
use kube::{
    Api,
    api::PostParams,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::Mutex;
use tokio::{sync::oneshot, task::JoinSet};

pub struct Finished {
    requests: Api<ExecRequest>,
    /// Whom to tell of the end of a request, by its name.
    awaited: Arc<Awaited>,
    /// Ends with its value.
    _watching: JoinSet<()>,
}

type Awaited = Mutex<HashMap<String, oneshot::Sender<Phase>>>;

impl Finished {
    pub fn watch(requests: Api<ExecRequest>) -> Self {
        let awaited: Arc<Awaited> = Arc::default();
        let mut watching = JoinSet::new();
        watching.spawn(tell(requests.clone(), Arc::clone(&awaited)));
        Self { requests, awaited, _watching: watching }
    }

    /// Creates a request, and waits until the watch tells of its end. It must succeed.
    pub async fn run(&self, request: &ExecRequest) -> anyhow::Result<()> {
        let name = request.metadata.name.clone().context("a request without a name")?;
        let (tell, told) = oneshot::channel();
        self.awaited.lock().insert(name.clone(), tell);
        self.requests.create(&PostParams::default(), request).await?;
        let phase = told.await.context("the watch has ended")?;
        ensure!(phase == Phase::Succeeded, "request {name}: {phase:?}");
        Ok(())
    }
}

async fn tell(requests: Api<ExecRequest>, awaited: Arc<Awaited>) {
    let mut events = pin!(watcher(requests, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(request) | Event::InitApply(request)) => {
                let status = request.status.unwrap_or_default();
                if status.completion_time.is_some()
                    && let Some(tell) = request.metadata.name.and_then(|name| awaited.lock().remove(&name))
                {
                    // Whoever has asked may have given up.
                    tell.send(status.phase).ok();
                }
            }
            Ok(Event::Delete(_) | Event::Init | Event::InitDone) => {}
            Err(error) => eprintln!("the watch of the requests: {error}"),
        }
    }
}
