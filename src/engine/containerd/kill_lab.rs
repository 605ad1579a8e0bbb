//! What the tests share in which a process is killed at any moment that does a part of an agent's work.

use std::{
    path::Path,
    process::Child,
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio_util::sync::CancellationToken;

use super::{custody::Custody, folder::Folder, holder};
use crate::core::ids::{ContainerRef, ExecRef};

/// The holder's name.
pub const POD: &str = "pod";
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Within this a process is killed: after it has begun, or after it has opened what it works on.
const KILLED_WITHIN: Duration = Duration::from_millis(20);

pub fn exec() -> ExecRef {
    ExecRef { id: "u.1".into(), container: ContainerRef { id: "c".into(), started_at: None } }
}

pub fn folder(base: &Path) -> Folder {
    Folder::of(base, &exec()).expect("names")
}

/// Numbers without a pattern that could hide anything.
pub struct Random(u64);

impl Random {
    pub fn of_now() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos();
        Self(u64::try_from(now % u128::from(u64::MAX)).expect("a number") | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A holder of this program's own. `hold` gives it what it is to have.
pub fn start_holder(base: &Path, hold: impl AsyncFn(&Custody) -> Result<(), String>) -> CancellationToken {
    let stop = CancellationToken::new();
    let (socket, stopped) = (holder::socket(base, POD), stop.clone());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    thread::spawn(move || runtime().block_on(holder::server::run(&socket, 1 << 20, &stopped)));
    runtime().block_on(async {
        let until = Instant::now() + PATIENCE;
        while let Err(why) = hold(&Custody::new(base.to_owned(), Some(POD))).await {
            assert!(Instant::now() < until, "{why}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    stop
}

/// Waits until there is what such a process makes.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "waited for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Kills it within a moment; it must not have ended by itself.
pub fn kill(what: &str, mut process: Child, random: &mut Random) {
    thread::sleep(KILLED_WITHIN.mul_f64(f64::from(u32::try_from(random.below(1000)).expect("a number")) / 1000.0));
    if let Some(status) = process.try_wait().expect("its state") {
        let said = process.wait_with_output().expect("what it said");
        panic!("{what} ended by itself: {status}: {}", String::from_utf8_lossy(&said.stderr));
    }
    process.kill().expect("killed");
    process.wait().expect("reaped");
}
