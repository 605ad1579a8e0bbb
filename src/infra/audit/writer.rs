//! The one writer of a chain: a thread that adds records in the order in which
//! they come, those that wait together at once, and owns up to what it could not
//! write as soon as it can again.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
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
        event::{Event, Verb, key},
    },
    infra::clock::Clock,
};

/// Records that wait for the writer.
const QUEUE: usize = 1024;
/// Records that are written at once, with one wait for the disk.
const BATCH: usize = 64;
/// Records that are kept while none can be written; those beyond are lost, and counted.
const KEPT: usize = 4096;
/// How long a record may take. After it, the caller is told that it was not written.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a log that could not be written is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Where a writer's lines go.
#[derive(Clone, Debug)]
pub enum Sink {
    /// Into the files of a folder: lines survive a crash, and the chain outlives the process.
    Folder(PathBuf, Retention),
    /// To standard output, for whoever collects it: a chain for each process.
    Stdout,
}

/// A record, and who waits for it to be written.
struct Job {
    /// None asks only whether one could be written.
    event: Option<(Event, Otherwise)>,
    done: oneshot::Sender<Result<(), Unavailable>>,
}

/// The way to the writer.
#[derive(Clone)]
pub struct Log {
    jobs: mpsc::Sender<Job>,
    head: watch::Receiver<Head>,
    writer: Arc<str>,
}

impl Log {
    /// Begins to write the chain of `writer`. `published` is the head that is known of it elsewhere.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn begin(sink: Sink, writer: &str, clock: Arc<dyn Clock>, published: Option<&Head>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        // Until the first record is written, what is known elsewhere stands: it must not be taken back.
        let (tell, head) = watch::channel(published.cloned().unwrap_or_else(Head::start));
        let mut notes = BTreeMap::from([(key::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        notes.extend(published.map(|head| (key::PUBLISHED.to_owned(), head.to_string())));
        // The beginning is recorded at the beginning.
        drop(jobs.try_send(Job { event: None, done: oneshot::channel().0 }));
        let log = Self { jobs, head, writer: writer.into() };
        let mut thread = Writer {
            name: writer.to_owned(),
            chain: None,
            sink,
            folder: None,
            open: None,
            clock,
            tell,
            first_word: Some(notes),
            kept: VecDeque::new(),
            lost: 0,
            failed: None,
        };
        thread::Builder::new().name("audit".to_owned()).spawn(move || thread.run(queue))?;
        Ok(log)
    }

    /// The last line that is on the disk.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head.borrow().clone()
    }

    /// Whose chain it is.
    #[must_use]
    pub fn writer(&self) -> &str {
        &self.writer
    }

    async fn ask(&self, event: Option<(Event, Otherwise)>) -> Result<(), Unavailable> {
        let (done, answer) = oneshot::channel();
        let asked = async {
            let ended = || Unavailable("its writer has ended".to_owned());
            self.jobs.send(Job { event, done }).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        };
        let late = || Unavailable(format!("the disk did not take it within {} s", PATIENCE.as_secs()));
        timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(late()))
    }
}

impl Trail for Log {
    async fn add(&self, event: Event, otherwise: Otherwise) -> Result<(), Unavailable> {
        self.ask(Some((event, otherwise))).await
    }

    async fn available(&self) -> Result<(), Unavailable> {
        self.ask(None).await
    }
}

struct Writer {
    name: String,
    /// None while it is not known where the lines end.
    chain: Option<Chain>,
    sink: Sink,
    /// Opened with the first record: one that cannot be had yet is tried again.
    folder: Option<Folder>,
    open: Option<Open>,
    clock: Arc<dyn Clock>,
    tell: watch::Sender<Head>,
    /// What it says at its beginning, until it has.
    first_word: Option<BTreeMap<String, String>>,
    kept: VecDeque<Event>,
    lost: u64,
    /// Since when it cannot write, and why.
    failed: Option<(Instant, Unavailable)>,
}

impl Writer {
    fn run(&mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            let mut jobs = vec![job];
            while jobs.len() < BATCH
                && let Ok(job) = queue.try_recv()
            {
                jobs.push(job);
            }
            self.work(jobs);
        }
    }

    fn work(&mut self, jobs: Vec<Job>) {
        let (events, waiting): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.event, job.done)).unzip();
        let mut events: Vec<(Event, Otherwise)> = events.into_iter().flatten().collect();
        let written = self.write(&events);
        if written.is_err() {
            for (event, otherwise) in events.drain(..) {
                match otherwise {
                    Otherwise::Keep if self.kept.len() < KEPT => self.kept.push_back(event),
                    Otherwise::Keep => self.lost += 1,
                    Otherwise::Drop => {}
                }
            }
        }
        for done in waiting {
            // Whoever does not wait any longer need not be told.
            drop(done.send(written.clone()));
        }
    }

    fn write(&mut self, events: &[(Event, Otherwise)]) -> Result<(), Unavailable> {
        if let Some((at, error)) = &self.failed
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        match self.try_write(events) {
            Ok(()) => {
                self.failed = None;
                Ok(())
            }
            Err(error) => {
                // Where the lines end is found out anew.
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
        if self.lost > 0 {
            notes.insert(key::LOST.to_owned(), self.lost.to_string());
        }
        let word = if let Some(first_word) = &self.first_word {
            notes.extend(first_word.clone());
            Some(Verb::Opened)
        } else {
            self.failed.is_some().then_some(Verb::Resumed)
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
        self.first_word = None;
        self.kept.clear();
        self.lost = 0;
        Ok(())
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
