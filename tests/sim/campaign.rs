//! Many episodes, each from its seed.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

/// Plays that many episodes from this seed on, on every processor. `play` counts what came of one and says what it
/// violated; the first violation ends it all.
pub fn campaign(what: &str, first: u64, episodes: u64, play: impl Fn(u64) -> Result<(), String> + Sync) {
    let next = AtomicU64::new(0);
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
                    if let Err(violation) = play(first + episode) {
                        failed.store(true, Ordering::Relaxed);
                        *failure.lock().unwrap() = Some(violation);
                    }
                    if episode % 10_000 == 9_999 {
                        println!("{what}: {} episodes in {:.0?}", episode + 1, begun.elapsed());
                    }
                }
            });
        }
    });
    if let Some(failure) = failure.into_inner().unwrap() {
        panic!("{failure}");
    }
    println!("{what}: {episodes} episodes from seed {first}, no violation, {:.0?}", begun.elapsed());
}

/// Plays until a violation shows that has all these words: whatever else a planted bug violates, this is what one invariant
/// says of it.
pub fn find(planted: impl Debug, words: &[&str], enough: u64, play: impl Fn(u64) -> Vec<String>) {
    let mut others = BTreeSet::new();
    for seed in 1..=enough {
        for violation in play(seed) {
            if words.iter().all(|words| violation.contains(words)) {
                println!("{planted:?}: seed {seed}: {violation}");
                return;
            }
            others.insert(violation);
        }
    }
    let others: Vec<String> = others.into_iter().take(20).collect();
    panic!("of {planted:?} it was never said in {enough} episodes: {words:?}; what was said: {others:#?}");
}
