//! The process of an exec, made of that of its container: what the request says is changed in it, and all else stays as it
//! is, whatever it means: capabilities, limits, labels of security modules, what later versions bring.

use serde_json::{Value, json};

use super::user::Identity;
use crate::engine::ExecSpec;

/// Of a terminal without a type nothing can be expected.
const TERM: &str = "TERM=xterm";

/// `container`: the whole OCI runtime spec. `None`: it has no process.
pub fn of(container: &Value, exec: &ExecSpec, user: Option<&Identity>) -> Option<Value> {
    let mut process = container.get("process")?.as_object()?.clone();
    // Of the container's own terminal and command line.
    process.remove("consoleSize");
    process.remove("commandLine");
    process.insert("args".to_owned(), json!(exec.command));
    process.insert("terminal".to_owned(), json!(exec.tty));
    process.insert("env".to_owned(), json!(environment(&strings(process.get("env")), exec)));
    if let Some(folder) = &exec.working_dir {
        process.insert("cwd".to_owned(), json!(folder));
    }
    if let Some(identity) = user {
        let before = process.get("user").cloned().unwrap_or_else(|| json!({}));
        process.insert("user".to_owned(), of_identity(before, identity)?);
    }
    Some(Value::Object(process))
}

/// The container's variables, where the exec has none of that name, and the exec's.
fn environment(container: &[String], exec: &ExecSpec) -> Vec<String> {
    let name = |variable: &str| variable.split_once('=').map_or(variable, |(name, _)| name).to_owned();
    let mut all: Vec<String> = Vec::with_capacity(container.len() + exec.env.len() + 1);
    for variable in container.iter().chain(&exec.env) {
        match all.iter_mut().find(|other| name(other) == name(variable)) {
            Some(other) => other.clone_from(variable),
            None => all.push(variable.clone()),
        }
    }
    if exec.tty && !all.iter().any(|variable| name(variable) == "TERM") {
        all.push(TERM.to_owned());
    }
    all
}

/// The runtime knows users by number alone: a name that is left there would mean nothing, and number 0 root.
fn of_identity(before: Value, identity: &Identity) -> Option<Value> {
    let Value::Object(mut user) = before else { return None };
    user.remove("username");
    user.insert("uid".to_owned(), json!(identity.uid));
    if let Some(gid) = identity.gid {
        user.insert("gid".to_owned(), json!(gid));
    }
    let mut groups: Vec<u64> =
        user.get("additionalGids").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_u64).collect();
    for group in identity.groups.iter().copied().map(u64::from) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    if !groups.is_empty() {
        user.insert("additionalGids".to_owned(), json!(groups));
    }
    Some(Value::Object(user))
}

/// Where programs are looked for in the container, and its working folder.
pub fn surroundings(container: &Value) -> (Option<String>, Option<String>) {
    let process = container.get("process");
    let env = strings(process.and_then(|process| process.get("env")));
    let path = env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).map(str::to_owned);
    let folder = process.and_then(|process| process.get("cwd")).and_then(Value::as_str);
    (path, folder.map(str::to_owned))
}

fn strings(list: Option<&Value>) -> Vec<String> {
    let words = list.and_then(Value::as_array).into_iter().flatten();
    words.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Value {
        json!({"ociVersion": "1.2.0", "process": {
            "terminal": true,
            "consoleSize": {"width": 80, "height": 25},
            "commandLine": "x",
            "user": {"uid": 101, "gid": 102, "umask": 18, "additionalGids": [2000], "username": "nginx"},
            "args": ["nginx"],
            "env": ["PATH=/bin", "A=1", "A=2", "EMPTY="],
            "cwd": "/srv",
            "capabilities": {"bounding": ["CAP_CHOWN"], "ambient": []},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 9, "soft": 8}],
            "noNewPrivileges": true,
            "apparmorProfile": "cri",
            "selinuxLabel": "l",
            "oomScoreAdj": 3,
            "scheduler": {"policy": "SCHED_BATCH"},
            "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
            "ofTomorrow": {"a": [1, null]},
        }})
    }

    fn exec() -> ExecSpec {
        ExecSpec { command: vec!["id".to_owned(), String::new()], ..ExecSpec::default() }
    }

    #[test]
    fn all_that_the_request_does_not_say_is_the_containers() {
        let made = of(&container(), &exec(), None).expect("a process");
        let mut expected = container()["process"].clone();
        expected["args"] = json!(["id", ""]);
        expected["terminal"] = json!(false);
        expected["env"] = json!(["PATH=/bin", "A=2", "EMPTY="]);
        let fields = expected.as_object_mut().expect("an object");
        fields.remove("consoleSize");
        fields.remove("commandLine");
        assert_eq!(made, expected);
    }

    #[test]
    fn variables_take_the_place_of_the_containers_and_nothing_else_is_lost() {
        let env = ["B=x=y", "PATH=/opt", "A", "B=z"].map(str::to_owned).to_vec();
        let made = of(&container(), &ExecSpec { env, ..exec() }, None).expect("a process");
        assert_eq!(made["env"], json!(["PATH=/opt", "A", "EMPTY=", "B=z"]));
    }

    #[test]
    fn a_terminal_has_a_type_its_own_or_a_common_one() {
        let env = |exec: &ExecSpec| of(&container(), exec, None).expect("a process")["env"].clone();
        let tty = ExecSpec { tty: true, ..exec() };
        assert_eq!(env(&tty), json!(["PATH=/bin", "A=2", "EMPTY=", "TERM=xterm"]));
        let own = ExecSpec { env: vec!["TERM=vt100".to_owned()], ..tty.clone() };
        assert_eq!(env(&own), json!(["PATH=/bin", "A=2", "EMPTY=", "TERM=vt100"]));
        assert_eq!(of(&container(), &tty, None).expect("a process")["terminal"], json!(true));
    }

    #[test]
    fn another_user_is_a_number_and_keeps_the_containers_additional_groups() {
        let identity = Identity { uid: 5, gid: Some(6), groups: vec![7, 2000] };
        let made = of(&container(), &exec(), Some(&identity)).expect("a process");
        assert_eq!(made["user"], json!({"uid": 5, "gid": 6, "umask": 18, "additionalGids": [2000, 7]}));
        let number = Identity { uid: 5, gid: None, groups: Vec::new() };
        let made = of(&container(), &exec(), Some(&number)).expect("a process");
        assert_eq!(made["user"], json!({"uid": 5, "gid": 102, "umask": 18, "additionalGids": [2000]}));
    }

    #[test]
    fn a_folder_is_the_requests_or_the_containers() {
        let folder =
            |working_dir| of(&container(), &ExecSpec { working_dir, ..exec() }, None).expect("made")["cwd"].clone();
        assert_eq!(folder(None), json!("/srv"));
        assert_eq!(folder(Some("/tmp".to_owned())), json!("/tmp"));
    }

    #[test]
    fn a_container_without_a_process_has_none_to_copy() {
        assert_eq!(of(&json!({}), &exec(), None), None);
        assert_eq!(of(&json!({"process": []}), &exec(), None), None);
        let no_user = json!({"process": {"user": 0}});
        assert_eq!(of(&no_user, &exec(), Some(&Identity { uid: 5, gid: None, groups: Vec::new() })), None);
    }

    #[test]
    fn where_programs_are_found_is_the_containers_last_word() {
        assert_eq!(surroundings(&container()), (Some("/bin".to_owned()), Some("/srv".to_owned())));
        assert_eq!(surroundings(&json!({})), (None, None));
    }
}
