//! Output and codes when who reads, or the engine, is killed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use execlet::{
    core::{ids::ExecRef, offsets::StreamOffsets},
    engine::{Engine as _, ExecSpec, ExecState, ExecStream, Reopened},
};
use futures::StreamExt as _;
use tokio::time::sleep;

use super::node::Node;
use crate::{
    lab::{on_a_terminal, shell, unique, until, within},
    stage::{Stage as _, Staged as _},
};

/// Lines that are more than a FIFO and a backlog hold.
pub const NUMBERS: u32 = 200_000;

pub fn numbers() -> String {
    (1..=NUMBERS).map(|number| number.to_string()).collect::<Vec<_>>().join("\n") + "\n"
}

/// Reads so many bytes at least, and lets the engine forget them.
async fn read_some(node: &Node, exec: &ExecRef, stream: &mut ExecStream, into: &mut Vec<u8>, least: usize) {
    while into.len() < least {
        let chunk = within("output", stream.next()).await.expect("a stream").expect("output");
        into.extend_from_slice(&chunk.bytes);
    }
    node.engine.release(exec, StreamOffsets { stdout: into.len() as u64, stderr: 0 }).await.expect("released");
}

/// Reads to a clean end, and lets the engine forget what was read.
pub async fn read_rest(node: &Node, exec: &ExecRef, mut stream: ExecStream, into: &mut Vec<u8>) {
    loop {
        let before = StreamOffsets { stdout: into.len() as u64, stderr: 0 };
        node.engine.release(exec, before).await.expect("released");
        let Some(chunk) = within("output", stream.next()).await.expect("an unbroken stream") else { return };
        into.extend_from_slice(&chunk.bytes);
    }
}

async fn reopen(node: &Node, exec: &ExecRef, tty: bool, stdout: usize) -> ExecStream {
    let from = StreamOffsets { stdout: stdout as u64, stderr: 0 };
    let Reopened { stream, unbroken, .. } =
        node.engine.reopen(exec, tty, from).await.expect("opened").expect("an exec");
    assert!(unbroken);
    stream
}

#[tokio::test]
async fn readers_and_the_engine_are_killed_while_a_command_writes_and_nothing_is_lost() {
    for tty in [false, true] {
        let node = Node::open().await;
        let container = node.gated().await;
        let script = format!("seq {NUMBERS}; exit 7");
        let exec = node.make(&container, &ExecSpec { tty, ..shell(&script) }).await;
        let mut stream = node.go(&exec, tty).await;
        let mut all = Vec::new();
        read_some(&node, &exec, &mut stream, &mut all, 100_000).await;
        // What it has read since it does not know any more.
        within("output", stream.next()).await.expect("a stream").expect("output");
        drop(stream);
        node.daemon().kill();
        let mut stream = reopen(&node, &exec, tty, all.len()).await;
        read_some(&node, &exec, &mut stream, &mut all, 300_000).await;
        drop(stream);
        node.daemon().start();
        let stream = reopen(&node, &exec, tty, all.len()).await;
        read_rest(&node, &exec, stream, &mut all).await;
        let expected = if tty { numbers().replace('\n', "\r\n") } else { numbers() };
        assert!(all == expected.as_bytes(), "tty: {tty}: {} of {} bytes", all.len(), expected.len());
        assert_eq!(node.code_of(&exec).await, 7, "tty: {tty}");
    }
}

#[tokio::test]
async fn a_command_that_nobody_reads_waits_and_its_output_is_whole_when_somebody_does() {
    let node = Node::open().await;
    let container = node.gated().await;
    let exec = node.make(&container, &shell(&format!("seq {NUMBERS}; echo done >> /done; exit 7"))).await;
    drop(node.go(&exec, false).await);
    let waits = until("a command that waits", async || match node.engine.state(&exec).await {
        Ok(ExecState::Running { pid: Some(pid) }) => {
            let doing = std::fs::read_to_string(format!("/proc/{pid}/wchan")).ok()?;
            (doing.contains("pipe_write") || doing.contains("wait")).then_some(())
        }
        _ => None,
    });
    waits.await;
    assert_eq!(container.lines("done"), Vec::<String>::new());
    let stream = reopen(&node, &exec, false, 0).await;
    let output = node.rest_of(&exec, stream).await.expect("an unbroken stream");
    assert!(output.stdout == numbers().as_bytes(), "{} bytes", output.stdout.len());
    assert_eq!(node.code_of(&exec).await, 7);
}

/// Nobody held the FIFO when its last writer went: what was in it is lost, and that is told.
#[tokio::test]
async fn output_of_a_command_that_ended_unread_is_not_called_whole() {
    let node = Node::open().await;
    let container = node.gated().await;
    let exec = node.make(&container, &shell("echo begun; read _ < /gate; echo late; exit 7")).await;
    let mut stream = node.go(&exec, false).await;
    within("first output", stream.next()).await.expect("a stream").expect("output");
    drop(stream);
    container.pass();
    assert_eq!(node.code_of(&exec).await, 7);
    // The shim lets go a little later.
    let fifo = node.daemon().base().join(container.id()).join(exec.id.as_str()).join("out");
    until("the shim to let go of it", async || {
        let mut fifo = tokio::net::unix::pipe::OpenOptions::new().open_sender(&fifo);
        fifo.as_mut().is_err_and(|error| error.raw_os_error() == Some(6)).then_some(())
    })
    .await;
    let mut stream = reopen(&node, &exec, false, 0).await;
    assert_eq!(&within("output", stream.next()).await.expect("a stream").expect("output").bytes[..], b"begun\n");
    assert!(within("the end", stream.next()).await.is_err());
}

#[tokio::test]
async fn a_child_that_holds_the_output_delays_neither_the_code_nor_other_execs_and_is_heard() {
    let node = Node::open().await;
    let container = node.gated().await;
    let script = "echo begun; (read _ < /gate; echo late) & exit 7";
    let (exec, mut stream) = node.begun(&container, &shell(script)).await;
    assert_eq!(node.code_of(&exec).await, 7);
    assert_eq!(node.all_of(&container, &shell("exit 3")).await.code, 3);
    container.pass();
    let chunk = within("output", stream.next()).await.expect("a stream").expect("output");
    assert_eq!(&chunk.bytes[..], b"late\n");
    assert!(within("the end", stream.next()).await.expect("a clean end").is_none());
}

#[tokio::test]
async fn codes_are_true_in_every_place_also_those_that_stand_for_something_elsewhere() {
    let node = Node::open().await;
    let container = node.gated().await;
    let mut exits = node.engine.exits(None);
    let heard = Arc::new(Mutex::new(HashMap::new()));
    let hearing = {
        let heard = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some(Ok(exit)) = exits.next().await {
                heard.lock().unwrap().insert(exit.exec, exit.testimony.code);
            }
        })
    };
    let code = |exec: &ExecRef| heard.lock().unwrap().get(&exec.id).copied();
    // Nothing tells from when on they are heard.
    until("an exit", async || {
        let exec = node.make(&container, &shell("exit 1")).await;
        drop(node.go(&exec, false).await);
        node.code_of(&exec).await;
        sleep(Duration::from_millis(100)).await;
        code(&exec)
    })
    .await;
    for (script, expected) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 126", 126),
        ("exit 127", 127),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
    ] {
        let exec = node.make(&container, &shell(script)).await;
        // Without a client.
        drop(node.go(&exec, false).await);
        node.engine.wait(&exec).await.expect("ended");
        assert_eq!(node.code_of(&exec).await, expected, "{script}");
        assert_eq!(until("an exit", async || code(&exec)).await, expected, "{script}");
    }
    hearing.abort();
}

#[tokio::test]
async fn input_of_a_reader_that_was_killed_is_at_its_end_for_the_command() {
    let node = Node::open().await;
    let container = node.gated().await;
    let spec = ExecSpec { stdin: true, ..shell("cat; echo ended; exit 7") };
    let exec = node.make(&container, &spec).await;
    let mut stream = node.go(&exec, false).await;
    stream.input().expect("a way in").write(b"half\n").await.expect("written");
    within("its echo", stream.next()).await.expect("a stream").expect("output");
    drop(stream);
    let stream = reopen(&node, &exec, false, 5).await;
    assert!(stream.input().is_none());
    assert_eq!(node.rest_of(&exec, stream).await.expect("a clean end").stdout, b"ended\n");
    assert_eq!(node.code_of(&exec).await, 7);
}

#[tokio::test]
async fn what_was_not_started_has_no_output_to_open_again() {
    let node = Node::open().await;
    let container = node.gated().await;
    let exec = node.make(&container, &on_a_terminal("true")).await;
    let from = StreamOffsets::default();
    assert!(node.engine.reopen(&exec, true, from).await.expect("an answer").is_none());
    let unknown = ExecRef { id: unique("exec").into(), ..exec };
    assert!(node.engine.reopen(&unknown, true, from).await.expect("an answer").is_none());
    node.engine.drain(&unknown).await;
}
