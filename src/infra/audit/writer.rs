//! The one writer of a chain: a thread that writes records in the order in which they come, in batches, and records what
//! it could not write as soon as it can write again.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    runtime::{self, Runtime},
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    Otherwise, Trail, Unavailable,
    file::{Folder, Found, Open, Retention},
};
use crate::{
    core::audit::{
        chain::{Chain, Head},
        event::{Event, Verb},
        key,
    },
    infra::clock::Clock,
};

const QUEUE: usize = 1024;
const BATCH: usize = 64;
/// Records that are kept while none can be written; those beyond are lost, and counted.
const KEPT: usize = 4096;
/// How long an act waits for a record that is required. Then its caller is told that it was not written.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an act waits for a record that is not.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub enum Sink {
    /// Into the files of a folder: lines survive a crash, and the chain outlives the process.
    Folder(PathBuf, Retention),
    /// To standard output, for whoever collects it: a chain for each process.
    Stdout,
}

enum Ask {
    Add(Box<Event>, Otherwise),
    Available,
    /// Record that this head was published before the first record.
    Published(Head),
    /// Write what is kept: the process is about to end.
    Flush,
}

struct Job {
    ask: Ask,
    done: oneshot::Sender<Result<(), Unavailable>>,
}

#[derive(Default)]
struct Shared {
    /// Records that found no place in the queue. The writer records how many.
    lost: AtomicU64,
    /// Why nothing can be written, until something is.
    failing: Mutex<Option<Unavailable>>,
}

/// A record on its way into the queue: counted as lost if it does not get there, even if its caller is gone.
struct OnItsWay<'a> {
    lost: &'a AtomicU64,
    arrived: bool,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if !self.arrived {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Clone)]
pub struct Log {
    jobs: mpsc::Sender<Job>,
    head: watch::Receiver<Head>,
    writer: Arc<str>,
    shared: Arc<Shared>,
}

impl Log {
    /// Begins to write the chain of `writer`. `published` is the head that is known of it elsewhere.
    pub fn begin(sink: Sink, writer: &str, clock: Arc<dyn Clock>, published: Option<&Head>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        // Until the first record is written, the published head counts: it must not be taken back.
        let (tell, head) = watch::channel(published.cloned().unwrap_or_else(Head::start));
        let mut notes = BTreeMap::from([(key::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        notes.extend(published.map(|head| (key::PUBLISHED.to_owned(), head.to_string())));
        // Makes the writer begin at once.
        drop(jobs.try_send(Job { ask: Ask::Available, done: oneshot::channel().0 }));
        let shared = Arc::new(Shared::default());
        let log = Self { jobs, head, writer: writer.into(), shared: Arc::clone(&shared) };
        let time = runtime::Builder::new_current_thread().enable_time().build()?;
        let mut thread = Writer {
            name: writer.to_owned(),
            chain: None,
            sink,
            folder: None,
            open: None,
            clock,
            tell,
            word: Some((Verb::Opened, notes)),
            kept: VecDeque::new(),
            lost: 0,
            failed: None,
            shared,
        };
        thread::Builder::new().name("audit".to_owned()).spawn(move || thread.run(queue, &time))?;
        Ok(log)
    }

    pub fn head(&self) -> Head {
        self.head.borrow().clone()
    }

    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// Writes that this head is known elsewhere, where that could not be said in the first record.
    pub async fn tell_published(&self, head: Head) -> Result<(), Unavailable> {
        self.ask(Ask::Published(head), SHORT_PATIENCE).await
    }

    /// Writes what could not be written yet, as far as that is possible: the process is about to end.
    pub async fn flush(&self) {
        if let Err(error) = self.ask(Ask::Flush, SHORT_PATIENCE).await {
            tracing::error!(%error, "records that could not be written are lost");
        }
    }

    async fn ask(&self, ask: Ask, patience: Duration) -> Result<(), Unavailable> {
        let (done, answer) = oneshot::channel();
        let asked = async {
            self.jobs.send(Job { ask, done }).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        };
        timeout(patience, asked).await.unwrap_or_else(|_| Err(late(patience)))
    }

    /// Adds a record of what happens in any case. Waits a little for the disk, and not at all while that is known to
    /// fail.
    async fn keep(&self, event: Event) -> Result<(), Unavailable> {
        let known = self.shared.failing.lock().clone();
        let patience = if known.is_some() { Duration::ZERO } else { SHORT_PATIENCE };
        let (done, answer) = oneshot::channel();
        let mut on_its_way = OnItsWay { lost: &self.shared.lost, arrived: false };
        let asked = async {
            let place = self.jobs.reserve().await.map_err(|_| ended())?;
            place.send(Job { ask: Ask::Add(Box::new(event), Otherwise::Keep), done });
            on_its_way.arrived = true;
            match known {
                Some(why) => Err(why),
                None => answer.await.map_err(|_| ended())?,
            }
        };
        timeout(patience, asked).await.unwrap_or_else(|_| {
            let late = late(patience);
            // Until something is written, no other record waits for as long.
            Err(self.shared.failing.lock().get_or_insert(late).clone())
        })
    }
}

fn ended() -> Unavailable {
    Unavailable("its writer has ended".to_owned())
}

fn late(patience: Duration) -> Unavailable {
    Unavailable(format!("the disk did not take it within {} s", patience.as_secs()))
}

impl Trail for Log {
    async fn add(&self, event: Event, otherwise: Otherwise) -> Result<(), Unavailable> {
        match otherwise {
            Otherwise::Keep => self.keep(event).await,
            Otherwise::Drop => self.ask(Ask::Add(Box::new(event), otherwise), PATIENCE).await,
        }
    }

    async fn available(&self) -> Result<(), Unavailable> {
        self.ask(Ask::Available, PATIENCE).await
    }
}

struct Writer {
    name: String,
    /// None while the end of the lines is not known.
    chain: Option<Chain>,
    sink: Sink,
    /// Opened with the first record; retried if it is not available yet.
    folder: Option<Folder>,
    open: Option<Open>,
    clock: Arc<dyn Clock>,
    tell: watch::Sender<Head>,
    /// The record of the writer itself that is due; at first [`Verb::Opened`].
    word: Option<(Verb, BTreeMap<String, String>)>,
    kept: VecDeque<Event>,
    lost: u64,
    failed: Option<(Instant, Unavailable)>,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(&mut self, mut queue: mpsc::Receiver<Job>, time: &Runtime) {
        loop {
            // Kept records do not wait for the next one.
            let owes = self.owes() || self.word.is_some();
            let patience = if owes { PAUSE } else { Duration::MAX };
            match time.block_on(async { timeout(patience, queue.recv()).await }) {
                Ok(Some(first)) => {
                    let mut jobs = vec![first];
                    while jobs.len() < BATCH
                        && let Ok(job) = queue.try_recv()
                    {
                        jobs.push(job);
                    }
                    self.work(jobs);
                }
                Ok(None) => break,
                Err(_) => self.work(Vec::new()),
            }
        }
        if self.owes() {
            self.work(vec![Job { ask: Ask::Flush, done: oneshot::channel().0 }]);
        }
    }

    /// Whether records are kept or lost that nothing else will cause to be written.
    fn owes(&self) -> bool {
        self.lost > 0 || self.shared.lost.load(Ordering::Relaxed) > 0 || !self.kept.is_empty()
    }

    fn work(&mut self, jobs: Vec<Job>) {
        let (mut events, mut waiting, mut at_once) = (Vec::new(), Vec::new(), false);
        for Job { ask, done } in jobs {
            match ask {
                Ask::Add(event, otherwise) => events.push((*event, otherwise)),
                Ask::Available => {}
                Ask::Published(head) => {
                    let (_, notes) = self.word.get_or_insert_with(|| (Verb::Resumed, BTreeMap::new()));
                    notes.insert(key::PUBLISHED.to_owned(), head.to_string());
                }
                Ask::Flush => at_once = true,
            }
            waiting.push(done);
        }
        let written = self.write(&events, at_once);
        if written.is_err() {
            for (event, otherwise) in events {
                match otherwise {
                    Otherwise::Keep if self.kept.len() < KEPT => self.kept.push_back(event),
                    Otherwise::Keep => self.lost += 1,
                    Otherwise::Drop => {}
                }
            }
        }
        *self.shared.failing.lock() = written.clone().err();
        for done in waiting {
            // The caller may have given up.
            drop(done.send(written.clone()));
        }
    }

    fn write(&mut self, events: &[(Event, Otherwise)], at_once: bool) -> Result<(), Unavailable> {
        if let Some((at, error)) = &self.failed
            && at.elapsed() < PAUSE
            && !at_once
        {
            return Err(error.clone());
        }
        match self.try_write(events) {
            Ok(()) => {
                self.failed = None;
                Ok(())
            }
            Err(error) => {
                // The end of the lines must be found again.
                (self.chain, self.open) = (None, None);
                let error = Unavailable(error.to_string());
                self.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn try_write(&mut self, events: &[(Event, Otherwise)]) -> io::Result<()> {
        let (mut text, mut notes) = (Vec::new(), BTreeMap::new());
        let mut chain = if let Some(chain) = self.chain.take() {
            chain
        } else {
            let found = self.find()?;
            notes = found.confession;
            let (writer, last) = found.last.unwrap_or_else(|| (self.name.clone(), Head::start()));
            if writer != self.name {
                let message = format!("the folder has the audit log of {writer}, this is {}: move it away", self.name);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            Chain::new(writer, last)
        };
        let first = chain.head().sequence + 1;
        let now = self.clock.now();
        self.lost += self.shared.lost.swap(0, Ordering::Relaxed);
        if self.lost > 0 {
            notes.insert(key::LOST.to_owned(), self.lost.to_string());
        }
        let word = if let Some((verb, own)) = &self.word {
            notes.extend(own.clone());
            notes.extend(self.missed(own)?);
            Some(*verb)
        } else {
            (self.failed.is_some() || self.lost > 0).then_some(Verb::Resumed)
        };
        let word = word.map(|verb| Event::of_writer(verb, &self.name, now, notes));
        for event in word.iter().chain(&self.kept).chain(events.iter().map(|(event, _)| event)) {
            text.extend(chain.add(event)?);
            text.push(b'\n');
        }
        if !text.is_empty() {
            self.put(first, &text)?;
        }
        self.tell.send_replace(chain.head().clone());
        self.chain = Some(chain);
        self.word = None;
        self.kept.clear();
        self.lost = 0;
        Ok(())
    }

    /// What is to be said if the published head is not in the log: it was cut off, or made anew.
    fn missed(&self, notes: &BTreeMap<String, String>) -> io::Result<Option<(String, String)>> {
        let published = notes.get(key::PUBLISHED).and_then(|head| head.parse::<Head>().ok());
        let (Some(head), Some(folder)) = (published, &self.folder) else { return Ok(None) };
        Ok((!folder.has(&head)?).then(|| (key::PUBLISHED_MISSING.to_owned(), true.to_string())))
    }

    fn find(&mut self) -> io::Result<Found> {
        match &self.sink {
            Sink::Folder(path, retention) => {
                let folder = match self.folder.take() {
                    Some(folder) => folder,
                    None => Folder::open(path, *retention)?,
                };
                let (found, open) = folder.find()?;
                (self.folder, self.open) = (Some(folder), open);
                Ok(found)
            }
            Sink::Stdout => {
                let head = self.tell.borrow().clone();
                Ok(Found { last: Some((self.name.clone(), head)), confession: BTreeMap::new() })
            }
        }
    }

    fn put(&mut self, first: u64, text: &[u8]) -> io::Result<()> {
        if let Some(folder) = &self.folder {
            self.open = Some(folder.add(self.open.take(), first, text)?);
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(text).and_then(|()| stdout.flush())
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
