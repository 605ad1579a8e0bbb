//! Many commands that write at the same time, with or without a viewer on each that takes nothing.

use std::{
    collections::BTreeMap,
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use execlet::engine::ExecSpec;
use futures::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    agent::Agent,
    lab::{AT_A_TIME, Lab, resident_of},
};

/// Between two looks at the agent's memory.
const LOOK: Duration = Duration::from_millis(100);
/// Looks at the memory between two at the requests.
const SELDOM: u32 = 5;
/// Between two looks at whether all commands run.
const PAUSE: Duration = Duration::from_secs(1);

/// What it took.
pub struct Took {
    /// From the moment at which all may write to the end of the last.
    pub time: Duration,
    /// Of the agent, KiB: while all wait at the gate, with the viewers there, and at most.
    pub resident: [u32; 3],
    /// How many commands have output that is not called complete, by reason: the machine is too busy for all of them.
    pub incomplete: BTreeMap<String, usize>,
}

pub async fn run(lab: &Lab, count: usize, mib: usize, watched: bool) -> anyhow::Result<Took> {
    let gate = gate();
    everywhere(lab, &format!("mkfifo {gate}")).await?;
    // 1. All commands run, and wait at the gate.
    let script = format!(": <{gate}; exec dd if=/dev/zero bs=64k count={}", mib * 16);
    let more = json!({"output": {"spoolBytes": (mib + 1) << 20}});
    let command = ["sh", "-c", &script];
    let requests: Vec<_> = stream::iter(0..count)
        .map(|number| lab.create(number, &command, more.clone()))
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await?;
    while !lab.none("status.phase!=Running").await? {
        ensure!(lab.none("status.completionTime!=").await?, "a command ended before it might");
        sleep(PAUSE).await;
    }
    let pid = Lab::agent()?;
    let running = resident_of(&pid)?;
    // 2. The viewers: held, and never read from.
    let agent = Agent::find(lab).await?;
    let viewers: Vec<_> = stream::iter(if watched { &requests[..] } else { &[] })
        .map(|request| agent.attach(request, "stdout=true", true))
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await?;
    // 3. Until the last has ended.
    let attached = resident_of(&pid)?;
    let begun = Timestamp::now();
    // Held open, so that nobody comes too late.
    everywhere(lab, &format!("(exec 3<>{gate}; sleep 900) >/dev/null 2>&1 &")).await?;
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
async fn everywhere(lab: &Lab, script: &str) -> anyhow::Result<()> {
    let spec = ExecSpec { command: ["sh", "-c", script].map(str::to_owned).to_vec(), ..ExecSpec::default() };
    let run = async |container| {
        let exec = lab.engine.create_exec(container, &spec).await?;
        let mut stream = lab.engine.start_exec(&exec, false).await?;
        while stream.next().await?.is_some() {}
        anyhow::Ok(())
    };
    try_join_all(lab.containers.iter().map(run)).await.map(|_| ())
}
