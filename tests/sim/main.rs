//! The simulation: the agent's real steps in a world that is made of chance, with
//! time of its own, so that a seed plays the same episode again.
//!
//! The same steps run on two engines. On one whose execs are tokens (`tokens`), what the engine loses may leave an outcome
//! Unknown. On one that fences and keeps what it is not told to release (`fences`), nothing but a reboot of the node may:
//! every byte comes through, and every code, whenever the agent crashes. At most once holds on both.
//!
//! And the manager's real passes over batches (`batches`), with two managers, and agents that are played.
//!
//! `make sim` plays a million requests on each. `EXECLET_SIM_REQUESTS` sets how many,
//! `EXECLET_SIM_SEED` where to begin, and `EXECLET_SIM_ENGINE` (`tokens`, `fences`) plays on that engine alone; with
//! `EXECLET_SIM_TRACE=1` the episode of that seed alone is played, on `tokens` unless another is named, and told.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::struct_excessive_bools,
    reason = "tests: a failure is to be loud, and a model is full of states"
)]

mod batches;
mod batches_agents;
mod batches_episode;
mod batches_model;
mod batches_world;
mod campaign;
mod episode;
mod fences;
mod model;
mod random;
mod targets;
mod tokens;
mod world;

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
};

use campaign::{campaign, find};
use episode::{Kind, REQUESTS, Report, play};
use model::{Nature, Planted};

/// Requests that `make test` plays.
const SOME: u64 = 20_000;
/// Episodes in which everything is canceled at once.
const HASTY: u64 = 300;
/// Episodes within which a planted bug has to be found.
const ENOUGH: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Its name in `EXECLET_SIM_ENGINE`.
const fn name(nature: Nature) -> &'static str {
    match nature {
        Nature::Tokens => "tokens",
        Nature::Fences => "fences",
    }
}

/// Whether this engine is to be played on.
fn is_chosen(nature: Nature) -> bool {
    let traced = || (number("EXECLET_SIM_TRACE").is_some()).then(|| name(Nature::Tokens).to_owned());
    let chosen = env::var("EXECLET_SIM_ENGINE").ok().or_else(traced);
    chosen.is_none_or(|chosen| {
        assert!(["tokens", "fences"].contains(&chosen.as_str()), "EXECLET_SIM_ENGINE={chosen} is no engine");
        chosen == name(nature)
    })
}

fn told(seed: u64, nature: Nature, report: &Report) -> String {
    let engine = name(nature);
    let again = format!(
        "EXECLET_SIM_ENGINE={engine} EXECLET_SIM_SEED={seed} EXECLET_SIM_TRACE=1 cargo test --test sim every -- --nocapture"
    );
    format!("{engine}: seed {seed}: {}\nplay it again: {again}", report.violations.join("; "))
}

#[test]
fn every_request_runs_at_most_once_and_ends_with_the_truth() {
    let Some((finished, unknown)) = play_all(Nature::Tokens) else { return };
    assert!(unknown * 4 < finished, "few truths are lost: {unknown} of {finished}");
}

#[test]
fn every_request_on_an_engine_that_fences_runs_at_most_once_and_ends_with_the_whole_truth() {
    let Some((finished, unknown)) = play_all(Nature::Fences) else { return };
    assert!(unknown * 5 < finished, "only reboots lose a truth: {unknown} of {finished}");
}

/// Plays as many requests as are wanted: how many finished, and how many of them are Unknown.
fn play_all(nature: Nature) -> Option<(u64, u64)> {
    if !is_chosen(nature) {
        return None;
    }
    let spool = tempfile::tempdir().expect("a folder");
    let first = number("EXECLET_SIM_SEED").unwrap_or(1);
    if number("EXECLET_SIM_TRACE").is_some() {
        let level = env::var("EXECLET_LOG_LEVEL").unwrap_or_else(|_| "off".to_owned());
        execlet::infra::telemetry::init(execlet::infra::telemetry::LogFormat::Text, &level).expect("a log");
        let report = play(first, Kind::Disturbed, nature, None, true, spool.path());
        println!("{}", report.trace.join("\n"));
        assert!(report.violations.is_empty(), "{}", told(first, nature, &report));
        return None;
    }
    let requests = number("EXECLET_SIM_REQUESTS").unwrap_or(SOME);
    let episodes = requests.div_ceil(REQUESTS);
    let [finished, unknown, lost, shaken, crashes] = [(); 5].map(|()| AtomicU64::new(0));
    campaign(name(nature), first, episodes, |seed| {
        let report = play(seed, Kind::Disturbed, nature, None, false, spool.path());
        finished.fetch_add(report.finished, Ordering::Relaxed);
        unknown.fetch_add(report.unknown, Ordering::Relaxed);
        lost.fetch_add(report.lost, Ordering::Relaxed);
        shaken.fetch_add(report.shaken, Ordering::Relaxed);
        crashes.fetch_add(report.crashes.into(), Ordering::Relaxed);
        if report.violations.is_empty() { Ok(()) } else { Err(told(seed, nature, &report)) }
    });
    let (finished, unknown) = (finished.into_inner(), unknown.into_inner());
    println!(
        "{}: {requests} requests, {} crashes of the agent: {finished} finished, {unknown} of them Unknown ({} lost, {} of these as {}; the others given up)",
        name(nature),
        crashes.into_inner(),
        lost.into_inner(),
        shaken.into_inner(),
        match nature {
            Nature::Tokens => "the engine ended or the node",
            Nature::Fences => "the node was rebooted",
        },
    );
    assert!(finished * 10 > requests * 5, "most requests finish: {finished} of {requests}");
    Some((finished, unknown))
}

/// Plays until an invariant speaks of the bug in these words.
fn is_found(nature: Nature, planted: Planted, words: &[&str]) {
    let spool = tempfile::tempdir().expect("a folder");
    find(planted, words, ENOUGH, |seed| {
        play(seed, Kind::Disturbed, nature, Some(planted), false, spool.path()).violations
    });
}

#[test]
fn a_seed_plays_the_same_episode_again() {
    let spool = tempfile::tempdir().expect("a folder");
    for nature in [Nature::Tokens, Nature::Fences] {
        for seed in 1..20 {
            let [first, second] = [(); 2].map(|()| play(seed, Kind::Disturbed, nature, None, true, spool.path()).trace);
            assert_eq!(first, second, "{nature:?}: seed {seed}");
        }
    }
}

#[test]
fn what_is_canceled_as_it_starts_leaves_nothing_behind() {
    let spool = tempfile::tempdir().expect("a folder");
    for nature in [Nature::Tokens, Nature::Fences] {
        for seed in 1..=HASTY {
            let report = play(seed, Kind::Hasty, nature, None, false, spool.path());
            assert!(report.violations.is_empty(), "{nature:?}: seed {seed}: {}", report.violations.join("; "));
            assert_eq!(report.finished, REQUESTS);
        }
    }
}

/// Each invariant is shown to be one: a bug that it alone speaks of in these words.
macro_rules! found {
    ($nature:ident: $($name:ident: $planted:ident, $words:expr;)*) => {
        $(
            #[test]
            fn $name() {
                is_found(Nature::$nature, Planted::$planted, &$words);
            }
        )*
    };
}

found! { Tokens:
    a_second_start_is_found: ForgetfulDisk, ["was started 2 times"];
    a_command_that_ran_and_is_said_not_to_have_is_found: StuckDisk, ["is said never to have started"];
    a_command_that_ran_and_is_said_not_to_be_startable_is_found: HiddenPid, ["is said not to be startable"];
    a_missing_exit_code_taken_for_0_is_found: NullIsZero, ["is said to have code 0"];
    a_success_that_was_none_is_found: NullIsZero, ["is said to have succeeded with"];
    a_second_end_is_found: BlindWrites, ["finished twice"];
    a_second_exit_code_is_found: GarbledCodes, ["had exit code"];
    reports_that_get_lost_are_found: LostReports, ["never finished"];
    an_end_that_is_told_and_not_written_is_found: LostReports, ["those who watch", "are told"];
    output_that_never_ends_for_those_who_watch_is_found: DeafViewers, ["never ends for those who watch"];
    processes_that_are_left_alive_are_found: BlindKernel, ["left alive"];
    output_that_gets_lost_is_found: LeakyStream, ["is said to be whole"];
    a_truth_that_is_lost_for_nothing_is_found: ForgetfulEngine, ["nothing had happened to lose it"];
    a_truth_that_is_lost_though_only_the_agent_crashed_is_found: FragileEngine, ["nothing had happened to lose it"];
    a_start_that_is_not_recorded_is_found: ForgetfulTrail, ["the start of", "was not recorded before"];
    a_signal_that_is_not_recorded_is_found: ForgetfulTrail, ["a signal to a process of", "was not recorded before"];
    an_end_that_is_not_recorded_is_found: ForgetfulTrail, ["the end of", "was not recorded before"];
    an_exec_without_its_client_is_found: ForgottenInput, ["the exec of", "came before any client"];
    a_start_without_its_client_is_found: ForgottenInput, ["the start of", "came before any client"];
    a_command_that_is_ended_because_it_is_not_bound_is_found: HiddenUnbound, ["was signalled, and there was no cause"];
    a_command_that_is_ended_with_another_is_found: BroadKernel, ["was signalled, and there was no cause"];
    a_command_that_waits_for_ever_to_write_is_found: BlockedWriters, ["never finished"];
    a_command_that_runs_beyond_its_time_is_found: DeafProcesses, ["runs beyond its time"];
    a_forged_failure_that_is_believed_is_found: CredulousKernel, ["is said never to have started (StartFailed), and was"];
    a_runtimes_code_that_is_taken_for_the_commands_is_found: HastyKernel, ["is said to have code", "and has None"];
    a_stranger_that_is_ended_for_its_pid_is_found: LostTags, ["was signalled, and there was no cause"];
}

found! { Tokens:
    a_second_start_of_a_target_is_found: ForgottenTargets, ["the target of", "was started 2 times, by several requests"];
}

found! { Fences:
    a_second_start_of_a_target_on_an_engine_that_fences_is_found: ForgottenTargets, ["the target of", "was started 2 times, by several requests"];
    a_fence_that_takes_nothing_away_is_found: HollowFence, ["was started 2 times"];
    output_that_is_released_too_early_is_found: GreedyRelease, ["is said not to be whole", "StreamLost"];
    output_that_is_released_too_early_and_not_missed_is_found: LyingReader, ["is said to be whole with"];
    a_code_that_is_lost_as_the_agent_crashes_is_found: FragileEngine, ["nothing had happened to lose it"];
    a_failed_start_that_is_made_again_is_found: HiddenFailures, ["the pod is killed"];
    an_exec_that_is_forgotten_too_early_is_found: ForgetfulDisk, ["is forgotten before its end is put down"];
    a_second_start_on_an_engine_that_fences_is_found: ForgetfulDisk, ["was started 2 times"];
}
