//! The output of all commands of a batch as they write it: whole lines, each after the name of its pod, until the batch has
//! finished and each log was read to its end.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, Write},
    pin::pin,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use kube::ResourceExt as _;
use parking_lot::Mutex;

use super::{
    children,
    follow::gone,
    merged::{lines, what_is_kept},
    words,
};
use crate::{
    api::{ExecBatch, ExecRequest},
    cli::{
        cluster::connection::Cluster,
        error::Error,
        exit::Exit,
        follow::{
            log::{Asked, print},
            watched::Watched,
        },
        request::may_have_run,
        say::{page::Page, print as printing, speech, speech::Speech},
    },
    core::batch::child::index_in,
};

/// Most logs that are read beside each other. Of the others nothing is lost: each is read from its beginning.
const AT_ONCE: usize = 50;

/// Follows the logs of this batch. `call` is that of each of them; `is_whole`: it asks for all of it.
pub async fn follow(
    cluster: &Cluster,
    name: &str,
    (call, is_whole): (&str, bool),
    speech: &Speech,
    to: impl Write,
) -> Result<Exit, Error> {
    let batch = cluster.batch(name).await?;
    let uid = batch.uid().unwrap_or_default();
    let mut watched = Watched::new(cluster, batch, speech);
    let mut changes = pin!(children::watch(cluster, &uid));
    let out = Mutex::new(Out { to, closed: false, colours: speech::colours() });
    let (mut found, mut reading, mut troubled) = (Found::default(), FuturesUnordered::new(), false);
    loop {
        let look = watched.look();
        let batch = look.object().clone();
        found.plan(&batch);
        if words::is_finished(&batch) && !std::mem::replace(&mut found.all, true) {
            // What the watch has not told.
            cluster.children(&batch, |child| found.note(child)).await?;
        }
        while reading.len() < AT_ONCE
            && let Some(child) = found.waiting.pop_front()
        {
            reading.push(read(cluster, child, (call, is_whole), speech, &out));
        }
        if out.lock().closed || found.all && reading.is_empty() {
            if found.known.is_empty() {
                speech.say(&format!("xb/{name} has run nothing: {}", words::state(&batch)));
            }
            return Ok(Exit::SUCCESS);
        }
        if let Some((sentence, _)) = look.gone().and_then(|reached| gone(&reached)) {
            return Err(Error::Message(sentence));
        }
        match look.trouble()? {
            Some(why) => {
                troubled = true;
                speech.trouble(&format!("xb/{name}: the API server does not answer: {why}; retrying"));
            }
            // That of a log is not over by that.
            None if std::mem::take(&mut troubled) => speech.clear(),
            None => {}
        }
        tokio::select! {
            () = watched.change() => {}
            Some(told) = changes.next() => match told {
                Ok(child) => found.note(child),
                // Whatever passes, the watch of the batch tells of, too.
                Err(error) if children::is_refused(&error) => {
                    return Err(Error::Message(format!("the requests of xb/{name} cannot be seen: {error}")));
                }
                Err(_) => {}
            },
            Some(ended) = reading.next() => ended?,
        }
    }
}

/// The requests whose logs are to be read: each once.
#[derive(Default)]
struct Found {
    uid: String,
    /// The one that counts, once that is known.
    plan: Option<i64>,
    /// Seen before that was known.
    early: Vec<ExecRequest>,
    known: BTreeSet<u16>,
    waiting: VecDeque<ExecRequest>,
    /// The batch has finished, and all of its requests were seen.
    all: bool,
}

impl Found {
    fn plan(&mut self, batch: &ExecBatch) {
        self.uid = batch.uid().unwrap_or_default();
        self.plan = batch.status.as_ref().and_then(words::frozen);
        if self.plan.is_some() {
            for child in std::mem::take(&mut self.early) {
                self.note(child);
            }
        }
    }

    fn note(&mut self, child: ExecRequest) {
        if !may_have_run(&child) {
            return;
        }
        let Some(plan) = self.plan else { return self.early.push(child) };
        if index_in(&child, &self.uid, plan).is_some_and(|index| self.known.insert(index)) {
            self.waiting.push_back(child);
        }
    }
}

/// Where all of it goes.
struct Out<W> {
    to: W,
    colours: bool,
    /// Nobody reads it any more.
    closed: bool,
}

/// Reads one log to its end. That it cannot be read does not keep the others.
async fn read<W: Write>(
    cluster: &Cluster,
    child: ExecRequest,
    (call, is_whole): (&str, bool),
    speech: &Speech,
    out: &Mutex<Out<W>>,
) -> Result<(), Error> {
    let (name, pod) = (child.name_any(), child.spec.target.pod_name.as_str());
    let asked = Asked { name: &name, call, follow: true, is_whole };
    let mut log = Lines { pod, rest: Vec::new(), printed: false, out };
    let why = match print(cluster, &asked, speech, &mut log).await {
        Ok(_) => return log.end(),
        Err(error @ Error::Output(_)) => return Err(error),
        Err(error) => error,
    };
    log.end()?;
    if log.printed {
        // What has come is not printed again.
        speech.say(&format!("{pod}: {why}; all of it: {}", cluster.plugin(&format!("logs {name}"))));
        return Ok(());
    }
    let colours = out.lock().colours;
    let kept = what_is_kept(cluster, &name, pod, &why, colours, speech).await;
    match kept {
        Ok(kept) => kept.iter().try_for_each(|page| out.lock().print(page)),
        Err(why) => {
            speech.say(&format!("{pod}: {why}"));
            Ok(())
        }
    }
}

/// The lines of one log, which are printed when they are whole.
struct Lines<'a, W> {
    pod: &'a str,
    rest: Vec<u8>,
    printed: bool,
    out: &'a Mutex<Out<W>>,
}

impl<W: Write> Lines<'_, W> {
    fn take(&mut self, end: bool) -> Page {
        lines(Page::in_colour(self.out.lock().colours), self.pod, &mut self.rest, end)
    }

    fn end(&mut self) -> Result<(), Error> {
        let page = self.take(true);
        self.out.lock().print(&page)
    }
}

impl<W: Write> Write for Lines<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        let page = self.take(false);
        self.printed |= !bytes.is_empty();
        if !page.is_empty() {
            let mut out = self.out.lock();
            let written = out.to.write_all(page.as_str().as_bytes()).and_then(|()| out.to.flush());
            out.closed |= written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
            written?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Out<W> {
    fn print(&mut self, page: &Page) -> Result<(), Error> {
        if !page.is_empty() {
            self.closed |= !printing::write(&mut self.to, page.as_str().as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::{Value, json};

    use super::*;
    use crate::cli::{
        batch::{
            children::tests::{exited, object},
            words::tests::{object as batch, status},
        },
        follow::scripted::{self, Kept, SILENT},
    };

    const CALL: (&str, bool) = ("log?follow=true", true);

    fn running() -> Value {
        json!({"phase": "Running", "nodeName": "n1", "startTime": "2026-01-02T03:04:05.000000Z"})
    }

    /// A batch that runs and then ends so; its requests are these, in lists of them by the number of those before.
    async fn followed(
        ends: Value,
        lists: impl Fn(usize) -> Vec<Value> + Send + Sync + 'static,
    ) -> (String, String, String) {
        let (watches, listed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (cluster, _) = scripted::cluster(move |call| match call {
            call if call.contains("/log") && call.contains("b-x-2") => scripted::status(410, "its node is gone"),
            call if call.contains("/log?follow=true") => Some((200, json!(call.contains("b-x-1")))),
            call if call.contains("execrequests/b-x-2") => Some((200, object(2, exited(0, "kept")))),
            call if call.contains("execrequests/b-x-1") => Some((200, object(1, running()))),
            call if call.contains("execrequests/b-x-0") => Some((200, object(0, running()))),
            call if call.contains("spec.batch.uid") && call.contains("watch=true") => Some((SILENT, Value::Null)),
            call if call.contains("spec.batch.uid") => {
                let items = lists(listed.fetch_add(1, Ordering::Relaxed));
                let meta = json!({"resourceVersion": "1"});
                let kind = "ExecRequestList";
                Some((
                    200,
                    json!({"kind": kind, "apiVersion": "execlet.dev/v1alpha1", "metadata": meta, "items": items}),
                ))
            }
            call if call.contains("execbatches/b") => {
                Some((200, batch(status("Running", "Running", "", &json!({"released": 3})))))
            }
            call if call.contains("/execbatches") && call.contains("watch=true") => {
                match watches.fetch_add(1, Ordering::Relaxed) {
                    0..3 => scripted::status(503, "not now"),
                    _ => Some((200, ends.clone())),
                }
            }
            call if call.contains("watch=true") => scripted::status(503, "not now"),
            call => panic!("{call}"),
        });
        let (out, heard) = (Kept::default(), Kept::default());
        let speech = Speech::to(false, heard.clone());
        let ended = follow(&cluster, "b", CALL, &speech, out.clone()).await;
        let ended = ended.map_or_else(|error| error.to_string(), |exit| format!("{}", exit.0));
        (ended, out.text(), heard.text())
    }

    fn modified(kind: &str, status: Value) -> Value {
        json!({"type": kind, "object": batch(status)})
    }

    #[tokio::test(start_paused = true)]
    async fn each_log_is_followed_once_and_all_of_them_until_the_batch_has_ended() {
        let ended = modified("MODIFIED", status("Succeeded", "Completed", "", &json!({"released": 3})));
        // One was not seen by the watch; of one the log is gone; and one never ran.
        let lists = |before: usize| {
            let mut all = vec![object(0, running()), object(3, json!({"phase": "Pending"}))];
            if before > 0 {
                all.extend([object(1, running()), object(2, exited(0, "kept"))]);
            }
            all
        };
        let (exit, out, heard) = followed(ended, lists).await;
        let mut lines: Vec<&str> = out.lines().collect();
        lines.sort_unstable();
        assert_eq!((exit.as_str(), lines), ("0", vec!["db-0: false", "db-1: true", "db-2: kept"]), "{heard}");
        assert!(heard.contains("db-2: reading the log of b-x-2: its node is gone; what its status has"), "{heard}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_is_deleted_ends_it_and_that_is_said() {
        let deleted = modified("DELETED", status("Running", "Running", "", &json!({"released": 3})));
        let (error, ..) = followed(deleted, |_| Vec::new()).await;
        assert!(error.contains("xb/b was deleted before it finished"), "{error}");
    }

    #[test]
    fn what_ran_before_its_plan_was_known_is_found_when_that_is() {
        let (mut found, mut other) = (Found::default(), object(1, running()));
        other["spec"]["batch"]["plan"] = json!(2);
        for child in [object(0, running()), object(0, running()), other] {
            found.note(serde_json::from_value(child).expect("a request"));
        }
        assert!(found.waiting.is_empty());
        found.plan(&serde_json::from_value(batch(status("Running", "Running", "", &Value::Null))).expect("a batch"));
        assert_eq!(found.waiting.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>(), ["b-x-0"]);
    }
}
