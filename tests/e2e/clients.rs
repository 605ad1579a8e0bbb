//! Three clients, unmodified, in one set of words: client-go, kube-rs and the plugin.

use std::{
    borrow::Cow,
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use futures::SinkExt as _;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api, Resource,
    api::{Attach, AttachParams, AttachedProcess, ObjectMeta, TerminalSize},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::lab::{Lab, PATIENCE, text};

/// What client-go's program ends with when the stream failed.
pub const STREAM_FAILED: i32 = 250;

/// What kube-rs has received of a connection that broke, it gives by then.
const GRACE: Duration = Duration::from_secs(2);

/// Who attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Go,
    KubeRs,
    Plugin,
}

pub const ALL: [Client; 3] = [Client::Go, Client::KubeRs, Client::Plugin];

/// What a client was given.
#[derive(Debug)]
pub struct Heard {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The exit code, or what the client has in its place.
    pub code: i32,
}

impl Client {
    /// Attaches to a request until the stream ends; with input, that and its end.
    pub async fn attach(self, lab: &Lab, name: &str, input: Option<Vec<u8>>) -> Heard {
        match self {
            Self::Go => {
                let mut args = Vec::new();
                if input.is_some() {
                    args.push("-stdin".to_owned());
                }
                args.push(attach_path(lab, name, input.is_some(), false));
                finish(Command::new("interop").args(args), input).await
            }
            Self::KubeRs => {
                let params = AttachParams::default().stdin(input.is_some());
                let process = subresources(lab).attach(name, &params).await.expect("an attach");
                let (heard, status) = drain(process, input).await;
                Heard { code: code_of(status.as_ref()), ..heard }
            }
            Self::Plugin => {
                let mut args = vec!["-n", &lab.namespace, "attach", name];
                if input.is_some() {
                    args.push("-i");
                }
                finish(Command::new(plugin()).args(args), input).await
            }
        }
    }
}

/// The plugin's binary, as it was just built.
pub fn plugin() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_kubectl-execlet"))
}

/// The plugin in a namespace, with these arguments and nothing on its standard input.
pub async fn execlet(lab: &Lab, args: &[&str]) -> Heard {
    execlet_with(lab, args, Vec::new()).await
}

pub async fn execlet_with(lab: &Lab, args: &[&str], input: Vec<u8>) -> Heard {
    finish(Command::new(plugin()).args([&["-n", &lab.namespace], args].concat()), Some(input)).await
}

/// Runs a program to its end, its input fed beside.
pub async fn finish(command: &mut Command, input: Option<Vec<u8>>) -> Heard {
    let mut child = command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
    let mut stdin = child.stdin.take();
    tokio::task::spawn_blocking(move || {
        let feeder = std::thread::spawn(move || {
            if let (Some(stdin), Some(input)) = (&mut stdin, input) {
                // A program that ends early does not read it all.
                drop(std::io::Write::write_all(stdin, &input));
            }
        });
        let output = child.wait_with_output().expect("the program's output");
        feeder.join().expect("the feeder");
        let code = output.status.code().unwrap_or_else(|| panic!("{}", output.status));
        Heard { stdout: output.stdout, stderr: output.stderr, code }
    })
    .await
    .expect("the program")
}

/// The path of an attach.
pub fn attach_path(lab: &Lab, name: &str, stdin: bool, tty: bool) -> String {
    format!(
        "/apis/subresources.execlet.dev/v1alpha1/namespaces/{}/execrequests/{name}/attach?stdin={stdin}&stdout=true&stderr={}&tty={tty}",
        lab.namespace, !tty
    )
}

/// A request as the aggregated API has it, which is only a name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subresources {
    metadata: ObjectMeta,
}

impl Resource for Subresources {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "ExecRequest".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "subresources.execlet.dev".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1alpha1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "execrequests".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Attach for Subresources {}

pub fn subresources(lab: &Lab) -> Api<Subresources> {
    Api::namespaced(lab.client.clone(), &lab.namespace)
}

/// The last frame of `kubectl exec`'s own stream, for the same command.
pub async fn exec_status(lab: &Lab, pod: &str, command: &[&str]) -> Status {
    let api: Api<Pod> = lab.pods();
    let process = api.exec(pod, command.iter().copied(), &AttachParams::default()).await.expect("an exec");
    drain(process, None).await.1.expect("a status")
}

/// The last frame of an attach.
pub async fn attach_status(lab: &Lab, name: &str) -> Status {
    let process = subresources(lab).attach(name, &AttachParams::default()).await.expect("an attach");
    drain(process, None).await.1.expect("a status")
}

/// Everything of a kube-rs stream.
pub async fn drain(mut process: AttachedProcess, input: Option<Vec<u8>>) -> (Heard, Option<Status>) {
    let status = process.take_status().expect("a status to come");
    let (mut stdout, mut stderr) = (process.stdout(), process.stderr());
    let mut stdin = process.stdin();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin.take(), input) {
            // A command that ends early does not read it all.
            drop(stdin.write_all(&input).await);
            drop(stdin.shutdown().await);
        }
    };
    let read_out = async {
        if let Some(stdout) = &mut stdout {
            stdout.read_to_end(&mut out).await.expect("output");
        }
    };
    let read_err = async {
        if let Some(stderr) = &mut stderr {
            stderr.read_to_end(&mut err).await.expect("errors");
        }
    };
    let status = {
        let mut all = std::pin::pin!(async { tokio::join!(feed, read_out, read_err) });
        let mut status = std::pin::pin!(status);
        tokio::select! {
            _ = &mut all => status.await,
            status = &mut status => {
                // After a connection that broke its readers wait for ever: what they have by then is all.
                let patience = if status.is_some() { PATIENCE } else { GRACE };
                let ended = timeout(patience, all).await;
                assert!(ended.is_ok() || status.is_none(), "the output does not end");
                status
            }
        }
    };
    (Heard { stdout: out, stderr: err, code: 0 }, status)
}

/// A terminal of kube-rs: the sizes one after the other, the next when a line has come.
pub async fn kube_terminal(lab: &Lab, name: &str, sizes: &[(u16, u16)]) -> String {
    let params = AttachParams { stdin: false, stdout: true, stderr: false, tty: true, ..AttachParams::default() };
    let mut process = subresources(lab).attach(name, &params).await.expect("an attach");
    let mut resize = process.terminal_size().expect("a terminal");
    let mut stdout = process.stdout().expect("output");
    let mut said = Vec::new();
    for (width, height) in sizes {
        resize.send(TerminalSize { width: *width, height: *height }).await.expect("sent");
        let lines = text(&said).lines().count();
        while text(&said).lines().count() == lines || !said.ends_with(b"\n") {
            let mut piece = [0; 1024];
            let length = stdout.read(&mut piece).await.expect("output");
            assert!(length > 0, "it ended after {}", text(&said));
            said.extend_from_slice(&piece[..length]);
        }
    }
    stdout.read_to_end(&mut said).await.expect("output");
    text(&said)
}

/// The exit code that a last frame tells.
pub fn code_of(status: Option<&Status>) -> i32 {
    let Some(status) = status else { return STREAM_FAILED };
    if status.status.as_deref() == Some("Success") {
        return 0;
    }
    let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    let code =
        causes.filter(|cause| cause.reason.as_deref() == Some("ExitCode")).find_map(|cause| cause.message.clone());
    code.map_or(STREAM_FAILED, |code| code.parse().expect("a number"))
}

/// A search path on which the plugin is found first.
pub fn path_with_plugin() -> std::ffi::OsString {
    let folder = plugin().parent().expect("a folder").to_owned();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(folder).chain(std::env::split_paths(AsRef::<OsStr>::as_ref(&rest)));
    std::env::join_paths(all).expect("a path")
}
