//! Drain: a command must not wait for ever for somebody who reads its output.

use std::{convert::Infallible, time::Duration};

use tokio::time::sleep;

use super::running::RunningCommand;
use crate::{agent::node::World, core::pauses::Pauses, engine::Engine};

/// Pauses before its output is opened, and between two attempts: most that are looked after here end at once.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// For a command whose output nobody here reads: the engine may not either, so what it writes is thrown away. Never returns.
pub(crate) async fn drain<W: World>(attended: &RunningCommand<'_, W>) -> Infallible {
    let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        sleep(pauses.next_pause()).await;
        attended.node.engine.drain(attended.exec).await;
    }
}
