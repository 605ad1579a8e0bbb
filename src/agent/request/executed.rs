//! Executed: whether the command was executed whose process has ended, or nothing but the runtime in which it was to be.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::{
    agent::{
        command::{running::RunningCommand, seen::Seen},
        node::World,
    },
    core::{
        execution::{Author, Execution, Heard, Obstacle, Refusal, Sighting, Support, judge, places, too_long},
        outcome::Exit,
    },
    engine::{Engine, Surroundings},
    infra::{kernel::Kernel, program::Program},
};

/// What was changed so shortly before the start may have been changed after it: file systems tell no finer time.
const GRAIN: SignedDuration = SignedDuration::from_millis(50);

/// `heard`: all that was written, if that is known. `all_killed`: its container has ended, or it was ended by us.
pub(crate) async fn check<W: World>(
    attended: &RunningCommand<'_, W>,
    exit: Exit,
    heard: Option<&Heard>,
    seen: &watch::Receiver<Seen>,
    all_killed: bool,
) -> Execution {
    let RunningCommand { node, wanted, exec, memory, .. } = *attended;
    let sighting = if was_noted(attended) { Sighting::Executed } else { seen.borrow().executed };
    let program = wanted.request().and_then(|request| request.spec.command.first()).map_or("", String::as_str);
    let author = node.engine.author(program, exit.code, heard);
    let started = memory.entry().and_then(|entry| entry.started);
    let since = started.and_then(|started| {
        let ago = SignedDuration::try_from(node.kernel.uptime().saturating_sub(started)).ok()?;
        node.clock.now().checked_sub(ago + GRAIN).ok()
    });
    let support = match (sighting, &author) {
        (Sighting::Executed | Sighting::Never, _) | (_, Author::Command | Author::Unheard) => Support::None,
        (Sighting::Unseen, Author::Runtime(refusal)) => confirm(attended, refusal, since).await,
        (Sighting::Unseen, Author::Killed) if all_killed => Support::AllKilled,
        (Sighting::Unseen, Author::Killed) => {
            let since = since.unwrap_or(Timestamp::UNIX_EPOCH);
            match node.engine.ran_out_of_memory(&exec.container.id, since).await {
                Ok(true) => Support::OutOfMemory,
                Ok(false) => Support::None,
                Err(error) => {
                    tracing::warn!(exec = %exec.id, %error, "whether its container ran out of memory is not known");
                    Support::None
                }
            }
        }
    };
    judge(exit, sighting, &author, support)
}

/// Whether this agent or one before it has put down that the command was seen to be executed.
fn was_noted<W: World>(attended: &RunningCommand<'_, W>) -> bool {
    let RunningCommand { node, exec, memory, .. } = *attended;
    memory.entry().is_some_and(|entry| entry.is_current(exec, &node.boot) && entry.was_executed())
}

/// Whether anything but the words shows that the program could not be executed.
async fn confirm<W: World>(attended: &RunningCommand<'_, W>, refusal: &Refusal, since: Option<Timestamp>) -> Support {
    let RunningCommand { node, wanted, exec, .. } = *attended;
    let Some(request) = wanted.request() else { return Support::None };
    let spec = &request.spec;
    if refusal.obstacle == Obstacle::TooLong {
        let variables: Vec<String> =
            spec.env.iter().map(|variable| format!("{}={}", variable.name, variable.value)).collect();
        let strings = spec.command.iter().chain(&variables).map(String::as_str);
        return too_long(strings).map_or(Support::None, Support::Confirmed);
    }
    let surroundings = match node.engine.surroundings(&exec.container).await {
        Ok(surroundings) => surroundings,
        Err(error) => {
            tracing::warn!(exec = %exec.id, %error, "what its program is cannot be seen");
            None
        }
    };
    let Some((Surroundings { main, folder, search_path }, since)) = surroundings.zip(since) else {
        return Support::None;
    };
    let own_path = spec.env.iter().rev().find(|variable| variable.name == "PATH").map(|variable| &variable.value);
    let folder = spec.working_dir.as_ref().unwrap_or(&folder);
    let (name, search_path) = (spec.command.first().map_or("", String::as_str), own_path.or(search_path.as_ref()));
    let Some(places) = places(name, &refusal.path, Some(folder), search_path.map(String::as_str)) else {
        return Support::None;
    };
    let since = Duration::try_from(since.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
    let program = Program { container: exec.container.id.clone(), main, places, since };
    match node.kernel.obstacle(program).await {
        Some((obstacle, why)) if obstacle == refusal.obstacle => Support::Confirmed(why),
        Some(_) | None => Support::None,
    }
}
