//! Ten thousand requests at once: all end, each with its own code or a clear reason, and the
//! memory of the agents stays bounded.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use execlet::api::ExecRequest;
use futures::{StreamExt, stream};
use kube::api::{ListParams, PostParams};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    NODES, agent,
    lab::{IMAGE, Lab, cluster, text},
    number,
};

/// Requests in one page of a list.
const PAGE: u32 = 500;
/// Pods on each node: the engine starts about 11 execs a second in one container.
const PODS: u64 = 4;
/// The chart's limit for an agent.
const MEMORY_LIMIT_KIB: u64 = 256 * 1024;

/// Resident memory of the agent on a node, in KiB.
fn resident(node: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent(node)?)).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes: make flood"]
async fn ten_thousand_requests_at_once_all_end_and_the_agents_stay_small() {
    let count = number("FLOOD", 10_000);
    let lab = Lab::alone().await;
    for node in NODES {
        for pod in 0..PODS {
            let container = json!({"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000000"]});
            lab.pod_of(&format!("{node}-{pod}"), json!({"nodeName": node, "containers": [container]})).await;
        }
    }
    let agents: Vec<_> = NODES.iter().map(|node| agent(node).expect("an agent")).collect();
    let begun = Instant::now();
    let api = lab.requests();
    let created = stream::iter(0..count).map(|n| {
        let (api, namespace) = (api.clone(), lab.namespace.clone());
        async move {
            let node = NODES[usize::try_from(n % 2).unwrap()];
            let pod = format!("{node}-{}", n / 2 % PODS);
            let script = format!("echo r{n} >> /tmp/runs; exit {}", n % 200);
            let request = json!({
                "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
                "metadata": {"name": format!("r{n}"), "namespace": namespace},
                "spec": {"target": {"podName": pod}, "command": ["sh", "-c", script], "startingDeadlineSeconds": 3600},
            });
            let request: ExecRequest = serde_json::from_value(request).unwrap();
            while let Err(error) = api.create(&PostParams::default(), &request).await {
                assert!(!matches!(&error, kube::Error::Api(status) if status.code < 429), "{error}");
                sleep(Duration::from_millis(200)).await;
            }
        }
    });
    let most = Arc::new(AtomicU64::new(0));
    let watching = tokio::spawn({
        let most = Arc::clone(&most);
        async move {
            loop {
                for node in NODES {
                    most.fetch_max(resident(node).unwrap_or(0), Ordering::Relaxed);
                }
                sleep(Duration::from_secs(2)).await;
            }
        }
    });
    created.buffer_unordered(32).collect::<Vec<()>>().await;
    println!("{count} requests created in {:.0?}", begun.elapsed());
    let mut said = Instant::now();
    loop {
        let unfinished = ListParams::default().fields("status.completionTime=").limit(1);
        let list = api.list_metadata(&unfinished).await.expect("a list");
        if list.items.is_empty() {
            break;
        }
        if said.elapsed() > Duration::from_secs(30) {
            said = Instant::now();
            let left = api.list_metadata(&ListParams { limit: None, ..unfinished }).await.expect("a list").items.len();
            println!("{left} unfinished after {:.0?}, at most {} KiB", begun.elapsed(), most.load(Ordering::Relaxed));
        }
        assert!(begun.elapsed() < Duration::from_secs(3000), "they do not end");
        sleep(Duration::from_secs(1)).await;
    }
    let took = begun.elapsed();
    watching.abort();
    let mut runs: BTreeMap<String, u32> = BTreeMap::new();
    for node in NODES {
        for pod in 0..PODS {
            for line in text(&lab.exec(&format!("{node}-{pod}"), "cat /tmp/runs").0).lines() {
                *runs.entry(line.to_owned()).or_default() += 1;
            }
        }
    }
    let mut params = ListParams::default().limit(PAGE);
    let mut seen = 0;
    loop {
        let list = api.list(&params).await.expect("a list");
        for request in &list.items {
            let name = request.metadata.name.clone().unwrap();
            let number: u64 = name[1..].parse().unwrap();
            let code = request.status.as_ref().and_then(|status| status.exit_code);
            assert_eq!(code, i32::try_from(number % 200).ok(), "{name}: {:#?}", request.status);
            assert_eq!(runs.get(&name), Some(&1), "{name}");
            seen += 1;
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    let most = most.load(Ordering::Relaxed);
    println!("{seen} requests ended in {took:.0?}, each ran once; an agent took at most {most} KiB");
    assert_eq!(seen, count);
    assert!(most > 0 && most < MEMORY_LIMIT_KIB, "{most} KiB");
    let now: Vec<_> = NODES.iter().map(|node| agent(node).expect("an agent")).collect();
    assert_eq!(now, agents, "the agents live");
    cluster(&["status"]);
}
