//! A client as it follows a request, and what it has shown so far; and a command that is worth following.

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use serde_json::json;

use crate::{
    clients::{Heard, plugin},
    lab::{Lab, text, wait_for},
};

/// Numbered lines until `/tmp/go` is there, and then how many they were.
const SCRIPT: &str =
    "i=0; until [ -e /tmp/go ]; do i=$((i+1)); echo line $i; sleep 0.02; done; echo $i; rm /tmp/go; exit 7";
pub const CODE: i32 = 7;

/// A request for the command, which waits for [`Lab::go`].
pub fn lines(lab: &Lab, pod: &str) -> String {
    lab.create(json!({"target": {"podName": pod}, "command": ["sh", "-c", SCRIPT]}))
}

impl Lab {
    /// Lets the command come to its end.
    pub fn go(&self, pod: &str) {
        let (_, code) = self.exec(pod, "touch /tmp/go");
        assert_eq!(code, 0);
    }
}

/// Each line once, in its order, and none missing.
#[track_caller]
pub fn are_whole(output: &[u8]) {
    let output = text(output);
    let lines: Vec<&str> = output.lines().collect();
    let (last, lines) = lines.split_last().expect("output");
    assert_eq!(last.parse(), Ok(lines.len()), "so many lines were written");
    for (number, line) in (1..).zip(lines) {
        assert_eq!(*line, format!("line {number}"));
    }
}

/// The plugin, attached, or whoever else.
pub struct Follower {
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
    readers: [JoinHandle<Vec<u8>>; 2],
}

impl Follower {
    pub fn attach(lab: &Lab, name: &str) -> Self {
        Self::start(lab, &["attach", name])
    }

    /// With these arguments.
    pub fn start(lab: &Lab, args: &[&str]) -> Self {
        Self::of(Command::new(plugin()).args(["-n", &lab.namespace]).args(args))
    }

    pub fn of(client: &mut Command) -> Self {
        client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = client.spawn().expect("a client");
        let (mut stdout, mut stderr) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
        let shown = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&shown);
        let out = thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut piece) {
                kept.lock().expect("no panic").extend_from_slice(&piece[..length]);
            }
            Vec::new()
        });
        let err = thread::spawn(move || {
            let mut all = Vec::new();
            stderr.read_to_end(&mut all).expect("errors");
            all
        });
        Self { child, shown, readers: [out, err] }
    }

    pub fn lines(&self) -> usize {
        self.shown.lock().expect("no panic").split(|byte| *byte == b'\n').count() - 1
    }

    /// Waits until it has shown more than so many lines.
    pub async fn shows_more_than(&self, lines: usize) {
        wait_for("more to be shown", async || (self.lines() > lines).then_some(())).await;
    }

    /// All that it had to say.
    pub async fn end(mut self) -> Heard {
        let child = &mut self.child;
        let status = wait_for("the client to end", async || child.try_wait().expect("a child")).await;
        let [out, err] = self.readers.map(|reader| reader.join().expect("no panic"));
        drop(out);
        let stdout = std::mem::take(&mut *self.shown.lock().expect("no panic"));
        Heard { stdout, stderr: err, code: status.code().unwrap_or_else(|| panic!("{status}")) }
    }
}
