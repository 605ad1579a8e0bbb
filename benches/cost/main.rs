//! What execlet costs, on the test cluster, beside the engines alone and `kubectl exec`; on each of its nodes.
//!
//! | `BENCH` | measures |
//! |---|---|
//! | `exec` | latency and rate of short commands, and the throughput of one command's output |
//! | `streams` | that throughput, and an agent's memory with a viewer that takes nothing on each of 500 commands |
//! | `batches` | how fast one command gets through many pods |
//!
//! Without `BENCH` all of it, in about 25 minutes; `exec` alone takes 5 to 8. What is compared is measured in turn in each round,
//! so that all of it has the same load beside it. Everything shares this machine's processors: engine, agent, API server,
//! client. Where they are all busy, what comes out is what it costs, not how fast any of them is alone.
//!
//! `ROUNDS` changes how often; `COMMANDS` bounds the short commands of each step, for a quick look; `COUNT` and `MIB` change
//! how many commands there are with viewers, and how much each of them writes; `PODS` how many pods a batch has. The figures
//! are also written to `target/bench/`. Leaves the installation as it was.
#![allow(missing_docs, reason = "a program")]

mod agent;
mod batches;
mod cpu;
mod engine;
mod exec;
mod figures;
mod finished;
mod lab;
mod stalled;
mod streams;

use std::env;

use anyhow::{Context as _, ensure};

use lab::Lab;

const PARTS: [&str; 3] = ["exec", "streams", "batches"];

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("a runtime")?;
    runtime.block_on(async {
        // Whatever ends it, the lab is put away.
        tokio::select! {
            measured = Box::pin(measure()) => measured,
            stopped = tokio::signal::ctrl_c() => stopped.context("a signal"),
        }
    })
}

async fn measure() -> anyhow::Result<()> {
    let only = env::var("BENCH").ok().filter(|only| !only.is_empty());
    let only = only.as_deref();
    ensure!(only.is_none_or(|only| PARTS.contains(&only)), "BENCH is {only:?}; it may be one of {PARTS:?}");
    let is_wanted = |what: &str| only.is_none_or(|only| only == what);
    let (rounds, count, mib) = (number("ROUNDS", 3)?, number("COUNT", 500)?, number("MIB", 2)?);
    println!("installing with room for {count} commands (20 s)");
    let lab = Lab::open(count).await?;
    if is_wanted("exec") {
        exec::measure(&lab, rounds, number("COMMANDS", usize::MAX)?).await?;
    }
    if is_wanted("exec") || is_wanted("streams") {
        streams::measure(&lab, rounds).await?;
    }
    if is_wanted("streams") {
        stalled::measure(&lab, count, mib).await?;
    }
    if is_wanted("batches") {
        batches::measure(&lab, number("PODS", 200)?, rounds).await?;
    }
    Ok(())
}

/// A number of the environment.
fn number(name: &str, default: usize) -> anyhow::Result<usize> {
    match env::var(name) {
        Ok(text) => text.parse().ok().filter(|number| *number > 0).with_context(|| format!("{name} is {text:?}")),
        Err(_) => Ok(default),
    }
}
