//! A credential plugin of the kubeconfig, which is started by the plugin and could take what is the command's.

use std::{
    fs,
    io::{Read as _, Write as _, pipe},
    path::Path,
    process::Command,
};

/// A kubeconfig whose user has a credential from a program that reads its standard input to its end.
fn kubeconfig(folder: &Path, mode: &str) -> String {
    let script = format!(
        r#"cd {}; echo run >>runs; cat >>eaten; echo '{{"kind": "ExecCredential", "status": {{"token": "x"}}}}'"#,
        folder.display()
    );
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script], "interactiveMode": mode,
        }}}],
    });
    let path = folder.join("config");
    fs::write(&path, kubeconfig.to_string()).expect("written");
    path.display().to_string()
}

#[test]
fn a_credential_plugin_takes_nothing_of_the_input_and_runs_once() {
    for (mode, ends, runs) in
        [("IfAvailable", "127.0.0.1:1", 1), ("Never", "127.0.0.1:1", 1), ("Always", "terminal", 0)]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut ours, mut theirs) = pipe().expect("a pipe");
        theirs.write_all(b"one\ntwo\n").expect("written");
        drop(theirs);
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-execlet"));
        command.args(["--kubeconfig", &kubeconfig(folder.path(), mode), "run", "-i", "web", "--", "cat"]);
        let output = command.stdin(ours.try_clone().expect("a pipe")).output().expect("a run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(125) && said.contains(ends), "{mode}: {said}");
        let mut left = String::new();
        ours.read_to_string(&mut left).expect("read");
        let noted = |name| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        assert_eq!((left.as_str(), noted("eaten").as_str()), ("one\ntwo\n", ""), "{mode}");
        assert_eq!(noted("runs").lines().count(), runs, "{mode}");
    }
}
