//! Evidence: ask engine, exits and kernel how a command has ended, until that decides or no more can be expected.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    agent::{
        command::{container, running::RunningCommand, seen::Seen, witness},
        memory::exec_exits::AwaitedExit,
        node::World,
    },
    core::{
        evidence::{Answer, Collection, Look},
        outcome::{StreamEnd, Verdict},
        pauses::Pauses,
    },
    engine::{Engine, EngineError, ExecState},
};

/// Pauses between two looks.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Whether the engine knew of the exec when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knew {
    Always,
    Sometimes,
    /// No longer in the end.
    Forgot,
}

pub(crate) struct Found {
    pub(crate) verdict: Verdict,
    pub(crate) knew: Knew,
}

/// Waits until the evidence decides, or until no more of it can be expected.
pub(crate) async fn collect<W: World>(
    attended: &RunningCommand<'_, W>,
    exit: &AwaitedExit,
    stream: StreamEnd,
    seen: &watch::Receiver<Seen>,
) -> Found {
    let RunningCommand { node, exec, memory, .. } = *attended;
    let begun = Instant::now();
    let mut collection = Collection::new(node.engine.habits().patience);
    let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut knew = Knew::Always;
    loop {
        let (answer, pid) = match node.engine.state(exec).await {
            Ok(state) => (answer(state), state.pid()),
            Err(error) => {
                tracing::warn!(exec = %exec.id, %error, "waiting for the engine to tell the exit code");
                let silent = matches!(error, EngineError::Unreachable { .. });
                (if silent { Answer::Silent } else { Answer::Useless }, None)
            }
        };
        match answer {
            Answer::Absent => knew = Knew::Forgot,
            Answer::Silent | Answer::Useless => knew = Knew::Sometimes,
            Answer::Runs | Answer::Over(_) => {}
        }
        // The engine takes some living processes for ended ones.
        let found = pid.is_some_and(|pid| witness::process_of(node, memory, exec, pid).is_some());
        let (kernel, lives) = {
            let known = seen.borrow();
            // Whoever watches may yet find the process of an exec that the engine has forgotten.
            let awaited = answer == Answer::Absent && seen.has_changed().is_ok();
            (known.exit, found || known.ended.is_none() && (known.process.is_some() || awaited))
        };
        let exits_are_heard = node.exec_exits.are_heard();
        let exit = exit.testimony();
        let runs = !lives && answer == Answer::Runs;
        let over = runs && container::is_over(node, exec).await.unwrap_or(false);
        let look = Look { after: begun.elapsed(), answer, exit, exits_are_heard, kernel, lives, over, stream };
        if let Some(verdict) = collection.weigh(&look) {
            return Found { verdict, knew };
        }
        match answer {
            Answer::Runs => {
                drop(timeout(pauses.next_pause(), node.engine.wait(exec)).await);
                sleep(FIRST_PAUSE).await;
            }
            Answer::Silent | Answer::Useless | Answer::Absent | Answer::Over(_) => sleep(pauses.next_pause()).await,
        }
    }
}

const fn answer(state: ExecState) -> Answer {
    match state {
        ExecState::Absent => Answer::Absent,
        ExecState::Running { .. } => Answer::Runs,
        ExecState::Ended { word, .. } => Answer::Over(Some(word)),
        ExecState::Untouched | ExecState::Spent => Answer::Over(None),
    }
}
