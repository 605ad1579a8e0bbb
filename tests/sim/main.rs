//! The simulation: the agent's real steps in a world that is made of chance, with
//! time of its own, so that a seed plays the same episode again.
//!
//! `make sim` plays a million requests. `EXECLET_SIM_REQUESTS` sets how many,
//! `EXECLET_SIM_SEED` where to begin; with `EXECLET_SIM_TRACE=1` the episode of
//! that seed alone is played, and told.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::struct_excessive_bools,
    reason = "tests: a failure is to be loud, and a model is full of states"
)]

mod episode;
mod model;
mod random;
mod world;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use episode::{Kind, REQUESTS, Report, play};
use model::Planted;

/// Requests that `make test` plays.
const SOME: u64 = 20_000;
/// Episodes in which everything is canceled at once.
const HASTY: u64 = 300;
/// Episodes within which a planted bug has to be found.
const ENOUGH: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn told(seed: u64, report: &Report) -> String {
    let again = format!("EXECLET_SIM_SEED={seed} EXECLET_SIM_TRACE=1 cargo test --test sim every -- --nocapture");
    format!("seed {seed}: {}\nplay it again: {again}", report.violations.join("; "))
}

#[test]
fn every_request_runs_at_most_once_and_ends_with_the_truth() {
    let spool = tempfile::tempdir().expect("a folder");
    let first = number("EXECLET_SIM_SEED").unwrap_or(1);
    if number("EXECLET_SIM_TRACE").is_some() {
        let level = env::var("EXECLET_LOG_LEVEL").unwrap_or_else(|_| "off".to_owned());
        execlet::infra::telemetry::init(execlet::infra::telemetry::LogFormat::Text, &level).expect("a log");
        let report = play(first, Kind::Disturbed, None, true, spool.path());
        println!("{}", report.trace.join("\n"));
        assert!(report.violations.is_empty(), "{}", told(first, &report));
        return;
    }
    let requests = number("EXECLET_SIM_REQUESTS").unwrap_or(SOME);
    let episodes = requests.div_ceil(REQUESTS);
    let (next, finished, unknown, crashes) =
        (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (failed, failure) = (AtomicBool::new(false), Mutex::new(None));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let episode = next.fetch_add(1, Ordering::Relaxed);
                    if episode >= episodes || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let report = play(first + episode, Kind::Disturbed, None, false, spool.path());
                    finished.fetch_add(report.finished, Ordering::Relaxed);
                    unknown.fetch_add(report.unknown, Ordering::Relaxed);
                    crashes.fetch_add(report.crashes.into(), Ordering::Relaxed);
                    if !report.violations.is_empty() {
                        failed.store(true, Ordering::Relaxed);
                        *failure.lock().unwrap() = Some(told(first + episode, &report));
                    }
                    if episode % 10_000 == 9_999 {
                        println!("{} requests in {:.0?}", (episode + 1) * REQUESTS, begun.elapsed());
                    }
                }
            });
        }
    });
    if let Some(failure) = failure.into_inner().unwrap() {
        panic!("{failure}");
    }
    let (finished, unknown) = (finished.into_inner(), unknown.into_inner());
    println!(
        "{requests} requests in {episodes} episodes from seed {first}, {} crashes of the agent: {finished} finished, {unknown} of them Unknown, no violation, {:.0?}",
        crashes.into_inner(),
        begun.elapsed(),
    );
    assert!(finished * 10 > requests * 5, "most requests finish: {finished} of {requests}");
    assert!(unknown * 4 < finished, "few truths are lost: {unknown} of {finished}");
}

/// Plays until the bug shows, and gives what was violated.
fn found(planted: Planted) -> String {
    let spool = tempfile::tempdir().expect("a folder");
    for seed in 1..=ENOUGH {
        let report = play(seed, Kind::Disturbed, Some(planted), false, spool.path());
        if !report.violations.is_empty() {
            return report.violations.join("; ");
        }
    }
    panic!("{planted:?} was not found in {ENOUGH} episodes");
}

#[test]
fn a_seed_plays_the_same_episode_again() {
    let spool = tempfile::tempdir().expect("a folder");
    for seed in 1..20 {
        let [first, second] = [(); 2].map(|()| play(seed, Kind::Disturbed, None, true, spool.path()).trace);
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn what_is_canceled_as_it_starts_leaves_nothing_behind() {
    let spool = tempfile::tempdir().expect("a folder");
    for seed in 1..=HASTY {
        let report = play(seed, Kind::Hasty, None, false, spool.path());
        assert!(report.violations.is_empty(), "seed {seed}: {}", report.violations.join("; "));
        assert_eq!(report.finished, REQUESTS);
    }
}

#[test]
fn a_missing_exit_code_taken_for_0_is_found() {
    let said = found(Planted::NullIsZero);
    assert!(said.contains("is said to have code 0"), "{said}");
}

#[test]
fn a_journal_that_forgets_is_found() {
    let said = found(Planted::ForgetfulDisk);
    assert!(said.contains("was started 2 times") || said.contains("never to have started"), "{said}");
}

#[test]
fn writes_that_do_not_look_are_found() {
    let said = found(Planted::BlindWrites);
    assert!(said.contains("finished twice") || said.contains("was started 2 times"), "{said}");
}

#[test]
fn reports_that_get_lost_are_found() {
    let said = found(Planted::LostReports);
    assert!(said.contains("never finished"), "{said}");
}

#[test]
fn processes_that_are_left_alive_are_found() {
    let said = found(Planted::BlindKernel);
    assert!(said.contains("left alive") || said.contains("never finished"), "{said}");
}

#[test]
fn output_that_gets_lost_is_found() {
    let said = found(Planted::LeakyStream);
    assert!(said.contains("is said to be whole"), "{said}");
}

#[test]
fn a_truth_that_is_lost_for_nothing_is_found() {
    let said = found(Planted::ForgetfulEngine);
    assert!(said.contains("nothing had happened to lose it"), "{said}");
}

#[test]
fn acts_that_are_not_recorded_are_found() {
    let said = found(Planted::ForgetfulTrail);
    assert!(said.contains("was not recorded before"), "{said}");
}
