//! What an agent's memory comes to with many commands that write at the same time, with and without a viewer on each that
//! takes nothing. On one node.

use std::{
    collections::BTreeMap,
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    agent::Agent,
    lab::{AT_A_TIME, Lab, Node, Target, resident_of},
};

/// Of the agent, resident, with a stalled viewer on each command.
const AIM_RESIDENT_MIB: u32 = 128;

/// Between two looks at the agent's memory.
const LOOK: Duration = Duration::from_millis(100);
/// Looks at the memory between two at the requests.
const SELDOM: u32 = 5;
/// Between two looks at whether all commands run.
const PAUSE: Duration = Duration::from_secs(1);

/// What it took.
struct Took {
    /// From the moment at which all may write to the end of the last.
    time: Duration,
    /// Of the agent, KiB: while all wait at the gate, with the viewers there, and at most.
    resident: [u32; 3],
    /// How many commands have output that is not called complete, by reason: the machine is too busy for all of them.
    incomplete: BTreeMap<String, usize>,
}

pub async fn measure(lab: &Lab, count: usize, mib: usize) -> anyhow::Result<()> {
    let node = lab.nodes.first().context("no node")?;
    println!("\n{}, {}: {count} commands of {mib} MiB each (3 min)", node.name, node.runs);
    Lab::renew_agents()?;
    let rest = resident_of(&node.agent()?)?;
    println!("agent at rest:                {}", mebibytes(rest));
    let alone = run(lab, node, count, mib, false).await?;
    println!("nobody watches:               {}, {}", seconds(alone.time), phases(alone.resident));
    println!("  output incomplete:          {:?}", alone.incomplete);
    // What the first load took the C library keeps.
    Lab::renew_agents()?;
    let watched = run(lab, node, count, mib, true).await?;
    let slower = 100.0 * watched.time.as_secs_f64() / alone.time.as_secs_f64();
    println!(
        "a stalled viewer on each:     {} ({slower:.0} %), {} (aim {AIM_RESIDENT_MIB} MiB)",
        seconds(watched.time),
        phases(watched.resident)
    );
    println!("  output incomplete:          {:?}", watched.incomplete);
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn phases([running, attached, most]: [u32; 3]) -> String {
    let [running, attached, most] = [running, attached, most].map(mebibytes);
    format!("{running} before they write, {attached} with viewers, {most} at most")
}

fn mebibytes(kib: u32) -> String {
    format!("{:.1} MiB", f64::from(kib) / 1024.0)
}

async fn run(lab: &Lab, node: &Node, count: usize, mib: usize, watched: bool) -> anyhow::Result<Took> {
    let gate = gate();
    everywhere(node, &format!("mkfifo {gate}")).await?;
    // 1. All commands run, and wait at the gate.
    let script = format!(": <{gate}; exec dd if=/dev/zero bs=64k count={}", mib * 16);
    let more = json!({"output": {"spoolBytes": (mib + 1) << 20}});
    let command = ["sh", "-c", &script];
    let requests: Vec<_> = stream::iter(0..count)
        .map(|number| lab.create(&node.targets[number % node.targets.len()], &command, more.clone()))
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await?;
    while !lab.none("status.phase!=Running").await? {
        ensure!(lab.none("status.completionTime!=").await?, "a command ended before it might");
        sleep(PAUSE).await;
    }
    let pid = node.agent()?;
    let running = resident_of(&pid)?;
    // 2. The viewers: held, and never read from.
    let agent = Agent::find(lab, node).await?;
    let viewers: Vec<_> = stream::iter(if watched { &requests[..] } else { &[] })
        .map(|request| agent.attach(request, "stdout=true", true))
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await?;
    // 3. Until the last has ended.
    let attached = resident_of(&pid)?;
    let begun = Timestamp::now();
    // Held open, so that nobody comes too late.
    everywhere(node, &format!("(exec 3<>{gate}; sleep 900) >/dev/null 2>&1 &")).await?;
    let mut resident = 0;
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for look in 1_u32.. {
        ticks.tick().await;
        resident = resident.max(resident_of(&pid)?);
        if look % SELDOM == 0 && lab.none("status.completionTime=").await? {
            break;
        }
    }
    drop(viewers);
    let (last, incomplete) = last_end(lab, count, mib).await?;
    lab.clear().await?;
    let time = last.duration_since(begun).try_into().context("the last ended before the first began")?;
    Ok(Took { time, resident: [running, attached, resident], incomplete })
}

/// A gate that no other run has.
fn gate() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("/tmp/gate-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// When the last of them ended, and how many have output that is not complete, by reason. All must have succeeded,
/// and nothing may be missing without a reason.
async fn last_end(lab: &Lab, count: usize, mib: usize) -> anyhow::Result<(Timestamp, BTreeMap<String, usize>)> {
    let all = lab.requests().list(&ListParams::default()).await?;
    ensure!(all.items.len() == count, "{} requests, and not {count}", all.items.len());
    let (mut last, mut incomplete) = (Timestamp::UNIX_EPOCH, BTreeMap::new());
    for request in all {
        let status = request.status.context("a status")?;
        let output = status.output.as_ref().context("output")?;
        let received = u64::try_from(output.stdout.bytes).is_ok_and(|bytes| bytes == (mib as u64) << 20);
        let said = received || output.incomplete_reason.is_some();
        ensure!(status.exit_code == Some(0) && said, "{:?}: {status:?}", request.metadata.name);
        if let Some(reason) = &output.incomplete_reason {
            *incomplete.entry(reason.clone()).or_default() += 1;
        }
        last = last.max(status.completion_time.context("an end")?.0);
    }
    Ok((last, incomplete))
}

/// Runs a script in every container.
async fn everywhere(node: &Node, script: &str) -> anyhow::Result<()> {
    let command = ["sh", "-c", script];
    let run = async |target: &Target| node.engine.run(&target.container, &command, |_| Ok(())).await;
    try_join_all(node.targets.iter().map(run)).await.map(|_| ())
}
