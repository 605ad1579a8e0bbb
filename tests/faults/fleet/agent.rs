//! A simulated agent: makes the calls of a real one for each request of a batch, as fast as it can, and runs nothing. It
//! writes no Events and serves no streams.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use execlet::{
    agent::intake::watch::{self, Event},
    api::{ExecRequest, ExitCodeSource, OutputStatus, StreamStatus, names},
    core::{
        access::rights,
        batch::held::hold,
        digest::sha256,
        ids::{ContainerRef, ExecName, ExecRef, NodeName, RequestKey},
        outcome::{Exit, Outcome},
        request::key_of,
        transition::Write,
    },
    infra::{
        batches::{Batches as _, KubeBatches},
        call::ApiError,
        requests::{KubeRequests, Requests as _, Written},
    },
};
use futures::{StreamExt, stream};
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{code, ground::LABEL};
use crate::lab::{NAMESPACE, PATIENCE};

/// As a real agent does.
const RENEW_EVERY: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
/// After a call that failed.
const RETRY: Duration = Duration::from_millis(500);
/// Requests that are worked on beside each other, at most: as many as a node runs by default.
const AT_ONCE: usize = 64;

/// What the agents of a fleet have done.
#[derive(Default)]
pub struct Tally {
    /// How often a command was started: by the batch's UID and the index.
    started: Mutex<BTreeMap<(String, i32), u32>>,
    wrong: Mutex<Vec<String>>,
}

impl Tally {
    pub fn started(&self, batch: &str) -> BTreeMap<i32, u32> {
        let all = self.started.lock().unwrap();
        all.iter().filter(|((uid, _), _)| uid == batch).map(|((_, index), count)| (*index, *count)).collect()
    }

    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }
}

/// The engine's ID of the container of a pod.
pub fn container_id(pod_uid: &str) -> String {
    sha256(pod_uid.as_bytes())
}

enum Failed {
    /// It may be tried again.
    Api(ApiError),
    /// It must not have happened.
    Wrong(String),
}

pub struct Agent {
    node: NodeName,
    client: Client,
    requests: KubeRequests,
    batches: KubeBatches,
    tally: Arc<Tally>,
}

impl Agent {
    /// `client` has a token that names the node.
    pub fn new(node: &str, client: Client, tally: Arc<Tally>) -> Self {
        let (requests, batches) = (KubeRequests::new(client.clone()), KubeBatches::new(client.clone()));
        Self { node: node.into(), client, requests, batches, tally }
    }

    pub async fn run(self) {
        tokio::join!(self.beat(), self.work());
    }

    async fn beat(&self) {
        loop {
            let pause = match self.renew().await {
                Ok(()) => RENEW_EVERY,
                Err(error) => {
                    println!("{}: its Lease: {error}", self.node);
                    RETRY
                }
            };
            sleep(pause).await;
        }
    }

    pub async fn renew(&self) -> kube::Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let name = names::agent_lease(self.node.as_str());
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "annotations": {names::BATCHES_ANNOTATION: names::BATCHES_HELD},
                "labels": {names::COMPONENT_LABEL: names::COMPONENT_AGENT, LABEL: ""}},
            "spec": {"holderIdentity": self.node.as_str(), "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": MicroTime(Timestamp::now())},
        });
        let params = PatchParams::apply(names::AGENT_CONTROLLER).force();
        leases.patch(&name, &params, &Patch::Apply(lease)).await.map(drop)
    }

    async fn work(&self) {
        let mut begun = HashSet::new();
        let mut events = watch::events(self.client.clone(), &self.node).ready_chunks(AT_ONCE);
        while let Some(chunk) = events.next().await {
            let mut bound = Vec::new();
            for event in chunk {
                match event {
                    Ok(Event::Apply(guard) | Event::InitApply(guard)) => {
                        let request = guard.0.expect("a readable request");
                        if begun.insert(request.metadata.uid.clone()) {
                            bound.push(request);
                        }
                    }
                    Ok(Event::Delete(_) | Event::Init | Event::InitDone) => {}
                    Err(error) => println!("{}: its watch: {error}", self.node),
                }
            }
            stream::iter(bound)
                .for_each_concurrent(AT_ONCE, |request| async move {
                    let name = request.metadata.name.clone().unwrap_or_default();
                    if let Err(why) = self.take_to_its_end(request).await {
                        self.tally.wrong.lock().unwrap().push(format!("{}: request {name}: {why}", self.node));
                    }
                })
                .await;
        }
    }

    /// Committed, run and reported, each tried again as long as it fails.
    async fn take_to_its_end(&self, request: ExecRequest) -> Result<(), String> {
        let key = key_of(&request.metadata).map_err(|error| error.to_string())?;
        let until = Instant::now() + PATIENCE;
        let (mut seen, mut outcome) = (request, None);
        while seen.status.as_ref().is_none_or(|status| status.completion_time.is_none()) {
            if Instant::now() > until {
                return Err("does not get to its end".to_owned());
            }
            seen = match self.step(&seen, &mut outcome).await {
                Ok(Written::Won(written)) => *written,
                Ok(Written::Lost) => self.again(&key, seen).await?,
                Ok(Written::Gone) => return Err("is gone".to_owned()),
                Ok(Written::Refused(why)) | Err(Failed::Wrong(why)) => return Err(why),
                Err(Failed::Api(error)) => {
                    println!("{}: {error}", self.node);
                    sleep(RETRY).await;
                    self.again(&key, seen).await?
                }
            };
        }
        Ok(())
    }

    async fn again(&self, key: &RequestKey, seen: ExecRequest) -> Result<ExecRequest, String> {
        match self.requests.get(key).await {
            Ok(Some(read)) => Ok(read),
            Ok(None) => Err("is gone".to_owned()),
            Err(error) => {
                println!("{}: {error}", self.node);
                Ok(seen)
            }
        }
    }

    /// One write: the commit, or after it the report of what was run meanwhile.
    async fn step(&self, seen: &ExecRequest, outcome: &mut Option<Outcome>) -> Result<Written, Failed> {
        let from = seen.status.clone().unwrap_or_default();
        let write = Write { from: &from, generation: seen.metadata.generation, at: Timestamp::now() };
        let next = if from.exec_id.is_some() {
            write.finished(outcome.get_or_insert_with(|| self.start(seen)))
        } else {
            self.hold(seen).await?;
            write.committed(&exec(seen))
        };
        self.requests.write_status(seen, next).await.map_err(Failed::Api)
    }

    /// Against its batch, and its requester's rights.
    async fn hold(&self, seen: &ExecRequest) -> Result<(), Failed> {
        let wrong = |why: &str| Failed::Wrong(why.to_owned());
        let place = seen.spec.batch.as_ref().ok_or_else(|| wrong("is of no batch"))?;
        let namespace = seen.metadata.namespace.as_deref().unwrap_or_default();
        let batch = self.batches.get(namespace, &place.name).await.map_err(Failed::Api)?;
        hold(seen, batch.as_ref(), Timestamp::now()).map_err(|refusal| Failed::Wrong(refusal.message))?;
        let by = batch.and_then(|batch| batch.spec.requested_by).ok_or_else(|| wrong("is nobody's"))?;
        match self.batches.lacks(&by, &rights(seen)).await.map_err(Failed::Api)? {
            Some(right) => Err(Failed::Wrong(format!("its requester cannot {right}"))),
            None => Ok(()),
        }
    }

    /// A command that ends at once.
    fn start(&self, seen: &ExecRequest) -> Outcome {
        let (batch, index) = seen.spec.batch.as_ref().map(|place| (place.uid.clone(), place.index)).unwrap_or_default();
        *self.tally.started.lock().unwrap().entry((batch, index)).or_default() += 1;
        let (code, stream) = (code(index), |text: &str| StreamStatus {
            tail: Some(text.to_owned()).filter(|text| !text.is_empty()),
            bytes: text.len().try_into().unwrap_or(i64::MAX),
            sha256: Some(sha256(text.as_bytes())),
            ..StreamStatus::default()
        });
        let stdout = stream(&format!("this one ends with {code}\n"));
        let output = OutputStatus { complete: true, stdout, stderr: stream(""), ..OutputStatus::default() };
        Outcome::exited(Exit { code, source: ExitCodeSource::Engine }, output, Timestamp::now())
    }
}

fn exec(seen: &ExecRequest) -> ExecRef {
    let request = seen.metadata.uid.as_deref().unwrap_or_default().into();
    let pod = seen.status.as_ref().and_then(|status| status.pod_uid.as_deref()).unwrap_or_default();
    ExecRef {
        id: ExecName { request, number: 1 }.to_string().into(),
        container: ContainerRef { id: container_id(pod).into(), started_at: None },
    }
}
