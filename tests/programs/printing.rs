//! What becomes of what a program prints where nobody reads it, or where it can be forged.

use std::{
    fs::File,
    io::pipe,
    process::{Command, Output, Stdio},
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
    ] {
        let Output { stderr, .. } = command(program, args).output().expect("a run");
        let said = text(&stderr);
        assert!(said.contains("all is well"), "{args:?}: {said}");
        assert!(!said.lines().any(|line| line.starts_with("execlet: all is well")), "{args:?}: {said}");
        let plain = |c: char| !c.is_control() && !"\u{202e}\u{200b}".contains(c);
        assert!(said.chars().all(|c| plain(c) || c == '\n'), "{args:?}: {said:?}");
    }
}
