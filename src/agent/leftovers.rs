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

/// Whether nothing can depend on an exec. Where the journal was lost, what was started is evidence.
const fn may_go(known: Known, state: Option<ExecState>) -> bool {
    match (known, state) {
        (Known::Open, _) | (Known::Finished, Some(ExecState::Running { .. })) => false,
        (Known::Finished, _) | (Known::Nothing, Some(ExecState::Untouched | ExecState::Absent)) => true,
        (Known::Nothing, None | Some(ExecState::Spent | ExecState::Running { .. } | ExecState::Ended { .. })) => false,
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
    let goes = may_go(known, node.engine.state(exec).await.ok());
    if goes {
        node.engine.forget(exec).await?;
    }
    Ok(goes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::outcome::{EngineWord, Testimony};

    #[test]
    fn only_what_was_reported_or_never_started_goes() {
        let word = EngineWord { testimony: Testimony { code: 0, certain: true }, ran: true };
        let (running, ended) = (ExecState::Running { pid: Some(7) }, ExecState::Ended { word, pid: Some(7) });
        let states = [ExecState::Absent, ExecState::Untouched, ExecState::Spent, ended, running];
        for state in states.map(Some).into_iter().chain([None]) {
            assert!(!may_go(Known::Open, state), "{state:?}");
            assert_eq!(may_go(Known::Finished, state), state != Some(running), "{state:?}");
            let never = matches!(state, Some(ExecState::Absent | ExecState::Untouched));
            assert_eq!(may_go(Known::Nothing, state), never, "{state:?}");
        }
    }
}
