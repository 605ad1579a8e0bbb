//! The node's kernel, as far as the agent needs it, so that a test can be another one.

use std::{future::Future, io, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{
    process,
    program::{self, Program},
};
use crate::core::{
    execution::{Obstacle, Sighting},
    family::{Family, Member},
    ids::{ContainerId, ProcessRef, RequestUid},
    kill::Signal,
};

/// Pause between two looks at a process of which the kernel gives no handle.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A look at a program's file takes so long at most.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

pub trait Kernel: Send + Sync + 'static {
    /// Time since boot, suspend included.
    fn uptime(&self) -> Duration;

    /// The process that has this PID now, unless it has ended.
    fn find(&self, pid: u32) -> Option<ProcessRef>;

    fn alive(&self, process: ProcessRef) -> bool {
        self.find(process.pid) == Some(process)
    }

    /// Whether the agent may fail to recognise a container's processes, above all those of its own.
    fn own_container_is_hidden(&self) -> bool;

    /// Whether the processes of a container can be told from others, as its main process shows. Of one that has ended nothing
    /// is said.
    fn recognises(&self, main: u32, container: &ContainerId) -> bool;

    /// The process that has this PID now, if an exec of this request may have begun with it: that one is in its container,
    /// leads a session, and is tagged as the request's unless it has overwritten its environment.
    fn leader(&self, pid: u32, container: &ContainerId, uid: &RequestUid) -> Option<ProcessRef>;

    /// The living process that an exec of this request began with, by its tag alone: for when nobody tells its PID.
    fn began(
        &self,
        container: ContainerId,
        uid: RequestUid,
    ) -> impl Future<Output = io::Result<Option<ProcessRef>>> + Send;

    /// Waits until the process has ended. Gives its exit code, 128 + N for signal N, if the kernel tells.
    fn ended(&self, process: ProcessRef) -> impl Future<Output = Option<i32>> + Send;

    /// Whether it has executed anything since it was made as a copy of another process. Also of one that has ended, until its
    /// parent takes note of that.
    fn sighting(&self, process: ProcessRef) -> Sighting;

    /// Why a program in a container is executed for nobody, in words too, if that is certain and was so since.
    fn obstacle(&self, program: Program) -> impl Future<Output = Option<(Obstacle, String)>> + Send;

    /// Inodes of the pipes that it writes its output to.
    fn output_pipes(&self, process: ProcessRef) -> Vec<u64>;

    fn family(&self, of: Family, container: ContainerId) -> impl Future<Output = io::Result<Vec<Member>>> + Send;

    /// Signals that very process. `false`: it is gone, or another one has its PID, and nothing was signalled.
    fn signal(&self, process: ProcessRef, container: &ContainerId, signal: Signal) -> io::Result<bool>;
}

/// The kernel that this program runs on, in whose first PID namespace it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linux;

impl Kernel for Linux {
    fn uptime(&self) -> Duration {
        process::uptime()
    }

    fn find(&self, pid: u32) -> Option<ProcessRef> {
        process::find(pid)
    }

    fn own_container_is_hidden(&self) -> bool {
        process::own_is_hidden()
    }

    fn recognises(&self, main: u32, container: &ContainerId) -> bool {
        process::is_recognised(main, container)
    }

    fn leader(&self, pid: u32, container: &ContainerId, uid: &RequestUid) -> Option<ProcessRef> {
        process::leader(pid, container, uid)
    }

    async fn began(&self, container: ContainerId, uid: RequestUid) -> io::Result<Option<ProcessRef>> {
        aside(move || process::began(&container, &uid)).await
    }

    async fn ended(&self, process: ProcessRef) -> Option<i32> {
        match process::ended(process).await {
            Ok(code) => code,
            Err(error) => {
                tracing::debug!(pid = process.pid, %error, "no pidfd, the process is looked at instead");
                while process::alive(process) {
                    sleep(LOOK_EVERY).await;
                }
                None
            }
        }
    }

    fn sighting(&self, process: ProcessRef) -> Sighting {
        process::sighting(process)
    }

    async fn obstacle(&self, program: Program) -> Option<(Obstacle, String)> {
        let look = spawn_blocking(move || program::obstacle(&program));
        timeout(LOOK_WITHIN, look).await.ok()?.unwrap_or_default()
    }

    fn output_pipes(&self, process: ProcessRef) -> Vec<u64> {
        process::output_pipes(process)
    }

    async fn family(&self, of: Family, container: ContainerId) -> io::Result<Vec<Member>> {
        aside(move || process::family(&of, &container)).await
    }

    fn signal(&self, process: ProcessRef, container: &ContainerId, signal: Signal) -> io::Result<bool> {
        process::signal(process, container, signal)
    }
}

/// Reads all of the node's processes where nothing waits for it.
async fn aside<T: Send + 'static>(look: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(look).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
