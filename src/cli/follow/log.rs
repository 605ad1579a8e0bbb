//! Reading the log of one request, to its end if it is followed.

use std::io::{self, Write};

use futures::{AsyncRead, AsyncReadExt as _};
use tokio::time::sleep;

use super::{attempts::Attempts, passed::Passed, watched::Watched};
use crate::cli::{
    cluster::connection::{Cluster, OPENING, open_in_time},
    error::{self, Error},
    exit::Exit,
    request::is_attachable,
    say::{print, speech::Speech},
};

/// Bytes of one read.
const PIECE: usize = 64 * 1024;

/// Which part of which log is asked for.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Of the request.
    pub name: &'a str,
    /// The subresource with its query.
    pub call: &'a str,
    /// It is followed to the end of its command.
    pub follow: bool,
    /// All of it up to then: read again, what was printed before is found again.
    pub is_whole: bool,
}

/// Prints a log; one that is followed over as many connections as it takes.
pub async fn print(cluster: &Cluster, asked: &Asked<'_>, speech: &Speech, out: impl Write) -> Result<Exit, Error> {
    let what = format!("reading the log of {}", asked.name);
    let mut watched = None;
    if asked.follow {
        let mut request = Watched::new(cluster, cluster.get(asked.name).await?, speech);
        request.until(is_attachable).await?;
        watched = Some(request);
    }
    let mut attempts = Attempts::default();
    let again = async |broke: Option<Broke>| {
        if let Some(Broke { why, moved }) = broke {
            if moved {
                attempts = Attempts::default();
            }
            let broken = Error::Message(format!("{what}: the connection broke: {why}"));
            // By then the last lines are others.
            let again = watched.as_ref().filter(|_| asked.is_whole).ok_or(broken)?;
            let source = kube::Error::Service(why.into());
            if !attempts.go_on(again, &source).await? {
                return Err(cluster.failed(&what, source));
            }
        }
        open(cluster, asked, &what, watched.as_ref(), &mut attempts).await
    };
    let unheard = async || {
        if let Some(watched) = &watched {
            return watched.unheard(asked.is_whole).await;
        }
        sleep(OPENING).await;
        format!("nothing received for {} s", OPENING.as_secs())
    };
    copy(again, unheard, out).await
}

/// A connection that broke.
struct Broke {
    why: io::Error,
    /// It has brought new output.
    moved: bool,
}

/// Opens the log; while it is followed, as often as it takes.
async fn open(
    cluster: &Cluster,
    asked: &Asked<'_>,
    what: &str,
    watched: Option<&Watched>,
    attempts: &mut Attempts,
) -> Result<impl AsyncRead + Unpin + use<>, Error> {
    loop {
        let request = cluster.subresource(asked.name, asked.call);
        let source = match open_in_time(cluster.client.request_stream(request)).await {
            Ok(stream) => {
                attempts.opened();
                if let Some(watched) = watched {
                    watched.speech.clear();
                }
                return Ok(Box::pin(stream));
            }
            Err(source) => source,
        };
        let refused = matches!(error::answer(&source), Some(400 | 401 | 403 | 405 | 410 | 422));
        let again = match watched {
            Some(watched) if !refused => attempts.go_on(watched, &source).await?,
            Some(_) | None => false,
        };
        if !again {
            return Err(cluster.failed(what, source));
        }
    }
}

/// Copies the log to its end. `open` is told why the last connection broke, and may open another one; `unheard` tells
/// when one on which nothing comes has broken.
async fn copy<S: AsyncRead + Unpin>(
    mut open: impl AsyncFnMut(Option<Broke>) -> Result<S, Error>,
    unheard: impl AsyncFn() -> String,
    mut out: impl Write,
) -> Result<Exit, Error> {
    let (mut passed, mut broke) = (Passed::default(), None);
    let mut buffer = vec![0; PIECE];
    loop {
        let mut stream = open(broke.take()).await?;
        let mut moved = false;
        passed.again();
        let why = loop {
            let read = tokio::select! {
                biased;
                read = stream.read(&mut buffer) => read,
                why = unheard() => Err(io::Error::other(why)),
            };
            let (fresh, ended) = match read {
                Ok(0) => (passed.end(), true),
                Ok(length) => (passed.fresh(&buffer[..length]), false),
                Err(why) => break why,
            };
            moved |= !fresh.is_empty();
            if !print::write(&mut out, &fresh)? || ended {
                return Ok(Exit::SUCCESS);
            }
        };
        broke = Some(Broke { why, moved });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::TryStreamExt as _;
    use serde_json::json;

    use super::*;
    use crate::cli::follow::scripted::{self, Kept};

    #[tokio::test]
    async fn a_log_that_is_followed_goes_on_where_its_connection_broke() {
        let mut connections = [("one\ntw", false), ("on", false), ("one\ntwo\nthree\n", true)].into_iter();
        let mut moved = Vec::new();
        let open = async |broke: Option<Broke>| {
            moved.extend(broke.map(|broke| broke.moved));
            let (text, whole) = connections.next().expect("one more");
            let cut = (!whole).then(|| Err(io::Error::other("cut")));
            let pieces = std::iter::once(Ok(text.as_bytes())).chain(cut);
            Ok(futures::stream::iter(pieces).into_async_read())
        };
        let out = Kept::default();
        let exit = copy(open, pending, out.clone()).await.expect("all of it");
        assert_eq!((exit, out.text().as_str()), (Exit::SUCCESS, "one\ntwo\nthree\n"));
        assert_eq!(moved, [true, false]);
    }

    /// All of the log of `r`.
    const FOLLOWED: Asked<'static> = Asked { name: "r", call: "log?follow=true", follow: true, is_whole: true };

    /// A log of which each connection breaks, and how often it was asked for.
    async fn broken(asked: Asked<'_>, status: serde_json::Value) -> (String, usize) {
        let (cluster, calls) = scripted::cluster(move |call| match call {
            call if call.contains("/log") => Some((scripted::CUT, json!("output"))),
            call if call.contains("execrequests/r") => Some((200, scripted::object(status.clone()))),
            _ => scripted::status(500, "not now"),
        });
        let printed = print(&cluster, &asked, &Speech::to(false, io::sink()), io::sink()).await;
        let calls = calls.lock();
        (printed.expect_err("no end").to_string(), calls.iter().filter(|call| call.contains("/log")).count())
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_whose_connections_all_break_is_given_up_once_nothing_can_follow() {
        let (error, calls) = broken(FOLLOWED, scripted::never_ran()).await;
        assert!(error.contains("reading the log of r") && (5..20).contains(&calls), "{calls} {error}");
        // Of the last lines it is not known which they were; what is not followed can be asked for again.
        for asked in [Asked { is_whole: false, ..FOLLOWED }, Asked { follow: false, ..FOLLOWED }] {
            let (error, calls) = broken(asked, scripted::never_ran()).await;
            assert_eq!(calls, 1);
            assert!(error.starts_with("reading the log of r: the connection broke: "), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_of_which_nothing_comes_once_its_request_has_finished_is_read_again() {
        for follow in [true, false] {
            let first = std::sync::atomic::AtomicBool::new(true);
            let (cluster, calls) = scripted::cluster(move |call| match call {
                call if call.contains("/log") && first.swap(false, std::sync::atomic::Ordering::Relaxed) => {
                    Some((scripted::SILENT, json!("out")))
                }
                call if call.contains("/log") => Some((200, json!("output"))),
                call if call.contains("execrequests/r") => Some((200, scripted::object(scripted::never_ran()))),
                _ => scripted::status(500, "not now"),
            });
            let asked = Asked { follow, ..FOLLOWED };
            let out = Kept::default();
            let printed = print(&cluster, &asked, &Speech::to(false, io::sink()), out.clone()).await;
            let asked = calls.lock().iter().filter(|call| call.contains("/log")).count();
            match printed {
                Ok(exit) => assert_eq!((follow, exit, asked), (true, Exit::SUCCESS, 2)),
                Err(error) => {
                    assert_eq!((follow, asked), (false, 1));
                    assert!(error.to_string().ends_with("nothing received for 60 s"), "{error}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_log_that_is_followed_is_read_when_an_agent_has_it() {
        let list = json!({"kind": "ExecRequestList", "apiVersion": "execlet.dev/v1alpha1", "metadata": {"resourceVersion": "2"},
            "items": [scripted::object(json!({"phase": "Bound", "nodeName": "n1"}))]});
        let (cluster, calls) = scripted::cluster(move |call| match call {
            call if call.contains("/log?") => Some((200, json!("output"))),
            call if call.contains("execrequests/r") => Some((200, scripted::object(json!({"phase": "Pending"})))),
            call if call.contains("watch=true") => scripted::status(500, "not now"),
            _ => Some((200, list.clone())),
        });
        let out = Kept::default();
        let exit = print(&cluster, &FOLLOWED, &Speech::to(false, io::sink()), out.clone()).await.expect("a log");
        assert_eq!((exit, out.text().as_str()), (Exit::SUCCESS, "\"output\""));
        let calls = calls.lock();
        let first = |part: &str| calls.iter().position(|call| call.contains(part));
        assert!(first("fieldSelector").is_some() && first("fieldSelector") < first("/log?"), "{calls:?}");
    }
}
