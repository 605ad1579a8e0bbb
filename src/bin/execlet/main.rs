//! `execlet`: the agent, the manager, and small tools around them.

mod args;
mod probe;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use execlet::{
    agent, api,
    core::queue::Limits,
    engine::docker::DockerEngine,
    infra::{clock::SystemClock, shutdown, telemetry},
    manager,
};
use kube::{Client, Config};
use tokio::{net::TcpListener, runtime::Runtime};

use self::args::{AgentArgs, Args, Command, Common, ManagerArgs};

/// How long what is left may take once the program has ended its work.
const LAST_CALLS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("execlet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Crds => print_crds(),
        Command::Probe(probe) => probe::run(&probe),
        Command::Agent(agent) => with_runtime(&agent.common.clone(), run_agent(agent)),
        Command::Manager(manager) => with_runtime(&manager.common.clone(), run_manager(manager)),
    }
}

fn with_runtime(common: &Common, program: impl Future<Output = Result<()>>) -> Result<()> {
    telemetry::init(common.log_format, &common.log_level)?;
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let result = runtime.block_on(program);
    runtime.shutdown_timeout(LAST_CALLS);
    result
}

async fn run_agent(args: AgentArgs) -> Result<()> {
    let (listener, client, shutdown) = edges(&args.common).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = args.node_name, "agent");
    let config = agent::Config {
        node: args.node_name.into(),
        namespace: args.namespace,
        state_dir: args.state_dir,
        log_dir: args.log_dir,
        limits: Limits {
            node: args.max_concurrent,
            namespace: args.max_concurrent_per_namespace.unwrap_or(args.max_concurrent),
            container: args.max_concurrent_per_container,
        },
        spool_total_bytes: args.spool_total_bytes,
        drain_timeout: Duration::from_secs(args.drain_timeout_seconds),
    };
    let engine = Arc::new(DockerEngine::new(args.engine_socket));
    let edges = agent::Edges { engine, client, clock: Arc::new(SystemClock), listener, shutdown };
    Ok(agent::run(config, edges).await?)
}

async fn run_manager(args: ManagerArgs) -> Result<()> {
    let (listener, client, shutdown) = edges(&args.common).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), identity = args.identity, "manager");
    let config = manager::Config {
        namespace: args.namespace,
        identity: args.identity,
        agent_timeout: Duration::from_secs(args.agent_timeout_seconds),
        node_lost: Duration::from_secs(args.node_lost_seconds),
    };
    let edges = manager::Edges { client, clock: Arc::new(SystemClock), listener, shutdown };
    Ok(manager::run(config, edges).await?)
}

async fn edges(common: &Common) -> Result<(TcpListener, Client, tokio_util::sync::CancellationToken)> {
    let shutdown = shutdown::on_signal().context("cannot listen for signals")?;
    let listener =
        TcpListener::bind(common.http_addr).await.with_context(|| format!("cannot listen on {}", common.http_addr))?;
    let config = Config::infer().await.context("no way to the API server: run in a pod, or set KUBECONFIG")?;
    let client = Client::try_from(config).context("cannot make a client for the API server")?;
    Ok((listener, client, shutdown))
}

fn print_crds() -> Result<()> {
    print!("{}", serde_yaml_ng::to_string(&api::crd::exec_request()?)?);
    Ok(())
}
