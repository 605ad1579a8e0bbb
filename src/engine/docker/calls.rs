//! The calls of the Docker Engine's API that are needed, as they are. The only file that names bollard.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error as BollardError,
    models::{ContainerInspectResponse, EventMessage},
    query_parameters::{
        EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, ResizeExecOptionsBuilder,
    },
};
use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use super::{
    answer::{refused, unreachable},
    start::start,
};
use crate::{
    core::ids::{ContainerId, ContainerRef, ExecId},
    engine::{
        Container, ContainerQuery, ContainerState, EngineError, ExecSpec, ExecStream, StartError, Surroundings,
        Version, labels,
    },
};

/// As the kubelet calls this engine in the Node, with its shim in between.
pub const NAME: &str = "docker";
/// Label that tells the containers of a pod from its sandbox, of the kubelet's shim for this engine.
pub const TYPE_LABEL: &str = "io.kubernetes.docker.type";
pub const TYPE_CONTAINER: &str = "container";
/// Least API version: Docker Engine 20.10.
const MIN_API: (u32, u32) = (1, 41);
/// How long the engine may take for one call. The start itself is not in it: it answers before.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// So long after the end of an exec its container's `oom` event may come.
const OOM_TELLS_WITHIN: SignedDuration = SignedDuration::from_millis(200);

/// What `inspect` says of an exec. Not to be believed in everything: see `testimony`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspected {
    pub running: bool,
    /// Exit code. `None` is not 0: the engine has none yet.
    pub code: Option<i32>,
    /// PID on the node; `None` before the start, and for ever if the start failed.
    pub pid: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Died {
    pub exec: ExecId,
    /// Exit code; 127 may stand for anything.
    pub code: i32,
    pub at: Timestamp,
}

pub struct DockerEngine {
    socket: PathBuf,
    client: OnceLock<Docker>,
}

impl DockerEngine {
    /// The engine behind a Unix socket. It need not be there yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), client: OnceLock::new() }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    fn client(&self) -> Result<&Docker, EngineError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let path = self.socket.to_string_lossy();
        let docker = Docker::connect_with_unix(&path, CALL_TIMEOUT.as_secs(), API_DEFAULT_VERSION)
            .map_err(|error| unreachable(&self.socket, "connect", &error))?;
        Ok(self.client.get_or_init(|| docker))
    }

    /// What an error of bollard means; `missing` says what a 404 stands for.
    fn error(
        &self,
        call: &'static str,
        missing: fn(String) -> EngineError,
    ) -> impl FnOnce(BollardError) -> EngineError {
        move |error| match error {
            BollardError::DockerResponseServerError { status_code, message } => refused(status_code, message, missing),
            BollardError::JsonDataError { message, .. } => EngineError::Protocol { call, message },
            other => unreachable(&self.socket, call, &other),
        }
    }

    async fn inspect(&self, container: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        match self.client()?.inspect_container(container, None::<InspectContainerOptions>).await {
            Ok(found) => Ok(Some(found)),
            Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(self.error("inspect container", EngineError::NoSuchContainer)(error)),
        }
    }

    pub(super) async fn inspect_container(&self, id: &str) -> Result<Option<Container>, EngineError> {
        self.inspect(id).await?.map(|found| container_of(id, found)).transpose()
    }

    /// Its name is whatever the engine's configuration gives it.
    pub(super) async fn runtime_of(&self, container: &ContainerId) -> Result<Option<String>, EngineError> {
        Ok(self.inspect(container.as_str()).await?.and_then(|found| found.host_config?.runtime))
    }

    /// Of this run of a container that runs.
    pub(super) async fn inspect_surroundings(
        &self,
        container: &ContainerRef,
    ) -> Result<Option<Surroundings>, EngineError> {
        let Some(found) = self.inspect(container.id.as_str()).await? else { return Ok(None) };
        let same = container_of(container.id.as_str(), found.clone())?.reference.is_same_run(container);
        let pid = found.state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok());
        let Some(main) = pid.filter(|pid| same && *pid > 0) else { return Ok(None) };
        let config = found.config.unwrap_or_default();
        let path = |variable: &String| variable.strip_prefix("PATH=").map(str::to_owned);
        let search_path = config.env.unwrap_or_default().iter().rev().find_map(path);
        let folder = config.working_dir.filter(|folder| !folder.is_empty()).unwrap_or_else(|| "/".to_owned());
        Ok(Some(Surroundings { main, folder, search_path }))
    }

    /// Its version, if it is new enough.
    pub(super) async fn checked_version(&self) -> Result<Version, EngineError> {
        let found = self.client()?.version().await.map_err(self.error("version", EngineError::NoSuchContainer))?;
        let (engine, api) = (found.version.unwrap_or_default(), found.api_version.unwrap_or_default());
        let version = Version { name: NAME, engine, api };
        if api_number(&version.api).is_none_or(|api| api < MIN_API) {
            return Err(EngineError::TooOld {
                socket: self.socket.display().to_string(),
                found: format!("version {} with API {}", version.engine, version.api),
                wanted: format!("API {}.{} or newer (Docker Engine 20.10)", MIN_API.0, MIN_API.1),
            });
        }
        Ok(version)
    }

    /// All containers, in any state, with these labels of the kubelet.
    pub(super) async fn list_containers(&self, query: &ContainerQuery) -> Result<Vec<Container>, EngineError> {
        let labels = [
            (TYPE_LABEL, TYPE_CONTAINER),
            (labels::POD_NAMESPACE, &query.namespace),
            (labels::POD_NAME, &query.pod_name),
            (labels::CONTAINER_NAME, &query.container),
        ];
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = self.client()?.list_containers(Some(options)).await;
        let listed = listed.map_err(self.error("list containers", EngineError::NoSuchContainer))?;
        let mut containers = Vec::with_capacity(listed.len());
        for id in listed.into_iter().filter_map(|summary| summary.id) {
            // One that vanishes between the two calls is as good as never listed.
            containers.extend(self.inspect_container(&id).await?);
        }
        Ok(containers)
    }

    pub async fn create_exec(&self, container: &ContainerId, exec: &ExecSpec) -> Result<ExecId, EngineError> {
        let options = bollard::models::ExecConfig {
            // That of a terminal keeps the engine from changing its codes when the client goes away.
            attach_stdin: Some(exec.stdin || exec.tty),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(exec.tty),
            cmd: Some(exec.command.clone()),
            env: Some(exec.env.clone()),
            user: exec.user.clone(),
            working_dir: exec.working_dir.clone(),
            privileged: Some(false),
            ..Default::default()
        };
        let created = self.client()?.create_exec(container.as_str(), options).await;
        Ok(created.map_err(self.error("create exec", EngineError::NoSuchContainer))?.id.into())
    }

    pub async fn start_exec(&self, exec: &ExecId, tty: bool) -> Result<ExecStream, StartError> {
        timeout(CALL_TIMEOUT, start(&self.socket, exec, tty))
            .await
            .unwrap_or_else(|elapsed| Err(StartError::Unclear(unreachable(&self.socket, "start exec", &elapsed))))
    }

    pub async fn resize_exec(&self, exec: &ExecId, width: u16, height: u16) -> Result<(), EngineError> {
        let options = ResizeExecOptionsBuilder::new().w(width.into()).h(height.into()).build();
        let resized = self.client()?.resize_exec(exec.as_str(), options).await;
        resized.map_err(self.error("resize exec", EngineError::NoSuchExec))
    }

    pub async fn inspect_exec(&self, exec: &ExecId) -> Result<Inspected, EngineError> {
        let found = self.client()?.inspect_exec(exec.as_str()).await;
        let found = found.map_err(self.error("inspect exec", EngineError::NoSuchExec))?;
        Ok(Inspected {
            running: found.running.unwrap_or(false),
            code: found.exit_code.and_then(|code| i32::try_from(code).ok()),
            pid: found.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
        })
    }

    /// Whether the engine remembers an `oom` event of this container, or has one soon.
    pub async fn had_oom_event(&self, container: &ContainerId, since: Timestamp) -> Result<bool, EngineError> {
        let id = container.as_str();
        let filters = HashMap::from([("type", vec!["container"]), ("event", vec!["oom"]), ("container", vec![id])]);
        let options = EventsOptionsBuilder::new().filters(&filters).since(&moment(since));
        let options = options.until(&moment(Timestamp::now() + OOM_TELLS_WITHIN)).build();
        let mut events = self.client()?.events(Some(options));
        match timeout(CALL_TIMEOUT, events.next()).await {
            Ok(None) => Ok(false),
            Ok(Some(Ok(_))) => Ok(true),
            Ok(Some(Err(error))) => Err(unreachable(&self.socket, "events", &error)),
            Err(elapsed) => Err(unreachable(&self.socket, "events", &elapsed)),
        }
    }

    /// The `exec_die` events from now on, and those since `since` that the engine remembers: its last 256 events.
    pub fn exec_deaths(&self, since: Option<Timestamp>) -> BoxStream<'static, Result<Died, EngineError>> {
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => return futures::stream::once(async { Err(error) }).boxed(),
        };
        let filters = HashMap::from([("type", vec!["container"]), ("event", vec!["exec_die"])]);
        let mut options = EventsOptionsBuilder::new().filters(&filters);
        if let Some(since) = since {
            options = options.since(&moment(since));
        }
        let socket = self.socket.clone();
        client
            .events(Some(options.build()))
            .filter_map(move |event| {
                let event = match event {
                    Ok(event) => exec_died(event).map(Ok),
                    Err(error) => Some(Err(unreachable(&socket, "events", &error))),
                };
                futures::future::ready(event)
            })
            .boxed()
    }
}

/// A moment as the engine takes it in a query.
fn moment(at: Timestamp) -> String {
    format!("{}.{:09}", at.as_second(), at.subsec_nanosecond())
}

fn api_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn container_of(id: &str, found: ContainerInspectResponse) -> Result<Container, EngineError> {
    let incomplete =
        |what: &str| EngineError::Protocol { call: "inspect container", message: format!("{id} has no {what}") };
    let state = found.state.ok_or_else(|| incomplete("State"))?;
    let started_at = state.started_at.ok_or_else(|| incomplete("State.StartedAt"))?;
    let found = found.config.and_then(|config| config.labels).unwrap_or_default();
    let state = match (state.running.unwrap_or(false), state.paused.unwrap_or(false)) {
        (true, true) => ContainerState::Paused,
        (true, false) => ContainerState::Running,
        (false, _) => ContainerState::Stopped(state.status.map_or_else(|| "stopped".to_owned(), |s| s.to_string())),
    };
    Ok(Container {
        reference: ContainerRef { id: id.into(), started_at: Some(started_at) },
        pod_uid: found.get(labels::POD_UID).cloned().unwrap_or_default(),
        state,
    })
}

fn exec_died(event: EventMessage) -> Option<Died> {
    let attributes = event.actor?.attributes?;
    Some(Died {
        exec: attributes.get("execID")?.as_str().into(),
        code: attributes.get("exitCode")?.parse().ok()?,
        at: Timestamp::from_nanosecond(event.time_nano?.into()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn api_versions_compare_as_numbers() {
        assert!(api_number("1.9") < Some(MIN_API));
        assert!(api_number("1.41") >= Some(MIN_API));
        assert!(api_number("1.100") > Some(MIN_API));
        assert_eq!(api_number("newest"), None);
    }

    /// An engine that answers each call with this body. No real one of that age can be had.
    fn engine_that_says(body: &'static str) -> (tempfile::TempDir, DockerEngine) {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let read = connection.read(&mut request).await;
                assert!(read.is_ok_and(|bytes| bytes > 0), "a request");
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
                let answer = format!("{head}\r\nConnection: close\r\n\r\n{body}");
                connection.write_all(answer.as_bytes()).await.expect("answered");
            }
        });
        (folder, DockerEngine::new(socket))
    }

    #[tokio::test]
    async fn an_engine_that_is_too_old_is_refused_and_told_what_is_wanted() {
        let (_folder, engine) = engine_that_says(r#"{"Version":"19.03.15","ApiVersion":"1.40"}"#);
        let refused = engine.checked_version().await.expect_err("too old").to_string();
        assert!(refused.contains("is version 19.03.15 with API 1.40; wanted is API 1.41 or newer"), "{refused}");
        let (_folder, engine) = engine_that_says(r#"{"Version":"20.10.24","ApiVersion":"1.41"}"#);
        assert_eq!(engine.checked_version().await.expect("new enough").api, "1.41");
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_unreachable_and_its_socket_is_named() {
        let refused = DockerEngine::new("/no/such/docker.sock").checked_version().await.expect_err("no engine");
        assert!(
            matches!(&refused, EngineError::Unreachable { socket, .. } if socket == "/no/such/docker.sock"),
            "{refused}"
        );
    }
}
