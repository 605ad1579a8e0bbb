//! Whoever gives a command its input is killed at any moment, while the command reads: what it reads is what was to be
//! given, each byte once.

use std::{
    env, fs,
    io::{ErrorKind, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::AtomicU64,
    thread,
    time::Duration,
};

use rustix::fs::OFlags;

use super::*;
use crate::engine::containerd::{
    custody::Custody,
    folder::About,
    kill_lab::{POD, Random, exec, folder, kill, start_holder, until},
};

/// Names the folder in which a giver works.
const GIVER: &str = "EXECLET_TEST_GIVER";
/// Up to where it gives.
const END: &str = "EXECLET_TEST_GIVER_END";
const KILLS: u32 = 300;
/// So many of 100 are killed from their very beginning on.
const EARLY: u64 = 25;

/// What the input has at a place: numbers of eight bytes, one after another.
fn byte_at(place: u64) -> u8 {
    (place / 8).to_le_bytes()[usize::try_from(place % 8).expect("an index")]
}

#[tokio::test]
#[ignore = "it is the giver of the test below"]
async fn giver() {
    let Some(base) = env::var_os(GIVER).map(PathBuf::from) else { return };
    let end: u64 = env::var(END).expect("an end").parse().expect("a number");
    let folder = folder(&base);
    let custody = Custody::new(base.clone(), Some(POD));
    let place = custody.held(&folder.input_backlog()).await.expect("it was held");
    let (input, mut taken) = Input::reopen(&folder, &exec(), &Calls::new("/s"), place).expect("opened");
    fs::write(base.join("opened"), "").expect("told");
    let mut random = Random::of_now();
    while taken < end {
        let largest = if random.below(4) == 0 { 200_000 } else { 300 };
        let most = (1 + random.below(largest)).min(end - taken);
        let bytes: Vec<u8> = (taken..taken + most).map(byte_at).collect();
        taken += input.write(&bytes).await.expect("written") as u64;
    }
    input.room(0).await.expect("all is given");
}

/// Reads at its own pace, as the command does over its shim: how much, when it has read all that it was to be given.
fn command(folder: &Folder, end: &AtomicU64) -> u64 {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("flags");
    let fifo = fs::OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(folder.input());
    let mut fifo = fifo.expect("a FIFO");
    let (mut random, mut read) = (Random::of_now(), 0);
    let mut buffer = vec![0; 100_000];
    loop {
        let most = usize::try_from(1 + random.below(100_000)).expect("a size");
        match fifo.read(&mut buffer[..most]) {
            Ok(length) => {
                for byte in &buffer[..length] {
                    assert_eq!(*byte, byte_at(read), "at {read}");
                    read += 1;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if read >= end.load(Ordering::Relaxed) {
                    return read;
                }
            }
            Err(error) => panic!("{error}"),
        }
        thread::sleep(Duration::from_micros(random.below(500)));
    }
}

fn start(base: &Path, end: u64) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "engine::containerd::input::kill_tests::giver", "--ignored"])
        .env(GIVER, base)
        .env(END, end.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a giver")
}

#[test]
fn givers_that_are_killed_at_any_moment_lose_and_double_nothing() {
    let base = tempfile::tempdir().expect("a folder");
    let folder = folder(base.path());
    let about = About { program: "x".to_owned(), working_dir: "/".to_owned(), tty: false, input: true };
    folder.make(&about).expect("made");
    // It has the place of the input, and the input is left alone.
    let holder = start_holder(base.path(), async |custody| {
        custody.hold([Input::open(&folder, &exec(), &Calls::new("/s")).expect("opened").place()]).await
    });
    let end = Arc::new(AtomicU64::new(u64::MAX));
    let reading = {
        let (folder, end) = (folder.clone(), Arc::clone(&end));
        thread::spawn(move || command(&folder, &end))
    };
    let mut random = Random::of_now();
    for number in 0..KILLS {
        fs::remove_file(base.path().join("opened")).ok();
        let giver = start(base.path(), u64::MAX);
        if random.below(100) >= EARLY {
            until("a giver that has opened the input", || base.path().join("opened").exists());
        }
        kill(&format!("giver {number}"), giver, &mut random);
    }
    let taken = fs::metadata(folder.input_backlog()).expect("a backlog").len();
    let all = taken + 1_000_000;
    let said = start(base.path(), all).wait_with_output().expect("the last giver");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    end.store(all, Ordering::Relaxed);
    assert_eq!(reading.join().expect("it has read"), all);
    holder.cancel();
    // What was read is not kept.
    let kept = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(folder.input_backlog()).expect("a backlog")) * 512;
    assert!(kept <= 4 * MOST_BYTES, "{kept} of {all} bytes");
    println!("{KILLS} givers were killed; {all} bytes");
}
