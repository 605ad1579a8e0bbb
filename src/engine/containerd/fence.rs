//! Fence: an exec is taken away from under a start that may be on its way.
//!
//! One that the engine deletes without ever having seen a process of it, while who waits for it still waits, and of which
//! the runtime has written no PID file, has not run and never will. The next one has another name: a start that comes late
//! must not find it.

use std::{pin::pin, time::Duration};

use tokio::time::timeout;

use super::{
    calls::Calls,
    evidence::{self, ANSWERS_WITHIN},
    folder::Folder,
    pid_file::{self, PidFile, Watch},
};
use crate::{
    core::ids::ExecRef,
    engine::{EngineError, ExecState, Fenced},
};

/// Whoever is told of a start that has failed is told by then.
const STILL_WAITS_AFTER: Duration = Duration::from_millis(100);

pub(super) async fn fence(calls: &Calls, folder: &Folder, exec: &ExecRef) -> Result<Fenced, EngineError> {
    // For a start that comes now. One that finds nobody who reads runs the command, and fails.
    let _readers = folder.hold_outputs();
    let fenced = match evidence::state(calls, folder, exec).await? {
        ExecState::Absent => Fenced::NeverRan,
        ExecState::Untouched => take_away(calls, exec).await?,
        ExecState::Spent | ExecState::Running { .. } | ExecState::Ended { .. } => Fenced::Started,
    };
    // Without it, and without an exec, it is known that nothing ran: not before.
    if fenced == Fenced::NeverRan
        && let Err(error) = folder.remove()
    {
        return Err(EngineError::Failed(format!("the folder of exec {} could not be removed: {error}", exec.id)));
    }
    Ok(fenced)
}

async fn take_away(calls: &Calls, exec: &ExecRef) -> Result<Fenced, EngineError> {
    let (container, id) = (exec.container.id.as_str(), exec.id.as_str());
    let state = calls.socket().parent();
    // From here on it is seen, and before there was none.
    let watch = Watch::begin(state, exec).filter(|_| pid_file::look(state, exec) == PidFile::Missing);
    let Some(watch) = watch else { return Ok(Fenced::Started) };
    let mut waiting = pin!(calls.wait(container, id));
    if let Ok(answer) = timeout(ANSWERS_WITHIN, &mut waiting).await {
        return answer.map(|_| Fenced::Started);
    }
    let deleted = calls.delete(container, id).await?;
    let told = timeout(STILL_WAITS_AFTER, &mut waiting).await;
    Ok(match (deleted, told) {
        // An error says that it is gone.
        (Some(deleted), Err(_) | Ok(Err(_))) if deleted.pid == 0 && !watch.has_seen() => Fenced::NeverRan,
        (Some(_) | None, _) => Fenced::Started,
    })
}
