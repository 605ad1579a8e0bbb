//! Commands that the engine's runtime could not execute in the process that it had made for them, and those that pretend
//! to be such.

use execlet::api::Phase;
use serde_json::{Value, json};

use crate::lab::{Done, Lab};

async fn run(lab: &Lab, command: &[&str], change: Value) -> Done {
    let mut spec = json!({"target": {"podName": "web"}, "command": command});
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    lab.run(spec).await
}

/// It may have run, and nobody says that it did, nor how it ended.
fn is_in_doubt(done: &Done, words: &str) {
    assert_eq!((done.status.phase, done.reason()), (Phase::Unknown, "OutcomeLost"), "{}", done.message());
    assert_eq!((done.condition("Started"), done.status.exit_code), (Some("Unknown"), None));
    assert!(done.message().contains(words), "{}", done.message());
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_never_ran() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    lab.sh(
        "web",
        r"cd /tmp; printf '#!/bin/bash\n' > script; printf '#!/bin/sh\r\nexit 3\n' > returns; printf garbage > garbage
          mkdir bin; printf '#!/bin/bash\n' > bin/tool; chmod +x script returns garbage bin/tool",
    )
    .await
    .ended_with(0);
    for (command, change, words) in [
        (&["/tmp/script"][..], json!({}), "its interpreter \"/bin/bash\" is missing"),
        (&["/tmp/script"], json!({"tty": true}), "exec /tmp/script: no such file or directory"),
        (&["/tmp/script"], json!({"user": "app"}), "is missing"),
        (&["./script", "x"], json!({"workingDir": "/tmp"}), "is missing"),
        (&["tool"], json!({"env": [{"name": "PATH", "value": "/bin:/tmp/bin"}]}), "is missing"),
        (&["/tmp/returns"], json!({}), "/bin/sh\\r"),
        (&["/tmp/garbage"], json!({}), "exec format error"),
    ] {
        let done = run(&lab, command, change.clone()).await;
        done.never_ran("StartFailed");
        assert!(done.message().contains(words), "{command:?} {change}: {}", done.message());
        assert_eq!(done.status.output, None, "the runtime's words are not the command's output");
    }
}

#[tokio::test]
async fn a_command_that_says_it_could_not_be_executed_is_not_believed() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    // The code is that of either runtime; the second one puts a program in its place that really cannot be executed.
    let forge = r#"
        cd /tmp; mkdir bin
        for code in 1 255; do
            printf '#!/bin/sh\necho "exec $0: no such file or directory" >&2\nexit %s\n' $code > forged$code
            printf '#!/bin/sh\ncp /tmp/script /tmp/other; mv /tmp/other $0; echo "exec $0: no such file or directory" >&2\nexit %s\n' $code > swapped$code
            printf '#!/bin/sh\nsleep 1; echo "exec $0: no such file or directory" >&2\nexit %s\n' $code > slow$code
            printf '#!/bin/sh\nprintf "exec /tmp/script: no such file or directory\\n" >&2; exit %s\n' $code > bin/script$code
        done
        printf '#!/bin/bash\n' > script; cp script script1; cp script script255
        chmod +x forged* swapped* slow* script* bin/*"#;
    lab.sh("web", forge).await.ended_with(0);
    let mut told = 0;
    for code in [1, 255] {
        for name in ["forged", "swapped"] {
            let path = format!("/tmp/{name}{code}");
            let done = run(&lab, &[&path], json!({})).await;
            if done.reason() == "NonZeroExitCode" {
                // It was seen to run, or this engine's runtime ends with the other code.
                done.ended_with(code);
                told += 1;
            } else {
                is_in_doubt(&done, &format!("look at \"{path}\" in the container"));
            }
        }
        // What is said of another file than the one that was to be executed is nobody's but the command's.
        let path = json!({"env": [{"name": "PATH", "value": "/tmp/bin:/bin:/tmp"}]});
        run(&lab, &[&format!("script{code}")], path).await.ended_with(code);
        // Seen to run, whatever it says.
        run(&lab, &[&format!("/tmp/slow{code}")], json!({})).await.ended_with(code);
    }
    assert!(told <= 3, "a code of the runtime's own was told as that of a command that was never seen");
}

#[tokio::test]
async fn what_was_killed_for_want_of_memory_before_it_was_seen_to_run_may_never_have_run() {
    let lab = Lab::new().await;
    lab.pod_of("web", json!({
        "nodeName": "n1",
        "containers": [{"name": "app", "image": "execlet.test/busybox:1", "command": ["sleep", "3600"], "resources": {"limits": {"memory": "6Mi"}}}],
    })).await;
    // Nothing was short of memory yet.
    lab.sh("web", "kill -9 $$").await.ended_with(137);
    lab.sh("web", "head -c 3584k /dev/zero > /dev/shm/fill").await.ended_with(0);
    for _ in 0..60 {
        let done = lab.sh("web", "echo ran; head -c 128k /dev/zero >> /dev/shm/fill").await;
        match done.status.output.as_ref() {
            Some(output) if done.status.exit_code.is_none() && output.stdout.bytes == 0 => {
                return is_in_doubt(&done, "ran out of memory");
            }
            // There was room for it.
            Some(_) => {}
            None => done.never_ran("StartFailed"),
        }
    }
    panic!("there was always memory enough");
}
