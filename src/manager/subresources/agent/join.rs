//! Joins two connections, byte for byte, until both have ended.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::FutureExt as _;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, split},
    time::{Instant, sleep_until},
};

const UPSTREAM_BUFFER: usize = 16 << 10;
/// Buffer towards the client, four TLS records: most traffic is output.
const DOWNSTREAM_BUFFER: usize = 64 << 10;
/// How long the second side may be silent once the first has ended.
const LINGER: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub(crate) enum Parted {
    #[error("nothing came from either side for {} s", .0.as_secs())]
    Idle(Duration),
    #[error(transparent)]
    Broken(#[from] io::Error),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) upstream: u64,
    pub(crate) downstream: u64,
}

/// Joins them until both have ended, or both were silent for `idle`. Counts the bytes also of a join that broke.
pub(crate) async fn join(
    client: impl AsyncRead + AsyncWrite + Unpin,
    agent: impl AsyncRead + AsyncWrite + Unpin,
    idle: Duration,
) -> (Carried, Result<(), Parted>) {
    let heard = Arc::new(Heard { since: Instant::now(), last: AtomicU64::new(0), one_ended: AtomicBool::new(false) });
    let (mut client, mut agent) = (Watched::new(client, &heard), Watched::new(agent, &heard));
    let ended = tokio::select! {
        done = both(&mut client, &mut agent, &heard) => done.map_err(Parted::from),
        silence = heard.silent_for(idle) => Err(Parted::Idle(silence)),
    };
    (Carried { upstream: client.read, downstream: agent.read }, ended)
}

/// Carries in both directions, to the end of both. What an agent still sends reaches the client even if the agent takes
/// no more.
async fn both(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    agent: &mut (impl AsyncRead + AsyncWrite + Unpin),
    heard: &Heard,
) -> io::Result<()> {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_agent, mut to_agent) = split(agent);
    let upstream = async {
        match carry(&mut from_client, &mut to_agent, UPSTREAM_BUFFER).await {
            Ok(()) => Ok(None),
            Err(Failed::Writing(error)) => {
                heard.one_ended.store(true, Relaxed);
                Ok(Some(error))
            }
            Err(Failed::Reading(error)) => Err(error),
        }
    };
    let downstream = async {
        let carried = carry(&mut from_agent, &mut to_client, DOWNSTREAM_BUFFER).await;
        carried.map_err(|(Failed::Reading(error) | Failed::Writing(error))| error)
    };
    let (refused, ()) = tokio::try_join!(upstream, downstream)?;
    refused.map_or(Ok(()), Err)
}

enum Failed {
    Reading(io::Error),
    Writing(io::Error),
}

/// Carries to the end, and ends the other side with it.
async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    buffer: usize,
) -> Result<(), Failed> {
    let mut buffer = vec![0; buffer];
    loop {
        let (length, end) = read_what_is_there(from, &mut buffer).await;
        to.write_all(&buffer[..length]).await.map_err(Failed::Writing)?;
        to.flush().await.map_err(Failed::Writing)?;
        match end {
            None => {}
            Some(Ok(())) => return to.shutdown().await.map_err(Failed::Writing),
            Some(Err(error)) => return Err(Failed::Reading(error)),
        }
    }
}

/// Waits for data, and reads all that has arrived: one read gives one TLS record at most. Gives the length, and the end
/// if it was reached.
async fn read_what_is_there(from: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> (usize, Option<io::Result<()>>) {
    let mut length = 0;
    let mut read = Some(from.read(buffer).await);
    loop {
        match read {
            None => return (length, None),
            Some(Ok(0)) => return (length, Some(Ok(()))),
            Some(Ok(read)) => length += read,
            Some(Err(error)) => return (length, Some(Err(error))),
        }
        if length == buffer.len() {
            return (length, None);
        }
        read = from.read(&mut buffer[length..]).now_or_never();
    }
}

struct Heard {
    since: Instant,
    /// Milliseconds after `since`.
    last: AtomicU64,
    one_ended: AtomicBool,
}

impl Heard {
    fn note(&self) {
        self.last.store(u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Ends once both have been silent for that long.
    async fn silent_for(&self, idle: Duration) -> Duration {
        // If one side ends meanwhile, that is noticed after a step.
        let step = idle.min(LINGER);
        loop {
            let allowed = if self.one_ended.load(Relaxed) { step } else { idle };
            let until = self.since + Duration::from_millis(self.last.load(Relaxed)) + allowed;
            if Instant::now() >= until {
                return allowed;
            }
            sleep_until(until.min(Instant::now() + step)).await;
        }
    }
}

struct Watched<T> {
    inner: T,
    heard: Arc<Heard>,
    read: u64,
}

impl<T> Watched<T> {
    fn new(inner: T, heard: &Arc<Heard>) -> Self {
        Self { inner, heard: Arc::clone(heard), read: 0 }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        self.read += read as u64;
        self.heard.note();
        if read == 0 {
            self.heard.one_ended.store(true, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.heard.note();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    /// Not quite as long.
    const NEARLY: Duration = Duration::from_secs(3590);

    #[tokio::test]
    async fn every_byte_reaches_the_other_side_and_both_ends_do() {
        let (mut client, ours) = duplex(1000);
        let (theirs, mut agent) = duplex(1000);
        let joined = tokio::spawn(join(ours, theirs, HOUR));
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let writing = async {
            client.write_all(&sent).await.expect("written");
            client.shutdown().await.expect("ended");
            let mut back = Vec::new();
            client.read_to_end(&mut back).await.expect("read");
            back
        };
        let echoing = async {
            let mut all = Vec::new();
            agent.read_to_end(&mut all).await.expect("read");
            agent.write_all(&all).await.expect("written");
            agent.shutdown().await.expect("ended");
        };
        let (back, ()) = tokio::join!(writing, echoing);
        assert_eq!(back, sent);
        let (carried, ended) = joined.await.expect("no panic");
        assert!(ended.is_ok(), "{ended:?}");
        assert_eq!(carried, Carried { upstream: 1_000_000, downstream: 1_000_000 });
    }

    #[tokio::test]
    async fn what_is_there_goes_along_and_what_ended_it_is_told_after_it() {
        let broken = || io::Error::other("broken");
        let mut from =
            tokio_test::io::Builder::new().read(b"one ").read(b"two ").read(b"three").read_error(broken()).build();
        let mut to = tokio_test::io::Builder::new().write(b"one two ").write(b"three").build();
        let Err(Failed::Reading(error)) = carry(&mut from, &mut to, 8).await else { panic!("it broke") };
        assert_eq!(error.to_string(), "broken");
        // Read before it broke, and all that follows.
        let mut from = tokio_test::io::Builder::new().read(b"one ").read(b"two").build();
        let mut to = tokio_test::io::Builder::new().write(b"one two").build();
        assert!(carry(&mut from, &mut to, 64).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_are_silent_are_parted_and_one_that_speaks_now_and_then_is_not() {
        let (mut client, ours) = duplex(10);
        let (theirs, mut agent) = duplex(10);
        let begun = Instant::now();
        let joined = tokio::spawn(join(ours, theirs, HOUR));
        for _ in 0..3 {
            tokio::time::sleep(NEARLY).await;
            client.write_all(b".").await.expect("still joined");
            agent.read_u8().await.expect("still joined");
        }
        let (_, ended) = joined.await.expect("no panic");
        assert!(matches!(ended, Err(Parted::Idle(HOUR))), "{ended:?}");
        let took = begun.elapsed();
        assert!(took >= NEARLY * 3 + HOUR && took < HOUR * 4 + LINGER, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_has_ended_and_takes_no_input_is_heard_to_its_last_byte() {
        let (mut client, ours) = duplex(10);
        let (theirs, mut agent) = duplex(1000);
        let said = [7; 100];
        agent.write_all(&said).await.expect("written");
        drop(agent);
        let joined = tokio::spawn(join(ours, theirs, HOUR));
        client.write_all(b"more input").await.expect("taken");
        // The input was refused by now, and the client has read nothing yet.
        tokio::time::sleep(LINGER / 2).await;
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.expect("read");
        assert_eq!(heard, said);
        let (_, ended) = joined.await.expect("no panic");
        assert!(matches!(ended, Err(Parted::Broken(_))), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_does_not_end_does_not_hold_the_other_for_long() {
        let (client, ours) = duplex(10);
        let (theirs, _agent) = duplex(10);
        let begun = Instant::now();
        let joined = tokio::spawn(join(ours, theirs, HOUR));
        drop(client);
        let (_, ended) = joined.await.expect("no panic");
        assert!(ended.is_err(), "{ended:?}");
        assert!(begun.elapsed() <= LINGER * 2, "{:?}", begun.elapsed());
    }
}
