//! An agent is killed again and again while commands write and somebody is attached to each. Where the engine keeps what they
//! write, nobody misses a byte and nobody sees one twice: log, counts, digests, tails, whoever is attached and whoever follows
//! the log are exact.

use std::{fmt::Write as _, time::Duration};

use execlet::core::digest::sha256;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    agent,
    follower::Follower,
    lab::{Done, Lab, run, text, wait_for},
    node, number,
    random::Random,
};

/// Commands that write at the same time, each watched by somebody.
const WATCHED: i32 = 3;
/// How often the agent is killed while the same commands run.
const AT_A_TIME: u64 = 25;
/// It is killed within this after it has been seen to run again.
const WITHIN: u64 = 1500;
/// Lines of a block, of which each command writes one after the other to both streams.
const LINES: u64 = 400;
/// Bytes of a tail in the status.
const TAIL: usize = 1000;

/// So many blocks of numbers, each from one further on.
fn blocks(blocks: u64) -> String {
    (1..=blocks).flat_map(|block| block..block + LINES).fold(String::new(), |mut text, number| {
        writeln!(text, "{number}").unwrap();
        text
    })
}

struct Watched {
    name: String,
    code: i32,
    /// Attached to it.
    attached: Follower,
    /// Who follows its log: one text of both streams.
    reader: Follower,
}

impl Watched {
    async fn start(lab: &Lab, pod: &str, code: i32) -> Self {
        let last = LINES - 1;
        let script = format!(
            "echo {code} >> /tmp/runs; i=0; until [ -e /tmp/go ]; do i=$((i+1)); seq $i $((i+{last})); \
             seq $i $((i+{last})) >&2; sleep 0.05; done; echo $i; exit {code}"
        );
        let name = lab.create(
            json!({"target": {"podName": pod}, "command": ["sh", "-c", script], "output": {"tailBytes": TAIL}}),
        );
        let attached = Follower::attach(lab, &name);
        attached.shows_more_than(0).await;
        let reader = Follower::start(lab, &["logs", "-f", &name]);
        reader.shows_more_than(0).await;
        Self { name, code, attached, reader }
    }

    /// What is not as the command wrote it.
    async fn judge(self, lab: &Lab) -> Vec<String> {
        let done = lab.finished(&self.name).await;
        let (shown, read) = (self.attached.end().await, self.reader.end().await);
        let [stdout, stderr] = lab.spool(&done.request);
        let mut wrong = Vec::new();
        if done.status.exit_code != Some(self.code) || shown.code != self.code {
            wrong.push(format!("ended with {:?}, {} and {}", done.status.exit_code, shown.code, text(&shown.stderr)));
        }
        let Some(number) = text(&stdout).lines().last().and_then(|line| line.parse().ok()) else {
            wrong.push("wrote nothing".to_owned());
            return wrong;
        };
        let errors = blocks(number);
        let output = format!("{errors}{number}\n");
        if stdout != output.as_bytes() || stderr != errors.as_bytes() {
            wrong.push(format!("its log has {} and {} bytes", stdout.len(), stderr.len()));
        }
        // The order of the two streams is that of the log.
        let log = Follower::start(lab, &["logs", &self.name]).end().await.stdout;
        for (who, seen, written) in
            [("was attached", &shown.stdout, output.as_bytes()), ("read the log", &read.stdout, &log)]
        {
            if seen != written {
                let same = seen.iter().zip(written).take_while(|(seen, written)| seen == written).count();
                let (seen, written) = (seen.len(), written.len());
                wrong
                    .push(format!("who {who} has seen {seen} bytes of {written}, of which the first {same} are right"));
            }
        }
        wrong.extend(differs(&done, [&output, &errors]));
        wrong.into_iter().map(|what| format!("{}: {what}", self.name)).collect()
    }
}

fn differs(done: &Done, written: [&str; 2]) -> Vec<String> {
    let Some(output) = &done.status.output else { return vec!["has no output".to_owned()] };
    let mut wrong = Vec::new();
    if !output.complete {
        wrong.push(format!("is incomplete: {:?}", output.incomplete_reason));
    }
    for (stream, text) in [&output.stdout, &output.stderr].into_iter().zip(written) {
        let digest = sha256(text.as_bytes());
        if stream.bytes != i64::try_from(text.len()).unwrap() || stream.sha256.as_deref() != Some(digest.as_str()) {
            wrong.push(format!("has {} bytes of {}, digest {:?}", stream.bytes, text.len(), stream.sha256));
        }
        // Of whole lines.
        let tail = stream.tail.as_deref().unwrap_or_default();
        if tail.is_empty() || !text.ends_with(tail) {
            wrong.push(format!("its tail is {tail:?}"));
        }
    }
    wrong
}

/// Kills the agent of a node once it runs, some time later. Gives its PID.
async fn kill(node: &str, last: Option<&str>, random: &mut Random) -> String {
    let another = async || agent(node).filter(|pid| Some(pid.as_str()) != last);
    let pid = wait_for("the agent to run again", another).await;
    sleep(Duration::from_millis(random.below(WITHIN))).await;
    assert!(run("kill", &["-9", &pid], "").status.success(), "{pid} ended by itself");
    pid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half an hour: make faults-watched"]
async fn an_agent_is_killed_hundreds_of_times_and_whoever_is_attached_sees_every_byte_once() {
    let kills = number("FAULT_KILLS", 500);
    let seed = number("FAULT_SEED", u64::try_from(Timestamp::now().as_second()).unwrap());
    let mut random = Random::new(seed);
    let node = node::one_with(node::Kind::Containerd);
    let node = node.expect("no node has containerd: make cluster-down, and begin again without N1 and N2");
    println!("{kills} kills of the agent on {node} ({}), FAULT_SEED={seed}", node::version(node));

    let lab = Lab::alone().await;
    lab.pod("watched", node).await;
    let (mut killed, mut commands, mut bytes, mut last) = (0, 0, 0, None::<String>);
    let mut wrong = Vec::new();
    let begun = Instant::now();
    while killed < kills {
        let mut all = Vec::new();
        for code in 1..=WATCHED {
            all.push(Watched::start(&lab, "watched", code).await);
        }
        for _ in 0..AT_A_TIME.min(kills - killed) {
            last = Some(kill(node, last.as_deref(), &mut random).await);
            killed += 1;
        }
        assert_eq!(lab.exec("watched", "touch /tmp/go").1, 0);
        for watched in all {
            let name = watched.name.clone();
            wrong.extend(watched.judge(&lab).await);
            let output = lab.finished(&name).await.status.output.expect("output");
            bytes += output.stdout.bytes + output.stderr.bytes;
            commands += 1;
        }
        let (runs, _) = lab.exec("watched", "sort /tmp/runs; rm /tmp/runs /tmp/go");
        if text(&runs) != "1\n2\n3\n" {
            wrong.push(format!("ran: {:?}", text(&runs)));
        }
        println!(
            "{killed} kills, {commands} commands, {bytes} bytes, {} wrong, {}s",
            wrong.len(),
            begun.elapsed().as_secs()
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
