use std::{
    fs::File,
    io::Write as _,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{fstat, seek},
    pipe::{PipeFlags, pipe_with},
};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    client::Client,
    message::{Answer, LONGEST, Question},
    server::serve,
    socket::{Listener, Socket},
};

/// A holder of this program's own.
struct Lab {
    _folder: TempDir,
    socket: PathBuf,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Lab {
    fn of(most: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = super::socket(folder.path(), "pod");
        let stop = CancellationToken::new();
        let serving = start(&socket, most, &stop);
        Self { _folder: folder, socket, stop, serving }
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket).expect("a connection")
    }

    fn raw(&self) -> Socket {
        Socket::connect(&self.socket).expect("a connection")
    }
}

fn start(socket: &Path, most: usize, stop: &CancellationToken) -> JoinHandle<()> {
    let (listener, stop) = (Listener::bind(socket).expect("bound"), stop.clone());
    tokio::spawn(async move { serve(listener, most, &stop).await })
}

/// Both ends of a pipe: the one that is read from, and the one that is written to.
fn ends() -> (OwnedFd, File) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
    (read, write.into())
}

async fn answer(socket: &Socket) -> Answer {
    let packet = timeout(Duration::from_secs(10), socket.receive()).await.expect("in time");
    Answer::parse(&packet.expect("a packet").expect("a packet").bytes).expect("an answer")
}

fn inode(end: &OwnedFd) -> u64 {
    fstat(end).expect("a file").st_ino
}

#[tokio::test]
async fn what_is_put_is_given_to_whoever_asks_until_it_is_deleted() {
    let lab = Lab::of(9);
    let client = lab.client();
    assert!(client.list().await.expect("a list").is_empty());
    assert!(client.get("c/u.1/out").await.expect("an answer").is_none());
    let (end, mut write) = ends();
    client.put("c/u.1/out", end.as_fd()).await.expect("held");
    let same = inode(&end);
    drop((client, end));
    // Nobody else has its other end.
    write.write_all(b"kept").expect("somebody has it open");
    let client = lab.client();
    for _ in 0..2 {
        let got = client.get("c/u.1/out").await.expect("an answer").expect("it is held");
        assert_eq!(inode(&got), same);
    }
    assert_eq!(client.list().await.expect("a list"), ["c/u.1/out"]);
    client.delete("c/u.1/out").await.expect("deleted");
    client.delete("c/u.1/out").await.expect("no harm");
    assert!(client.get("c/u.1/out").await.expect("an answer").is_none());
    assert!(write.write_all(b"lost").is_err(), "nobody has it open");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_the_next_question_is_answered() {
    let lab = Lab::of(9);
    let socket = lab.raw();
    let (read, write) = ends();
    let (write, stream) = (OwnedFd::from(write), OwnedFd::from(UnixStream::pair().expect("a pair").0));
    let long = vec![b'x'; LONGEST + 1];
    for (packet, end) in [
        (&b"HOLD a"[..], Some(&read)),
        (b"PUT a", None),
        (b"PUT a", Some(&write)),
        (b"PUT a", Some(&stream)),
        (b"PUT a b", Some(&read)),
        (b"GET \xff", None),
        (&long, None),
    ] {
        socket.send(packet, end.map(OwnedFd::as_fd)).await.expect("sent");
        let answer = answer(&socket).await;
        assert!(
            matches!(answer, Answer::Refused(_)),
            "{}: {answer:?}",
            String::from_utf8_lossy(&packet[..6.min(packet.len())])
        );
    }
    // A descriptor that comes with another question is closed.
    socket.send(b"LIST ", Some(read.as_fd())).await.expect("sent");
    assert_eq!(answer(&socket).await, Answer::Names(Vec::new()));
}

#[tokio::test]
async fn more_than_can_be_held_is_refused_and_what_is_held_stays() {
    let lab = Lab::of(2);
    let client = lab.client();
    let (end, _write) = ends();
    client.put("a", end.as_fd()).await.expect("held");
    client.put("b", end.as_fd()).await.expect("held");
    let refused = client.put("c", end.as_fd()).await.expect_err("there is no room");
    assert!(refused.to_string().contains("as many as can be"), "{refused}");
    client.put("b", end.as_fd()).await.expect("in place of the other");
    assert_eq!(client.list().await.expect("a list"), ["a", "b"]);
    client.delete("a").await.expect("deleted");
    client.put("c", end.as_fd()).await.expect("held");
}

#[tokio::test]
async fn a_client_that_vanishes_or_does_not_listen_harms_nobody() {
    let lab = Lab::of(99);
    let (end, _write) = ends();
    for number in 0..50 {
        let socket = lab.raw();
        let name = format!("gone/{number}");
        socket.send(Question::Put(&name).encode().as_bytes(), Some(end.as_fd())).await.expect("sent");
    }
    let mute = lab.raw();
    let asking = async {
        loop {
            mute.send(Question::List("").encode().as_bytes(), None).await.expect("sent");
        }
    };
    // Until nothing more goes out.
    assert!(timeout(Duration::from_millis(300), asking).await.is_err());
    let client = lab.client();
    let all = async {
        while client.list().await.expect("a list").len() < 50 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), all).await.expect("what they put is held");
}

#[tokio::test]
async fn a_list_of_any_length_comes_whole_and_in_order() {
    let lab = Lab::of(9999);
    let client = lab.client();
    let (end, _write) = ends();
    let names: Vec<String> = (0..3000).map(|number| format!("{number:0>90}/u.1/out")).collect();
    for name in &names {
        client.put(name, end.as_fd()).await.expect("held");
    }
    assert_eq!(client.list().await.expect("a list"), names);
}

#[tokio::test]
async fn a_holder_that_is_told_to_stop_ends_once_it_has_nothing() {
    let lab = Lab::of(9);
    let client = lab.client();
    let (end, _write) = ends();
    client.put("a", end.as_fd()).await.expect("held");
    lab.stop.cancel();
    client.put("b", end.as_fd()).await.expect("it holds on");
    client.delete("a").await.expect("deleted");
    assert!(client.get("b").await.expect("an answer").is_some());
    assert!(!lab.serving.is_finished());
    client.delete("b").await.expect("deleted");
    timeout(Duration::from_secs(10), lab.serving).await.expect("it ends").expect("well");
    timeout(Duration::from_secs(10), client.gone()).await.expect("that is seen");
    assert!(!lab.socket.exists());
}

#[tokio::test]
async fn a_holder_that_is_restarted_has_nothing_and_its_socket_is_its_own() {
    let lab = Lab::of(9);
    let client = lab.client();
    let (end, _write) = ends();
    client.put("a", end.as_fd()).await.expect("held");
    // As if it were killed: its socket's file stays.
    let stale = lab.socket.with_extension("stale");
    std::fs::hard_link(&lab.socket, &stale).expect("a link");
    lab.serving.abort();
    timeout(Duration::from_secs(10), client.gone()).await.expect("it is gone");
    std::fs::rename(&stale, &lab.socket).expect("there again");
    let refused = Client::connect(&lab.socket).expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let _serving = start(&lab.socket, 9, &lab.stop);
    assert!(lab.client().list().await.expect("a list").is_empty());
}

#[tokio::test]
async fn many_clients_at_once_are_all_served() {
    let lab = Arc::new(Lab::of(999));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..300 {
        let lab = Arc::clone(&lab);
        clients.spawn(async move {
            let (end, _write) = ends();
            let name = format!("{number}");
            // Where too many wait to be accepted.
            let client = loop {
                match Client::connect(&lab.socket) {
                    Ok(client) => break client,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            client.put(&name, end.as_fd()).await.expect("held");
            client.get(&name).await.expect("an answer").expect("it is held")
        });
    }
    while let Some(done) = clients.join_next().await {
        // A pipe has no place.
        assert!(seek(done.expect("served"), rustix::fs::SeekFrom::Current(0)).is_err());
    }
}
