//! An exec is a token for one start, whatever happens around it.

use std::pin::pin;

use execlet::{core::ids::ExecId, infra::process};
use futures::{future::join_all, poll};
use tokio::task::yield_now;

use crate::lab::{Lab, NEVER_STARTED, TestContainer, on_a_terminal, read, shell, until};

/// Creates execs that each note their number in `/runs` when they run.
async fn create_many(lab: &Lab, container: &TestContainer, count: usize) -> Vec<ExecId> {
    let mut execs = Vec::new();
    for number in 0..count {
        execs.push(lab.create(container, &shell(&format!("echo {number} >> /runs"))).await);
    }
    execs
}

/// Starts an exec that somebody else has started, and asserts that nothing but words comes of it.
async fn start_again(lab: &Lab, exec: &ExecId, tty: bool) {
    let stream = lab.engine.start_exec(exec, tty).await.expect("no refusal");
    let second = read(stream).await.expect("a clean end, though the command goes on");
    let words = String::from_utf8_lossy(&second.stdout).into_owned();
    assert!(words.contains("already running"), "{words}");
    assert!(lab.inspect(exec).await.running);
}

/// The numbers in `/runs`, in order.
async fn runs(lab: &Lab, container: &TestContainer) -> Vec<usize> {
    let text = lab.sh(container, "touch /runs; cat /runs").await;
    let mut runs: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    runs.sort_unstable();
    runs
}

#[tokio::test]
async fn creating_an_exec_runs_nothing() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let exec = create_many(&lab, &container, 1).await.remove(0);
    assert_eq!(lab.inspect(&exec).await, NEVER_STARTED, "no code is not code 0");
    assert_eq!(runs(&lab, &container).await, Vec::<usize>::new());
    assert_eq!(lab.inspect(&exec).await, NEVER_STARTED);
}

#[tokio::test]
async fn a_second_start_of_a_running_exec_gives_the_engines_words_as_output_and_runs_nothing() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let (exec, first) = lab.begin(&container, &shell("echo run >> /runs; echo begun; read _ < /gate; exit 7")).await;
    start_again(&lab, &exec, false).await;

    container.open_gate();
    read(first).await.expect("an unbroken stream");
    assert_eq!((lab.code(&exec).await, lab.death(&exec).await.code), (7, 7));
    assert_eq!(lab.sh(&container, "cat /runs").await, "run\n");
}

#[tokio::test]
async fn a_second_start_on_a_terminal_gives_the_engines_words_as_output_and_takes_nothing_from_the_first() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let script = "echo run >> /runs; echo begun; read _ < /gate; echo whole; exit 7";
    let (exec, first) = lab.begin(&container, &on_a_terminal(script)).await;
    start_again(&lab, &exec, true).await;

    container.open_gate();
    assert!(read(first).await.expect("an unbroken stream").stdout.ends_with(b"whole\r\n"));
    assert_eq!((lab.code(&exec).await, lab.death(&exec).await.code), (7, 7));
    assert_eq!(lab.sh(&container, "cat /runs").await, "run\n");
}

#[tokio::test]
async fn a_second_start_on_a_terminal_whose_client_went_away_does_not_save_its_code() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let script = "echo run >> /runs; echo begun; read _ < /gate; echo noise; read _ < /gate; exit 7";
    let exec = lab.create_without_input(&container, script).await;
    let first = lab.begin_created(&exec, true).await;
    let process = process::find(lab.pid(&exec).await).expect("a process of this machine");
    drop(first);
    start_again(&lab, &exec, true).await;

    container.open_gate();
    assert_eq!(lab.code(&exec).await, 126, "the noise found no client");
    assert!(process::alive(process), "it waits at the gate again");
    container.open_gate();
    assert_eq!(lab.death(&exec).await.code, 127);
    assert_eq!(lab.code(&exec).await, 126);
    assert_eq!(lab.sh(&container, "cat /runs").await, "run\n");
}

#[tokio::test]
async fn a_second_start_on_a_terminal_whose_input_is_attached_runs_nothing() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let script = "echo run >> /runs; echo begun; read _ < /gate; echo noise; read _ < /gate; exit 7";
    let (exec, first) = lab.begin(&container, &on_a_terminal(script)).await;
    drop(first);
    start_again(&lab, &exec, true).await;
    container.open_gate();
    container.open_gate();
    let told = (lab.death(&exec).await.code, lab.code(&exec).await);
    assert!([(7, 7), (7, 126), (127, 126)].contains(&told), "{told:?}");
    assert_eq!(lab.sh(&container, "cat /runs").await, "run\n");
}

#[tokio::test]
async fn a_second_start_of_a_finished_exec_gives_the_engines_words_as_output_and_runs_nothing() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let run = lab.run(&container, &shell("echo run >> /runs; exit 7")).await;
    let second = read(lab.start(&run.exec).await).await.expect("a clean end");
    let words = String::from_utf8_lossy(&second.stdout).into_owned();
    assert!(words.contains("already run"), "{words}");
    assert_eq!(lab.inspect(&run.exec).await, run.state);
    assert_eq!(lab.sh(&container, "cat /runs").await, "run\n");
}

#[tokio::test]
async fn eight_racing_starts_run_each_of_sixty_execs_once() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let execs = create_many(&lab, &container, 60).await;
    for some in execs.chunks(10) {
        let racing = some.iter().flat_map(|exec| [exec; 8]).map(async |exec| {
            if let Ok(stream) = lab.engine.start_exec(exec, false).await {
                read(stream).await.expect("a clean end");
            }
        });
        join_all(racing).await;
    }
    for exec in &execs {
        assert_eq!(lab.code(exec).await, 0);
    }
    assert_eq!(runs(&lab, &container).await, (0..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_exec_whose_start_was_cut_in_flight_runs_once_when_started_again() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let execs = create_many(&lab, &container, 40).await;
    for (number, exec) in execs.iter().enumerate() {
        // Each is cut a little later: before the request is sent, while it is on its way, when it was answered.
        let mut start = pin!(lab.engine.start_exec(exec, false));
        for _ in 0..number {
            if poll!(start.as_mut()).is_ready() {
                break;
            }
            yield_now().await;
        }
    }
    // What has reached the engine runs to its end. Of the others it says what it said before.
    let ran = until("inspect and the commands to agree on who ran", async || {
        let states = join_all(execs.iter().map(|exec| lab.inspect(exec))).await;
        let started: Vec<_> = states.iter().enumerate().filter(|(_, state)| **state != NEVER_STARTED).collect();
        let ended = started.iter().all(|(_, state)| state.code.is_some());
        let started: Vec<usize> = started.iter().map(|(number, _)| *number).collect();
        (ended && runs(&lab, &container).await == started).then_some(started)
    })
    .await;
    assert!(!ran.contains(&0), "its request was never sent");
    for exec in &execs {
        if let Ok(stream) = lab.engine.start_exec(exec, false).await {
            read(stream).await.expect("a clean end");
        }
    }
    for exec in &execs {
        lab.code(exec).await;
    }
    assert_eq!(runs(&lab, &container).await, (0..40).collect::<Vec<_>>());
}
