//! Throughput of four ways that the output of one command can take, each read and thrown away.
//!
//! What counts is from the first byte to the last: what comes before is the start of a command.

use std::{
    io::Read as _,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use execlet::wire::remotecommand::Channel;
use futures::{Stream, StreamExt as _};
use serde_json::{Map, Value, json};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use crate::{
    agent::Agent,
    cpu::{Times, Who},
    figures::{keep, median, percentile, print_table, ratio},
    lab::{Lab, Node, Target},
};

/// 256 MiB.
const COMMAND: [&str; 4] = ["dd", "if=/dev/zero", "bs=64k", "count=4096"];
const BYTES: u64 = 4096 * (64 << 10);
/// As a client that gives input: the command then waits until it is attached.
const QUERY: &str = "stdin=true&stdout=true";
const STDOUT: u8 = Channel::Stdout as u8;
const STATUS: u8 = Channel::Error as u8;
/// Of what the engine alone gives.
const AIM_AT_THE_AGENT: f64 = 0.9;
const AIM_THROUGH_THE_API_SERVER: f64 = 0.7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Engine,
    /// One viewer, attached at the agent.
    Agent,
    /// One viewer, attached by the aggregated API.
    ApiServer,
    KubectlExec,
}

impl Way {
    const ALL: [Self; 4] = [Self::Engine, Self::Agent, Self::ApiServer, Self::KubectlExec];

    const fn name(self) -> &'static str {
        match self {
            Self::Engine => "the engine alone",
            Self::Agent => "attached at the agent",
            Self::ApiServer => "attached through the API server",
            Self::KubectlExec => "kubectl exec",
        }
    }

    /// To the engine alone.
    const fn aim(self) -> Option<f64> {
        match self {
            Self::Agent => Some(AIM_AT_THE_AGENT),
            Self::ApiServer => Some(AIM_THROUGH_THE_API_SERVER),
            Self::Engine | Self::KubectlExec => None,
        }
    }

    async fn run(self, lab: &Lab, node: &Node, target: &Target) -> anyhow::Result<Meter> {
        match self {
            Self::Engine => by_engine(node, target).await,
            Self::Agent => at_the_agent(lab, node, target).await,
            Self::ApiServer => through_the_api_server(lab, target).await,
            Self::KubectlExec => by_kubectl(lab, target).await,
        }
    }
}

/// What one way gave on one node.
struct Row<'a> {
    node: &'a Node,
    way: Way,
    /// MB/s (10^6 bytes), of each round.
    rates: Vec<f64>,
    /// Seconds of a processor for a byte, of each round.
    processors: Vec<Times>,
}

impl Row<'_> {
    async fn measure(&mut self, lab: &Lab) -> anyhow::Result<()> {
        let target = self.node.targets.first().context("no pod")?;
        let metered = async { self.way.run(lab, self.node, target).await?.rate() }.await;
        let (rate, processors) = metered.with_context(|| format!("{} on {}", self.way.name(), self.node.name))?;
        self.rates.push(rate);
        self.processors.push(processors);
        lab.clear().await
    }

    /// Best and median.
    fn rates(&self) -> [f64; 2] {
        [percentile(&self.rates, 100), median(&self.rates)]
    }

    /// Best to best, and median to median.
    fn compared(&self, other: &Self) -> [String; 2] {
        let ([best, median], [other_best, other_median]) = (self.rates(), other.rates());
        [ratio(best, other_best), ratio(median, other_median)]
    }

    /// Nanoseconds of a processor for a byte, in the median.
    fn nanoseconds(&self, who: Who) -> f64 {
        let seconds: Vec<f64> = self.processors.iter().map(|times| times.of(who).max(0.0)).collect();
        1e9 * median(&seconds)
    }

    fn figures(&self, engine: &Self, kubectl: &Self) -> Value {
        let nanoseconds: Map<_, _> =
            Who::ALL.into_iter().map(|who| (who.name().to_owned(), self.nanoseconds(who).into())).collect();
        let [best, median] = self.rates();
        let compared = |other: &Self| {
            let [other_best, other_median] = other.rates();
            json!({"best": best / other_best, "median": median / other_median})
        };
        json!({
            "node": self.node.name, "way": self.way.name(), "bestMegabytesPerSecond": best,
            "medianMegabytesPerSecond": median, "megabytesPerSecondByRound": self.rates,
            "toTheEngine": compared(engine), "toKubectlExec": compared(kubectl),
            "processorNanosecondsPerByte": nanoseconds,
        })
    }
}

pub async fn measure(lab: &Lab, rounds: usize) -> anyhow::Result<()> {
    let each = lab.nodes.iter().flat_map(|node| Way::ALL.map(|way| (node, way)));
    let row = |(node, way)| Row { node, way, rates: Vec::new(), processors: Vec::new() };
    let mut rows: Vec<Row> = each.map(row).collect();
    for round in 1..=rounds {
        println!("throughput: round {round} of {rounds} (20 s)");
        for row in &mut rows {
            row.measure(lab).await?;
        }
    }
    let mut figures = Vec::new();
    for group in rows.as_chunks().0 {
        print(group, rounds);
        let [engine, .., kubectl] = group;
        figures.extend(group.iter().map(|row| row.figures(engine, kubectl)));
    }
    keep(lab, "streams", rounds, &figures)
}

fn print(group: &[Row; 4], rounds: usize) {
    let [engine, .., kubectl] = group;
    let node = engine.node;
    println!("\n{}, {}: {} MiB of one command, best and median of {rounds}", node.name, node.runs, BYTES >> 20);
    let head = ["", "best, MB/s", "median, MB/s", "to the engine", "", "to kubectl exec", "", "aim"];
    let cells = |row: &Row| {
        let rates = row.rates().map(|rate| format!("{rate:.0}"));
        let aim = row.way.aim().map_or_else(String::new, |aim| format!("{aim:.2}"));
        [&[row.way.name().to_owned()][..], &rates, &row.compared(engine), &row.compared(kubectl), &[aim]].concat()
    };
    print_table(&head, &group.iter().map(cells).collect::<Vec<_>>());
    println!("\nnanoseconds of a processor for each byte of it, median of {rounds}");
    let head = [&[""], &Who::ALL.map(Who::name)[..]].concat();
    let cells = |row: &Row| {
        let nanoseconds = Who::ALL.map(|who| format!("{:.2}", row.nanoseconds(who)));
        [&[row.way.name().to_owned()][..], &nanoseconds].concat()
    };
    print_table(&head, &group.iter().map(cells).collect::<Vec<_>>());
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

    /// MB/s, and for how long each had a processor for a byte.
    #[allow(clippy::cast_precision_loss, reason = "256 MiB")]
    fn rate(&self) -> anyhow::Result<(f64, Times)> {
        ensure!(self.bytes == BYTES, "{} bytes came, and not {BYTES}", self.bytes);
        let (first, last) = self.times.context("no output")?;
        let bytes = self.bytes as f64;
        let processors = (Times::now()? - self.processors.context("no output")?) / bytes;
        Ok((bytes / 1e6 / last.duration_since(first).as_secs_f64(), processors))
    }
}

async fn by_engine(node: &Node, target: &Target) -> anyhow::Result<Meter> {
    let mut meter = Meter::default();
    node.engine.run(&target.container, &COMMAND, |bytes| meter.count(bytes)).await?;
    Ok(meter)
}

fn followed_live() -> Value {
    json!({"stdin": {"attach": {}}, "output": {"spoolBytes": 2 * BYTES}})
}

async fn at_the_agent(lab: &Lab, node: &Node, target: &Target) -> anyhow::Result<Meter> {
    let agent = Agent::find(lab, node).await?;
    let request = lab.create(target, &COMMAND, followed_live()).await?;
    read(agent.attach(&request, QUERY, false).await?).await
}

async fn through_the_api_server(lab: &Lab, target: &Target) -> anyhow::Result<Meter> {
    let request = lab.create(target, &COMMAND, followed_live()).await?;
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

async fn by_kubectl(lab: &Lab, target: &Target) -> anyhow::Result<Meter> {
    let args = ["exec", &target.pod, "--namespace", &lab.namespace, "--"];
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
