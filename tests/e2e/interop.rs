//! Clients that nobody has changed attach: client-go, kube-rs, and the plugin beside them.

use std::process::Command;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::AttachParams;
use serde_json::{Value, json};

use crate::{
    clients::{
        ALL, Client, STREAM_FAILED, attach_path, attach_status, drain, exec_status, finish, kube_terminal, subresources,
    },
    lab::{Done, Lab, text, tool, wait_for},
    leading::{container, managers_rolled_out},
    measured, node,
    output::sha256,
};

/// `status.result`, as a client reads a Status.
fn result_of(done: &Done) -> Status {
    let kept = serde_json::to_value(&done.status.result).expect("JSON");
    serde_json::from_value(kept).expect("a Status")
}

/// What `seq LAST` writes.
fn numbers(last: u32) -> String {
    (1..=last).fold(String::new(), |all, n| all + &n.to_string() + "\n")
}

fn sh(script: &str) -> Value {
    json!({"target": {"podName": "web"}, "command": ["sh", "-c", script]})
}

#[tokio::test]
async fn output_is_whole_and_apart_and_the_exit_code_is_the_commands() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    for client in ALL {
        for (script, code) in
            [("seq 1 20000; seq 1 9000 >&2", 0), ("echo out; echo err >&2; exit 3", 3), ("echo x; kill -9 $$", 137)]
        {
            let name = lab.create(sh(script));
            let heard = client.attach(&lab, &name, None).await;
            let done = lab.finished(&name).await;
            assert_eq!(heard.code, code, "{client:?}: {script}: {}", text(&heard.stderr));
            done.ended_with(code);
            let output = done.status.output.as_ref().expect("output");
            assert_eq!(Some(sha256(&heard.stdout)), output.stdout.sha256, "{client:?}: {script}");
            // Clients say something of their own on standard error when a command fails.
            if code == 0 {
                assert_eq!(Some(sha256(&heard.stderr)), output.stderr.sha256, "{client:?}: {script}");
            }
        }
    }
}

#[tokio::test]
async fn a_hundred_mebibytes_through_cat_come_back_whole() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let whole: Vec<u8> = {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        std::iter::repeat_with(next).take((100 << 20) / 8).flatten().collect()
    };
    for client in ALL {
        let name = lab.create(json!({
            "target": {"podName": "web"}, "command": ["cat"], "stdin": {"attach": {}},
            "output": {"spoolBytes": 1_073_741_824_i64},
        }));
        let heard = client.attach(&lab, &name, Some(whole.clone())).await;
        assert_eq!((heard.code, heard.stdout.len()), (0, whole.len()), "{client:?}: {}", text(&heard.stderr));
        assert!(heard.stdout == whole, "{client:?}: other bytes came back");
        let done = lab.finished(&name).await;
        done.ended_with(0);
        assert_eq!(done.status.output.expect("output").stdout.bytes, 100 << 20);
    }
}

#[tokio::test]
async fn input_that_ends_at_once_ends_the_command() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    for client in ALL {
        let name = lab.create(json!({"target": {"podName": "web"}, "command": ["wc", "-c"], "stdin": {"attach": {}}}));
        let heard = client.attach(&lab, &name, Some(Vec::new())).await;
        assert_eq!((text(&heard.stdout).trim(), heard.code), ("0", 0), "{client:?}");
    }
}

#[tokio::test]
async fn a_terminal_has_the_size_that_the_client_tells_and_each_later_one() {
    let script = "until [ \"$(stty size 2>&-)\" = '24 80' ]; do sleep 0.05; done; echo first; \
                  until [ \"$(stty size 2>&-)\" = '50 132' ]; do sleep 0.05; done; echo second; exit 4";
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let create = || {
        lab.create(json!({
            "target": {"podName": "web"}, "command": ["sh", "-c", script], "tty": true, "activeDeadlineSeconds": 60,
        }))
    };
    let name = create();
    let args = ["-tty", "80x24,132x50", &attach_path(&lab, &name, false, true)];
    let heard = finish(Command::new("interop").args(args), None).await;
    assert_eq!(
        (text(&heard.stdout).as_str(), heard.code),
        ("first\r\nsecond\r\n", 4),
        "client-go: {}",
        text(&heard.stderr)
    );
    let name = create();
    let said = kube_terminal(&lab, &name, &[(80, 24), (132, 50)]).await;
    assert_eq!(said, "first\r\nsecond\r\n", "kube-rs");
    lab.finished(&name).await.ended_with(4);
}

#[tokio::test]
async fn what_a_client_types_reaches_the_terminal_and_its_end_leaves_that_open() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let script = "read line; sleep 1; echo \"got $line\"; exit 4";
    let spec = json!({
        "target": {"podName": "web"}, "command": ["sh", "-c", script], "tty": true, "stdin": {"attach": {}},
        "activeDeadlineSeconds": 60,
    });
    let typed = || Some(b"word\n".to_vec());
    // The terminal shows what is typed.
    let expected = "word\r\ngot word\r\n";
    let name = lab.create(spec.clone());
    let args = ["-stdin", "-tty", "80x24", &attach_path(&lab, &name, true, true)];
    let heard = finish(Command::new("interop").args(args), typed()).await;
    assert_eq!((text(&heard.stdout).as_str(), heard.code), (expected, 4), "client-go: {}", text(&heard.stderr));
    let name = lab.create(spec);
    let params = AttachParams { stdin: true, stdout: true, stderr: false, tty: true, ..AttachParams::default() };
    let process = subresources(&lab).attach(&name, &params).await.expect("an attach");
    let (heard, status) = drain(process, typed()).await;
    assert_eq!(text(&heard.stdout), expected, "kube-rs");
    assert_eq!(status, Some(result_of(&lab.finished(&name).await)));
    lab.finished(&name).await.ended_with(4);
}

#[tokio::test]
async fn the_last_frame_is_the_status_in_the_object_and_that_of_kubectl_exec() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    for script in ["true", "exit 3", "kill -9 $$"] {
        let name = lab.create(sh(script));
        let framed = attach_status(&lab, &name).await;
        let kept = result_of(&lab.finished(&name).await);
        assert_eq!(framed, kept, "{script}: the frame and the object");
        let execs = exec_status(&lab, "web", &["sh", "-c", script]).await;
        assert_eq!(framed, execs, "{script}: the frame and kubectl exec's");
        // The same again, of a request that has long ended.
        assert_eq!(attach_status(&lab, &name).await, kept, "{script}: after its end");
    }
}

#[tokio::test]
async fn a_command_that_cannot_start_is_a_failure_for_every_client() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    for (client, code) in [(Client::Go, STREAM_FAILED), (Client::Plugin, 126)] {
        let name = lab.create(json!({"target": {"podName": "web"}, "command": ["/no/such/program"]}));
        let heard = client.attach(&lab, &name, None).await;
        lab.finished(&name).await.never_ran("StartFailed");
        // The engine writes why onto the command's output, before anybody can know that it is no output.
        assert_eq!(heard.code, code, "{client:?}: {}", text(&heard.stderr));
        assert!(text(&heard.stderr).contains("/no/such/program"), "{client:?}: {}", text(&heard.stderr));
    }
    let name = lab.create(json!({"target": {"podName": "web"}, "command": ["/no/such/program"]}));
    let framed = attach_status(&lab, &name).await;
    assert_eq!(framed, result_of(&lab.finished(&name).await));
    // The one difference from `kubectl exec`, which calls this a command that ended with a code: 126, or 127 with a current
    // engine.
    let execs = exec_status(&lab, "web", &["/no/such/program"]).await;
    assert_eq!((execs.reason.as_deref(), framed.reason.as_deref()), (Some("NonZeroExitCode"), Some("InternalError")));
    assert_eq!(framed.code, Some(500));
    let causes = execs.details.as_ref().and_then(|details| details.causes.as_ref()).expect("a cause");
    let code = causes.iter().find_map(|cause| cause.message.clone()).expect("a code");
    assert!(code == "126" || code == "127", "{code}");
    let runs = lab.run(sh(&format!("exit {code}"))).await;
    assert_eq!(result_of(&runs), execs, "what ran and ended with {code} is told the same");
}

#[tokio::test]
async fn a_late_client_has_every_byte_and_the_outcome() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let done = lab.run(sh("seq 1 50000; exit 5")).await;
    let all = numbers(50_000);
    let name = done.request.metadata.name.expect("a name");
    for client in ALL {
        let heard = client.attach(&lab, &name, None).await;
        assert_eq!(heard.code, 5, "{client:?}");
        assert!(heard.stdout == all.as_bytes(), "{client:?}: {} bytes", heard.stdout.len());
    }
}

/// The managers' containers that run, each with its node; not of pods that are on their way out.
fn managers() -> Vec<(String, String)> {
    measured::pods("manager").iter().filter_map(|pod| container(pod)).collect()
}

/// Something on their way is killed while three clients are attached: the command does not notice, the plugin's
/// user neither, and whoever attaches anew has every byte.
async fn is_survived(lab: &Lab, strike: impl AsyncFnOnce()) {
    lab.pod("web", "n1").await;
    let script = "seq 1 30000; touch /tmp/half; until [ -e /tmp/go ]; do sleep 0.1; done; seq 30001 60000; exit 6";
    let name = lab.create(sh(script));
    let others = async {
        wait_for("all to be attached", async || (measured::sum("agent", "execlet_viewers") == Some(3)).then_some(()))
            .await;
        wait_for("the first half", async || lab.exec("web", "test -e /tmp/half").1.eq(&0).then_some(())).await;
        strike().await;
        wait_for("the second half", async || lab.exec("web", "touch /tmp/go").1.eq(&0).then_some(())).await;
    };
    let (go, kube_rs, plugin, ()) = tokio::join!(
        Client::Go.attach(lab, &name, None),
        Client::KubeRs.attach(lab, &name, None),
        Client::Plugin.attach(lab, &name, None),
        others
    );
    let all = numbers(60_000);
    assert_eq!(plugin.code, 6, "{}", text(&plugin.stderr));
    assert!(plugin.stdout == all.as_bytes(), "the plugin shows each byte once: {} bytes", plugin.stdout.len());
    for (client, heard) in [(Client::Go, go), (Client::KubeRs, kube_rs)] {
        assert_eq!(heard.code, STREAM_FAILED, "{client:?} is told that its stream broke: {}", text(&heard.stderr));
        assert!(all.as_bytes().starts_with(&heard.stdout), "{client:?}");
    }
    lab.finished(&name).await.ended_with(6);
    for client in ALL {
        let heard = client.attach(lab, &name, None).await;
        assert_eq!((heard.code, heard.stdout == all.as_bytes()), (6, true), "{client:?}");
    }
}

// kube-rs reads beside kubectl.
#[tokio::test(flavor = "multi_thread")]
async fn the_managers_restart_under_attached_clients() {
    let lab = Lab::alone().await;
    let before = managers();
    is_survived(&lab, async || {
        for (node, id) in &before {
            node::kill(node, id);
        }
        wait_for("others in their place", async || {
            let now = managers();
            (now.len() == before.len() && now.iter().all(|one| !before.contains(one))).then_some(())
        })
        .await;
        managers_rolled_out();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_restarts_under_attached_clients() {
    let lab = Lab::alone().await;
    is_survived(&lab, async || {
        tool(&["kill", "control", "apiserver"]);
        tool(&["start", "control", "apiserver"]);
    })
    .await;
}
