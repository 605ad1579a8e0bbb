//! How streams and execs end when something else than the command decides it.

use std::time::Duration;

use bollard::query_parameters::{KillContainerOptions, RemoveContainerOptionsBuilder};
use execlet::{
    core::family::Family,
    engine::{EngineError, ExecSpec},
    infra::process,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::lab::{Lab, read, shell, until, within};

/// The engine forces the end of a stream that a child holds open so long after the exit; the code relies on it.
const LEAST_DELAY: Duration = Duration::from_millis(1500);

/// For how long nobody reads a stream that is handed over, and more.
const UNREAD: Duration = Duration::from_secs(1);

/// The moment at which a process ends.
fn exit_of(pid: u32) -> JoinHandle<Instant> {
    let process = process::find(pid).expect("a process of this machine");
    tokio::spawn(async move {
        process::ended(process).await.unwrap();
        Instant::now()
    })
}

#[tokio::test]
async fn a_child_that_holds_the_output_delays_the_end_of_the_stream_but_not_the_code() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let script = "sleep 60 & echo begun; read _ < /gate; exit 7";
    let exec = lab.create(&container, &shell(script)).await;
    let reading = tokio::spawn(read(lab.start(&exec).await));
    let exit = exit_of(lab.pid(&exec).await);
    container.open_gate();
    assert_eq!(lab.code(&exec).await, 7);
    // A current engine answers no inspect of the exec before the stream has ended.
    assert!(!lab.is_old().await || !reading.is_finished(), "the code is there before the end of the stream");
    let output = reading.await.unwrap().expect("a clean end, which shows nothing of what was cut off");
    let delay = exit.await.unwrap().elapsed();
    assert_eq!(output.stdout, b"begun\n");
    assert!(delay > LEAST_DELAY, "{delay:?}");
    assert_eq!(lab.sh(&container, "pidof sleep | wc -w").await, "2\n", "the child lives on");
}

#[tokio::test]
async fn an_exec_whose_container_is_killed_ends_with_137() {
    let lab = Lab::open().await;
    for tty in [false, true] {
        let container = lab.container().await;
        let spec = ExecSpec { tty, ..shell("echo begun; sleep 60") };
        let (exec, stream) = lab.begin(&container, &spec).await;
        lab.docker.kill_container(container.id(), None::<KillContainerOptions>).await.unwrap();
        read(stream).await.expect("a clean end");
        assert_eq!((lab.code(&exec).await, lab.death(&exec).await.code), (137, 137), "tty: {tty}");
    }
}

#[tokio::test]
async fn an_exec_whose_container_is_removed_is_forgotten_but_the_event_tells_137() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let (exec, stream) = lab.begin(&container, &shell("echo begun; sleep 60")).await;
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    lab.docker.remove_container(container.id(), Some(options)).await.unwrap();
    read(stream).await.expect("a clean end");
    assert_eq!(lab.death(&exec).await.code, 137);
    let inspect = lab.engine.inspect_exec(&exec).await;
    assert!(matches!(inspect, Err(EngineError::NoSuchExec(_))), "{inspect:?}");
}

#[tokio::test]
async fn in_a_shared_pid_namespace_the_end_of_the_container_is_told_of_the_exec_by_all_but_its_stream() {
    let lab = Lab::open().await;
    for tty in [false, true] {
        let container = lab.among_all_processes().await;
        let spec = ExecSpec { tty, ..shell("echo begun; exec sleep 60") };
        let (exec, stream) = lab.begin(&container, &spec).await;
        let exit = exit_of(lab.pid(&exec).await);
        let reading = tokio::spawn(read(stream));
        lab.docker.kill_container(container.id(), None::<KillContainerOptions>).await.unwrap();
        within("the end of the process", exit).await.unwrap();
        if lab.is_old().await {
            assert_eq!(lab.death(&exec).await.code, 127, "tty: {tty}: which says nothing");
            let forgotten = async || lab.engine.inspect_exec(&exec).await.err();
            let error = until("the exec to be forgotten", forgotten).await;
            assert!(matches!(error, EngineError::NoSuchExec(_)), "tty: {tty}: {error:?}");
            sleep(LEAST_DELAY * 2).await;
            assert!(!reading.is_finished(), "tty: {tty}: the stream has ended");
        }
        reading.abort();
    }
}

#[tokio::test]
async fn a_child_that_holds_the_output_delays_the_ends_of_other_execs_but_takes_nothing_from_them() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let waiting = shell("echo begun; read _ < /gate; echo whole; exit 8");
    let exec = lab.create(&container, &waiting).await;
    let reading = tokio::spawn(read(lab.start(&exec).await));
    let exit = exit_of(lab.pid(&exec).await);

    let tag = vec!["EXECLET_UID=holder".to_owned()];
    let holder = lab.create(&container, &ExecSpec { env: tag, ..shell("sleep 60 & exit 7") }).await;
    let _stream = lab.start(&holder).await;
    let family = Family { uid: Some("holder".into()), leader: None, pipes: Vec::new(), since_ticks: 0 };
    until("only the child to be left", async || {
        let living = process::family(&family, &container.id).unwrap();
        matches!(living.as_slice(), [child] if child.command == "sleep").then_some(())
    })
    .await;
    container.open_gate();
    let exit = exit.await.unwrap();
    if lab.is_old().await {
        assert_eq!(lab.died(&holder), None, "the engine waits for the end of the first stream");
        assert_eq!(lab.inspect(&exec).await.code, None, "and has not yet looked at the second exit");
    }

    assert_eq!(reading.await.unwrap().expect("a clean end").stdout, b"begun\nwhole\n");
    assert!(exit.elapsed() > LEAST_DELAY, "{:?}", exit.elapsed());
    assert_eq!(lab.inspect(&exec).await.code, Some(8));
}

#[tokio::test]
async fn a_command_that_closes_its_output_early_ends_the_stream_only_with_itself() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let script = "echo begun; exec >/dev/null 2>&1; read _ < /gate; exit 7";
    let exec = lab.create(&container, &shell(script)).await;
    let reading = tokio::spawn(read(lab.start(&exec).await));
    let process = process::find(lab.pid(&exec).await).expect("a process of this machine");
    until("its output to be closed", async || process::output_pipes(process).is_empty().then_some(())).await;
    assert!(!reading.is_finished(), "the stream outlives its writer's descriptors");
    container.open_gate();
    assert_eq!(reading.await.unwrap().expect("a clean end").stdout, b"begun\n");
    assert_eq!(lab.code(&exec).await, 7);
}

/// What the handover of a stream from one agent to the next relies on.
#[tokio::test]
async fn output_that_nobody_reads_for_a_moment_is_whole_also_if_its_command_ends_meanwhile() {
    let lab = Lab::open().await;
    for tty in [false, true] {
        let container = lab.container().await;
        let spec = ExecSpec { tty, ..shell("echo begun; read _ < /gate; seq 2000; exit 7") };
        let (exec, stream) = lab.begin(&container, &spec).await;
        let exit = exit_of(lab.pid(&exec).await);
        container.open_gate();
        exit.await.unwrap();
        // The length of the moment is what is shown here.
        sleep(UNREAD).await;
        let output = read(stream).await.expect("a clean end");
        let numbers = output.stdout.split_inclusive(|byte| *byte == b'\n').count();
        assert_eq!(
            (numbers, output.stdout.ends_with(if tty { b"2000\r\n" } else { b"\n2000\n" })),
            (2000, true),
            "tty: {tty}"
        );
        assert_eq!(lab.code(&exec).await, 7);
    }
}
