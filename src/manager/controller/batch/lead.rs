//! Who tends which batch when: one task a batch that is not finished, which passes over it whenever something is heard of
//! it or of its children, or when its last pass has said to.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    Api,
    core::{DeserializeGuard, ObjectMeta},
    runtime::watcher,
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    api_server::ApiServer,
    cache::Cache,
    expiry::delete_expired,
    pass::Pass,
    sweep::{sweep_ended, sweep_unfinished},
    tend::tend,
    world::World,
};
use crate::{
    api::{ExecBatch, ExecRequest},
    core::{batch::pace::Pace, ids::BatchKey},
    infra::{retry, watch::watch},
    manager::controller::write::Leader,
};

/// Unfinished children. One that finishes leaves the selection, so that nothing of what it wrote is held.
const CHILDREN: &str = "spec.batch.uid!=,status.completionTime=";
const BATCHES: &str = "status.completionTime=";
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// In how many of these what has ended is looked at once. Nothing of it can run.
const ENDED_EACH: u64 = 30;
const EXPIRE_EVERY: Duration = Duration::from_secs(15);
/// After a pass that failed.
const RETRY: Duration = Duration::from_secs(2);

/// Tends all batches, for as long as this is awaited.
pub(in crate::manager) async fn lead(leader: Leader) {
    let cache = Cache::default();
    let world = Arc::new(ApiServer::new(leader, cache.clone()));
    let batches = Batches::default();
    tokio::select! {
        () = watch_children(&world, &cache, &batches) => {}
        () = watch_batches(&world, &batches) => {}
        () = sweep_now_and_then(&*world) => {}
        () = delete_expired_now_and_then(&world) => {}
    }
}

/// The batches that are tended, and how each is told that something has happened.
#[derive(Clone, Default)]
struct Batches(Arc<parking_lot::Mutex<HashMap<BatchKey, Arc<Notify>>>>);

impl Batches {
    fn tell(&self, key: &BatchKey) {
        if let Some(news) = self.0.lock().get(key) {
            news.notify_one();
        }
    }
}

async fn watch_children(world: &ApiServer, cache: &Cache, batches: &Batches) {
    let api: Api<DeserializeGuard<ExecRequest>> = Api::all(world.leader().client.clone());
    let mut events = watch(api, retry::watching().fields(CHILDREN)).boxed();
    let mut listed = Cache::default();
    while let Some(event) = events.next().await {
        let told = match event {
            Ok(watcher::Event::Apply(DeserializeGuard(Ok(child)))) => cache.note(&child),
            Ok(watcher::Event::Delete(DeserializeGuard(Ok(child)))) => cache.forget(&child),
            Ok(watcher::Event::Init) => {
                listed = Cache::default();
                None
            }
            Ok(watcher::Event::InitApply(DeserializeGuard(Ok(child)))) => {
                listed.note(&child);
                None
            }
            Ok(watcher::Event::InitDone) => {
                cache.replace(&listed);
                None
            }
            // A look at it says what is wrong with it.
            Ok(_unreadable) => None,
            Err(error) => {
                tracing::warn!(%error, "the watch of the requests of batches ended; reopening it");
                None
            }
        };
        if let Some(key) = told {
            batches.tell(&key);
        }
    }
}

async fn watch_batches(world: &Arc<ApiServer>, batches: &Batches) {
    let api: Api<DeserializeGuard<ExecBatch>> = Api::all(world.leader().client.clone());
    let mut events = watch(api, retry::watching().fields(BATCHES)).boxed();
    let mut tended = JoinSet::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            Some(ended) = tended.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the task of a batch ended early");
                }
                continue;
            }
        };
        match event {
            Some(Ok(watcher::Event::Apply(guard) | watcher::Event::InitApply(guard))) => {
                let batch = match guard.0 {
                    Ok(batch) => batch,
                    Err(invalid) => {
                        world.refuse_unreadable(&invalid).await;
                        continue;
                    }
                };
                let Some(key) = key_of(&batch.metadata) else { continue };
                batches.tell(&key);
                let news = Arc::new(Notify::new());
                let is_new = {
                    let mut all = batches.0.lock();
                    !all.contains_key(&key) && all.insert(key.clone(), Arc::clone(&news)).is_none()
                };
                if is_new {
                    tended.spawn(tend_to_its_end(Arc::clone(world), batches.clone(), key, news));
                }
            }
            // Its task finds out by itself.
            Some(Ok(watcher::Event::Delete(guard))) => {
                if let Some(key) = guard.0.ok().and_then(|batch| key_of(&batch.metadata)) {
                    batches.tell(&key);
                }
            }
            Some(Ok(watcher::Event::Init | watcher::Event::InitDone)) => {}
            Some(Err(error)) => tracing::warn!(%error, "the watch of the batches ended; reopening it"),
            None => return,
        }
    }
}

async fn tend_to_its_end(world: Arc<ApiServer>, batches: Batches, key: BatchKey, news: Arc<Notify>) {
    // Also if a pass panics: another task can take it up then.
    let _registered = Registered { batches, key: key.clone() };
    let mut pace = Pace::default();
    loop {
        let pause = match Box::pin(tend(&*world, &key, &mut pace)).await {
            Ok(Pass::Over) => return,
            Ok(Pass::Again(pause)) => pause,
            Ok(Pass::NotBefore(pause)) => {
                sleep(pause).await;
                continue;
            }
            Err(error) => {
                tracing::warn!(batch = %key, %error, "a batch could not be tended; retrying");
                RETRY
            }
        };
        // Either is a reason to go on.
        drop(timeout(pause, news.notified()).await);
    }
}

struct Registered {
    batches: Batches,
    key: BatchKey,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.batches.0.lock().remove(&self.key);
    }
}

pub(super) fn key_of(meta: &ObjectMeta) -> Option<BatchKey> {
    Some(BatchKey { namespace: meta.namespace.clone()?, name: meta.name.clone()?, uid: meta.uid.as_deref()?.into() })
}

async fn sweep_now_and_then<W: World>(world: &W) {
    let mut clock = interval(SWEEP_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 0_u64.. {
        clock.tick().await;
        let told = |swept| match swept {
            Ok(0) => {}
            Ok(swept) => tracing::info!(swept, "stray requests of batches were removed"),
            Err(error) => tracing::warn!(%error, "stray requests of batches could not be looked for; retrying"),
        };
        told(sweep_unfinished(world).await);
        if round % ENDED_EACH == 0 {
            told(sweep_ended(world).await);
        }
    }
}

async fn delete_expired_now_and_then(world: &ApiServer) {
    let mut clock = interval(EXPIRE_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        match delete_expired(world).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "batches were deleted: their ttlSecondsAfterFinished has passed"),
            Err(error) => tracing::warn!(%error, "batches whose time has passed could not be deleted; retrying"),
        }
    }
}
