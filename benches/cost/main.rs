//! What streams cost, on the test cluster: the output of one command by four ways, and the agent's memory
//! with a viewer that takes nothing on each of 500 commands. And how fast one command gets through many pods.
//!
//! Everything shares this machine's processors: engine, agent, API server, client. Where they are all busy, what
//! comes out is what the bytes cost, not how fast any of them is alone.
//!
//! `ROUNDS`, `COUNT` and `MIB` change how often, how many commands, and how much each of them writes; `PODS` how many pods
//! a batch has, and `BENCH=batches` or `BENCH=streams` measures that alone. Leaves the installation as it was. About 15
//! minutes.
#![allow(missing_docs, reason = "a program")]

mod agent;
mod batches;
mod cpu;
mod lab;
mod stalled;
mod ways;

use std::{env, time::Duration};

use anyhow::Context as _;

use cpu::{Times, Who};
use lab::Lab;
use ways::{Way, megabytes};

/// Of what the engine gives, in percent.
const AIM_AT_THE_AGENT: u32 = 90;
const AIM_THROUGH_THE_API_SERVER: u32 = 70;
/// Of the agent, resident, with a stalled viewer on each command.
const AIM_RESIDENT_MIB: u32 = 128;

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
    let (rounds, count, mib) = (number("ROUNDS", 3)?, number("COUNT", 500)?, number("MIB", 2)?);
    println!("installing with room for {count} commands (20 s)");
    let lab = Lab::open(count).await?;
    let only = env::var("BENCH").ok();
    let is_wanted = |what: &str| only.as_deref().is_none_or(|only| only == what);
    if is_wanted("streams") {
        throughput(&lab, rounds).await?;
        stalled_viewers(&lab, count, mib).await?;
    }
    if is_wanted("batches") {
        batches::measure(&lab, number("PODS", 200)?, rounds).await?;
    }
    Ok(())
}

async fn throughput(lab: &Lab, rounds: usize) -> anyhow::Result<()> {
    println!("\n{} MiB of one command, best and median of {rounds}", ways::BYTES >> 20);
    let mut rates: [Vec<f64>; Way::ALL.len()] = Default::default();
    let mut processors = [Times::default(); Way::ALL.len()];
    for _ in 0..rounds {
        for ((way, rates), processors) in Way::ALL.iter().zip(&mut rates).zip(&mut processors) {
            let (rate, taken) = way.measure(lab).await.with_context(|| way.name())?;
            rates.push(rate);
            *processors += taken;
        }
    }
    for rates in &mut rates {
        rates.sort_by(f64::total_cmp);
    }
    let best = |rates: &[f64]| rates.last().copied().unwrap_or_default();
    let median = |rates: &[f64]| rates.get(rates.len() / 2).copied().unwrap_or_default();
    let (engine_best, engine_median) = (best(&rates[0]), median(&rates[0]));
    let kubectl = rates.last().map(|rates| (best(rates), median(rates))).unwrap_or_default();
    println!("{:<32}{:>12}{:>12}{:>16}{:>20}  aim", "", "best", "median", "of the engine's", "of kubectl exec's");
    for (way, rates) in Way::ALL.iter().zip(&rates) {
        let (best, median) = (best(rates), median(rates));
        println!(
            "{:<32}{:>7.0} MB/s{:>7.0} MB/s{:>8.0} %{:>4.0} %{:>12.0} %{:>4.0} %  {}",
            way.name(),
            megabytes(best),
            megabytes(median),
            100.0 * best / engine_best,
            100.0 * median / engine_median,
            100.0 * best / kubectl.0,
            100.0 * median / kubectl.1,
            way.aim().map_or_else(String::new, |aim| format!("{aim} %")),
        );
    }
    let rounds = f64::from(u32::try_from(rounds)?);
    println!("\nnanoseconds of a processor for each byte of it");
    print!("{:<32}", "");
    for who in Who::ALL {
        print!("{:>12}", who.name());
    }
    println!();
    for (way, taken) in Way::ALL.iter().zip(&processors) {
        print!("{:<32}", way.name());
        for who in Who::ALL {
            print!("{:>12.2}", 1e9 * taken.of(who).max(0.0) / rounds);
        }
        println!();
    }
    Ok(())
}

async fn stalled_viewers(lab: &Lab, count: usize, mib: usize) -> anyhow::Result<()> {
    println!("\n{count} commands of {mib} MiB each (3 min)");
    Lab::renew_agents()?;
    let rest = lab::resident_of(&Lab::agent()?)?;
    println!("agent at rest:                {}", mebibytes(rest));
    let alone = stalled::run(lab, count, mib, false).await?;
    println!("nobody watches:               {}, {}", seconds(alone.time), phases(alone.resident));
    println!("  output incomplete:          {:?}", alone.incomplete);
    // What the first load took the C library keeps.
    Lab::renew_agents()?;
    let watched = stalled::run(lab, count, mib, true).await?;
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

/// A number of the environment.
fn number(name: &str, default: usize) -> anyhow::Result<usize> {
    match env::var(name) {
        Ok(text) => text.parse().ok().filter(|number| *number > 0).with_context(|| format!("{name} is {text:?}")),
        Err(_) => Ok(default),
    }
}
