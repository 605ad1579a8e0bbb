//! `execlet`: the agent, the manager, and small tools around them.

#![warn(clippy::print_stdout, clippy::print_stderr, reason = "what cannot be printed panics there: infra::print")]

mod args;
mod audit;
mod engine;
mod probe;

use std::{io::Write as _, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use execlet::{
    agent, api,
    core::{admission, queue::Limits},
    engine::{
        containerd::{ContainerdEngine, holder},
        docker::DockerEngine,
    },
    infra::{
        arguments::{self, Done},
        client,
        clock::SystemClock,
        descriptors,
        print::{self, Out},
        shutdown, telemetry,
    },
    manager::{
        self,
        subresources::{self, CertificateSource},
    },
};
use kube::{Client, Config};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};
use tokio_util::sync::CancellationToken;

use self::{
    args::{AgentArgs, Args, Command, Common, HolderArgs, Kind, ManagerArgs, PoliciesArgs},
    engine::{Chosen, choose},
};

/// Exit code for a command line that makes no sense, as clap has it.
const USAGE: u8 = 2;
/// How long blocking calls may go on after the program has ended.
const LAST_CALLS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args = match arguments::parse::<Args>(&std::env::args_os().collect::<Vec<_>>()) {
        Ok(args) => args,
        Err(Done::Told) => return ExitCode::SUCCESS,
        Err(Done::Failed) => return ExitCode::from(USAGE),
    };
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            print::say("execlet", &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Crds(crds) => print_crds(crds.kind),
        Command::Policies(policies) => print_policies(policies),
        Command::Probe(probe) => probe::run(&probe),
        Command::Audit(command) => return audit::run(&command),
        Command::Agent(agent) => with_runtime(&agent.common.clone(), run_agent(agent)),
        Command::Holder(holder) => run_holder(&holder),
        Command::Manager(manager) => with_runtime(&manager.common.clone(), run_manager(manager)),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn with_runtime(common: &Common, program: impl Future<Output = Result<()>>) -> Result<()> {
    telemetry::init(common.log_format, &common.log_level)?;
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let result = runtime.block_on(program);
    runtime.shutdown_timeout(LAST_CALLS);
    result
}

/// On one thread: it does next to nothing.
fn run_holder(args: &HolderArgs) -> Result<()> {
    telemetry::init(args.log_format, &args.log_level)?;
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let stop = shutdown::on_signal().context("cannot listen for signals")?;
        let socket = holder::socket(&args.run_dir, &args.name);
        holder::server::run(&socket, descriptors::raise_limit(), &stop).await;
        Ok(())
    })
}

async fn run_agent(args: AgentArgs) -> Result<()> {
    // Each command has a few.
    descriptors::raise_limit();
    let (listener, client, shutdown) = edges(&args.common).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = args.node_name, "agent");
    let endpoints = agent::Endpoints::serve(listener);
    let (streams, stream_listener) = match (args.stream_addr, args.pod_ip) {
        (Some(address), Some(ip)) => {
            let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
            let endpoint = SocketAddr::new(ip, address.port());
            let manager = args.rules.accounts.manager_service_account.clone();
            (Some(agent::StreamsConfig { endpoint, manager }), Some(listener))
        }
        (Some(_) | None, _) => (None, None),
    };
    let Some((chosen, named)) = find_engine(&args, &client, &endpoints, &shutdown).await else { return Ok(()) };
    let docker = args.engine_socket.clone();
    let containerd = ContainerdEngine::new(&args.containerd_socket, &args.run_dir, args.holder.as_deref());
    let config = agent_config(args, streams)?;
    let clock = Arc::new(SystemClock);
    let edges = agent::Edges { client, clock, endpoints, named, streams: stream_listener, shutdown };
    match chosen {
        Chosen::Docker => agent::run(config, Arc::new(DockerEngine::new(docker)), edges).await?,
        Chosen::Containerd => agent::run(config, Arc::new(containerd), edges).await?,
    }
    Ok(())
}

/// The engine, and what the Node has said of it, if it was asked. `None`: told to stop before.
async fn find_engine(
    args: &AgentArgs,
    client: &Client,
    endpoints: &agent::Endpoints,
    shutdown: &CancellationToken,
) -> Option<(Chosen, Option<agent::Named>)> {
    if let Some(told) = args.engine.told() {
        return Some((told, None));
    }
    let node = args.node_name.as_str().into();
    let mut refusal = endpoints.refusal(client.clone(), &args.namespace, &node);
    let asked = agent::NodeRuntime::new(client.clone(), &node, &args.state_dir);
    let (chosen, named) = asked.find(choose, &mut refusal, shutdown).await?;
    Some((chosen, Some(named)))
}

fn agent_config(args: AgentArgs, streams: Option<agent::StreamsConfig>) -> Result<agent::Config> {
    Ok(agent::Config {
        node: args.node_name.into(),
        namespace: args.namespace,
        state_dir: args.state_dir,
        log_dir: args.log_dir,
        limits: Limits {
            node: args.max_concurrent,
            namespace: args.max_concurrent_per_namespace.unwrap_or(args.max_concurrent),
            container: args.max_concurrent_per_container,
            reserved_percent: args.reserved_percent,
        },
        audit_dir: args.audit_dir,
        audit_retention: args.audit.retention(),
        audit_policy: args.audit.policy(),
        spool_total_bytes: args.spool_total_bytes,
        drain_timeout: Duration::from_secs(args.drain_timeout_seconds),
        rules: args.rules.try_into()?,
        streams,
    })
}

async fn run_manager(args: ManagerArgs) -> Result<()> {
    let (listener, client, shutdown) = edges(&args.common).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), identity = args.identity, "manager");
    let (subresources_listener, subresources) = match args.subresources.addr {
        Some(addr) => {
            let listener = TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}"))?;
            (Some(listener), Some(subresources_config(&args)))
        }
        None => (None, None),
    };
    let config = manager::Config {
        namespace: args.namespace,
        identity: args.identity,
        audit_dir: args.audit_dir,
        audit_retention: args.audit.retention(),
        audit_policy: args.audit.policy(),
        agent_timeout: Duration::from_secs(args.agent_timeout_seconds),
        node_lost: Duration::from_secs(args.node_lost_seconds),
        rules: args.rules.try_into()?,
        subresources,
    };
    let clock = Arc::new(SystemClock);
    let edges = manager::Edges { client, clock, listener, subresources: subresources_listener, shutdown };
    Ok(manager::run(config, edges).await?)
}

fn subresources_config(manager: &ManagerArgs) -> subresources::Config {
    let args = manager.subresources.clone();
    let certificate = match args.certificate_dir {
        Some(folder) => CertificateSource::Mounted(folder),
        None => CertificateSource::Own {
            secret: args.secret,
            service: args.service,
            life: Duration::from_secs(args.certificate_seconds),
        },
    };
    subresources::Config {
        namespace: manager.namespace.clone(),
        certificate,
        account: manager.rules.accounts.manager_service_account.clone(),
        pod: manager.identity.clone(),
        wait: Duration::from_secs(args.wait_seconds),
        most_streams: args.max_streams,
        most_streams_per_user: args.max_streams_per_user,
        idle: Duration::from_secs(args.idle_timeout_seconds),
        drain: Duration::from_secs(args.drain_timeout_seconds),
    }
}

async fn edges(common: &Common) -> Result<(TcpListener, Client, CancellationToken)> {
    let shutdown = shutdown::on_signal().context("cannot listen for signals")?;
    let listener =
        TcpListener::bind(common.http_addr).await.with_context(|| format!("cannot listen on {}", common.http_addr))?;
    let config = Config::infer().await.context("cannot find the API server: run in a pod, or set KUBECONFIG")?;
    let client = client::client(config).context("cannot create a client for the API server")?;
    Ok((listener, client, shutdown))
}

fn print_crds(kind: Kind) -> Result<()> {
    let mut out = Out::new();
    let definition = match kind {
        Kind::Execrequests => api::crd::exec_request()?,
        Kind::Execbatches => api::crd::exec_batch()?,
    };
    write!(out, "{}", serde_yaml_ng::to_string(&definition)?)?;
    Ok(out.flush()?)
}

fn print_policies(args: PoliciesArgs) -> Result<()> {
    let mut out = Out::new();
    for policy in admission::expected(args.admission.into(), &args.accounts.into())? {
        write!(out, "---\n{}", serde_yaml_ng::to_string(&policy.object)?)?;
    }
    Ok(out.flush()?)
}
