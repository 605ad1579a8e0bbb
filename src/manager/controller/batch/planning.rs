//! The pass that plans.
//!
//! 1. fence: raise the number of the plan. Whoever plans under an earlier number cannot freeze it any more;
//! 2. targets: list the pods once, and ask what the requester may;
//! 3. children: create one for each. With the slightest doubt about one of them the plan is given up, and the next pass
//!    begins another: a creation that comes late belongs to a plan that never counts;
//! 4. freeze: write total and digest. From then on nobody creates a child of this batch.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::StreamExt;
use tokio::time::sleep;

use super::{
    pass::{AGAIN, Pass, record, refuse, swap},
    world::{BatchError, Change, Created, Swapped, World},
};
use crate::{
    api::{ExecBatch, ExecRequest, Reason, Requester, batch::OnForbidden},
    core::{
        access::Right,
        admission::Admission,
        batch::{
            child,
            end::End,
            ledger::Ledger,
            plan::{self, Refusal},
            rights::{self, NotVouched},
            status::Write,
            targets::{Fate, Target, select},
        },
        ids::BatchKey,
        outcome::Outcome,
        transition,
    },
    infra::requests::Written,
};

/// How many children are created beside each other.
const AT_ONCE: usize = 16;
/// How many targets the requester's rights are asked for beside each other.
const ASKED_AT_ONCE: usize = 16;
/// After a creation without an answer, until it is looked for.
const SETTLE: Duration = Duration::from_millis(200);
/// While the policies are not in place.
const WAIT: Duration = Duration::from_secs(2);
/// Of the pause after a plan that was given up: up to 32 s.
const MOST_DOUBLINGS: i64 = 7;
/// How often the freeze is tried: others write to a batch as well, who suspend or label it.
const FREEZES: u32 = 5;

pub(super) async fn plan<W: World>(
    world: &W,
    key: &BatchKey,
    read: ExecBatch,
    number: i64,
) -> Result<Pass, BatchError> {
    let admission = world.admission().await;
    let by = match rights::vouch(&read, &admission) {
        Ok(by) => by.cloned(),
        Err(NotVouched::Wait(why)) => return wait(world, &read, &why).await,
        Err(NotVouched::Refuse(why)) => return refuse(world, &read, &why).await,
    };
    let vouched_for = matches!(admission, Admission::Since(_));
    // A plan that could not be recorded could not be frozen, and its requests would be made for nothing.
    if let Err(why) = world.available().await {
        return wait(world, &read, &Refusal::new(Reason::AuditUnavailable, why.to_string())).await;
    }
    let from = read.status.clone().unwrap_or_default();
    let write = Write { status: &from, generation: read.metadata.generation, at: world.now() };
    // Without a clear answer the number may be somebody else's.
    let batch = match world.write_batch(&read, write.planning(number)).await? {
        Swapped::Won(batch) => *batch,
        Swapped::Lost => return Ok(Pass::Again(AGAIN)),
        Swapped::Gone => return Ok(Pass::Over),
        Swapped::Refused(why) => return Err(BatchError::Refused(why)),
    };
    let targets = match targets(world, &batch, by.as_ref()).await? {
        Ok(targets) => targets,
        Err(why) => return refuse(world, &batch, &why).await,
    };
    let children = match make(world, &batch, number, &targets).await? {
        Made::All(children) => children,
        Made::InDoubt(why) => {
            tracing::warn!(batch = %key, number, why, "a plan is in doubt and is given up for another");
            let message = format!("plan {number} was given up, and another is made: {why}");
            wait(world, &batch, &Refusal::new(Reason::Planning, message)).await?;
            return Ok(Pass::NotBefore(after_plan(number)));
        }
        Made::Refused(why, made) => {
            for child in &made {
                world.delete(child).await?;
            }
            return refuse(world, &batch, &Refusal::new(Reason::PlanRefused, why)).await;
        }
    };
    let Some(ledger) = end_what_cannot_run(world, &targets, &children, vouched_for).await? else {
        return Ok(Pass::Again(AGAIN));
    };
    freeze(world, key, batch, &targets, &ledger).await
}

/// Longer with each plan that was given up: what stands in the way may do so for long, and each leaves its requests to the
/// sweep.
fn after_plan(number: i64) -> Duration {
    let doublings = u32::try_from(number.clamp(1, MOST_DOUBLINGS) - 1).unwrap_or(0);
    AGAIN * 2_u32.pow(doublings)
}

async fn wait<W: World>(world: &W, read: &ExecBatch, why: &Refusal) -> Result<Pass, BatchError> {
    let from = read.status.clone().unwrap_or_default();
    let status = Write { status: &from, generation: read.metadata.generation, at: world.now() }.waiting(why);
    if status == from {
        return Ok(Pass::Again(WAIT));
    }
    swap(world, read, status, WAIT).await
}

/// The targets in their order, each with what is known of it; or why there is no plan.
async fn targets<W: World>(
    world: &W,
    batch: &ExecBatch,
    by: Option<&Requester>,
) -> Result<Result<Vec<Target>, Refusal>, BatchError> {
    if let Some(by) = by
        && let Some(right) = world.lacks(by, &rights::to_plan(batch)).await?
    {
        return Ok(Err(forbidden(by, &right)));
    }
    let candidates = world.candidates(batch).await?;
    if candidates.no_workload && !batch.spec.targets.allow_empty {
        return Ok(Err(Refusal::new(Reason::NoTargets, "there is no such workload: look at targets.workload")));
    }
    let targets = select(&batch.spec.targets, &candidates.pods);
    if let Err(why) = plan::check(batch, &targets) {
        return Ok(Err(why));
    }
    let Some(by) = by else { return Ok(Ok(targets)) };
    let lacking = lacking(world, batch, by, &targets).await?;
    let refusal = lacking.first().filter(|_| batch.spec.targets.on_forbidden == OnForbidden::Refuse);
    let refusal = refusal.map(|(_, right)| {
        let Refusal { reason, message } = forbidden(by, right);
        Refusal::new(reason, format!("{message} ({} of {} targets)", lacking.len(), targets.len()))
    });
    let indexes: Vec<usize> = lacking.iter().map(|(index, _)| *index).collect();
    Ok(plan::without_forbidden(targets, &indexes, refusal))
}

fn forbidden(by: &Requester, right: &Right) -> Refusal {
    Refusal::new(Reason::Forbidden, format!(r#"User "{}" cannot {right}"#, by.username))
}

/// The targets that the requester may not exec into, in order. Whoever may exec into any pod is asked about once.
async fn lacking<W: World>(
    world: &W,
    batch: &ExecBatch,
    by: &Requester,
    targets: &[Target],
) -> Result<Vec<(usize, Right)>, BatchError> {
    if world.lacks(by, &[rights::exec_anywhere(batch)]).await?.is_none() {
        return Ok(Vec::new());
    }
    let ask = |(index, target)| async move {
        let right = rights::exec_into(batch, target);
        world.lacks(by, &[right]).await.map(|lacks| lacks.map(|right| (index, right)))
    };
    let asked: Vec<_> = targets.iter().enumerate().map(ask).collect();
    let mut asked = futures::stream::iter(asked).buffered(ASKED_AT_ONCE);
    let mut lacking = Vec::new();
    while let Some(answer) = asked.next().await {
        lacking.extend(answer?);
    }
    Ok(lacking)
}

enum Made {
    /// One for each target, in their order.
    All(Vec<ExecRequest>),
    InDoubt(String),
    /// Why, and those that were made.
    Refused(String, Vec<ExecRequest>),
}

/// Once one is refused none is begun any more; those that are under way are waited for, because what is made is to go.
async fn make<W: World>(world: &W, batch: &ExecBatch, number: i64, targets: &[Target]) -> Result<Made, BatchError> {
    let wanted = (0..).zip(targets).map(|(index, target)| child::child(batch, number, index, target));
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    let is_refused = AtomicBool::new(false);
    let asked: Vec<_> = wanted.iter().map(|wanted| make_unless(&is_refused, world, wanted)).collect();
    let mut answers = futures::stream::iter(asked).buffered(AT_ONCE);
    let (mut made, mut refusal) = (Vec::with_capacity(targets.len()), None);
    while let Some(answer) = answers.next().await {
        match (answer?, &refusal) {
            (Some(Created::Made(child)), _) => made.push(*child),
            (Some(Created::Refused(why)), None) => {
                is_refused.store(true, Ordering::Relaxed);
                refusal = Some(why);
            }
            (Some(Created::Exists), None) => {
                return Ok(Made::InDoubt("another object has the name of a request".to_owned()));
            }
            (Some(Created::Doubt(why)), None) => return Ok(Made::InDoubt(why)),
            // What may be there all the same is swept.
            (None, _) | (Some(Created::Refused(_) | Created::Exists | Created::Doubt(_)), Some(_)) => {}
        }
    }
    Ok(match refusal {
        Some(why) => Made::Refused(why, made),
        None => Made::All(made),
    })
}

async fn make_unless<W: World>(
    is_refused: &AtomicBool,
    world: &W,
    wanted: &ExecRequest,
) -> Result<Option<Created>, BatchError> {
    if is_refused.load(Ordering::Relaxed) {
        return Ok(None);
    }
    make_one(world, wanted).await.map(Some)
}

/// `Made` only if this child is there and no creation of it can be on its way: the only one that was ever sent was taken.
async fn make_one<W: World>(world: &W, wanted: &ExecRequest) -> Result<Created, BatchError> {
    let answer = world.create(wanted).await;
    match &answer {
        Created::Made(child) if child::is_exactly(child, wanted) => return Ok(answer),
        Created::Made(child) => {
            world.delete(child).await?;
            let why = "a request is not what it was made as: does another admission webhook change ExecRequests?";
            return Ok(Created::Refused(why.to_owned()));
        }
        Created::Refused(_) => return Ok(answer),
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

/// What is known not to run says so in its own status, before the batch counts it. `None`: somebody else wrote to one.
async fn end_what_cannot_run<W: World>(
    world: &W,
    targets: &[Target],
    children: &[ExecRequest],
    vouched_for: bool,
) -> Result<Option<Ledger>, BatchError> {
    let mut ledger = Ledger::default();
    for ((index, target), child) in (0..).zip(targets).zip(children) {
        let pod = &target.pod;
        let (reason, message, end) = match target.fate {
            Fate::Run => continue,
            Fate::Missing => {
                (Reason::PodNotFound, format!("there was no pod {pod} when the batch was planned"), End::NotRun)
            }
            Fate::Replaced => {
                (Reason::PodReplaced, format!("pod {pod} had another UID when the batch was planned"), End::NotRun)
            }
            Fate::Forbidden => {
                (Reason::Forbidden, format!("the requester may not exec into pod {pod}: skipped"), End::Skipped)
            }
        };
        let (now, from) = (world.now(), child.status.clone().unwrap_or_default());
        let outcome = Outcome::refused(reason, format!("{message}: nothing ran"), now);
        let next = transition::Write { from: &from, generation: child.metadata.generation, at: now }.finished(&outcome);
        match world.write_child(child, next, Change::Finished(outcome), vouched_for).await? {
            Written::Won(_) => ledger.put(index, end),
            Written::Lost | Written::Gone | Written::Refused(_) => return Ok(None),
        }
    }
    Ok(Some(ledger))
}

async fn freeze<W: World>(
    world: &W,
    key: &BatchKey,
    mut batch: ExecBatch,
    targets: &[Target],
    ledger: &Ledger,
) -> Result<Pass, BatchError> {
    let digest = plan::digest(&batch, targets)?;
    let total = u16::try_from(targets.len()).unwrap_or(u16::MAX);
    let ours = batch.status.as_ref().and_then(|status| status.plan.clone());
    for _ in 0..FREEZES {
        let from = batch.status.clone().unwrap_or_default();
        let write = Write { status: &from, generation: batch.metadata.generation, at: world.now() };
        let frozen = write.frozen(total, &digest, ledger);
        record(world, &batch, &frozen).await?;
        match world.write_batch(&batch, frozen).await {
            Ok(Swapped::Won(_)) => return Ok(Pass::Again(Duration::ZERO)),
            Ok(Swapped::Gone) => return Ok(Pass::Over),
            Ok(Swapped::Refused(why)) => return Err(BatchError::Refused(why)),
            Ok(Swapped::Lost) => {}
            Err(error) => tracing::warn!(batch = %key, %error, "whether the plan was frozen is not known"),
        }
        match world.batch(key).await? {
            // Only ours can be frozen with this number and this time.
            Some(read) if read.status.as_ref().and_then(|status| status.plan.clone()) == ours => batch = read,
            Some(_) => return Ok(Pass::Again(AGAIN)),
            None => return Ok(Pass::Over),
        }
    }
    Ok(Pass::Again(AGAIN))
}
