//! The output of all commands of a batch, from the logs on their nodes: one after the other, each line after the name of its
//! pod.

use std::io::Write;

use futures::{AsyncRead, AsyncReadExt as _};
use kube::ResourceExt as _;
use tokio::time::timeout;

use super::{
    words,
    written::{line, written},
};
use crate::{
    api::{ExecBatch, ExecBatchStatus},
    cli::{
        cluster::connection::{Cluster, OPENING, open_in_time},
        error::Error,
        exit::Exit,
        request::may_have_run,
        say::{page::Page, print, speech, speech::Speech},
    },
    core::batch::child::index_in,
};

/// Bytes of one read.
const PIECE: usize = 64 * 1024;
/// Most bytes of a line; what is longer is more than one.
const LONGEST_LINE: usize = 64 * 1024;

/// Prints the logs of this batch; `call` is that of each of them. Where one cannot be read, what the request's status keeps.
pub async fn show(cluster: &Cluster, name: &str, call: &str, speech: &Speech, out: impl Write) -> Result<Exit, Error> {
    let batch = cluster.batch(name).await?;
    let mut merging = Merging { cluster, call, speech, out, colours: speech::colours() };
    for (_, name, pod) in have_run(cluster, &batch).await? {
        if !merging.one(&name, &pod).await? {
            break;
        }
    }
    Ok(Exit::SUCCESS)
}

/// The requests whose commands may have run, by their index: their names and pods.
async fn have_run(cluster: &Cluster, batch: &ExecBatch) -> Result<Vec<(u16, String, String)>, Error> {
    let empty = ExecBatchStatus::default();
    let Some(plan) = words::frozen(batch.status.as_ref().unwrap_or(&empty)) else {
        let wait = cluster.plugin(&format!("attach {}", words::typed(batch)));
        return Err(Error::Message(format!("{} has run nothing: it is not planned yet; {wait}", words::typed(batch))));
    };
    let (uid, mut all) = (batch.uid().unwrap_or_default(), Vec::new());
    cluster
        .children(batch, |child| {
            let index = index_in(&child, &uid, plan).filter(|_| may_have_run(&child));
            all.extend(index.map(|index| (index, child.name_any(), child.spec.target.pod_name)));
        })
        .await?;
    all.sort_unstable();
    Ok(all)
}

struct Merging<'a, W> {
    cluster: &'a Cluster,
    call: &'a str,
    speech: &'a Speech,
    out: W,
    colours: bool,
}

impl<W: Write> Merging<'_, W> {
    /// `false` if nobody reads the output any more.
    async fn one(&mut self, name: &str, pod: &str) -> Result<bool, Error> {
        let request = self.cluster.subresource(name, self.call);
        let why = match open_in_time(self.cluster.client.request_stream(request)).await {
            Ok(stream) => match self.copy(Box::pin(stream), pod).await? {
                Copied::All(open) => return Ok(open),
                // What has come is not printed again.
                Copied::Broken(why) => {
                    let again = self.cluster.plugin(&format!("logs {name}"));
                    self.speech.say(&format!("{pod}: the connection broke: {why}; the rest of it: {again}"));
                    return Ok(true);
                }
            },
            Err(source) => self.cluster.failed(format!("reading the log of {name}"), source),
        };
        let [stdout, stderr] = what_is_kept(self.cluster, name, pod, &why, self.colours, self.speech).await?;
        Ok(self.print(&stdout)? && self.print(&stderr)?)
    }

    async fn copy(&mut self, mut stream: impl AsyncRead + Unpin, pod: &str) -> Result<Copied, Error> {
        let (mut buffer, mut rest) = (vec![0; PIECE], Vec::new());
        loop {
            let length = match timeout(OPENING, stream.read(&mut buffer)).await {
                Ok(Ok(length)) => length,
                Ok(Err(why)) => return Ok(Copied::Broken(why.to_string())),
                Err(_) => return Ok(Copied::Broken(format!("nothing received for {} s", OPENING.as_secs()))),
            };
            rest.extend_from_slice(&buffer[..length]);
            let page = lines(Page::in_colour(self.colours), pod, &mut rest, length == 0);
            if !self.print(&page)? || length == 0 {
                return Ok(Copied::All(length == 0));
            }
        }
    }

    fn print(&mut self, page: &Page) -> Result<bool, Error> {
        if page.is_empty() { Ok(true) } else { print::write(&mut self.out, page.as_str().as_bytes()) }
    }
}

/// What a request's status has of both streams, where its log cannot be read.
pub(super) async fn what_is_kept(
    cluster: &Cluster,
    name: &str,
    pod: &str,
    why: &Error,
    colours: bool,
    speech: &Speech,
) -> Result<[Page; 2], Error> {
    speech.say(&format!("{pod}: {why}; what its status has of it is shown"));
    let kept = written(&cluster.get(name).await?, colours, |name| cluster.plugin(&format!("logs {name}")));
    for sentence in kept.missing {
        speech.say(&sentence);
    }
    Ok([kept.stdout, kept.stderr])
}

enum Copied {
    /// Whether the output is still read.
    All(bool),
    Broken(String),
}

/// Takes the lines that are whole off the bytes; at the end all that is there.
pub(super) fn lines(mut page: Page, pod: &str, bytes: &mut Vec<u8>, end: bool) -> Page {
    let mut begin = 0;
    while begin < bytes.len() {
        let newline = memchr::memchr(b'\n', &bytes[begin..]).map(|at| begin + at);
        let (until, next) = match newline {
            Some(at) => (at, at + 1),
            None if end || bytes.len() - begin >= LONGEST_LINE => (bytes.len(), bytes.len()),
            None => break,
        };
        let text = String::from_utf8_lossy(&bytes[begin..until]);
        page = line(page, pod, text.strip_suffix('\r').unwrap_or(&text));
        begin = next;
    }
    bytes.drain(..begin);
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::{
        batch::{
            children::tests::{exited, object},
            words::tests as batches,
        },
        follow::scripted::{self, Kept},
    };

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut bytes = b"one\r\ntwo\nthr".to_vec();
        assert_eq!(lines(Page::default(), "p", &mut bytes, false).as_str(), "p: one\np: two\n");
        bytes.extend(b"ee");
        assert_eq!(lines(Page::default(), "p", &mut bytes, true).as_str(), "p: three\n");
        let mut long = vec![b'x'; LONGEST_LINE];
        assert!(!lines(Page::default(), "p", &mut long, false).is_empty() && long.is_empty());
    }

    #[tokio::test]
    async fn all_logs_are_printed_by_index_and_where_there_is_none_what_the_status_has() {
        let requests = json!({"kind": "ExecRequestList", "apiVersion": "execlet.dev/v1alpha1", "metadata": {}, "items": [
            object(10, exited(0, "")), object(2, exited(0, "kept")), object(3, json!({"phase": "Pending"})),
        ]});
        let frozen = batches::object(batches::status("Succeeded", "Completed", "", &json!(null)));
        let (cluster, _) = scripted::cluster(move |call| match call {
            call if call.contains("execbatches/b") => Some((200, frozen.clone())),
            call if call.contains("b-x-10/log?tailLines=1") => Some((200, json!("ten"))),
            call if call.contains("/log") => scripted::status(410, "its node is gone"),
            call if call.contains("execrequests/b-x-2") => Some((200, object(2, exited(0, "kept")))),
            call if call.contains("spec.batch.uid%3Du") => Some((200, requests.clone())),
            call => panic!("{call}"),
        });
        let (out, heard) = (Kept::default(), Kept::default());
        let speech = Speech::to(false, heard.clone());
        let exit = show(&cluster, "b", "log?tailLines=1", &speech, out.clone()).await.expect("an exit code");
        assert_eq!((exit, out.text().as_str()), (Exit::SUCCESS, "db-2: kept\ndb-10: \"ten\"\n"));
        assert!(heard.text().contains("db-2: reading the log of b-x-2: its node is gone; what its status has"));
    }
}
