use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use futures::{FutureExt as _, future::ready};
use rustix::fs::OFlags;
use tempfile::TempDir;
use tokio::time::timeout;

use super::{
    pipe::{Pipe, release},
    room::{MOST_BYTES, Room},
    source::{Kept, Source},
};
use crate::{
    core::{
        ids::{ContainerRef, ExecRef},
        offsets::StreamOffsets,
    },
    engine::{
        ExecStream, StreamError,
        containerd::folder::{About, Folder},
    },
    wire::OutputStream::{self, Stderr, Stdout},
};

/// An exec without an engine: its folder, and the shim's ends of its FIFOs.
struct Lab {
    _base: TempDir,
    folder: Folder,
    room: Arc<Room>,
}

/// What was read of both, and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Lab {
    fn new() -> Self {
        let base = tempfile::tempdir().expect("a folder");
        let container = ContainerRef { id: "c".into(), started_at: None };
        let folder = Folder::of(base.path(), &ExecRef { id: "u.1".into(), container }).expect("names");
        let about = About { program: "x".to_owned(), working_dir: "/".to_owned(), tty: false, input: false };
        folder.make(&about).expect("made");
        Self { _base: base, folder, room: Arc::default() }
    }

    /// As the shim holds them: both ends, so that it waits for nobody and nothing is lost with a reader.
    fn shim(&self) -> [File; 2] {
        [Stdout, Stderr]
            .map(|stream| OpenOptions::new().read(true).write(true).open(self.folder.fifo(stream)).expect("a FIFO"))
    }

    fn stream(&self, pipes: Vec<Pipe>) -> ExecStream {
        let source = Source::new(pipes, Arc::clone(&self.room), Kept::UntilReleased, ready(Ok(())).boxed());
        ExecStream::from_source(source, None, false)
    }

    fn open(&self) -> ExecStream {
        self.stream([Stdout, Stderr].map(|stream| Pipe::open(&self.folder, stream).expect("opened")).into())
    }

    fn reopen(&self, from: StreamOffsets) -> Result<ExecStream, ExecStream> {
        self.reopen_held(from, None)
    }

    fn reopen_held(&self, from: StreamOffsets, held: Option<[OwnedFd; 2]>) -> Result<ExecStream, ExecStream> {
        let mut broken = false;
        let [out, err] = held.map_or([None, None], |held| held.map(Some));
        let pipes = [(Stdout, from.stdout, out), (Stderr, from.stderr, err)].map(|(stream, from, held)| {
            let pipe = Pipe::reopen(&self.folder, stream, from, held).expect("opened");
            broken |= pipe.is_err();
            pipe.unwrap_or_else(|pipe| pipe)
        });
        let stream = self.stream(pipes.into());
        if broken { Err(stream) } else { Ok(stream) }
    }

    /// As a holder has them.
    fn held(&self) -> [OwnedFd; 2] {
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("flags");
        [Stdout, Stderr].map(|stream| {
            let fifo = OpenOptions::new().read(true).custom_flags(nonblocking).open(self.folder.fifo(stream));
            fifo.expect("a FIFO").into()
        })
    }

    fn bytes_kept(&self, stream: OutputStream) -> u64 {
        std::fs::metadata(self.folder.backlog(stream)).expect("a backlog").blocks() * 512
    }
}

async fn read(stream: &mut ExecStream) -> (Output, Result<(), StreamError>) {
    let mut output = Output::default();
    let reading = async {
        while let Some(chunk) = stream.next().await? {
            match chunk.stream {
                Stdout => output.stdout.extend_from_slice(&chunk.bytes),
                Stderr => output.stderr.extend_from_slice(&chunk.bytes),
            }
        }
        Ok(())
    };
    let end = within(reading).await;
    (output, end)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("in time")
}

fn write(mut to: File, bytes: Vec<u8>) -> JoinHandle<File> {
    thread::spawn(move || {
        to.write_all(&bytes).expect("written");
        to
    })
}

fn output(stdout: &[u8], stderr: &[u8]) -> Output {
    Output { stdout: stdout.to_vec(), stderr: stderr.to_vec() }
}

#[tokio::test]
async fn both_streams_come_whole_and_end_with_their_writers() {
    let lab = Lab::new();
    let mut stream = lab.open();
    let [out, err] = lab.shim();
    let bytes: Vec<u8> = (0..900_000_u32).map(|n| u8::try_from(n % 251).expect("a byte")).collect();
    let writing = [write(out, bytes.clone()), write(err, b"error".to_vec())];
    let closing = thread::spawn(move || writing.map(|writing| drop(writing.join())));
    let (read, end) = read(&mut stream).await;
    end.expect("a clean end");
    assert!(read == output(&bytes, b"error"), "{} and {} bytes", read.stdout.len(), read.stderr.len());
    closing.join().expect("a thread");
    assert!(!stream.ready().await.expect("the end again"));
}

#[tokio::test]
async fn what_is_not_released_is_read_again_from_any_place_and_so_is_the_end() {
    let lab = Lab::new();
    let mut stream = lab.open();
    let [mut out, err] = lab.shim();
    out.write_all(b"one two").expect("written");
    let first = within(stream.next()).await.expect("unbroken").expect("a piece");
    assert_eq!(&first.bytes[..], b"one two");
    // It is killed, and the shim goes on.
    drop(stream);
    out.write_all(b" three").expect("written");
    let mut stream = lab.reopen(StreamOffsets { stdout: 4, stderr: 0 }).map_err(drop).expect("unbroken");
    let second = within(stream.next()).await.expect("unbroken").expect("a piece");
    drop((out, err));
    let (rest, end) = read(&mut stream).await;
    end.expect("a clean end");
    assert_eq!([&second.bytes[..], &rest.stdout].concat(), b"two three");
    drop(stream);
    for (from, expected) in [(0, &b"one two three"[..]), (13, b"")] {
        let mut stream = lab.reopen(StreamOffsets { stdout: from, stderr: 0 }).map_err(drop).expect("unbroken");
        let (all, end) = read(&mut stream).await;
        end.expect("its end was read");
        assert_eq!(all, output(expected, b""));
    }
}

#[tokio::test]
async fn output_that_ended_while_nobody_read_it_has_no_clean_end() {
    let lab = Lab::new();
    let mut stream = lab.open();
    let [mut out, err] = lab.shim();
    out.write_all(b"kept").expect("written");
    within(stream.next()).await.expect("unbroken").expect("a piece");
    drop(stream);
    out.write_all(b"lost").expect("written");
    drop((out, err));
    let mut stream = lab.reopen(StreamOffsets::default()).map_err(drop).expect("nothing is missing before");
    let (read, end) = read(&mut stream).await;
    assert_eq!(read, output(b"kept", b""));
    assert!(matches!(end, Err(StreamError::Io(_))), "{end:?}");
}

#[tokio::test]
async fn output_that_ended_while_nobody_read_it_comes_whole_if_somebody_held_it() {
    for (out_bytes, err_bytes) in [(40_000, 30_000), (9, 0), (0, 0)] {
        let lab = Lab::new();
        let held = lab.held();
        let mut stream = lab.open();
        let [mut out, mut err] = lab.shim();
        out.write_all(b"read").expect("written");
        within(stream.next()).await.expect("unbroken").expect("a piece");
        drop(stream);
        let bytes = |count| vec![b'x'; count];
        out.write_all(&bytes(out_bytes)).expect("written");
        err.write_all(&bytes(err_bytes)).expect("written");
        drop((out, err));
        let from = StreamOffsets { stdout: 4, stderr: 0 };
        let mut stream = lab.reopen_held(from, Some(held)).map_err(drop).expect("nothing is missing");
        let (read, end) = read(&mut stream).await;
        end.expect("a clean end");
        assert!(read == output(&bytes(out_bytes), &bytes(err_bytes)), "{out_bytes} {err_bytes}");
        // Its end was read: whoever comes next knows.
        drop(stream);
        let mut stream = lab.reopen(from).map_err(drop).expect("nothing is missing");
        let (again, end) = self::read(&mut stream).await;
        end.expect("a clean end");
        assert!(again == output(&bytes(out_bytes), &bytes(err_bytes)), "{out_bytes} {err_bytes}");
    }
}

#[tokio::test]
async fn a_held_output_has_no_end_before_somebody_has_opened_it() {
    let lab = Lab::new();
    let held = lab.held();
    let mut stream = lab.reopen_held(StreamOffsets::default(), Some(held)).map_err(drop).expect("nothing is missing");
    assert!(timeout(Duration::from_millis(200), stream.next()).await.is_err(), "nobody has written to it");
    let [mut out, err] = lab.shim();
    out.write_all(b"a").expect("written");
    drop((out, err));
    let (read, end) = read(&mut stream).await;
    end.expect("a clean end");
    assert_eq!(read, output(b"a", b""));
}

#[tokio::test]
async fn what_is_held_of_another_fifo_is_not_taken_for_this_one() {
    let (lab, other) = (Lab::new(), Lab::new());
    let held = other.held();
    drop(lab.shim());
    let mut stream = lab.reopen_held(StreamOffsets::default(), Some(held)).map_err(drop).expect("nothing is missing");
    let (_, end) = read(&mut stream).await;
    assert!(matches!(end, Err(StreamError::Io(_))), "{end:?}");
}

#[tokio::test]
async fn a_command_waits_until_what_it_wrote_is_released() {
    let lab = Lab::new();
    let mut stream = lab.open();
    let [out, err] = lab.shim();
    let more = 3 * MOST_BYTES;
    let writing = write(out, vec![b'x'; usize::try_from(more).expect("a size")]);
    let mut got = 0;
    while got < MOST_BYTES {
        got += within(stream.next()).await.expect("unbroken").expect("a piece").bytes.len() as u64;
    }
    assert_eq!(got, MOST_BYTES);
    assert!(timeout(Duration::from_millis(200), stream.next()).await.is_err(), "there is no room for more");
    assert!(!writing.is_finished() && lab.bytes_kept(Stdout) >= MOST_BYTES);
    // Beside it, whoever waits for room is woken.
    let (reading, releasing) = (read(&mut stream), async {
        for released in (1..=6).map(|half| half * MOST_BYTES / 2) {
            let before = StreamOffsets { stdout: released, stderr: 0 };
            while std::fs::metadata(lab.folder.backlog(Stdout)).expect("a backlog").len() < released {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            release(&lab.folder, before).expect("released");
            lab.room.release(before);
        }
        drop((writing.join().expect("written"), err));
    });
    let ((rest, end), ()) = tokio::join!(reading, releasing);
    end.expect("a clean end");
    assert_eq!(got + rest.stdout.len() as u64, more);
    assert!(lab.bytes_kept(Stdout) < MOST_BYTES / 8, "{}", lab.bytes_kept(Stdout));
    // What was released cannot be read again, and that is told.
    drop(stream);
    let broken = |stdout| lab.reopen(StreamOffsets { stdout, stderr: 0 }).is_err();
    assert!(broken(0) && broken(more - 2 * rustix::param::page_size() as u64) && broken(more + 1));
    assert!(!broken(more));
}

#[tokio::test]
async fn a_command_whose_output_is_incomplete_anyway_waits_for_nobody() {
    let lab = Lab::new();
    let pipes = [Stdout, Stderr].map(|stream| Pipe::open(&lab.folder, stream).expect("opened")).into();
    let source = Source::new(pipes, Arc::clone(&lab.room), Kept::UntilRead, ready(Ok(())).boxed());
    let mut stream = ExecStream::from_source(source, None, false);
    let [out, err] = lab.shim();
    let bytes = vec![b'x'; usize::try_from(5 * MOST_BYTES).expect("a size")];
    let writing = [write(out, bytes.clone()), write(err, bytes.clone())];
    let closing = thread::spawn(move || writing.map(|writing| drop(writing.join())));
    let (read, end) = read(&mut stream).await;
    end.expect("a clean end");
    assert_eq!((read.stdout.len(), read.stderr.len()), (bytes.len(), bytes.len()));
    assert!(lab.bytes_kept(Stdout) < MOST_BYTES / 8 && lab.bytes_kept(Stderr) < MOST_BYTES / 8);
    closing.join().expect("a thread");
}

#[tokio::test]
async fn an_end_that_the_engine_does_not_confirm_is_none() {
    let lab = Lab::new();
    let pipes = [Stdout, Stderr].map(|stream| Pipe::open(&lab.folder, stream).expect("opened")).into();
    let killed = ready(Err(std::io::Error::other("the shim was killed"))).boxed();
    let mut stream =
        ExecStream::from_source(Source::new(pipes, Arc::clone(&lab.room), Kept::UntilReleased, killed), None, false);
    let [mut out, err] = lab.shim();
    out.write_all(b"a").expect("written");
    drop((out, err));
    let (read, end) = read(&mut stream).await;
    assert_eq!(read, output(b"a", b""));
    assert!(end.is_err_and(|error| error.to_string().contains("the shim was killed")));
}
