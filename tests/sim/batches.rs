//! Batches in the simulation: the manager's real passes, in a world of chance with time of its own.
//!
//! `EXECLET_SIM_BATCHES` sets how many batches are played, `EXECLET_SIM_SEED` where to begin; with `EXECLET_SIM_TRACE=1`
//! the episode of that seed alone is played, and told.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    batches_episode::{BATCHES, Report, play},
    batches_model::Planted,
    campaign::{campaign, find},
    number,
};

/// Batches that `make test` plays.
const SOME: u64 = 800;
/// Episodes within which a planted bug has to be found.
const ENOUGH: u64 = 2_000;

fn told(seed: u64, report: &Report) -> String {
    let again =
        format!("EXECLET_SIM_SEED={seed} EXECLET_SIM_TRACE=1 cargo test --test sim batches::every -- --nocapture");
    format!("batches: seed {seed}: {}\nplay it again: {again}", report.violations.join("; "))
}

#[test]
fn every_target_of_a_batch_runs_at_most_once_and_is_accounted_for() {
    let first = number("EXECLET_SIM_SEED").unwrap_or(1);
    if number("EXECLET_SIM_TRACE").is_some() {
        let report = play(first, None, true);
        println!("{}", report.trace.join("\n"));
        assert!(report.violations.is_empty(), "{}", told(first, &report));
        return;
    }
    let batches = number("EXECLET_SIM_BATCHES").unwrap_or(SOME);
    let episodes = batches.div_ceil(BATCHES);
    let [finished, succeeded, runs, crashes, restores] = [(); 5].map(|()| AtomicU64::new(0));
    campaign("batches", first, episodes, |seed| {
        let report = play(seed, None, false);
        finished.fetch_add(report.finished, Ordering::Relaxed);
        succeeded.fetch_add(report.succeeded, Ordering::Relaxed);
        runs.fetch_add(report.runs, Ordering::Relaxed);
        crashes.fetch_add(report.crashes.into(), Ordering::Relaxed);
        restores.fetch_add(report.restores.into(), Ordering::Relaxed);
        if report.violations.is_empty() { Ok(()) } else { Err(told(seed, &report)) }
    });
    let (finished, succeeded) = (finished.into_inner(), succeeded.into_inner());
    println!(
        "{batches} batches, {} crashes of managers, {} restores: {finished} finished, {succeeded} of them Succeeded, {} commands",
        crashes.into_inner(),
        restores.into_inner(),
        runs.into_inner(),
    );
    assert!(finished * 10 > batches * 5, "most batches are there to the end: {finished} of {batches}");
    assert!(succeeded * 20 > finished, "some succeed in spite of all: {succeeded} of {finished}");
}

#[test]
fn a_seed_plays_the_same_episode_with_batches_again() {
    for seed in 1..10 {
        let [first, second] = [(); 2].map(|()| play(seed, None, true).trace);
        assert_eq!(first, second, "seed {seed}");
    }
}

/// Plays until an invariant speaks of the bug in these words.
fn is_found(planted: Planted, words: &[&str]) {
    find(planted, words, ENOUGH, |seed| play(seed, Some(planted), false).violations);
}

/// Each invariant is shown to be one: a bug that it alone speaks of in these words.
macro_rules! found {
    ($($name:ident: $planted:ident, $words:expr;)*) => {
        $(
            #[test]
            fn $name() {
                is_found(Planted::$planted, &$words);
            }
        )*
    };
}

found! {
    a_release_before_the_freeze_is_found: EarlyRelease, ["is released before its plan is frozen"];
    a_plan_that_is_not_fenced_is_found: UnfencedPlan, ["by a manager that has not won plan"];
    a_count_that_falls_is_found: BlindWrites, ["the count of", "falls"];
    a_release_that_is_taken_back_is_found: BlindWrites, ["released of", "falls"];
    a_child_made_after_the_freeze_is_found: LateCreation, ["is made after the freeze"];
    a_second_run_of_a_target_is_found: NoTargetKey, ["runs 2 times"];
    a_child_bound_before_its_release_is_found: OpenGate, ["is bound, and only"];
    children_that_are_left_behind_are_found: NoBroom, ["left behind"];
    an_end_that_is_counted_as_another_is_found: LostEnds, ["is said never to have run (NotRun), and ran"];
}
