//! The holder, which keeps the output of commands on a node with containerd.

use serde_json::json;

use crate::{
    lab::Lab,
    measured,
    node::{self, Frozen, Kind},
    subject::agent_pod,
};

#[tokio::test]
async fn a_command_that_starts_while_nobody_holds_its_output_runs_and_is_counted() {
    let lab = Lab::alone().await;
    let node = node::one_with(Kind::Containerd).expect("a node with containerd");
    lab.pod("web", node).await;
    let runs = async || {
        let spec = json!({"target": {"podName": "web"}, "command": ["sh", "-c", "echo out; exit 3"]});
        let done = lab.run(spec).await;
        done.ended_with(3);
        assert!(done.status.output.as_ref().is_some_and(|output| output.complete), "{:#?}", done.status);
    };
    let counted = || measured::sum("agent", "execlet_commands_unheld_total").expect("the agents answer");
    let before = counted();
    runs().await;
    assert_eq!(counted(), before);
    let labels = [(node::POD_NAME, agent_pod(node)), (node::CONTAINER_NAME, "holder".to_owned())];
    let holder = node::containers(node, &labels.each_ref().map(|(name, value)| (*name, value.as_str()))).remove(0);
    let frozen = Frozen::new(node, holder);
    runs().await;
    assert_eq!(counted(), before + 1);
    drop(frozen);
    runs().await;
    assert_eq!(counted(), before + 1);
}
