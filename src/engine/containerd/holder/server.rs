//! The holder itself.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::fs::{FileType, OFlags, Stat, fcntl_getfl, fstat};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    message::{Answer, Question},
    socket::{Listener, Packet, Socket},
};

/// Most connections at once. Further ones wait.
const CLIENTS: usize = 128;
/// Descriptors for all but what is held: a connection of each client, and one that is on its way to or from it.
const RESERVED: usize = 2 * CLIENTS + 32;
/// Most that are held, whatever the process may have open: three for each of this many commands.
const MOST: usize = 3 * 8192;
/// For how long it is tried to answer whoever does not listen.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Pause before what has failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// The same, where somebody has to do something about it.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// Holds what it is given until it is told to stop, and then until it has nothing any more. `descriptors`: how many this
/// process may have open.
pub async fn run(socket: &Path, descriptors: u64, stop: &CancellationToken) {
    // Ending would change nothing, and the agent's pod would not be ready: commands run without it.
    let listener = loop {
        match Listener::bind(socket) {
            Ok(listener) => break listener,
            Err(error) => {
                let socket = socket.display();
                tracing::error!(%socket, %error, "nothing can be held: no agent can give it here; trying again");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(BIND_AGAIN) => {}
        }
    };
    let most = usize::try_from(descriptors).unwrap_or(usize::MAX).saturating_sub(RESERVED).min(MOST);
    tracing::info!(socket = %socket.display(), most, "holding");
    serve(listener, most, stop).await;
}

/// The same at a socket, with so much at most.
pub(super) async fn serve(listener: Listener, most: usize, stop: &CancellationToken) {
    let held = Arc::new(Held::of(most));
    let mut clients = JoinSet::new();
    let mut number = held.number.subscribe();
    let empty = async {
        stop.cancelled().await;
        let held = *number.borrow();
        if held > 0 {
            tracing::info!(held, "told to stop: waiting for another holder to have it");
        }
        // It does not fail, as the sender is here.
        number.wait_for(|held| *held == 0).await.ok();
    };
    tokio::pin!(empty);
    loop {
        tokio::select! {
            biased;
            () = &mut empty => return,
            Some(ended) = clients.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "a client was left alone");
            },
            client = listener.accept(), if clients.len() < CLIENTS => match client {
                Ok(client) => { clients.spawn(attend(client, Arc::clone(&held))); }
                Err(error) => {
                    tracing::warn!(%error, "a client cannot be accepted");
                    sleep(AGAIN).await;
                }
            },
        }
    }
}

/// Answers a client until it leaves.
async fn attend(client: Socket, held: Arc<Held>) {
    let served: io::Result<()> = async {
        while let Some(packet) = client.receive().await? {
            let (answer, descriptor) = held.answer(packet);
            if let Answer::Refused(why) = &answer {
                tracing::warn!(why, "refused");
            }
            let descriptor = descriptor.as_deref().map(|descriptor| descriptor.as_fd());
            match timeout(ANSWER_WITHIN, client.send(answer.encode().as_bytes(), descriptor)).await {
                Ok(sent) => sent?,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        Ok(())
    }
    .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a client has left without its answer");
    }
}

/// Descriptors by name.
struct Held {
    most: usize,
    by_name: Mutex<BTreeMap<String, Arc<OwnedFd>>>,
    number: watch::Sender<usize>,
}

impl Held {
    fn of(most: usize) -> Self {
        Self { most, by_name: Mutex::default(), number: watch::Sender::new(0) }
    }

    fn answer(&self, packet: Packet) -> (Answer, Option<Arc<OwnedFd>>) {
        let question = match Question::parse(&packet.bytes) {
            Ok(_) if !packet.is_whole => Err("it did not come whole: it is too long, or no descriptor was left here"),
            question => question,
        };
        let mut by_name = self.by_name.lock();
        let answer = match question {
            Ok(Question::Put(name)) => match one(packet.descriptors) {
                Ok(_) if by_name.len() >= self.most && !by_name.contains_key(name) => {
                    Answer::Refused(format!("{} are held, which is as many as can be", self.most))
                }
                Ok(one) => {
                    by_name.insert(name.to_owned(), Arc::new(one));
                    Answer::Done
                }
                Err(why) => Answer::Refused(format!("{name}: {why}")),
            },
            Ok(Question::Get(name)) => {
                if let Some(found) = by_name.get(name) {
                    return (Answer::Found, Some(Arc::clone(found)));
                }
                Answer::Absent
            }
            Ok(Question::Delete(name)) => {
                by_name.remove(name);
                Answer::Done
            }
            Ok(Question::List(after)) => {
                let behind = (Bound::Excluded(after), Bound::Unbounded);
                Answer::names(by_name.range::<str, _>(behind).map(|(name, _)| name))
            }
            Err(why) => Answer::Refused(why.to_owned()),
        };
        self.number.send_replace(by_name.len());
        (answer, None)
    }
}

/// The end of a FIFO from which it is read, or a file that is only read. Whoever holds the end of a FIFO to which is written
/// keeps readers from its end.
fn one(descriptors: Vec<OwnedFd>) -> Result<OwnedFd, &'static str> {
    let [one] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|_| "wanted is one descriptor")?;
    let type_of = |found: Stat| FileType::from_raw_mode(found.st_mode);
    let is_file = fstat(&one).is_ok_and(|found| matches!(type_of(found), FileType::Fifo | FileType::RegularFile));
    let reads = fcntl_getfl(&one).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDONLY);
    if is_file && reads { Ok(one) } else { Err("wanted is a FIFO or a file, open for reading only") }
}
