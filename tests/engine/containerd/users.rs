//! Users by name, in a container that does not want them to be found.

use std::{fs, os::unix::fs::symlink, process::Command};

use execlet::{
    core::ids::ExecName,
    engine::{Engine as _, EngineError, ExecSpec, Prepared},
};

use super::node::Node;
use crate::{
    lab::{shell, unique, within},
    stage::{Stage as _, Staged as _},
};

fn spec(user: &str) -> ExecSpec {
    ExecSpec { user: Some(user.to_owned()), ..shell("id -u; id -g; id -G") }
}

#[tokio::test]
async fn users_are_those_of_the_containers_files() {
    let node = Node::open().await;
    let container = node.gated().await;
    fs::write(container.root.join("etc/group"), "root:x:0:\napp:x:1000:\nmore:x:77:app\nother:x:78:root\n")
        .expect("written");
    for (user, expected) in [
        ("app", "1000\n1000\n1000 77\n"),
        ("app:more", "1000\n77\n77\n"),
        ("1000", "1000\n0\n0\n"),
        ("5:6", "5\n6\n6\n"),
        ("root", "0\n0\n0 78\n"),
    ] {
        let ran = node.all_of(&container, &spec(user)).await;
        assert_eq!(String::from_utf8_lossy(&ran.output.stdout), expected, "{user}: {:?}", ran.output);
    }
}

#[tokio::test]
async fn files_that_are_hostile_refuse_the_user_at_once_and_nobody_becomes_root() {
    let node = Node::open().await;
    let container = node.gated().await;
    let passwd = container.root.join("etc/passwd");
    let outside = node.daemon().base().join("outside");
    fs::create_dir_all(node.daemon().base()).expect("a folder");
    fs::write(&outside, "app:x:0:0::/:/bin/sh\n").expect("written");
    let hostile: [(&str, &dyn Fn()); 7] = [
        ("missing", &|| {}),
        ("a link to the outside", &|| symlink(&outside, &passwd).expect("a link")),
        ("a FIFO", &|| assert!(Command::new("mkfifo").arg(&passwd).status().expect("mkfifo").success())),
        ("a folder", &|| fs::create_dir(&passwd).expect("a folder")),
        ("huge", &|| fs::File::create(&passwd).expect("made").set_len(1 << 40).expect("sparse")),
        ("another file system", &|| symlink("/proc/self/environ", &passwd).expect("a link")),
        ("an entry that is no number", &|| fs::write(&passwd, "app:x::\napp:x:0:0\n").expect("written")),
    ];
    for (what, make) in hostile {
        let cleared =
            if passwd.is_dir() && !passwd.is_symlink() { fs::remove_dir(&passwd) } else { fs::remove_file(&passwd) };
        drop(cleared);
        make();
        let name = ExecName { request: unique("exec").into(), number: 1 };
        let (reference, spec) = (container.reference(), spec("app"));
        let prepared = within("an answer", node.engine.prepare(&reference, &name, &spec)).await;
        assert!(matches!(prepared, Err(EngineError::Invalid(_))), "{what}: {prepared:?}");
        // A number needs no file. Whether the runtime itself gets by with such files is not ours to say.
        let spec = ExecSpec { user: Some("7:8".to_owned()), ..spec };
        let prepared = within("an answer", node.engine.prepare(&reference, &name, &spec)).await;
        assert!(matches!(prepared, Ok(Prepared::Created(_))), "{what}: {prepared:?}");
    }
}
