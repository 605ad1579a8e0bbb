//! A network that is cut while a command writes, and an agent that is updated: the command does not notice, and
//! whoever follows it has every byte once.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    agents,
    clients::Client,
    follower::{CODE, Follower, are_whole, lines},
    lab::{Lab, NAMESPACE, cluster, kubectl, run, text, wait_within},
    node,
    output::sha256,
    stand_in::host_address,
};

/// As long as a cut lasts: the plugin is sure after 16 s that its connection is dead.
const CUT: Duration = Duration::from_secs(20);
/// Lines that are shown before a cut.
const SOME: usize = 50;

/// A network that is cut, until it is dropped.
struct Cut {
    /// What heals it.
    undo: Vec<Vec<String>>,
}

impl Cut {
    /// No client on the host reaches the API server; the nodes do.
    fn clients_from_the_api_server() -> Self {
        let host = host_address().to_string();
        let tool = crate::lab::root().join("tests/cluster/cluster");
        let inside = [&tool.to_string_lossy(), "exec", "control"];
        Self::filtered(&inside, &[&["INPUT", "--source", &host, "--protocol", "tcp", "--dport", "6443"]])
    }

    /// Nobody reaches the agent of a node, which reaches the API server.
    fn managers_from_the_agent(node: &str) -> Self {
        let ids = agents::containers(node);
        let pid = node::pid(node, &ids[0]);
        let path = "jsonpath={.metadata.annotations.execlet\\.dev/stream-endpoint}";
        let endpoint = kubectl(&["get", "lease", &format!("execlet-agent.{node}"), "-n", NAMESPACE, "-o", path]);
        let port = endpoint.rsplit(':').next().expect("a port");
        Self::filtered(
            &["nsenter", "--target", &pid, "--net"],
            &[&["INPUT", "--protocol", "tcp", "--dport", port], &["OUTPUT", "--protocol", "tcp", "--sport", port]],
        )
    }

    /// The agent of a node hears no more of what it watches, and nobody tells it so.
    async fn watch_of_the_agent(lab: &Lab, pod: &str, node: &str) -> Self {
        let ids = agents::containers(node);
        let pid = node::pid(node, &ids[0]);
        let inside = ["nsenter", "--target", &pid, "--net"];
        let port = wait_within(Duration::from_secs(90), "a connection that only listens", async || {
            // Of which it hears.
            lab.sh(pod, "true").await.ended_with(0);
            let command = [&inside[..], &["ss", "-tniOH", "state", "established", "dport = 443"]].concat();
            listening_port(&text(&run(command[0], &command[1..], "").stdout))
        })
        .await;
        Self::filtered(&inside, &[&["INPUT", "--protocol", "tcp", "--sport", "443", "--dport", &port]])
    }

    /// A node reaches nobody, and nobody reaches it.
    fn node_from_all(node: &str) -> Self {
        let tool = crate::lab::root().join("tests/cluster/cluster").to_string_lossy().into_owned();
        let it = Self { undo: vec![vec![tool, "heal".to_owned(), node.to_owned()]] };
        let cut = cluster(&["cut", node]);
        assert!(cut.status.success(), "{}", text(&cut.stderr));
        it
    }

    /// By rules in a network namespace of the test cluster.
    fn filtered(inside: &[&str], rules: &[&[&str]]) -> Self {
        let mut it = Self { undo: Vec::new() };
        for rule in rules {
            let command = |what: &str| {
                let words = [inside, &["iptables", "--wait", what], *rule, &["--jump", "DROP"]].concat();
                words.into_iter().map(str::to_owned).collect::<Vec<_>>()
            };
            execute(&command("--insert"));
            it.undo.push(command("--delete"));
        }
        it
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        for command in &self.undo {
            execute(command);
        }
    }
}

/// The port of the connection on which something came long after the last question.
fn listening_port(connections: &str) -> Option<String> {
    // What is 0 is left out.
    let ago = |line: &str, what| {
        let found = line.split_whitespace().find_map(|word| word.strip_prefix(what));
        found.map_or(0, |ms| ms.parse::<u64>().expect("milliseconds"))
    };
    let listens = |line: &&str| ago(line, "lastsnd:") > ago(line, "lastrcv:") + 5_000;
    let local = connections.lines().find(listens)?.split_whitespace().nth(2)?;
    local.rsplit(':').next().map(str::to_owned)
}

fn execute(command: &[String]) {
    let (program, args) = command.split_first().expect("a program");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = run(program, &args, "");
    // While a panic is under way, another would end the process.
    if !done.status.success() {
        let why = format!("{}: {}", command.join(" "), text(&done.stderr));
        assert!(std::thread::panicking(), "{why}");
        eprintln!("{why}");
    }
}

/// Follows a command through `disturbed`. It goes on, its outcome is right, and whoever follows it, or comes
/// later, has every byte once.
async fn nobody_misses_a_byte(lab: &Lab, node: &str, disturbed: impl AsyncFnOnce()) {
    lab.pod(node, node).await;
    let name = lines(lab, node);
    let follower = Follower::attach(lab, &name);
    follower.shows_more_than(SOME).await;
    disturbed().await;
    // Attached again, and live.
    let before = follower.lines();
    follower.shows_more_than(before + SOME).await;
    let (live, plugin, ()) =
        tokio::join!(Client::KubeRs.attach(lab, &name, None), follower.end(), async { lab.go(node) });
    let done = lab.finished(&name).await;
    done.ended_with(CODE);
    let output = done.status.output.as_ref().expect("output");
    assert!(output.complete, "{output:#?}");
    assert_eq!(plugin.code, CODE, "{}", text(&plugin.stderr));
    are_whole(&plugin.stdout);
    assert_eq!(Some(sha256(&plugin.stdout)), output.stdout.sha256, "the plugin");
    let late = Client::KubeRs.attach(lab, &name, None).await;
    for (who, heard) in [("attached to what runs", live), ("attached after its end", late)] {
        assert_eq!((heard.code, Some(sha256(&heard.stdout))), (CODE, output.stdout.sha256.clone()), "{who}");
    }
}

// The plugin and its readers run beside kubectl.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_between_managers_and_agent_costs_no_byte() {
    let lab = Lab::alone().await;
    nobody_misses_a_byte(&lab, "n1", async || {
        let cut = Cut::managers_from_the_agent("n1");
        sleep(CUT).await;
        drop(cut);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_between_client_and_api_server_costs_no_byte() {
    let lab = Lab::alone().await;
    nobody_misses_a_byte(&lab, "n1", async || {
        let cut = Cut::clients_from_the_api_server();
        sleep(CUT).await;
        drop(cut);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_off_the_network_for_a_while_costs_no_byte() {
    let lab = Lab::alone().await;
    nobody_misses_a_byte(&lab, "n2", async || {
        let cut = Cut::node_from_all("n2");
        sleep(CUT).await;
        drop(cut);
        kubectl(&["wait", "node", "n2", "--for=condition=Ready", "--timeout=180s"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_updated_under_an_attached_client_costs_no_byte() {
    let lab = Lab::alone().await;
    for node in ["n1", "n2"] {
        nobody_misses_a_byte(&lab, node, async || agents::update(node).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_updated_under_a_log_that_is_followed_costs_no_byte() {
    let lab = Lab::alone().await;
    lab.pod("web", "n1").await;
    let name = lines(&lab, "web");
    let follower = Follower::start(&lab, &["logs", "-f", &name]);
    follower.shows_more_than(SOME).await;
    agents::update("n1").await;
    let before = follower.lines();
    follower.shows_more_than(before + SOME).await;
    lab.go("web");
    let heard = follower.end().await;
    assert_eq!(heard.code, 0, "{}", text(&heard.stderr));
    are_whole(&heard.stdout);
}

#[tokio::test]
async fn a_watch_of_which_nothing_comes_any_more_does_not_cost_a_request_its_start() {
    let lab = Lab::alone().await;
    lab.pod("web", "n2").await;
    let cut = Cut::watch_of_the_agent(&lab, "web", "n2").await;
    let begun = Instant::now();
    let name = lab.create(json!({"target": {"podName": "web"}, "command": ["true"]}));
    let done = lab.finished(&name).await;
    let took = begun.elapsed();
    drop(cut);
    done.ended_with(0);
    assert!(took > Duration::from_secs(1), "the watch was not silent: {took:?}");
}
