use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _};

use rustix::fs::OFlags;
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    core::ids::{ContainerRef, ExecRef},
    engine::containerd::{folder::About, output::pipe::Pipe},
};

/// A node without an engine.
struct Lab(TempDir);

/// A holder of this program's own.
struct Holder(JoinHandle<()>);

impl Holder {
    async fn kill(self) {
        end(self.0).await;
    }
}

async fn end(task: JoinHandle<()>) {
    task.abort();
    assert!(task.await.is_err_and(|error| error.is_cancelled()));
}

impl Lab {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn base(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// An agent, with the holder of this pod.
    fn agent(&self, pod: &str) -> Custody {
        Custody::new(self.base(), Some(pod))
    }

    async fn holder(&self, pod: &str) -> Holder {
        let socket = holder::socket(&self.base(), pod);
        let holder = {
            let socket = socket.clone();
            tokio::spawn(async move { holder::server::run(&socket, 1 << 20, &CancellationToken::new()).await })
        };
        until(async || Client::connect(&socket).is_ok()).await;
        Holder(holder)
    }

    fn exec(&self, name: &str) -> Folder {
        let container = ContainerRef { id: "c".into(), started_at: None };
        let folder = Folder::of(&self.base(), &ExecRef { id: name.into(), container }).expect("names");
        let about = About { program: "x".to_owned(), working_dir: "/".to_owned(), tty: false, input: false };
        folder.make(&about).expect("made");
        folder
    }

    async fn listed(&self, pod: &str) -> Vec<String> {
        let client = Client::connect(&holder::socket(&self.base(), pod)).expect("a holder");
        client.list().await.expect("a list")
    }
}

fn pipes(folder: &Folder) -> [Pipe; 2] {
    [OutputStream::Stdout, OutputStream::Stderr].map(|stream| Pipe::open(folder, stream).expect("opened"))
}

fn ends(pipes: &[Pipe]) -> impl Iterator<Item = (&Path, BorrowedFd<'_>)> {
    pipes.iter().filter_map(Pipe::end)
}

/// Opened as by a shim, without waiting for a reader: there has to be one.
fn write(folder: &Folder, bytes: &[u8]) -> io::Result<()> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("flags");
    let fifo = OpenOptions::new().write(true).custom_flags(nonblocking).open(folder.fifo(OutputStream::Stdout));
    fifo?.write_all(bytes)
}

fn read(end: OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    let read = rustix::io::read(&end, &mut bytes).expect("an end, or something before it");
    bytes.truncate(read);
    bytes
}

async fn until(what: impl AsyncFn() -> bool) {
    let there = async {
        while !what().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), there).await.expect("in time");
}

#[tokio::test]
async fn the_next_agent_gets_what_was_written_while_there_was_none() {
    let lab = Lab::new();
    let _holder = lab.holder("pod").await;
    let folder = lab.exec("u.1");
    let agent = lab.agent("pod");
    let opened = pipes(&folder);
    agent.hold(ends(&opened)).await.expect("held");
    drop((agent, opened));
    write(&folder, b"late").expect("somebody has it open");
    let next = lab.agent("pod");
    let end = next.held(&folder.fifo(OutputStream::Stdout)).await.expect("it was held");
    assert_eq!(read(end), b"late");
    next.let_go(&folder).await;
    assert!(lab.listed("pod").await.is_empty());
    assert!(next.held(&folder.fifo(OutputStream::Stdout)).await.is_none());
    assert!(write(&folder, b"lost").is_err(), "nobody has it open");
}

#[tokio::test]
async fn an_agent_of_another_pod_takes_over_what_the_holder_before_it_has_and_that_one_lets_go() {
    let lab = Lab::new();
    let _before = lab.holder("before").await;
    let (folder, other) = (lab.exec("u.1"), lab.exec("v.1"));
    let agent = lab.agent("before");
    agent.hold(ends(&pipes(&folder))).await.expect("held");
    agent.hold(ends(&pipes(&other))).await.expect("held");
    drop(agent);
    write(&folder, b"late").expect("somebody has it open");
    let _holder = lab.holder("after").await;
    let next = Arc::new(lab.agent("after"));
    // Also before it has taken over all.
    assert!(next.held(&other.fifo(OutputStream::Stderr)).await.is_some());
    let following = tokio::spawn({
        let next = Arc::clone(&next);
        async move { next.follow().await }
    });
    until(async || lab.listed("before").await.is_empty()).await;
    assert_eq!(lab.listed("after").await, ["c/u.1/err", "c/u.1/out", "c/v.1/err", "c/v.1/out"]);
    end(following).await;
    drop(next);
    let end = lab.agent("after").held(&folder.fifo(OutputStream::Stdout)).await.expect("it was held");
    assert_eq!(read(end), b"late");
}

#[tokio::test]
async fn a_holder_that_was_restarted_or_came_late_is_given_all_of_it_again() {
    let lab = Lab::new();
    let (folder, early) = (lab.exec("u.1"), lab.exec("v.1"));
    let agent = Arc::new(lab.agent("pod"));
    let unheld = agent.hold(ends(&pipes(&early))).await.expect_err("there is no holder");
    assert!(unheld.contains("pod.sock"), "{unheld}");
    let following = tokio::spawn({
        let agent = Arc::clone(&agent);
        async move { agent.follow().await }
    });
    let holder = lab.holder("pod").await;
    until(async || lab.listed("pod").await.len() == 2).await;
    agent.hold(ends(&pipes(&folder))).await.expect("held");
    holder.kill().await;
    let _restarted = lab.holder("pod").await;
    until(async || lab.listed("pod").await.len() == 4).await;
    end(following).await;
    drop(agent);
    for folder in [&folder, &early] {
        write(folder, b"late").expect("somebody has it open");
    }
}

#[tokio::test]
async fn a_holder_is_told_to_let_go_of_what_nobody_will_read() {
    let lab = Lab::new();
    let _holder = lab.holder("pod").await;
    let (folder, read_to_its_end, gone) = (lab.exec("u.1"), lab.exec("v.1"), lab.exec("w.1"));
    let agent = lab.agent("pod");
    for folder in [&folder, &read_to_its_end, &gone] {
        agent.hold(ends(&pipes(folder))).await.expect("held");
    }
    let client = Client::connect(&holder::socket(&lab.base(), "pod")).expect("a holder");
    let strange = pipes(&folder);
    for name in ["strange", "../c/u.1/out", "c/u.1"] {
        client.put(name, strange[0].receiver().expect("open").as_fd()).await.expect("held");
    }
    drop(agent);
    fs::remove_file(read_to_its_end.fifo(OutputStream::Stdout)).expect("removed");
    gone.remove().expect("removed");
    let next = lab.agent("pod");
    let own = next.own.clone().expect("its own");
    next.bring_up_to_date(&own).await.expect("a holder");
    assert_eq!(lab.listed("pod").await, ["c/u.1/err", "c/u.1/out", "c/v.1/err"]);
}

#[tokio::test]
async fn sockets_of_pods_that_were_killed_are_removed() {
    let lab = Lab::new();
    let _holder = lab.holder("pod").await;
    let dead = holder::socket(&lab.base(), "dead");
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("bound"));
    // Of another type, too: nobody listens.
    let agent = lab.agent("pod");
    let own = agent.own.clone().expect("its own");
    agent.bring_up_to_date(&own).await.expect("a holder");
    until(async || holder::sockets(&lab.base()) == [own.clone()]).await;
}

#[tokio::test]
async fn without_a_holder_it_is_said_and_nothing_is_held() {
    let lab = Lab::new();
    let folder = lab.exec("u.1");
    let agent = Custody::new(lab.base(), None);
    let pipes = pipes(&folder);
    assert!(agent.hold(ends(&pipes)).await.expect_err("there is none").contains("no holder"));
    assert!(agent.held(&folder.fifo(OutputStream::Stdout)).await.is_none());
    agent.let_go(&folder).await;
    agent.follow().await;
}
