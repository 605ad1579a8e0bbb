//! The Docker Engine: what its calls mean.
//!
//! The calls themselves are beside this file: through bollard in `calls`, but for the attached start in `start`. What
//! the engine really does with an exec is in `docs/docker.md`.

mod answer;
pub mod calls;
mod fifos;
pub mod frames;
mod start;
pub mod testimony;

use std::{io, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::jiff::Timestamp;

pub use self::calls::{DockerEngine, Inspected, NAME};
use crate::{
    core::{
        evidence::Patience,
        execution::{Author, Heard},
        ids::{ContainerId, ContainerRef, ExecName, ExecRef},
    },
    engine::{
        Container, ContainerQuery, Engine, EngineError, ExecExit, ExecSpec, ExecState, ExecStream, Habits, Parts,
        Prepared, StartError, Started, Surroundings, Version, runc,
    },
};

/// What versions are worked with.
pub const WANTED: &str = "Docker Engine 20.10 or later";
/// Runtimes that run containers in a kernel of their own, by what their names have in common.
const SANDBOXES: [&str; 4] = ["kata", "runsc", "gvisor", "firecracker"];
/// Characters of the ID of an exec.
const EXEC_ID: usize = 64;

/// Each is measured: `docs/docker.md`.
pub const HABITS: Habits = Habits {
    fences: false,
    keeps_output: false,
    cuts_after: Some(Duration::from_secs(2)),
    // It keeps 1 MB.
    keeps_unread: 512 * 1024,
    // It handles the ends of one container one after another, and spends up to 4 s on each whose output a child holds.
    closes_within: Duration::from_secs(600),
    patience: Patience {
        notices_within: Duration::from_secs(600),
        notices_over_within: Duration::from_secs(60),
        // The event of one exec waits for those of its container's other execs.
        tells_within: Duration::from_secs(60),
        first_word: Duration::from_secs(1),
        recalls_within: Duration::from_secs(2),
    },
};

impl Engine for DockerEngine {
    fn habits(&self) -> &Habits {
        &HABITS
    }

    async fn version(&self) -> Result<Version, EngineError> {
        self.checked_version().await
    }

    /// It gives its execs random numbers.
    fn is_own(&self, exec: &ExecRef) -> bool {
        let id = exec.id.as_str();
        id.len() == EXEC_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    async fn find_containers(&self, query: &ContainerQuery) -> Result<Vec<Container>, EngineError> {
        self.list_containers(query).await
    }

    async fn container(&self, id: &ContainerId) -> Result<Option<Container>, EngineError> {
        self.inspect_container(id.as_str()).await
    }

    /// The engine names its execs itself.
    async fn prepare(&self, container: &ContainerRef, _: &ExecName, exec: &ExecSpec) -> Result<Prepared, EngineError> {
        if let Some(runtime) = self.runtime_of(&container.id).await?.filter(|runtime| is_sandbox(runtime)) {
            return Err(EngineError::Unsupported(format!(
                "container {} has the runtime {runtime}; wanted is runc, or one that calls it: run the command by other \
                 means, such as kubectl exec, or the pod without its RuntimeClass",
                container.id
            )));
        }
        let id = self.create_exec(&container.id, exec).await?;
        Ok(Prepared::Created(ExecRef { id, container: container.clone() }))
    }

    /// An exec starts at most once, ever. A second start runs nothing, but is not refused: its stream has the engine's
    /// complaint in place of output. Why a command cannot be started comes as output, too.
    async fn start(&self, exec: &ExecRef, tty: bool) -> Result<Started, StartError> {
        Ok(Started { pid: None, stream: self.start_exec(&exec.id, tty).await?, unheld: None })
    }

    /// One that was killed goes on with the output of containers alone when it is back, and of a terminal with input it
    /// may stop after a megabyte when its client has gone. Where it does read, it gets a part, and nobody misses the rest.
    async fn drain(&self, exec: &ExecRef) {
        fifos::drain(self.socket(), exec).await;
    }

    fn take_over(&self, parts: Parts) -> io::Result<ExecStream> {
        let framing = frames::framing(parts.tty);
        ExecStream::from_parts(parts, framing)
    }

    async fn resize(&self, exec: &ExecRef, width: u16, height: u16) -> Result<(), EngineError> {
        self.resize_exec(&exec.id, width, height).await
    }

    async fn state(&self, exec: &ExecRef) -> Result<ExecState, EngineError> {
        match self.inspect_exec(&exec.id).await {
            Ok(found) => Ok(testimony::state(found)),
            Err(EngineError::NoSuchExec(_)) => Ok(ExecState::Absent),
            Err(error) => Err(error),
        }
    }

    fn author(&self, program: &str, code: i32, heard: Option<&Heard>) -> Author {
        runc::author(program, code, heard)
    }

    fn surely_failed(&self, words: &str) -> bool {
        runc::surely_failed(words)
    }

    async fn surroundings(&self, container: &ContainerRef) -> Result<Option<Surroundings>, EngineError> {
        self.inspect_surroundings(container).await
    }

    async fn ran_out_of_memory(&self, container: &ContainerId, since: Timestamp) -> Result<bool, EngineError> {
        self.had_oom_event(container, since).await
    }

    fn exits(&self, since: Option<Timestamp>) -> BoxStream<'static, Result<ExecExit, EngineError>> {
        self.exec_deaths(since).map(|died| died.map(testimony::exit)).boxed()
    }
}

/// Whether a runtime is known to keep processes where this node's kernel does not show them. Names are free: one that is not
/// known may well call runc, as those for devices do.
fn is_sandbox(runtime: &str) -> bool {
    let shim = runtime.strip_prefix("io.containerd.");
    let is_runcs = |shim: &str| shim.starts_with("runc.") || shim.starts_with("runtime.v1.linux");
    shim.is_some_and(|shim| !is_runcs(shim)) || SANDBOXES.iter().any(|name| runtime.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_that_its_caller_has_named_is_another_engines() {
        let engine = DockerEngine::new("/s");
        let own = |id: &str| {
            let container = ContainerRef { id: "c".into(), started_at: None };
            engine.is_own(&ExecRef { id: id.into(), container })
        };
        assert!(own(&"0123456789abcdef".repeat(4)));
        assert!(!own("6f9619ff-8b86-d011-b42d-00c04fc964ff.1"));
        assert!(!own("") && !own(&"0".repeat(63)));
    }

    #[test]
    fn runtimes_that_hide_their_processes_are_told_from_those_that_call_runc() {
        for runtime in
            ["kata-runtime", "kata", "runsc", "runsc-kvm", "gvisor", "io.containerd.kata.v2", "io.containerd.runsc.v1"]
        {
            assert!(is_sandbox(runtime), "{runtime}");
        }
        for runtime in
            ["runc", "", "nvidia", "crun", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux", "clamp"]
        {
            assert!(!is_sandbox(runtime), "{runtime}");
        }
    }
}
