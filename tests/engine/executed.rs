//! Commands that the runtime cannot execute in the process that it has made for them, and what shows that.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use execlet::{
    core::execution::{Author, Heard, Obstacle, Refusal, Sighting, too_long},
    engine::{Engine as _, ExecSpec, Surroundings, docker::Inspected, runc::author},
    infra::{
        kernel::{Kernel as _, Linux},
        process::{leader, sighting},
        program::Program,
    },
};
use k8s_openapi::jiff::Timestamp;

use crate::lab::{Lab, Run, TestContainer, command, shell, until};

/// Makes programs of all kinds in `/tmp` of a container.
const PROGRAMS: &str = r"
    cd /tmp && mkdir -p folder links/up && mkfifo fifo
    printf '#!/bin/bash\n' > script
    printf '#!/bin/sh\r\nexit 3\n' > returns
    printf '#!/tmp/script\n' > nested
    printf 'garbage' > garbage; : > empty
    printf '#!/tmp/folder\n' > by-folder; printf '#!/tmp/fifo\n' > by-fifo
    printf '#!/etc/passwd\n' > by-text; printf '#!/dev/shm/sh\n' > by-noexec
    cp /bin/busybox /dev/shm/sh
    printf '#!/bin/sh\nexit 3\n' > chain0
    for n in 1 2 3 4 5 6; do printf '#!/tmp/chain%s\n' $((n - 1)) > chain$n; done
    printf '#!/bin/sh\nexit 3\n' > runs; printf '#! /bin/busybox sh\nexit 3' > also-runs
    printf '#!/tmp/links/sh\nexit 3\n' > linked; ln -s ../links/b links/sh; ln -s /bin/sh links/b
    printf '#!/tmp/links/up/sh\nexit 3\n' > outside; ln -s ../../../../../../bin/sh links/up/sh
    printf '#!/proc/self/exe\n' > by-itself
    printf '\177ELF' > cut-off
    { head -c 18 /bin/busybox; printf '\267'; tail -c +20 /bin/busybox; } > other-machine
    chmod +x *
";

struct Stage {
    lab: Lab,
    container: TestContainer,
    surroundings: Surroundings,
}

impl Stage {
    async fn set() -> Self {
        let lab = Lab::open().await;
        let container = lab.container().await;
        lab.sh(&container, PROGRAMS).await;
        let main = lab.main_pid(&container).await;
        // A program of this machine, whose loader the container lacks.
        fs::copy("/bin/true", format!("/proc/{main}/root/tmp/dynamic")).expect("a program");
        let run = lab.engine.container(&container.id).await.unwrap().expect("a container").reference;
        let surroundings = lab.engine.surroundings(&run).await.unwrap().expect("a container that runs");
        assert_eq!((surroundings.main, surroundings.search_path.as_deref()), (main, Some("/bin")));
        Self { lab, container, surroundings }
    }

    /// What the look at a program's file says.
    async fn look(&self, path: &str, since: SystemTime) -> Option<(Obstacle, String)> {
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let (container, places) = (self.container.id.clone(), vec![path.to_owned()]);
        Linux.obstacle(Program { container, main: self.surroundings.main, places, since }).await
    }
}

fn heard(run: &Run, terminal: bool) -> Heard {
    let (stdout, stderr) = (run.output.stdout.clone(), run.output.stderr.clone());
    Heard { stdout, stderr, longer: false, terminal, echoes: false }
}

fn soon() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_has_a_process_a_code_an_event_and_the_runtimes_words() {
    let stage = Stage::set().await;
    let Stage { lab, container, .. } = &stage;
    let long = "x".repeat(128 * 1024);
    let rows = [
        (vec!["/tmp/script"], Obstacle::Missing),
        (vec!["/tmp/returns"], Obstacle::Missing),
        (vec!["/tmp/dynamic"], Obstacle::Missing),
        (vec!["/tmp/garbage"], Obstacle::Format),
        (vec!["/tmp/other-machine"], Obstacle::Format),
        (vec!["/tmp/by-folder"], Obstacle::Denied),
        (vec!["/tmp/chain6"], Obstacle::Loop),
        (vec!["true", &long], Obstacle::TooLong),
    ];
    for (words, obstacle) in rows {
        for tty in [false, true] {
            let program = words[0];
            let spec =
                ExecSpec { command: words.iter().map(|&word| word.to_owned()).collect(), tty, ..ExecSpec::default() };
            let run = lab.run(container, &spec).await;
            let code = if lab.is_old().await { 1 } else { 255 };
            assert!(matches!(run.state, Inspected { code: Some(c), pid: Some(_), .. } if c == code), "{:?}", run.state);
            assert_eq!(lab.death(&run.exec).await.code, code, "{program}");
            let said = author(program, code, Some(&heard(&run, tty)));
            let Author::Runtime(Refusal { path, obstacle: found, .. }) = said else {
                panic!("{program}: {:?}", run.output)
            };
            assert_eq!((path.rsplit('/').next(), found), (program.rsplit('/').next(), obstacle), "{program}");
        }
    }
    assert!(too_long(["true", &long].into_iter()).is_some());
}

#[tokio::test]
async fn a_look_at_a_program_says_what_the_kernel_answers_and_never_of_one_that_runs() {
    let stage = Stage::set().await;
    let Stage { lab, container, .. } = &stage;
    let names = [
        "script",
        "returns",
        "nested",
        "garbage",
        "empty",
        "by-folder",
        "by-fifo",
        "by-text",
        "by-noexec",
        "chain0",
        "chain1",
        "chain5",
        "chain6",
        "runs",
        "also-runs",
        "linked",
        "outside",
        "by-itself",
        "cut-off",
        "other-machine",
        "dynamic",
    ];
    for name in names {
        let path = format!("/tmp/{name}");
        let run = lab.run(container, &command([path.as_str()])).await;
        let code = run.state.code.expect("a code");
        let answer = match author(&path, code, Some(&heard(&run, false))) {
            Author::Runtime(refusal) => Some(refusal.obstacle),
            Author::Command | Author::Killed | Author::Unheard => None,
        };
        let look = stage.look(&path, soon()).await;
        // Which formats the kernel has learned cannot be seen everywhere, and never what a process's own link was.
        let unsure = ["cut-off", "other-machine", "by-itself"].contains(&name) && look.is_none();
        let found = look.as_ref().map(|(obstacle, _)| *obstacle);
        assert!(found == answer || unsure, "{name}: {look:?}, {answer:?}, {:?}", run.output);
        assert_eq!(answer.is_none(), code == 3, "{name} ended with {code}: {:?}", run.output);
    }
    for path in ["/tmp/no-such-program", "/bin/sh", "/proc/self/exe"] {
        assert_eq!(stage.look(path, soon()).await, None, "{path}");
    }
    assert!(stage.look("/tmp/../tmp/./script", soon()).await.is_some());
}

#[tokio::test]
async fn a_program_that_may_have_been_another_one_since_is_not_spoken_of() {
    let stage = Stage::set().await;
    let Stage { lab, container, .. } = &stage;
    let before = SystemTime::now() - Duration::from_secs(3600);
    assert_eq!(stage.look("/tmp/script", before).await, None, "it was made since");
    // What is put in another's place shows by its folder, or by itself.
    for script in
        ["cp e/f d/f", "mv g d/f", "ln -f g d/f", "mv d o; mv e d", "mv d o; ln -s e d", "mv d/f d/g; mv d/g d/f"]
    {
        let made =
            r"cd /tmp; rm -rf d e o g; mkdir d e; printf '#!/bin/bash\n' > d/f; cp d/f e/f; cp d/f g; chmod +x g */f";
        lab.sh(container, made).await;
        assert!(stage.look("/tmp/d/f", SystemTime::now()).await.is_some(), "{script}");
        let then = SystemTime::now();
        lab.sh(container, &format!("cd /tmp; rm -rf o; {script}")).await;
        assert_eq!(stage.look("/tmp/d/f", then).await, None, "{script}");
        assert!(stage.look("/tmp/d/f", soon()).await.is_some(), "{script}");
    }
    // Whoever changes only what is beside it hides nothing.
    let then = SystemTime::now();
    lab.sh(container, "touch /tmp/beside").await;
    assert!(stage.look("/tmp/returns", then).await.is_some());
    // An interpreter that is gone may have been there.
    lab.sh(
        container,
        "mkdir /tmp/gone; printf '#!/tmp/gone/sh\\n' > /tmp/lost; chmod +x /tmp/lost; cp /bin/sh /tmp/gone/sh",
    )
    .await;
    let then = SystemTime::now();
    lab.sh(container, "rm /tmp/gone/sh").await;
    assert_eq!(stage.look("/tmp/lost", then).await, None);
    assert!(stage.look("/tmp/lost", soon()).await.is_some());
}

#[tokio::test]
async fn a_container_whose_main_process_looks_elsewhere_is_not_looked_into() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    lab.sh(&container, "mkdir -p /jail/bin /jail/tmp; mkfifo /jail/wait; cp /bin/busybox /jail/bin/sh; printf '#!/bin/bash' > /jail/tmp/x; chmod +x /jail/tmp/x").await;
    let exec = lab.create(&container, &command(["chroot", "/jail", "/bin/sh", "-c", "read _ < /wait; exit"])).await;
    let exec = ExecRunning { id: exec.clone(), _stream: lab.start(&exec).await };
    let pid = lab.pid(&exec.id).await;
    let jailed = || fs::read_link(format!("/proc/{pid}/root")).is_ok_and(|root| root != Path::new("/"));
    until("a root of its own", async || jailed().then_some(())).await;
    let since = soon().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let program = |main| Program { container: container.id.clone(), main, places: vec!["/tmp/x".to_owned()], since };
    assert_eq!(Linux.obstacle(program(pid)).await, None);
    assert_eq!(Linux.obstacle(program(std::process::id())).await, None, "a process of no container");
}

struct ExecRunning {
    id: execlet::core::ids::ExecId,
    _stream: execlet::engine::ExecStream,
}

/// The list of all processes in the control group of a container's main process.
pub fn control_group(main: u32) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{main}/cgroup")).expect("control groups");
    let path = |line: &str| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
        [_, "pids", path] => Some(format!("/sys/fs/cgroup/pids{path}/cgroup.procs")),
        ["0", "", path] => Some(format!("/sys/fs/cgroup{path}/cgroup.procs")),
        _ => None,
    };
    let mut paths = groups.lines().filter_map(path).map(PathBuf::from);
    paths.find(|path| path.exists()).expect("a list of processes")
}

/// The process that a container got last, and all that was seen of it up to its end.
async fn sightings(lab: &Lab, container: &TestContainer, spec: &ExecSpec) -> Vec<Sighting> {
    let exec = lab.create(container, spec).await;
    let main = lab.main_pid(container).await;
    let processes = control_group(main);
    let (id, stop) = (container.id.clone(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let stopped = std::sync::Arc::clone(&stop);
    let watching = tokio::task::spawn_blocking(move || {
        let (mut seen, mut process) = (Vec::new(), None);
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let Some(found) = process else {
                let all = fs::read_to_string(&processes).expect("a control group");
                let pids = all.lines().filter_map(|pid| pid.parse::<u32>().ok());
                process = pids.filter(|pid| *pid != main).find_map(|pid| leader(pid, &id, &"none".into()));
                continue;
            };
            let now = sighting(found);
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        seen
    });
    let stream = lab.engine.start_exec(&exec, spec.tty).await.expect("a started exec");
    crate::lab::read(stream).await.expect("a stream");
    lab.death(&exec).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    watching.await.expect("a thread")
}

#[tokio::test]
async fn a_process_is_the_runtimes_until_it_executes_the_command() {
    let stage = Stage::set().await;
    let Stage { lab, container, .. } = &stage;
    // On a busy machine it may be seen too late, or not at all.
    let of_a_command = until("a look before a command", async || {
        let seen = sightings(lab, container, &shell("sleep 0.2")).await;
        assert!(!seen.contains(&Sighting::Never), "{seen:?}");
        (seen.first() == Some(&Sighting::Unseen)).then_some(seen)
    });
    assert_eq!(of_a_command.await.get(1), Some(&Sighting::Executed));
    until("a look at a runtime that executes nothing", async || {
        let seen = sightings(lab, container, &command(["/tmp/script"])).await;
        assert!(!seen.contains(&Sighting::Executed), "{seen:?}");
        (seen.first() == Some(&Sighting::Unseen)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_runtime_that_is_killed_for_want_of_memory_ends_as_a_command_that_is_killed() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let begun = Timestamp::now();
    let quiet = lab.run(&container, &shell("kill -9 $$")).await;
    assert_eq!((quiet.state.code, quiet.output.stdout.len()), (Some(137), 0));
    assert!(!lab.engine.ran_out_of_memory(&container.id, begun).await.unwrap());
    // What is in its memory leaves less and less, until there is no room for the runtime itself.
    let limit = 6 << 20;
    let change =
        bollard::models::ContainerUpdateBody { memory: Some(limit), memory_swap: Some(limit), ..Default::default() };
    lab.docker.update_container(container.id(), change).await.expect("a limit");
    let killed = until("an end for want of memory", async || {
        let run = lab.run(&container, &shell("echo ran; head -c 128k /dev/zero >> /dev/shm/fill")).await;
        (run.state.code == Some(137) && run.output.stdout.is_empty()).then_some(run)
    })
    .await;
    assert!(killed.state.pid.is_some() && killed.output.stderr.is_empty(), "{:?} {:?}", killed.state, killed.output);
    assert_eq!(lab.death(&killed.exec).await.code, 137);
    assert_eq!(author("sh", 137, Some(&heard(&killed, false))), Author::Killed);
    assert!(lab.engine.ran_out_of_memory(&container.id, begun).await.unwrap());
    assert!(!lab.engine.ran_out_of_memory(&"0123".into(), begun).await.unwrap(), "another container");
}
