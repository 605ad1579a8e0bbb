//! The output that a request's status has kept, for when there is no stream.

use super::{
    output::{Heard, Output},
    watched::{Reached, Watched},
};
use crate::{
    cli::{error::Error, request::is_finished, say::tails::tail_bytes},
    wire::OutputStream,
};

/// Waits for the end of a request, and shows what its status has of the output; says why its log is not shown,
/// if that was expected.
pub async fn show(watched: &mut Watched, output: &Output, why: Option<&str>) -> Result<Reached, Error> {
    let reached = watched.until(is_finished).await?;
    let Reached::Here(request) = &reached else { return Ok(reached) };
    if let Some(why) = why {
        watched.speech.say(&format!("cannot read its log ({why}): showing what its status has of it"));
    }
    let kept = request.status.as_ref().and_then(|status| status.output.as_ref());
    let tails = kept.into_iter().flat_map(|kept| {
        [(OutputStream::Stdout, "output", &kept.stdout), (OutputStream::Stderr, "error", &kept.stderr)]
    });
    for (stream, name, tail) in tails {
        let bytes = tail_bytes(tail);
        if tail.truncated {
            let (kept, all) = (bytes.len(), tail.bytes);
            watched.speech.say(&format!("showing the last {kept} of {all} bytes of standard {name}"));
        }
        if !bytes.is_empty() && !output.write(stream, bytes.into(), Heard::ByNobody).await {
            break;
        }
    }
    Ok(reached)
}
