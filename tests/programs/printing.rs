//! What becomes of what a program prints where nobody reads it, or where it can be forged.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _, pipe},
    net::TcpListener,
    process::{Command, Output, Stdio},
    thread,
};

const PLUGIN: &str = env!("CARGO_BIN_EXE_kubectl-execlet");
const EXECLET: &str = env!("CARGO_BIN_EXE_execlet");

/// Where a program's standard output and standard error go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// A pipe whose reader has left.
    Nobody,
    /// A disk that is full.
    Full,
}

impl To {
    fn open(self) -> Stdio {
        match self {
            Self::Nobody => pipe().expect("a pipe").1.into(),
            Self::Full => File::options().write(true).open("/dev/full").expect("/dev/full").into(),
        }
    }
}

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_remove("KUBECONFIG").env("HOME", "/nonexistent").env("RUST_BACKTRACE", "0");
    command
}

fn ends(program: &str, args: &[&str], stdout: To, stderr: To) -> Option<i32> {
    command(program, args).stdout(stdout.open()).stderr(stderr.open()).status().expect("a run").code()
}

#[test]
fn whoever_does_not_read_an_error_changes_no_exit_code() {
    for (program, args, code) in [
        (PLUGIN, &["--server", "http://127.0.0.1:1", "logs", "nope"][..], 125),
        (PLUGIN, &["get"], 125),
        (PLUGIN, &["run", "web"], 125),
        (PLUGIN, &[], 125),
        (PLUGIN, &["replay", "/no/such/file"], 125),
        (EXECLET, &["audit", "show", "/no/such/file"], 1),
        (EXECLET, &["audit", "verify", "/no/such/file"], 1),
        (EXECLET, &["probe", "--url", "http://127.0.0.1:1/", "--timeout-seconds", "0"], 1),
        (EXECLET, &["policies"], 2),
        (EXECLET, &["fly"], 2),
    ] {
        for to in [To::Nobody, To::Full] {
            assert_eq!(ends(program, args, to, to), Some(code), "{args:?} to {to:?}");
        }
    }
}

#[test]
fn whoever_has_read_enough_ends_it_quietly_and_what_cannot_be_written_fails() {
    for (program, args, failed) in [
        (PLUGIN, &["version", "--client"][..], 125),
        (PLUGIN, &["completion"], 125),
        (PLUGIN, &["__complete", ""], 125),
        (PLUGIN, &["--help"], 125),
        (PLUGIN, &["run", "--help"], 125),
        (PLUGIN, &["--version"], 125),
        (EXECLET, &["crds"], 1),
        (EXECLET, &["--help"], 2),
        (EXECLET, &["audit", "verify", "--help"], 2),
    ] {
        let quiet = command(program, args).stdout(To::Nobody.open()).stderr(Stdio::piped()).output().expect("a run");
        assert_eq!((quiet.status.code(), text(&quiet.stderr).as_str()), (Some(0), ""), "{args:?}");
        assert_eq!(ends(program, args, To::Full, To::Nobody), Some(failed), "{args:?}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_is_quoted_in_an_error_is_text() {
    let forged = "x\u{1b}[1A\u{1b}[2K\nexeclet: all is well\u{202e}\u{9b}1A\u{200b}\r";
    let file = format!("/no/such/{forged}");
    for (program, args) in [
        (PLUGIN, &["wait", "x", "--timeout", forged][..]),
        (PLUGIN, &[forged]),
        (PLUGIN, &["get", &format!("pod/{forged}")]),
        (PLUGIN, &["--kubeconfig", &file, "get"]),
        (PLUGIN, &["replay", &file]),
        (EXECLET, &[forged]),
        (EXECLET, &["audit", "show", &file]),
        (EXECLET, &["probe", "--url", forged, "--timeout-seconds", "0"]),
        // It says more than once what is wrong.
        (EXECLET, &["probe", "--url", forged, "--timeout-seconds", "1"]),
    ] {
        let Output { stderr, .. } = command(program, args).output().expect("a run");
        let said = text(&stderr);
        assert!(said.contains("all is well"), "{args:?}: {said}");
        assert!(!said.lines().any(|line| line.starts_with("execlet: all is well")), "{args:?}: {said}");
        assert!(is_text(&said), "{args:?}: {said:?}");
    }
}

#[test]
fn what_is_quoted_of_the_environment_is_text() {
    let forged = "x\u{1b}[1A\nexeclet: all is well\u{202e}";
    let mut manager = command(EXECLET, &["manager", "--namespace", "n", "--identity", "i"]);
    let Output { stderr, .. } = manager.env("EXECLET_AGENT_TIMEOUT_SECONDS", forged).output().expect("a run");
    let said = text(&stderr);
    assert!(said.contains("all is well") && said.contains("--agent-timeout-seconds"), "{said}");
    assert!(!said.lines().any(|line| line.starts_with("execlet: all is well")), "{said}");
    assert!(is_text(&said), "{said:?}");
}

fn is_text(said: &str) -> bool {
    let plain = |c: char| !c.is_control() && !"\u{202e}\u{200b}".contains(c);
    said.chars().all(|c| plain(c) || c == '\n')
}

#[test]
fn what_an_endpoint_answers_is_printed_as_text() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/readyz", listener.local_addr().expect("an address"));
    let endpoint = thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let asked = BufReader::new(&client).lines().take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()));
        assert!(asked.count() > 1, "a request with headers");
        client.write_all("HTTP/1.1 200 OK\r\n\r\nready\u{1b}[2J\u{202e}\u{9b}1A\nby far".as_bytes()).expect("written");
    });
    let Output { stdout, .. } = command(EXECLET, &["probe", "--url", &url]).output().expect("a run");
    endpoint.join().expect("an endpoint");
    assert_eq!(text(&stdout), "ready\\x1b[2J\\u{202e}\\u{9b}1A\nby far\n");
}

/// A shell would put it on the command line, where it is something else.
#[test]
fn a_name_that_is_not_text_is_not_suggested() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config");
    let context = |name: &str| serde_json::json!({"name": name, "context": {"cluster": "c", "user": "u"}});
    let contexts = ["fine", "finer\u{1b}[2J", "finest\u{202e}", "fine\nrm"].map(context);
    let config = serde_json::json!({"apiVersion": "v1", "kind": "Config", "contexts": contexts});
    fs::write(&file, config.to_string()).expect("written");
    let file = file.to_str().expect("a path");
    let args = ["__complete", "--kubeconfig", file, "--context", "f"];
    let Output { stdout, .. } = command(PLUGIN, &args).output().expect("a run");
    assert_eq!(text(&stdout), "fine\n:4\n");
}
