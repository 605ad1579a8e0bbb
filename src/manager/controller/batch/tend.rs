//! One pass over one batch.
//!
//! 1. read the batch, by quorum;
//! 2. decide: `core::batch::step`;
//! 3. do what is to be done with its children;
//! 4. record which of them are gone: nobody else records their end;
//! 5. write what its status says then: `core::batch::advance`. One write a pass, and one in flight.

use std::time::Duration;

use super::{
    act::act_on_all,
    pass::{AGAIN, Pass, refuse, swap},
    planning::plan,
    world::{BatchError, World},
};
use crate::{
    api::ExecBatch,
    core::{
        audit::batch::requests_gone,
        batch::{
            advance::{Next, advance},
            groups::group,
            pace::Pace,
            seen::{Children, Found},
            situation::Situation,
            status::Write,
            step::{Step, Task, step},
            stop::{stop, until_deadline},
        },
        ids::BatchKey,
    },
};

/// `pace` is that of the passes before, if there were any.
pub async fn tend<W: World>(world: &W, key: &BatchKey, pace: &mut Pace) -> Result<Pass, BatchError> {
    let Some(batch) = world.batch(key).await? else { return Ok(Pass::Over) };
    let number = batch.status.as_ref().and_then(|status| status.plan.as_ref()).map_or(0, |plan| plan.number);
    let children = world.children(key, number);
    match step(&batch, &children, world.now())? {
        Step::Done => Ok(Pass::Over),
        Step::Refuse(why) => refuse(world, &batch, &why).await,
        Step::Plan(number) => plan(world, key, batch, number).await,
        Step::Tend(tasks) => {
            let tasks = pace.due(tasks, &children, world.now());
            let pass = tend_children(world, key, &batch, &children, tasks).await?;
            Ok(match pass {
                Pass::Again(pause) => Pass::Again(pause.min(pace.pause(&children, world.now()))),
                Pass::Over | Pass::NotBefore(_) => pass,
            })
        }
    }
}

async fn tend_children<W: World>(
    world: &W,
    key: &BatchKey,
    batch: &ExecBatch,
    children: &Children,
    tasks: Vec<(u16, Task)>,
) -> Result<Pass, BatchError> {
    let Some(situation) = Situation::of(batch, world.now())? else { return Ok(Pass::Again(AGAIN)) };
    let found = act_on_all(world, &situation, children, tasks).await;
    let gone = found.iter().filter(|(_, found)| **found == Found::Absent).map(|(index, _)| *index).collect();
    if let Some(act) = requests_gone(batch, gone) {
        world.record(batch, &act).await?;
    }
    // That may have taken its time, and the time of a release counts from the release.
    let situation = Situation { now: world.now(), ..situation };
    match advance(&situation, children, &found) {
        Next::Finish(ledger) => finish(world, key, Situation { ledger, ..situation }).await,
        Next::Write(status) if Some(&*status) == batch.status.as_ref() => {
            Ok(Pass::Again(until_deadline(&situation).unwrap_or(Duration::MAX)))
        }
        Next::Write(status) => swap(world, batch, *status, Duration::ZERO).await,
    }
}

async fn finish<W: World>(world: &W, key: &BatchKey, situation: Situation<'_>) -> Result<Pass, BatchError> {
    let grouped = group(world.endings(key, situation.plan()).await?, &situation.ledger);
    let generation = situation.batch.metadata.generation;
    let write = Write { status: situation.status, generation, at: situation.now };
    let status = write.finished(&situation, stop(&situation).as_ref(), grouped);
    swap(world, situation.batch, status, Duration::ZERO).await
}
