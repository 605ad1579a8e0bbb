//! The engine alone, as its plainest client has it: no more calls than a command takes, and none of the agent's care.

use anyhow::{Context as _, bail, ensure};
use execlet::{
    core::ids::ContainerId,
    engine::{
        ExecSpec,
        containerd::{
            connection::{Channel, Connection},
            messages::{Any, Deleted, Exited, NewExec, OneContainer, ProcessId, Started},
            process,
        },
        docker::DockerEngine,
    },
    wire::OutputStream,
};
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::Value;
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe::{OpenOptions, Receiver},
};

use crate::lab::cluster;

/// Bytes that are read from a FIFO at once: all that it holds.
const FIFO_BYTES: usize = 64 << 10;
/// Where a node finds what is there on this machine.
const SHARED_FOLDER: &str = "/tmp";
/// Calls of containerd, and what it is sent.
const GET_CONTAINER: &str = "/containerd.services.containers.v1.Containers/Get";
const EXEC: &str = "/containerd.services.tasks.v1.Tasks/Exec";
const START: &str = "/containerd.services.tasks.v1.Tasks/Start";
const WAIT: &str = "/containerd.services.tasks.v1.Tasks/Wait";
const DELETE: &str = "/containerd.services.tasks.v1.Tasks/DeleteProcess";
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

pub enum Engine {
    Docker(DockerEngine),
    /// One connection, for all calls.
    Containerd(Channel),
}

/// A container that runs.
pub struct Container {
    id: ContainerId,
    /// What a client has to know of it beforehand: of containerd, its OCI runtime spec.
    spec: Value,
}

impl Engine {
    /// That of a node of the test cluster, and its version.
    pub async fn of(node: &str) -> anyhow::Result<(Self, String)> {
        let socket = cluster(&["socket", node])?.trim().to_owned();
        let engine = cluster(&["engine", node])?;
        let (kind, version) = engine.trim().split_once(' ').with_context(|| format!("node {node}: {engine:?}"))?;
        let engine = match kind {
            "docker" => Self::Docker(DockerEngine::new(socket)),
            "containerd" => Self::Containerd(Connection::new(socket.into()).open().await?),
            _ => bail!("node {node} has another engine: {kind}"),
        };
        Ok((engine, version.to_owned()))
    }

    /// By the ID that a pod's status has, with the engine's name in front.
    pub async fn container(&self, id: &str) -> anyhow::Result<Container> {
        let id = id.split_once("://").map_or(id, |(_, id)| id);
        let spec = match self {
            Self::Docker(_) => Value::Null,
            Self::Containerd(channel) => {
                let question = execlet::engine::containerd::messages::ContainerId { id: id.to_owned() };
                let OneContainer { container } = channel.call(GET_CONTAINER, question).await?;
                let spec = container.and_then(|container| container.spec).context("a container without a spec")?;
                serde_json::from_slice(&spec.value)?
            }
        };
        Ok(Container { id: id.into(), spec })
    }

    /// Runs a command to its end and tells each piece of its standard output: how many bytes. It must succeed.
    pub async fn run(
        &self,
        container: &Container,
        command: &[&str],
        on_stdout: impl FnMut(usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let spec = ExecSpec { command: command.iter().map(ToString::to_string).collect(), ..ExecSpec::default() };
        let code = match self {
            Self::Docker(engine) => by_docker(engine, container, &spec, on_stdout).await?,
            Self::Containerd(channel) => by_containerd(channel, container, &spec, on_stdout).await?,
        };
        ensure!(code == 0, "{command:?} in container {}: exit code {code}", container.id);
        Ok(())
    }
}

/// Create, start, read, inspect.
async fn by_docker(
    engine: &DockerEngine,
    container: &Container,
    spec: &ExecSpec,
    mut on_stdout: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<i32> {
    let exec = engine.create_exec(&container.id, spec).await?;
    let mut output = engine.start_exec(&exec, false).await?;
    while let Some(chunk) = output.next().await? {
        if chunk.stream == OutputStream::Stdout {
            on_stdout(chunk.bytes.len())?;
        }
    }
    engine.inspect_exec(&exec).await?.code.context("no exit code at the end of the output")
}

/// Create, start, read, wait, delete.
async fn by_containerd(
    channel: &Channel,
    container: &Container,
    spec: &ExecSpec,
    on_stdout: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<i32> {
    let folder = tempfile::Builder::new().prefix("execlet-bench-").tempdir_in(SHARED_FOLDER)?;
    let fifo = |name: &str| -> anyhow::Result<(String, Receiver)> {
        let path = folder.path().join(name);
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)?;
        Ok((path.to_string_lossy().into_owned(), OpenOptions::new().open_receiver(&path)?))
    };
    let (stdout_path, stdout) = fifo("stdout")?;
    let (stderr_path, stderr) = fifo("stderr")?;
    let process = process::of(&container.spec, spec, None).context("a container without a process")?;
    let name = folder.path().file_name().unwrap_or_default().to_string_lossy();
    let exec = ProcessId { container_id: container.id.to_string(), exec_id: name.into_owned() };
    let new = NewExec {
        container_id: exec.container_id.clone(),
        exec_id: exec.exec_id.clone(),
        stdin: String::new(),
        stdout: stdout_path,
        stderr: stderr_path,
        terminal: false,
        spec: Some(Any { type_url: PROCESS_TYPE.to_owned(), value: process.to_string().into_bytes() }),
    };
    channel.call::<_, ()>(EXEC, new).await?;
    channel.call::<_, Started>(START, exec.clone()).await?;
    tokio::try_join!(read(stdout, on_stdout), read(stderr, |_| Ok(())))?;
    let Exited { exit_status, .. } = channel.call(WAIT, exec.clone()).await?;
    channel.call::<_, Deleted>(DELETE, exec).await?;
    Ok(i32::try_from(exit_status)?)
}

/// To its end, which comes once the engine has it open no more.
async fn read(mut fifo: Receiver, mut on_bytes: impl FnMut(usize) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut buffer = vec![0; FIFO_BYTES];
    loop {
        match fifo.read(&mut buffer).await? {
            0 => return Ok(()),
            length => on_bytes(length)?,
        }
    }
}
