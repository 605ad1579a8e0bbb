//! The holder, with few descriptors.

use std::{
    os::fd::AsFd as _,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use execlet::engine::containerd::holder::{self, client::Client};
use rustix::pipe::{PipeFlags, pipe_with};

const PATIENCE: Duration = Duration::from_secs(30);

/// One that may have so many files open.
struct Holder(Child);

impl Holder {
    fn start(base: &Path, descriptors: u32) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"ulimit -n "$1" && exec "$2" holder --log-level=error --name=pod --run-dir="$3""#, "sh"]);
        shell.arg(descriptors.to_string()).arg(env!("CARGO_BIN_EXE_execlet")).arg(base);
        Self(shell.spawn().expect("a shell"))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("reaped");
    }
}

async fn client(base: &Path) -> Client {
    let (socket, until) = (holder::socket(base, "pod"), Instant::now() + PATIENCE);
    loop {
        match Client::connect(&socket) {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < until, "no holder: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_holder_that_has_no_descriptor_left_says_so_and_serves_all_the_same() {
    let base = tempfile::tempdir().expect("a folder");
    let _holder = Holder::start(base.path(), 298);
    let asking = client(base.path()).await;
    let (end, _write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let mut names = Vec::new();
    let refused = loop {
        let name = format!("c/{:0>3}/out", names.len());
        match asking.put(&name, end.as_fd()).await {
            Ok(()) => names.push(name),
            Err(error) => break error,
        }
    };
    assert!(refused.to_string().contains("as many as can be"), "{refused}");
    assert_eq!(names.len(), 10, "the rest is for those who ask");
    let mut others = Vec::new();
    for _ in 0..120 {
        let other = client(base.path()).await;
        assert_eq!(other.list().await.expect("a list"), names);
        assert!(other.get(&names[0]).await.expect("an answer").is_some());
        others.push(other);
    }
    asking.delete(&names[0]).await.expect("deleted");
    asking.put("c/new/out", end.as_fd()).await.expect("there is room");
}

#[tokio::test]
async fn a_holder_that_can_hold_nothing_refuses_and_answers() {
    let base = tempfile::tempdir().expect("a folder");
    let _holder = Holder::start(base.path(), 64);
    let asking = client(base.path()).await;
    let (end, _write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    assert!(asking.put("a", end.as_fd()).await.is_err());
    assert!(asking.list().await.expect("a list").is_empty());
}
