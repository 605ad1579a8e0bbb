//! One HTTP GET, for `helm test`: the image has no other program that could do it.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use execlet::infra::print::{self, Out};

#[derive(Debug, clap::Args)]
pub struct ProbeArgs {
    /// URL to get, for example `http://execlet-manager:9090/readyz`.
    #[arg(long)]
    pub url: String,

    /// How long to keep trying, in seconds.
    #[arg(long, default_value_t = 30)]
    pub timeout_seconds: u64,
}

const ATTEMPT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// Tries until the endpoint answers 200 or the time is up.
pub fn run(args: &ProbeArgs) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(args.timeout_seconds);
    loop {
        match get(&args.url) {
            Ok(body) => {
                let mut out = Out::new();
                body.lines().try_for_each(|line| print::line(&mut out, line))?;
                return Ok(out.flush()?);
            }
            Err(error) if Instant::now() >= until => return Err(error),
            Err(error) => print::say("execlet probe", &format!("{error:#}; retrying")),
        }
        sleep(PAUSE);
    }
}

fn get(url: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url:?} does not start with http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = host.to_socket_addrs().with_context(|| format!("cannot resolve {host}"))?.next();
    let address = address.ok_or_else(|| anyhow!("{host} has no address"))?;
    let mut connection =
        TcpStream::connect_timeout(&address, ATTEMPT).with_context(|| format!("cannot connect to {address}"))?;
    connection.set_read_timeout(Some(ATTEMPT))?;
    write!(connection, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).with_context(|| format!("no answer from {url}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{url} did not answer with HTTP"))?;
    if head.split_ascii_whitespace().nth(1) != Some("200") {
        bail!("{url} answered {}: {body}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}
