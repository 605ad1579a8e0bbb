//! Four ways that the output of one command can take, each read and thrown away.
//!
//! What counts is from the first byte to the last: what comes before is the start of a command.

use std::{
    io::Read as _,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use execlet::{
    engine::ExecSpec,
    wire::{OutputStream, remotecommand::Channel},
};
use futures::{Stream, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use crate::{AIM_AT_THE_AGENT, AIM_THROUGH_THE_API_SERVER, agent::Agent, cpu::Times, lab::Lab};

/// 256 MiB.
const COMMAND: [&str; 4] = ["dd", "if=/dev/zero", "bs=64k", "count=4096"];
pub const BYTES: u64 = 4096 * (64 << 10);
/// As a client that gives input: the command then waits until it is attached.
const QUERY: &str = "stdin=true&stdout=true";
const STDOUT: u8 = Channel::Stdout as u8;
const STATUS: u8 = Channel::Error as u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The engine's own stream, as the agent reads it.
    Engine,
    /// One viewer, attached at the agent.
    Agent,
    /// One viewer, attached by the aggregated API.
    ApiServer,
    KubectlExec,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Engine, Self::Agent, Self::ApiServer, Self::KubectlExec];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Engine => "the engine's stream",
            Self::Agent => "attached at the agent",
            Self::ApiServer => "attached through the API server",
            Self::KubectlExec => "kubectl exec",
        }
    }

    /// Percent of what the engine gives.
    pub const fn aim(self) -> Option<u32> {
        match self {
            Self::Agent => Some(AIM_AT_THE_AGENT),
            Self::ApiServer => Some(AIM_THROUGH_THE_API_SERVER),
            Self::Engine | Self::KubectlExec => None,
        }
    }

    /// Bytes a second, and for how long each had a processor for a byte.
    pub async fn measure(self, lab: &Lab) -> anyhow::Result<(f64, Times)> {
        let meter = match self {
            Self::Engine => by_engine(lab).await?,
            Self::Agent => at_the_agent(lab).await?,
            Self::ApiServer => through_the_api_server(lab).await?,
            Self::KubectlExec => by_kubectl(lab).await?,
        };
        let rate = meter.rate();
        lab.clear().await?;
        rate
    }
}

/// 10^6 bytes.
pub fn megabytes(bytes: f64) -> f64 {
    bytes / 1e6
}

/// Counts bytes, and the time that they take.
#[derive(Default)]
struct Meter {
    bytes: u64,
    times: Option<(Instant, Instant)>,
    processors: Option<Times>,
}

impl Meter {
    fn count(&mut self, bytes: usize) -> anyhow::Result<()> {
        self.bytes += bytes as u64;
        if self.processors.is_none() {
            self.processors = Some(Times::now()?);
        }
        let now = Instant::now();
        self.times = Some(self.times.map_or((now, now), |(first, _)| (first, now)));
        Ok(())
    }

    #[allow(clippy::cast_precision_loss, reason = "256 MiB")]
    fn rate(&self) -> anyhow::Result<(f64, Times)> {
        ensure!(self.bytes == BYTES, "{} bytes came, and not {BYTES}", self.bytes);
        let (first, last) = self.times.context("no output")?;
        let bytes = self.bytes as f64;
        let processors = (Times::now()? - self.processors.context("no output")?) / bytes;
        Ok((bytes / last.duration_since(first).as_secs_f64(), processors))
    }
}

async fn by_engine(lab: &Lab) -> anyhow::Result<Meter> {
    let container = lab.containers.first().context("no container")?;
    let spec = ExecSpec { command: COMMAND.map(str::to_owned).to_vec(), ..ExecSpec::default() };
    let exec = lab.engine.create_exec(container, &spec).await?;
    let mut stream = lab.engine.start_exec(&exec, false).await?;
    let mut meter = Meter::default();
    while let Some(chunk) = stream.next().await? {
        if chunk.stream == OutputStream::Stdout {
            meter.count(chunk.bytes.len())?;
        }
    }
    Ok(meter)
}

fn followed_live() -> Value {
    json!({"stdin": {"attach": {}}, "output": {"spoolBytes": 2 * BYTES}})
}

async fn at_the_agent(lab: &Lab) -> anyhow::Result<Meter> {
    let agent = Agent::find(lab).await?;
    let request = lab.create(0, &COMMAND, followed_live()).await?;
    read(agent.attach(&request, QUERY, false).await?).await
}

async fn through_the_api_server(lab: &Lab) -> anyhow::Result<Meter> {
    let request = lab.create(0, &COMMAND, followed_live()).await?;
    let name = request.metadata.name.context("a request without a name")?;
    let group = "/apis/subresources.execlet.dev/v1alpha1";
    let path = format!("{group}/namespaces/{}/execrequests/{name}/attach?{QUERY}", lab.namespace);
    let connection = lab.client.connect(http::Request::get(path).body(Vec::new())?).await?;
    read(connection.into_stream()).await
}

/// Reads to the status, which must be a success.
async fn read(mut socket: impl Stream<Item = Result<Message, SocketError>> + Unpin) -> anyhow::Result<Meter> {
    let mut meter = Meter::default();
    let mut status = None;
    // To the end of the connection, so that the other side hears our close.
    while let Some(message) = socket.next().await {
        match message? {
            Message::Binary(bytes) => match bytes.split_first() {
                // The first message is empty.
                Some((&STDOUT, output)) if !output.is_empty() => meter.count(output.len())?,
                Some((&STATUS, said)) => status = Some(serde_json::from_slice::<Value>(said)?),
                Some(_) | None => {}
            },
            Message::Close(why) if status.is_none() => bail!("closed without a status: {why:?}"),
            Message::Close(_) | Message::Ping(_) | Message::Pong(_) | Message::Text(_) | Message::Frame(_) => {}
        }
    }
    let status = status.context("no status")?;
    ensure!(status["status"] == "Success", "{status}");
    Ok(meter)
}

async fn by_kubectl(lab: &Lab) -> anyhow::Result<Meter> {
    let args = ["exec", "p0", "--namespace", &lab.namespace, "--"];
    let mut child = Command::new("kubectl")
        .args([&args[..], &COMMAND].concat())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("kubectl")?;
    let mut stdout = child.stdout.take().context("kubectl's output")?;
    tokio::task::spawn_blocking(move || {
        let (mut meter, mut buffer) = (Meter::default(), vec![0; 64 << 10]);
        loop {
            match stdout.read(&mut buffer)? {
                0 => break,
                length => meter.count(length)?,
            }
        }
        let status = child.wait()?;
        ensure!(status.success(), "kubectl exec: {status}");
        Ok(meter)
    })
    .await?
}
