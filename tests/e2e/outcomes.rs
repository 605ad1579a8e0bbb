//! Exit codes and starts that fail.

use execlet::api::Phase;
use serde_json::{Value, json};

use crate::lab::Lab;

#[tokio::test]
async fn the_exit_code_is_the_commands_own() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    for (script, code) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 3", 3),
        ("exit 126", 126),
        ("exit 127", 127),
        ("kill -9 $$", 137),
        ("exit 255", 255),
    ] {
        let done = lab.sh("web", script).await;
        done.ended_with(code);
        let (phase, reason, succeeded) = match code {
            0 => (Phase::Succeeded, "Completed", "True"),
            _ => (Phase::Failed, "NonZeroExitCode", "False"),
        };
        assert_eq!((done.status.phase, done.reason()), (phase, reason), "{script}");
        assert_eq!(
            (done.condition("Finished"), done.condition("Succeeded")),
            (Some("True"), Some(succeeded)),
            "{script}"
        );
        assert_eq!(done.condition("Reconciling"), None, "{script}");
        let (_, of_kubectl) = lab.kubectl_exec("web", script);
        assert_eq!(of_kubectl, code, "kubectl exec agrees about {script}");
    }
}

#[tokio::test]
async fn the_result_is_the_status_that_kubectl_exec_receives() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let result = |done: crate::lab::Done| serde_json::to_value(done.status.result).expect("JSON");
    assert_eq!(result(lab.sh("web", "exit 0").await), json!({"metadata": {}, "status": "Success"}));
    let expected: Value = json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": "command terminated with non-zero exit code: command terminated with exit code 3",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    });
    assert_eq!(result(lab.sh("web", "exit 3").await), expected);
}

#[tokio::test]
async fn a_start_that_fails_is_told_apart_from_the_commands_own_126_and_127() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let request = |change: Value| {
        let mut spec = json!({"target": {"podName": "web"}, "command": ["true"]});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        spec
    };
    for (change, words) in [
        (json!({"command": ["no-such-program"]}), "executable file not found"),
        (json!({"command": ["/etc/passwd"]}), "permission denied"),
        (json!({"user": "nobody-here"}), "unable to find user nobody-here"),
        (json!({"workingDir": "/no/such/folder"}), "no such file or directory"),
    ] {
        let done = lab.run(request(change.clone())).await;
        done.never_ran("StartFailed");
        assert!(done.message().contains(words), "{change}: {}", done.message());
        assert_eq!(done.status.output, None, "the runtime's words are not the command's output");
    }
}

#[tokio::test]
async fn user_folder_environment_and_terminal_reach_the_command() {
    let lab = Lab::new().await;
    lab.pod("web", "n2").await;
    let done = lab
        .run(json!({
            "target": {"podName": "web"}, "user": "app", "workingDir": "/tmp", "tty": true,
            "env": [{"name": "GREETING", "value": "a = $b"}],
            "command": ["sh", "-c", "printf '\\001\\002'; id -u; pwd; echo \"$GREETING\"; echo \"$EXECLET_UID\"; [ -t 1 ] && echo terminal; echo also >&2"],
        }))
        .await;
    done.ended_with(0);
    let uid = done.request.metadata.uid.as_deref().expect("a UID");
    let expected = format!("\u{1}\u{2}1000\r\n/tmp\r\na = $b\r\n{uid}\r\nterminal\r\nalso\r\n");
    let [stdout, stderr] = lab.spool(&done.request);
    assert_eq!((String::from_utf8_lossy(&stdout).as_ref(), stderr.as_slice()), (expected.as_str(), &b""[..]));
}

#[tokio::test]
async fn a_child_that_holds_the_output_does_not_hold_the_request_and_is_told() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let done = lab.sh("web", "echo begun; sleep 600 & exit 4").await;
    done.ended_with(4);
    let output = done.status.output.as_ref().expect("output");
    assert_eq!((output.complete, output.incomplete_reason.as_deref()), (false, Some("ForcedEnd")));
    assert_eq!(done.stdout(), "begun\n");
}
