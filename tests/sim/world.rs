//! The edges of the agent in the simulated world.

use std::{io, marker::PhantomData, time::Duration};

use execlet::{
    agent::{
        memory::disk::{Disk, SLOT},
        node::World,
    },
    api::{ExecRequest, ExecRequestStatus},
    core::{
        audit::{
            event::{Event, Verb},
            key,
        },
        execution::{Obstacle, Sighting},
        family::{Facts, Family, Member},
        ids::{ContainerId, ProcessRef, RequestKey, RequestUid},
        kill::Signal,
    },
    engine::Engine,
    infra::{
        audit::{Otherwise, Trail, Unavailable},
        clock::Clock,
        kernel::Kernel,
        program::Program,
        requests::{ApiError, Requests, Written},
    },
};
use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;
use tokio::time::Instant;

use crate::{
    model::{Model, Planted, Process, reason, stage_of},
    targets::{SimBatches, without_targets},
};

/// A simulated world with this engine.
pub struct Simulated<E>(PhantomData<E>);

impl<E: Engine> World for Simulated<E> {
    type Engine = E;
    type Requests = SimRequests;
    type Batches = SimBatches;
    type Kernel = SimKernel;
    type Disk = SimDisk;
    type Trail = SimTrail;
}

pub struct SimClock(pub Model);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

// ---- the API server

pub struct SimRequests(pub Model);

pub fn timeout(call: String) -> ApiError {
    ApiError::Timeout { call, after: Duration::from_secs(15) }
}

impl SimRequests {
    /// Whether the API server takes part in this call.
    async fn call(&self, request: &str, call: &'static str) -> Result<(), ApiError> {
        self.0.point().await;
        let fails = { self.0.chance(10) } || !self.0.lock().api_up;
        if fails { Err(timeout(format!("{call} ExecRequest {request}"))) } else { Ok(()) }
    }
}

impl Requests for SimRequests {
    async fn get(&self, key: &RequestKey) -> Result<Option<ExecRequest>, ApiError> {
        self.call(&key.name, "get").await?;
        let state = self.0.lock();
        let found = state.objects.get(&key.name).map(|object| object.request.clone());
        let hides = state.planted == Some(Planted::HiddenUnbound);
        let is_bound = |request: &ExecRequest| request.status.as_ref().is_some_and(|status| status.node_name.is_some());
        let found = found.filter(|request| !hides || is_bound(request));
        Ok(found.filter(|request| request.metadata.uid.as_deref() == Some(key.uid.as_str())))
    }

    async fn write_status(&self, read: &ExecRequest, mut status: ExecRequestStatus) -> Result<Written, ApiError> {
        let name = read.metadata.name.clone().expect("a name");
        self.call(&name, "update the status of").await?;
        let written = {
            let mut state = self.0.lock();
            let planted = state.planted;
            let now = state.objects.get(&name).map(|object| object.request.clone());
            match now {
                None => Written::Gone,
                Some(now) if now.metadata.uid != read.metadata.uid => Written::Lost,
                Some(_) if planted == Some(Planted::LostReports) && status.completion_time.is_some() => {
                    Written::Won(Box::new(read.clone()))
                }
                Some(now) => {
                    if status.completion_time.is_some() {
                        let (uid, reason) = (now.metadata.uid.clone().unwrap_or_default(), reason(&status).to_owned());
                        state.must_be_recorded(&uid, "the end", |event| {
                            event.verb.is_end() && event.note(key::REASON) == Some(&reason)
                        });
                    }
                    let blind = planted == Some(Planted::BlindWrites);
                    let finished = now.status.as_ref().is_some_and(|status| status.completion_time.is_some());
                    if !blind && now.metadata.resource_version != read.metadata.resource_version {
                        Written::Lost
                    } else if !blind && finished {
                        Written::Refused("its status is final".to_owned())
                    } else {
                        let mut next = now;
                        if planted == Some(Planted::GarbledCodes) && status.exit_code.is_some() {
                            status.exit_code = i32::try_from(state.version % 256).ok();
                        }
                        state.note(|| format!("{name} becomes {} {:?}", status.phase, status.exec_id));
                        next.status = Some(status);
                        Written::Won(Box::new(state.store(next)))
                    }
                }
            }
        };
        // The answer gets lost on its way.
        if self.0.chance(10) {
            self.0.note(|| format!("the answer about {name} is lost"));
            return Err(timeout(format!("update the status of ExecRequest {name}")));
        }
        self.0.point().await;
        Ok(written)
    }

    async fn write_status_of_unreadable(&self, _: &ObjectMeta, _: &ExecRequestStatus) -> Result<(), ApiError> {
        Ok(())
    }
}

// ---- the disk

pub struct SimDisk(pub Model);

impl Disk for SimDisk {
    fn replace(&self, name: &str, mut text: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send {
        let model = self.0.clone();
        let name = name.to_owned();
        async move {
            model.point().await;
            text.resize(text.len().max(SLOT), b'\n');
            {
                let mut state = model.lock();
                text = without_targets(state.planted, text);
                let tells_of_start = matches!(stage_of(&text).as_deref(), Some("starting" | "running"));
                match state.planted {
                    Some(Planted::ForgetfulDisk) => return Ok(()),
                    Some(Planted::StuckDisk) if tells_of_start => return Ok(()),
                    Some(_) | None => {}
                }
                let has_room = state.files.contains_key(&name) && text.len() <= SLOT;
                if state.disk_full && !has_room {
                    return Err(io::Error::from(io::ErrorKind::StorageFull));
                }
                state.files.insert(name, text);
            }
            model.point().await;
            Ok(())
        }
    }

    async fn note(&self, name: &str, text: Vec<u8>) -> io::Result<()> {
        self.0.point().await;
        {
            let mut state = self.0.lock();
            if state.disk_full {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            state.files.insert(name.to_owned(), text);
        }
        self.0.point().await;
        Ok(())
    }

    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>> + Send {
        let model = self.0.clone();
        let name = name.to_owned();
        async move {
            model.point().await;
            model.lock().files.remove(&name);
            Ok(())
        }
    }

    fn append(&self, name: &str, line: Vec<u8>) -> impl Future<Output = io::Result<u64>> + Send {
        let model = self.0.clone();
        let name = name.to_owned();
        async move {
            model.point().await;
            let torn = model.chance(20);
            let (offset, full) = {
                let mut state = model.lock();
                if state.planted == Some(Planted::ForgetfulDisk) {
                    return Ok(state.files.get(&name).map_or(0, |file| file.len() as u64));
                }
                let line = without_targets(state.planted, line);
                let full = state.disk_full || torn;
                let keep = if full { line.len() / 3 } else { line.len() };
                let file = state.files.entry(name).or_default();
                let offset = file.len() as u64;
                file.extend_from_slice(&line[..keep]);
                (offset, full)
            };
            model.point().await;
            if full { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(offset) }
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = state.files.remove(from).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().files.get(name).cloned())
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let state = self.0.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = state.files.get(name).and_then(|file| file.get(start..start + length));
        part.map(<[u8]>::to_vec).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().files.keys().cloned().collect())
    }
}

// ---- the audit log

/// Takes what happens in any case, and what may be left undone only while the disk has room.
#[derive(Clone)]
pub struct SimTrail(pub Model);

impl Trail for SimTrail {
    async fn add(&self, event: Event, otherwise: Otherwise) -> Result<(), Unavailable> {
        self.0.point().await;
        {
            let mut state = self.0.lock();
            if state.disk_full && otherwise == Otherwise::Drop {
                return Err(Unavailable("the disk is full".to_owned()));
            }
            state.note(|| format!("recorded: {} {:?}", event.verb, event.uid()));
            if let (Verb::Started, Some(uid)) = (event.verb, event.uid()) {
                state.truth(uid.as_str()).announced = Some(Instant::now());
            }
            if state.planted != Some(Planted::ForgetfulTrail) {
                state.records.push(event);
            }
        }
        self.0.point().await;
        Ok(())
    }

    async fn available(&self) -> Result<(), Unavailable> {
        if self.0.lock().disk_full { Err(Unavailable("the disk is full".to_owned())) } else { Ok(()) }
    }
}

// ---- the kernel

pub struct SimKernel(pub Model);

impl Kernel for SimKernel {
    fn uptime(&self) -> Duration {
        self.0.lock().begun.elapsed()
    }

    fn find(&self, pid: u32) -> Option<ProcessRef> {
        let state = self.0.lock();
        state.processes.get(&pid).filter(|process| process.alive).map(|process| process.this)
    }

    fn own_container_is_hidden(&self) -> bool {
        false
    }

    fn recognises(&self, _main: u32, _container: &ContainerId) -> bool {
        true
    }

    fn leader(&self, pid: u32, container: &ContainerId, uid: &RequestUid) -> Option<ProcessRef> {
        let state = self.0.lock();
        let found = state.processes.get(&pid).filter(|found| found.alive && found.run.id == *container)?;
        let leads = found.session == pid && (found.nameless || found.uid == uid.as_str());
        leads.then_some(found.this)
    }

    async fn began(&self, container: ContainerId, uid: RequestUid) -> io::Result<Option<ProcessRef>> {
        self.0.point().await;
        let state = self.0.lock();
        let shows_tags = state.planted != Some(Planted::LostTags);
        let mut all = state.processes.values().filter(|found| found.alive && found.run.id == container);
        let began = |found: &&Process| found.session == found.this.pid && !found.nameless && found.uid == uid.as_str();
        Ok(all.find(began).filter(|_| shows_tags).map(|found| found.this))
    }

    async fn ended(&self, process: ProcessRef) -> Option<i32> {
        let (mut ended, tells) = {
            let state = self.0.lock();
            let found = state.processes.get(&process.pid).filter(|p| p.this == process && p.alive)?;
            (found.ended.subscribe(), state.kernel_tells)
        };
        let code = ended.wait_for(Option::is_some).await.ok().and_then(|code| *code);
        code.filter(|_| tells)
    }

    fn sighting(&self, process: ProcessRef) -> Sighting {
        let mut state = self.0.lock();
        let hasty = state.planted == Some(Planted::HastyKernel);
        // Its parent takes note soon.
        let lingers = state.random.chance(500);
        let found = state.processes.get(&process.pid).filter(|found| found.this == process);
        let is_there = |found: &&Process| {
            found.alive || lingers && found.ended_at.is_some_and(|at| at.elapsed() < Duration::from_millis(1))
        };
        match found.filter(is_there) {
            Some(found) if hasty || found.executes.is_some_and(|at| at <= Instant::now()) => Sighting::Executed,
            Some(found) if !found.alive && found.executes.is_none() => Sighting::Never,
            Some(_) | None => Sighting::Unseen,
        }
    }

    async fn obstacle(&self, program: Program) -> Option<(Obstacle, String)> {
        self.0.point().await;
        let credulous = self.0.lock().planted == Some(Planted::CredulousKernel);
        let broken = program.places == ["/bin/broken"];
        (broken || credulous).then(|| (Obstacle::Missing, "its interpreter is missing".to_owned()))
    }

    fn output_pipes(&self, process: ProcessRef) -> Vec<u64> {
        let state = self.0.lock();
        let found = state.processes.get(&process.pid).filter(|found| found.this == process);
        found.map(|found| found.pipe).into_iter().collect()
    }

    async fn family(&self, of: Family, container: ContainerId) -> io::Result<Vec<Member>> {
        self.0.point().await;
        let state = self.0.lock();
        let shows_tags = state.planted != Some(Planted::LostTags);
        let broad = state.planted == Some(Planted::BroadKernel);
        let living = state.processes.values().filter(|process| process.alive && process.run.id == container);
        let claims = |process: &Process| {
            of.claims(&Facts {
                process: process.this,
                session: if process.nameless { process.this.pid } else { process.session },
                tag: (shows_tags && !process.nameless).then(|| process.uid.as_str().into()),
                pipes: process.holds_output.then_some(process.pipe).into_iter().collect(),
            })
        };
        let blind = state.planted == Some(Planted::BlindKernel);
        let sees = |process: &Process| !blind || process.session == process.this.pid;
        let members = living.filter(|process| sees(process) && (broad || claims(process)));
        Ok(members.map(|p| Member { process: p.this, command: "plan".to_owned(), state: 'S' }).collect())
    }

    fn signal(&self, process: ProcessRef, container: &ContainerId, signal: Signal) -> io::Result<bool> {
        let mut state = self.0.lock();
        let deaf = state.planted == Some(Planted::DeafProcesses) && !state.api_up;
        let frozen = state.container_paused || deaf;
        let Some(found) = state.processes.get(&process.pid) else { return Ok(false) };
        if found.this != process || !found.alive || found.run.id != *container {
            return Ok(false);
        }
        let (uid, ignores) = (found.uid.clone(), found.ignores_term);
        state.note(|| format!("{signal:?} to {}", process.pid));
        state.must_be_to_end(&uid);
        state.must_be_recorded(&uid, "a signal to a process", |event| event.verb == Verb::Cancelled);
        match signal {
            // A frozen process takes none until it is thawed; the next look finds it again.
            _ if frozen => {}
            Signal::Term if ignores => {}
            Signal::Term => state.kill(process.pid, 143),
            Signal::Kill => state.kill(process.pid, 137),
        }
        Ok(true)
    }
}
