//! Resize: the command's terminal follows that of whoever watches.

use std::{convert::Infallible, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::{running::RunningCommand, seen::Seen};
use crate::{
    agent::node::World,
    engine::{Engine, EngineError},
};

/// Pause before a size that was refused is told again: the process may not run yet.
const AGAIN: Duration = Duration::from_millis(20);

/// Tells the terminal each size that counts, for ever: at once, because a full-screen program asks for it
/// when it begins, and again when the process is seen. Of those that come meanwhile the last one counts.
pub(crate) async fn follow<W: World>(attended: &RunningCommand<'_, W>, mut seen: watch::Receiver<Seen>) -> Infallible {
    let RunningCommand { node, exec, hub, .. } = *attended;
    let mut sizes = hub.sizes();
    sizes.mark_changed();
    let mut runs = false;
    loop {
        tokio::select! {
            biased;
            changed = sizes.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            found = async { seen.wait_for(|seen| seen.process.is_some()).await.is_ok() }, if !runs => {
                runs = true;
                if found {
                    sizes.mark_changed();
                }
                continue;
            }
        }
        let Some(size) = *sizes.borrow_and_update() else { continue };
        match node.engine.resize(exec, size.width, size.height).await {
            Ok(()) => tracing::debug!(exec = %exec.id, ?size, "resized"),
            Err(EngineError::NoSuchExec(_)) => return std::future::pending().await,
            Err(error) => {
                tracing::debug!(exec = %exec.id, ?size, %error, "the terminal could not be resized yet");
                sleep(AGAIN).await;
                // A refused one is tried again unless another has come, or the process has ended.
                if seen.borrow().ended.is_none() {
                    sizes.mark_changed();
                }
            }
        }
    }
}
