//! What the engine keeps of execs of which nothing is needed any more: of an agent that ended between the report and the
//! moment when the engine was told to forget, or before it could put down what it had made.

use std::collections::HashSet;

use super::node::{Node, World};
use crate::{
    core::ids::{ExecName, ExecRef, RequestUid},
    engine::{Engine, EngineError, ExecState},
};

/// What the journal knows of the request of an exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It is in hand.
    Open,
    /// There is a tombstone.
    Finished,
    Nothing,
}

/// Whether nothing can depend on an exec. Where the journal was lost, all that is left of one is evidence, for as long as its
/// container is there.
const fn may_go(known: Known, runs: bool, has_container: bool) -> bool {
    match known {
        Known::Open => false,
        Known::Finished => !runs,
        Known::Nothing => !has_container,
    }
}

/// Before anything new begins. `open`: the requests that the journal has in hand.
pub(super) async fn clear<W: World>(node: &Node<W>, open: &HashSet<RequestUid>) {
    let execs = match node.engine.leftovers().await {
        Ok(execs) => execs,
        Err(error) => {
            tracing::warn!(%error, "what is left of earlier execs cannot be listed");
            return;
        }
    };
    let mut cleared = 0;
    for exec in execs {
        match clear_one(node, open, &exec).await {
            Ok(true) => cleared += 1,
            Ok(false) => {}
            Err(error) => tracing::warn!(exec = %exec.id, %error, "what is left of an exec stays behind"),
        }
    }
    if cleared > 0 {
        tracing::info!(cleared, "execs of which nothing is needed any more were removed");
    }
}

async fn clear_one<W: World>(node: &Node<W>, open: &HashSet<RequestUid>, exec: &ExecRef) -> Result<bool, EngineError> {
    let Some(ExecName { request, .. }) = ExecName::of(&exec.id) else { return Ok(false) };
    let known = match node.journal.tombstone(&request) {
        _ if open.contains(&request) => Known::Open,
        Ok(Some(_)) => Known::Finished,
        Ok(None) => Known::Nothing,
        Err(error) => {
            tracing::warn!(exec = %exec.id, %error, "whether it has been reported is not known");
            return Ok(false);
        }
    };
    if known == Known::Open {
        return Ok(false);
    }
    // Each is asked only where it counts: there may be hundreds.
    let finished = known == Known::Finished;
    let runs = finished && matches!(node.engine.state(exec).await?, ExecState::Running { .. });
    let has_container = !finished && node.engine.container(&exec.container.id).await?.is_some();
    let goes = may_go(known, runs, has_container);
    if goes {
        node.engine.forget(exec).await?;
    }
    Ok(goes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_reported_or_has_lost_its_container_goes() {
        for (known, runs, has_container, goes) in [
            (Known::Open, false, true, false),
            (Known::Open, false, false, false),
            (Known::Finished, false, true, true),
            (Known::Finished, false, false, true),
            (Known::Finished, true, true, false),
            (Known::Nothing, false, true, false),
            (Known::Nothing, true, true, false),
            (Known::Nothing, false, false, true),
        ] {
            assert_eq!(may_go(known, runs, has_container), goes, "{known:?}, runs: {runs}, container: {has_container}");
        }
    }
}
