//! A request for each target of a plan.
//!
//! A creation is sent again only if it was surely not taken. While the API server takes none it is asked ever more seldom,
//! and the batch says so.

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep};

use super::world::{BatchError, Created, Swapped, World};
use crate::{
    api::{ExecBatch, ExecRequest, Reason, batch::Plan},
    core::{
        batch::{child, plan::Refusal, status::Write, stop::given_up, targets::Target},
        ids::BatchKey,
        pauses::Pauses,
    },
};

/// How many are created, or deleted, beside each other.
const AT_ONCE: usize = 16;
/// After a creation without an answer, until it is looked for.
const SETTLE: Duration = Duration::from_millis(200);
/// After the API server has taken some not now; doubles up to the second.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];
/// After so long without a single one that was taken the plan is refused.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) enum Made {
    /// One for each target, in their order.
    All(Vec<ExecRequest>),
    InDoubt(String),
    /// Why, and those that were made before.
    Refused(String, Vec<ExecRequest>),
    /// Somebody has given the batch up, or plans it anew.
    NotWanted,
}

/// `batch` is as it was written last, before and after.
pub(super) async fn make<W: World>(
    world: &W,
    key: &BatchKey,
    batch: &mut ExecBatch,
    number: i64,
    targets: &[Target],
) -> Result<Made, BatchError> {
    let wanted = (0..).zip(targets).map(|(index, target)| child::child(batch, number, index, target));
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    let mut made = vec![None; wanted.len()];
    let [first, longest] = PAUSES;
    let mut pauses = Pauses::new(first, longest);
    let (mut taken, mut since) = (0, Instant::now());
    loop {
        let why = match ask_for_all(world, &wanted, &mut made).await? {
            None => return Ok(Made::All(made.into_iter().flatten().collect())),
            Some(Stopped::NotNow(why)) => why,
            Some(Stopped::InDoubt(why)) => return Ok(Made::InDoubt(why)),
            Some(Stopped::Refused(why)) => return Ok(Made::Refused(why, made.into_iter().flatten().collect())),
        };
        let now_taken = made.iter().flatten().count();
        if now_taken > taken {
            (taken, since, pauses) = (now_taken, Instant::now(), Pauses::new(first, longest));
        } else if since.elapsed() >= PATIENCE {
            let why = format!("none was taken within {} s: {why}", PATIENCE.as_secs());
            return Ok(Made::Refused(why, made.into_iter().flatten().collect()));
        }
        let pause = pauses.next_pause();
        if pause > first {
            let why = format!("{taken} of {} requests are made; trying again: {why}", wanted.len());
            tracing::warn!(batch = %key, why, "the API server takes no requests of a batch now");
            if !say(world, key, batch, why).await {
                return Ok(Made::NotWanted);
            }
        }
        sleep(pause).await;
    }
}

/// Why not all were made.
enum Stopped {
    NotNow(String),
    InDoubt(String),
    Refused(String),
}

/// Asks once for each that is not made yet, and for no more after one that is not made. What is on its way is waited for:
/// whoever is asked for again must not be on its way.
async fn ask_for_all<W: World>(
    world: &W,
    wanted: &[ExecRequest],
    made: &mut [Option<ExecRequest>],
) -> Result<Option<Stopped>, BatchError> {
    let open: Vec<usize> = (0..wanted.len()).filter(|index| made[*index].is_none()).collect();
    let ask = |index: usize| async move { (index, make_one(world, &wanted[index]).await) };
    let (mut next, mut asked, mut stopped) = (open.into_iter(), FuturesUnordered::new(), None);
    loop {
        while stopped.is_none() && asked.len() < AT_ONCE {
            let Some(index) = next.next() else { break };
            asked.push(ask(index));
        }
        let Some((index, answer)) = asked.next().await else { return Ok(stopped) };
        let why = match answer? {
            Created::Made(child) => {
                made[index] = Some(*child);
                continue;
            }
            Created::NotNow(why) => Stopped::NotNow(why),
            Created::Refused(why) => Stopped::Refused(why),
            Created::Exists => Stopped::InDoubt("another object has the name of a request".to_owned()),
            Created::Doubt(why) => Stopped::InDoubt(why),
        };
        // What may pass is not what stops it, if anything else does.
        if matches!(stopped, None | Some(Stopped::NotNow(_))) {
            stopped = Some(why);
        }
    }
}

/// `Made` only if this child is there and no creation of it can be on its way: the only one that was ever sent was taken.
async fn make_one<W: World>(world: &W, wanted: &ExecRequest) -> Result<Created, BatchError> {
    let answer = world.create(wanted).await;
    match &answer {
        Created::Made(child) if child::is_exactly(child, wanted) => return Ok(answer),
        Created::Made(child) => {
            discard(world, child).await;
            let why = "a request is not what it was made as: does another admission webhook change ExecRequests?";
            return Ok(Created::Refused(why.to_owned()));
        }
        Created::Refused(_) | Created::NotNow(_) => return Ok(answer),
        Created::Exists => {}
        Created::Doubt(_) => sleep(SETTLE).await,
    }
    let meta = &wanted.metadata;
    let [namespace, name] = [&meta.namespace, &meta.name].map(|field| field.as_deref().unwrap_or_default());
    Ok(match world.child(namespace, name).await? {
        Some(found) if child::is_exactly(&found, wanted) => Created::Made(Box::new(found)),
        Some(_) | None => answer,
    })
}

/// Says why the plan takes its time, if that can be written; gives whether the plan is still wanted, as far as is known.
async fn say<W: World>(world: &W, key: &BatchKey, batch: &mut ExecBatch, why: String) -> bool {
    let from = batch.status.clone().unwrap_or_default();
    let write = Write { status: &from, generation: batch.metadata.generation, at: world.now() };
    let read = match world.write_batch(batch, write.waiting(&Refusal::new(Reason::Planning, why))).await {
        Ok(Swapped::Won(written)) => Ok(Some(*written)),
        Ok(Swapped::Gone) => Ok(None),
        Ok(Swapped::Lost | Swapped::Refused(_)) => world.batch(key).await,
        Err(error) => Err(error),
    };
    match read {
        Ok(Some(read)) if plan_of(&read) == from.plan => *batch = read,
        Ok(_) => return false,
        Err(error) => tracing::warn!(batch = %key, %error, "why a plan takes its time could not be said"),
    }
    given_up(batch).is_none()
}

fn plan_of(batch: &ExecBatch) -> Option<Plan> {
    batch.status.as_ref().and_then(|status| status.plan.clone())
}

/// Deletes what was made for a plan that was refused. What of it is left the sweep removes.
pub(super) async fn remove<W: World>(world: &W, made: &[ExecRequest]) {
    futures::stream::iter(made).for_each_concurrent(AT_ONCE, |child| discard(world, child)).await;
}

async fn discard<W: World>(world: &W, child: &ExecRequest) {
    if let Err(error) = world.delete(child).await {
        tracing::warn!(%error, "a request of a plan that was refused could not be deleted yet");
    }
}
