//! Which processes are those of one exec, and how they end.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use execlet::{
    core::{
        family::{Family, Member},
        ids::{ExecId, ProcessRef},
        kill::Signal,
        outcome::{StreamEnd, Verdict},
    },
    engine::{ExecSpec, ExecStream},
    infra::process,
};
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    lab::{Lab, TestContainer, kernel_keeps_codes, on_a_terminal, read, shell, until, watched, within},
    lost::{HUNG_UP, is_seven},
    not_shown::not_shown,
};

/// Position of `env_start` in `/proc/PID/stat`, counted from the field after the command's name.
const ENVIRONMENT_FIELD: usize = 47;
/// For how long a killed process of a frozen container is watched.
const WATCHED: Duration = Duration::from_secs(1);

/// What a script leaves, and the commands of all processes that are its exec's. It has written `begun`.
const SCRIPTS: [(&str, &str, &[&str]); 6] = [
    ("a plain sleeper", "echo begun; sleep 100; true", &["sh", "sleep"]),
    ("a setsid child after the end of its parent", "setsid sleep 100 >/dev/null 2>&1 & echo begun", &["sleep"]),
    (
        "a child without environment after the end of its parent",
        "env -i sleep 100 >/dev/null 2>&1 & echo begun",
        &["sleep"],
    ),
    ("env -i setsid that holds the output", "env -i setsid sleep 100 & echo begun", &["sleep"]),
    (
        "a tree of forks",
        "for i in 1 2; do sh -c 'sleep 100 & sleep 100; true' & done; sleep 0.1; echo begun; wait",
        &["sh", "sh", "sh", "sleep", "sleep", "sleep", "sleep"],
    ),
    (
        "a child without its parent's output and tag, in its session",
        "env -i sh -c 'sleep 100; true' </dev/null >/dev/null 2>&1 & echo begun; read _ < /gate",
        &["sh", "sh", "sleep"],
    ),
];

fn tagged(spec: ExecSpec, uid: &str) -> ExecSpec {
    ExecSpec { env: vec![format!("EXECLET_UID={uid}")], ..spec }
}

/// The family of an exec of which one process was seen.
fn family(uid: &str, leader: ProcessRef, pipes: Vec<u64>) -> Family {
    Family { uid: Some(uid.into()), leader: Some(leader), pipes, since_ticks: leader.start_ticks }
}

fn commands(members: &[Member]) -> Vec<&str> {
    let mut commands: Vec<&str> = members.iter().map(|member| member.command.as_str()).collect();
    commands.sort_unstable();
    commands
}

/// Overwrites the environment that a process was started with, in its memory, as setproctitle does.
fn overwrite_environment(pid: u32) {
    let proc = format!("/proc/{pid}");
    let environment = || fs::read(format!("{proc}/environ")).unwrap();
    let length = environment().len();
    assert!(length > 0);
    let stat = fs::read_to_string(format!("{proc}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let address = fields.split_whitespace().nth(ENVIRONMENT_FIELD).unwrap().parse().expect("an address");
    let memory = OpenOptions::new().write(true).open(format!("{proc}/mem")).unwrap();
    memory.write_all_at(&vec![0; length], address).unwrap();
    assert_eq!(environment(), vec![0; length]);
}

/// Ends a family, and shows that nothing of it is left.
async fn end(family: &Family, container: &TestContainer) {
    until("the processes to be gone", async || {
        let living = process::family(family, &container.id).unwrap();
        for member in &living {
            process::signal(member.process, &container.id, Signal::Kill).expect("not forbidden");
        }
        living.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_process_of_an_exec_is_found_and_none_of_another() {
    let lab = Lab::open().await;
    for (what, script, expected) in SCRIPTS {
        let container = lab.container().await;
        let (other, _other_stream) =
            lab.begin(&container, &tagged(shell("echo begun; sleep 100; true"), "other")).await;
        let other = process::find(lab.pid(&other).await).expect("a process");
        // The first look is at the process itself, as the agent's is: it waits at the gate until then.
        let gated = format!("echo first; read _ < /gate; {script}");
        let (exec, mut stream) = lab.begin(&container, &tagged(shell(&gated), "mine")).await;
        let leader = process::find(lab.pid(&exec).await).expect("a process");
        let pipes = process::output_pipes(leader);
        assert!(!pipes.is_empty());
        container.open_gate();
        stream.next().await.expect("a stream").expect("begun");
        let mine = family("mine", leader, pipes);
        let found = until(what, async || {
            let found = process::family(&mine, &container.id).unwrap();
            (commands(&found) == expected).then_some(found)
        })
        .await;
        assert!(found.iter().all(|member| member.process != other), "{what}");
        end(&mine, &container).await;
        assert!(process::alive(other), "{what}: the other exec goes on");
    }
}

#[tokio::test]
async fn the_processes_of_a_terminal_are_found_by_its_session() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let spec = tagged(on_a_terminal("sleep 100 & sleep 100 & echo begun; wait"), "mine");
    let (exec, _stream) = lab.begin(&container, &spec).await;
    let leader = process::find(lab.pid(&exec).await).expect("a process");
    assert_eq!(process::output_pipes(leader), Vec::<u64>::new(), "a terminal is no pipe");
    let mine = family("mine", leader, Vec::new());
    until("all three", async || {
        (commands(&process::family(&mine, &container.id).unwrap()) == ["sh", "sleep", "sleep"]).then_some(())
    })
    .await;
    end(&mine, &container).await;
}

#[tokio::test]
async fn the_process_that_an_exec_began_with_is_found_by_its_tag_alone_and_none_that_it_has_started() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    for tty in [false, true] {
        let script = "setsid sleep 100 & setsid sh -c 'setsid sleep 100 &' & sleep 100 & echo begun; read _ < /gate";
        let (exec, _stream) = lab.begin(&container, &tagged(ExecSpec { tty, ..shell(script) }, "mine")).await;
        let leader = process::find(lab.pid(&exec).await).expect("a process");
        let mine = family("mine", leader, process::output_pipes(leader));
        until("all that it starts", async || {
            (commands(&process::family(&mine, &container.id).unwrap()) == ["sh", "sleep", "sleep", "sleep"])
                .then_some(())
        })
        .await;
        let began = |uid: &str| process::began(&container.id, &uid.into()).unwrap();
        assert_eq!((began("mine"), began("other")), (Some(leader), None), "tty: {tty}");
        container.open_gate();
        process::ended(leader).await.expect("a handle");
        assert_eq!(began("mine"), None, "tty: {tty}: its children live on, and none of them is it");
        end(&mine, &container).await;
    }
}

#[tokio::test]
async fn where_a_container_shares_the_nodes_processes_none_is_taken_for_the_one_that_an_exec_began_with() {
    let lab = Lab::open().await;
    let docker = async |args: &[&str]| {
        let (output, code) = lab.docker_cli(args.iter().map(|&arg| arg.to_owned()).collect()).await;
        assert_eq!(code, Some(0), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    let run = ["run", "--rm", "--detach", "--pid=host", "--network=none", "execlet.test/busybox:1", "sleep", "60"];
    let id = docker(&run).await;
    docker(&["exec", "--detach", "--env", "EXECLET_UID=mine", &id, "sh", "-c", "sleep 100; true"]).await;
    let container = id.as_str().into();
    let by_tag = Family { uid: Some("mine".into()), leader: None, pipes: Vec::new(), since_ticks: 0 };
    until("the command", async || (process::family(&by_tag, &container).unwrap().len() == 2).then_some(())).await;
    assert_eq!(process::began(&container, &"mine".into()).unwrap(), None);
    docker(&["rm", "--force", &id]).await;
}

#[tokio::test]
async fn a_process_that_overwrote_its_environment_is_found_by_its_session_only() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let script = "exec >/dev/null 2>&1; sleep 100 & setsid tail -f /dev/null & read _ < /gate";
    let (exec, _stream) = lab.begin(&container, &tagged(shell(&format!("echo begun; {script}")), "mine")).await;
    let leader = process::find(lab.pid(&exec).await).expect("a process");
    let mine = family("mine", leader, Vec::new());
    let tag_only = Family { leader: None, ..mine.clone() };
    let tagged = until("the tags of all three", async || {
        let found = process::family(&tag_only, &container.id).unwrap();
        (commands(&found) == ["sh", "sleep", "tail"]).then_some(found)
    })
    .await;
    for member in tagged.iter().filter(|member| member.process != leader) {
        overwrite_environment(member.process.pid);
    }
    assert_eq!(commands(&process::family(&tag_only, &container.id).unwrap()), ["sh"]);
    let found = process::family(&mine, &container.id).unwrap();
    assert_eq!(commands(&found), ["sh", "sleep"], "`tail` has left the session too");
    end(&mine, &container).await;
}

#[tokio::test]
async fn who_writes_to_the_same_output_of_the_container_is_not_found() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let first = process::find(lab.main_pid(&container).await).expect("a process");
    let redirected = shell("echo begun; exec >/proc/1/fd/1 2>/proc/1/fd/2; sleep 100; true");
    let (exec, _stream) = lab.begin(&container, &tagged(redirected.clone(), "mine")).await;
    let leader = process::find(lab.pid(&exec).await).expect("a process");
    let writes_there = async |process| {
        let pipes = process::output_pipes(process);
        (!pipes.is_empty() && pipes == process::output_pipes(first)).then_some(pipes)
    };
    let pipes = until("the output to be the container's", async || writes_there(leader).await).await;
    // A later one: nothing but its session tells it from the first one's.
    let (other, _other_stream) = lab.begin(&container, &tagged(redirected, "other")).await;
    let other = process::find(lab.pid(&other).await).expect("a process");
    until("the other's output to be the container's", async || writes_there(other).await).await;

    let mine = family("mine", leader, pipes);
    assert_eq!(commands(&process::family(&mine, &container.id).unwrap()), ["sh", "sleep"]);
    end(&mine, &container).await;
    assert!(process::alive(other) && process::alive(first));
}

/// A command in a paused container that is killed there, and its end.
async fn killed_while_paused(lab: &Lab, container: &TestContainer) -> (ExecId, ExecStream, JoinHandle<()>) {
    let (exec, stream) = lab.begin(container, &shell("echo begun; sleep 100; true")).await;
    let leader = process::find(lab.pid(&exec).await).expect("a process");
    let ended = tokio::spawn(async move {
        process::ended(leader).await.expect("a handle");
    });
    lab.docker.pause_container(container.id()).await.unwrap();
    assert!(process::signal(leader, &container.id, Signal::Kill).expect("not forbidden"), "the kernel takes it");
    (exec, stream, ended)
}

fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

#[tokio::test]
async fn a_process_that_is_killed_in_a_paused_container_lives_until_that_goes_on() {
    if is_unified() {
        not_shown(
            "how a process of a paused container outlives its death: this machine has cgroup v2, which lets it die",
        );
        return;
    }
    let lab = Lab::open().await;
    let container = lab.container().await;
    let (exec, stream, mut ended) = killed_while_paused(&lab, &container).await;
    // The length of the moment is what is shown here.
    assert!(timeout(WATCHED, &mut ended).await.is_err(), "it stays");
    assert_eq!((lab.inspect(&exec).await.code, lab.died(&exec)), (None, None));

    lab.docker.unpause_container(container.id()).await.unwrap();
    within("the end", ended).await.unwrap();
    read(stream).await.expect("a clean end");
    assert_eq!((lab.code(&exec).await, lab.death(&exec).await.code), (137, 137));
}

#[tokio::test]
async fn with_cgroup_v2_a_process_that_is_killed_in_a_paused_container_dies_at_once() {
    if !is_unified() {
        not_shown(
            "how a process of a paused container dies: this machine has cgroup v1, which keeps it until it goes on",
        );
        return;
    }
    let lab = Lab::open().await;
    let container = lab.container().await;
    let (exec, stream, ended) = killed_while_paused(&lab, &container).await;
    within("the end, in a container that is paused", ended).await.unwrap();
    assert_eq!((lab.code(&exec).await, lab.death(&exec).await.code), (137, 137));
    lab.docker.unpause_container(container.id()).await.unwrap();
    read(stream).await.expect("a clean end");
}

#[tokio::test]
async fn the_kernel_tells_the_code_that_the_engine_does_not() {
    let (keeps, release) = kernel_keeps_codes();
    if !keeps {
        not_shown(&format!("a code that the kernel tells: Linux {release} keeps none; what is told without is shown"));
    }
    let lab = Lab::open().await;
    let container = lab.container().await;
    for tty in [false, true] {
        let script = "echo begun; read _ < /gate; seq 20000; exit 7";
        let (exec, stream) = lab.begin(&container, &ExecSpec { tty, ..shell(script) }).await;
        let leader = process::find(lab.pid(&exec).await).expect("a process");
        let ended = watched(leader).await;
        drop(stream);
        container.open_gate();
        let told = ended.await.unwrap().expect("a handle");
        // A terminal may be hung up without its client, which the engine does not tell.
        let hung_up = tty && told == Some(HUNG_UP);
        assert!(hung_up || told == keeps.then_some(7), "tty: {tty}: {told:?}");
        // Without it there is the true code or none: an engine that has lost it makes none up that is believed.
        let verdict = lab.verdict(&exec, StreamEnd::Broken).await;
        let event = lab.death(&exec).await.code;
        match verdict {
            Verdict::Undecided => assert_eq!((tty, event), (true, 127), "what the engine says without its client"),
            verdict => assert!(is_seven(verdict) && event == 7, "tty: {tty}: {verdict:?} {event}"),
        }
    }
}
