//! The output that a request's status has kept, for when there is no stream.

use super::{
    output::Output,
    record::Recorder,
    session::LocalIo,
    watched::{Reached, Watched},
};
use crate::{
    api::ExecRequest,
    cli::{
        error::Error,
        request::is_finished,
        say::{speech::Speech, tails::tail_bytes},
    },
    wire::OutputStream,
};

/// Waits for the end of a request, and shows what its status has of the output.
pub async fn by_status(watched: &mut Watched, recorder: Option<Recorder>) -> Result<Reached, Error> {
    let reached = watched.until(is_finished).await?;
    if let Reached::Here(request) = &reached {
        let output = Output::start(recorder);
        write_tails(&output, request, &watched.speech).await;
        output.finish().await?;
    }
    Ok(reached)
}

/// Shows what the status has of the output, if none of it was shown before; `why` there is no stream.
pub async fn instead(watched: &mut Watched, local: &LocalIo, why: &str) -> Result<(), Error> {
    if let Reached::Here(request) = watched.until(is_finished).await?
        && local.shown.is_nothing()
    {
        watched.speech.say(&format!("cannot read its log ({why}): showing what its status has of it"));
        write_tails(&local.output, &request, &watched.speech).await;
    }
    Ok(())
}

async fn write_tails(output: &Output, request: &ExecRequest, speech: &Speech) {
    let Some(kept) = request.status.as_ref().and_then(|status| status.output.as_ref()) else { return };
    let tails = [(OutputStream::Stdout, "output", &kept.stdout), (OutputStream::Stderr, "error", &kept.stderr)];
    for (stream, name, tail) in tails {
        let bytes = tail_bytes(tail);
        if tail.truncated {
            speech.say(&format!("showing the last {} of {} bytes of standard {name}", bytes.len(), tail.bytes));
        }
        if !bytes.is_empty() && output.write(stream, bytes.into()).await.is_err() {
            return;
        }
    }
}
