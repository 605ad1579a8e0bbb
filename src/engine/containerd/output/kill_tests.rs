//! Readers of the output are killed at any moment, while a command writes to both streams: what they have written down
//! together is what it wrote.
//!
//! A reader does what the agent does: it takes the log back to what was noted, reads on from there, writes, notes how far
//! it is, and then releases. Most get the FIFOs from a holder, as the last one does, which only comes when the command has
//! ended; some open them by themselves.

use std::{
    env,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use futures::{FutureExt as _, future::ready};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    pipe::{Pipe, release},
    room::Room,
    source::{Kept, Source},
};
use crate::{
    core::offsets::StreamOffsets,
    engine::{
        ExecStream,
        containerd::{
            custody::Custody,
            folder::About,
            kill_lab::{POD, Random, folder, kill, start_holder, until},
        },
    },
    wire::OutputStream::{self, Stderr, Stdout},
};

/// Names the folder in which a reader works.
const READER: &str = "EXECLET_TEST_READER";
/// The name of the holder that a reader asks, if there is one to ask.
const HOLDER: &str = "EXECLET_TEST_HOLDER";
const KILLS: u32 = 500;
/// So many of 100 are killed from their very beginning on.
const EARLY: u64 = 25;
/// So many of 100 have no holder.
const UNHELD: u64 = 20;

fn log(base: &Path, stream: OutputStream) -> PathBuf {
    base.join(if stream == Stdout { "out.log" } else { "err.log" })
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Noted {
    position: StreamOffsets,
}

#[tokio::test]
#[ignore = "it is the reader of the test below"]
async fn reader() {
    let Some(base) = env::var_os(READER).map(PathBuf::from) else { return };
    let folder = folder(&base);
    let note = base.join("note");
    let mut position = fs::read(&note).map_or_else(
        |_| StreamOffsets::default(),
        |text| serde_json::from_slice::<Noted>(&text).expect("a whole note").position,
    );
    let open = |stream, end| {
        let log = OpenOptions::new().create(true).truncate(false).write(true).open(log(&base, stream)).expect("a log");
        log.set_len(end).expect("cut back");
        log
    };
    let logs = [open(Stdout, position.stdout), open(Stderr, position.stderr)];
    let custody = Custody::new(base.clone(), env::var(HOLDER).ok().as_deref());
    let mut pipes = Vec::new();
    for (stream, from) in [(Stdout, position.stdout), (Stderr, position.stderr)] {
        let held = if env::var_os(HOLDER).is_some() { custody.held(&folder.fifo(stream)).await } else { None };
        pipes.push(Pipe::reopen(&folder, stream, from, held).expect("opened").expect("unbroken"));
    }
    let room = Arc::new(Room::from(position));
    let source = Source::new(pipes, Arc::clone(&room), Kept::UntilReleased, ready(Ok(())).boxed());
    let mut stream = ExecStream::from_source(source, None, false);
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(base.join("opened"))
        .expect("a file")
        .write_all(b"o")
        .expect("put");
    let mut random = Random::of_now();
    let mut next_note = 0;
    while let Some(chunk) = stream.next().await.expect("an unbroken stream") {
        let (log, at) = match chunk.stream {
            Stdout => (&logs[0], &mut position.stdout),
            Stderr => (&logs[1], &mut position.stderr),
        };
        // Torn now and then.
        let torn = usize::try_from(random.below(chunk.bytes.len() as u64 + 1)).expect("a size");
        log.write_all_at(&chunk.bytes[..torn], *at).expect("written");
        log.write_all_at(&chunk.bytes[torn..], *at + torn as u64).expect("written");
        *at += chunk.bytes.len() as u64;
        if position.total() >= next_note {
            let new = base.join("note.new");
            fs::write(&new, serde_json::to_vec(&Noted { position }).expect("a note")).expect("written");
            fs::rename(&new, &note).expect("noted");
            release(&folder, position).expect("released");
            room.release(position);
            next_note = position.total() + random.below(300_000);
        }
    }
    fs::write(base.join("ended"), b"").expect("told");
}

/// Writes numbers to both streams until it is told to stop, also in the midst of a line, and also if nobody reads: the
/// digests of what it wrote, and how much that was.
fn command(mut outputs: [File; 2], stop: &AtomicBool) -> ([Vec<u8>; 2], u64) {
    let mut digests = [Sha256::new(), Sha256::new()];
    let mut random = Random::of_now();
    let (mut total, mut number) = (0, 0_u64);
    while !stop.load(Ordering::Relaxed) {
        let stream = usize::from(random.below(10) < 3);
        let mut lines = String::new();
        for _ in 0..random.below(2000) {
            number += 1;
            writeln!(lines, "{number}").expect("a line");
        }
        let mut rest = lines.as_bytes();
        while !rest.is_empty() && !stop.load(Ordering::Relaxed) {
            match outputs[stream].write(rest) {
                Ok(written) => {
                    digests[stream].update(&rest[..written]);
                    total += written as u64;
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_micros(100));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    (digests.map(|digest| digest.finalize().to_vec()), total)
}

/// How many readers have opened their streams.
fn opened(base: &Path) -> u64 {
    fs::metadata(base.join("opened")).map_or(0, |file| file.len())
}

#[test]
fn readers_that_are_killed_at_any_moment_lose_and_double_nothing() {
    let base = tempfile::tempdir().expect("a folder");
    let folder = folder(base.path());
    let about = About { program: "x".to_owned(), working_dir: "/".to_owned(), tty: false, input: false };
    folder.make(&about).expect("made");
    let holder = start_holder(base.path(), async |custody| {
        let pipes = [Stdout, Stderr].map(|stream| Pipe::open(&folder, stream).expect("opened"));
        custody.hold(pipes.iter().filter_map(Pipe::end)).await
    });
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        // As the shim holds them: both ends.
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("flags");
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(nonblocking);
        let hold = |stream| options.open(folder.fifo(stream)).expect("a FIFO");
        let (outputs, stop) = ([hold(Stdout), hold(Stderr)], Arc::clone(&stop));
        thread::spawn(move || command(outputs, &stop))
    };
    let start = |held: bool| {
        let mut reader = Command::new(env::current_exe().expect("this program"));
        if held {
            reader.env(HOLDER, POD);
        }
        reader
            .args(["--exact", "engine::containerd::output::kill_tests::reader", "--ignored"])
            .env(READER, base.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a reader")
    };
    let mut random = Random::of_now();
    for number in 0..KILLS {
        let before = opened(base.path());
        let reader = start(random.below(100) >= UNHELD);
        if random.below(100) >= EARLY {
            until("a reader that has opened its streams", || opened(base.path()) != before);
        }
        kill(&format!("reader {number}"), reader, &mut random);
    }
    // The last one comes when the command has ended, and nobody has read since.
    let opened = opened(base.path());
    stop.store(true, Ordering::Relaxed);
    let (expected, written) = writing.join().expect("it has ended");
    let said = start(true).wait_with_output().expect("the last reader");
    holder.cancel();
    assert!(said.status.success() && base.path().join("ended").exists(), "{}", String::from_utf8_lossy(&said.stderr));
    let kept = [Stdout, Stderr].map(|stream| fs::read(log(base.path(), stream)).expect("a log"));
    assert_eq!(kept.iter().map(|log| log.len() as u64).sum::<u64>(), written);
    assert!(kept.map(|log| Sha256::digest(&log).to_vec()) == expected, "other bytes than were written");
    assert!(opened > u64::from(KILLS) / 2, "only {opened} of {KILLS} readers got as far as to read");
    println!("{KILLS} readers were killed, {opened} of them while they read; {written} bytes");
}
