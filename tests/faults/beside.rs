//! Beside our commands `kubectl exec` and the kubelet's probes go on in the same containers: none of theirs fails.

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
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api,
    api::{AttachParams, DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    NODES,
    clients::{code_of, drain},
    lab::{IMAGE, Lab, PATIENCE, unique, var_lib},
    node, number,
};

/// Commands of each kind that run beside each other in one container.
const AT_ONCE: u32 = 3;
/// What each of them writes, on both streams.
const LINES: u32 = 2000;

fn script(code: u64) -> String {
    format!("seq 1 {LINES}; seq 1 {LINES} >&2; exit {code}")
}

/// By the call that `kubectl exec` makes. What was wrong with it.
async fn theirs(pods: &Api<Pod>, pod: &str, code: u64) -> Option<String> {
    let process = match pods.exec(pod, ["sh", "-c", &script(code)], &AttachParams::default()).await {
        Ok(process) => process,
        Err(error) => return Some(error.to_string()),
    };
    let (heard, status) = drain(process, None).await;
    let lines: String = (1..=LINES).map(|line| line.to_string() + "\n").collect();
    let is_whole = [&heard.stdout, &heard.stderr].map(|text| *text == lines.as_bytes());
    let found = code_of(status.as_ref());
    let is_right = u64::try_from(found) == Ok(code) && is_whole == [true; 2];
    (!is_right).then(|| format!("code {found} in place of {code}, stdout and stderr whole: {is_whole:?}"))
}

/// The same as a request, and removed. What was wrong with it.
async fn ours(requests: &Api<ExecRequest>, pod: &str, code: u64, tty: bool) -> Option<String> {
    let name = unique("r");
    let request = json!({
        "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest", "metadata": {"name": name},
        "spec": {"target": {"podName": pod}, "command": ["sh", "-c", script(code)], "tty": tty},
    });
    let request: ExecRequest = serde_json::from_value(request).unwrap();
    if let Err(error) = requests.create(&PostParams::default(), &request).await {
        return Some(error.to_string());
    }
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let status = requests.get(&name).await.ok().and_then(|request| request.status);
        let Some(status) = status.filter(|status| status.completion_time.is_some()) else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        if let Err(error) = requests.delete(&name, &DeleteParams::default()).await {
            return Some(format!("{name} is not deleted: {error}"));
        }
        let is_right = status.exit_code.and_then(|found| u64::try_from(found).ok()) == Some(code)
            && status.output.as_ref().is_some_and(|output| output.complete);
        return (!is_right).then(|| format!("{name}: {status:?}"));
    }
    Some(format!("{name} does not end"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes: make beside"]
async fn neither_exec_nor_probes_of_others_fail_beside_our_commands() {
    let time = Duration::from_secs(60 * number("BESIDE_MINUTES", 10));
    let lab = Lab::alone().await;
    for node in NODES {
        let probe =
            json!({"exec": {"command": ["true"]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 10});
        let container = json!({"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "1000000"], "livenessProbe": probe, "readinessProbe": probe});
        lab.pod_of(node, json!({"nodeName": node, "containers": [container]})).await;
    }
    let end = Instant::now() + time;
    let counts: Arc<BTreeMap<String, AtomicU64>> = Arc::new(
        NODES
            .iter()
            .flat_map(|node| ["ours", "theirs"].map(|whose| (format!("{node} {whose}"), AtomicU64::new(0))))
            .collect(),
    );
    let mut running = Vec::new();
    for node in NODES {
        for number in 0..AT_ONCE {
            for whose in ["ours", "theirs"] {
                let (pods, requests, counts) = (lab.pods(), lab.requests(), Arc::clone(&counts));
                running.push(tokio::spawn(async move {
                    let mut wrong = Vec::new();
                    let done = &counts[&format!("{node} {whose}")];
                    while Instant::now() < end {
                        let code = done.fetch_add(1, Ordering::Relaxed) % 100;
                        wrong.extend(match whose {
                            "ours" => ours(&requests, node, code, number == 0).await,
                            _ => theirs(&pods, node, code).await,
                        });
                    }
                    wrong.into_iter().map(|what| format!("{node}, {whose}: {what}")).collect::<Vec<_>>()
                }));
            }
        }
    }
    let mut wrong = Vec::new();
    for one in running {
        wrong.extend(one.await.expect("it ends"));
    }
    for node in NODES {
        println!("{node}: {}", node::version(node));
        let status = lab.pods().get(node).await.expect("a pod").status.expect("a status");
        let restarts: i32 = status.container_statuses.iter().flatten().map(|container| container.restart_count).sum();
        println!("{node}: {restarts} restarts by probes");
        wrong.extend((restarts > 0).then(|| format!("{node}: restarted {restarts} times")));
        // What there is of ours on a node with containerd is in this folder, by container.
        let folder = var_lib(node).with_file_name("run").join("execlet");
        let left = fs::read_dir(&folder).into_iter().flatten().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name.len() == 64).collect();
        println!("{node}: {} folders of containers are left in {}", left.len(), folder.display());
    }
    for (whose, count) in counts.iter() {
        println!("{whose}: {} commands", count.load(Ordering::Relaxed));
        wrong.extend((count.load(Ordering::Relaxed) < 10).then(|| format!("{whose}: none ran")));
    }
    let events = Api::<Event>::namespaced(lab.client.clone(), &lab.namespace);
    for event in events.list(&ListParams::default().fields("reason=Unhealthy")).await.expect("Events") {
        wrong.push(format!("a probe failed: {}", event.message.unwrap_or_default()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
