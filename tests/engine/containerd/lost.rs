//! What nothing can save, and that it is told.

use std::fs;

use execlet::engine::Engine as _;
use rustix::process::{Pid, Signal, kill_process};

use super::node::Node;
use crate::{
    lab::{shell, within},
    stage::Stage as _,
};

/// The shim of a container.
fn shim(container: &str) -> Pid {
    let is_it = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words[0].ends_with(b"containerd-shim-runc-v2") && words.contains(&container.as_bytes())
    };
    let all =
        fs::read_dir("/proc").expect("processes").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Pid::from_raw(all.into_iter().find(|pid| is_it(*pid)).expect("a shim")).expect("a PID")
}

#[tokio::test]
async fn with_its_shim_a_command_ends_and_its_output_is_not_called_whole() {
    let node = Node::open().await;
    let container = node.gated().await;
    let (exec, mut stream) = node.begun(&container, &shell("echo begun; read _ < /gate; exit 7")).await;
    kill_process(shim(container.id()), Signal::KILL).expect("killed");
    let end = within("the end", async {
        loop {
            match stream.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        }
    })
    .await;
    println!("{end:?}");
    for _ in 0..40 {
        println!("{:?} {:?}", node.engine.state(&exec).await, node.engine.container(&container.reference.id).await);
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
}
