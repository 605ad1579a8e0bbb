//! What of the spec reaches the command.

use execlet::engine::ExecSpec;

use crate::{
    lab::{command, shell},
    stage::{Stage as _, on_the_engine},
};

#[tokio::test]
async fn arguments_reach_the_command_as_they_are() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        let run = stage.all_of(&container, &command(["printf", "[%s]", "a b", "", "$HOME", "'\"\\", "ü\n"])).await;
        assert_eq!(String::from_utf8(run.output.stdout).unwrap(), "[a b][][$HOME]['\"\\][ü\n]");
    });
}

#[tokio::test]
async fn environment_folder_and_user_reach_the_command() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        let script = r#"echo "$GREETING"; echo "$EMPTY."; echo "${PATH:+inherited}"; pwd; id -un; id -u"#;
        let spec = ExecSpec {
            env: vec!["GREETING=a=b c\n$d".into(), "EMPTY=".into()],
            working_dir: Some("/tmp/../etc".into()),
            user: Some("app".into()),
            ..shell(script)
        };
        stage.text_of(&container, "mkdir -p /tmp").await;
        let run = stage.all_of(&container, &spec).await;
        let stdout = String::from_utf8(run.output.stdout).unwrap();
        assert_eq!(stdout, "a=b c\n$d\n.\ninherited\n/etc\napp\n1000\n");

        let spec = ExecSpec { user: Some("1234:5678".into()), ..shell("id -u; id -g") };
        assert_eq!(stage.all_of(&container, &spec).await.output.stdout, b"1234\n5678\n");
        assert_eq!(stage.text_of(&container, "pwd; id -un").await, "/\nroot\n");
    });
}

#[tokio::test]
async fn a_command_without_stdin_reads_its_end_at_once() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        assert_eq!(stage.text_of(&container, "cat; echo ended").await, "ended\n");
    });
}

#[tokio::test]
async fn the_process_leads_a_session_and_a_group_of_its_own() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        for tty in [false, true] {
            let script = "read -r pid name state parent group session rest < /proc/self/stat; echo $pid $group $session";
            let run = stage.all_of(&container, &ExecSpec { tty, ..shell(script) }).await;
            let stdout = String::from_utf8(run.output.stdout).unwrap();
            let ids: Vec<&str> = stdout.split_whitespace().collect();
            assert_eq!(ids, [ids[0]; 3], "tty: {tty}");
        }
    });
}

#[tokio::test]
async fn a_string_may_have_as_many_bytes_as_linux_takes_and_not_one_more() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        let argument = |word: String| ExecSpec { command: vec!["true".to_owned(), word], ..ExecSpec::default() };
        let variable = |value: String| ExecSpec { env: vec![format!("A={value}")], ..command(["true"]) };
        for (spec, fits) in [
            (argument("x".repeat(131_071)), true),
            (argument("x".repeat(131_072)), false),
            (argument("€".repeat(43_690)), true),
            (argument("€".repeat(43_691)), false),
            (variable("x".repeat(131_069)), true),
            (variable("x".repeat(131_070)), false),
        ] {
            let run = stage.all_of(&container, &spec).await;
            assert_eq!(run.code == 0, fits, "{}: {:?}", run.code, run.output);
        }
    });
}
