//! An engine that is killed and started again, with and without live-restore.
//!
//! `EXECLET_TEST_ENGINE_NODE` names the node of the test cluster whose engine may be
//! killed; it is not the one that the other tests are on.

use std::{env, path::PathBuf, process::Command, time::Duration};

use execlet::{
    core::ids::{ContainerRef, ExecRef},
    engine::{Engine as _, EngineError, ExecSpec},
    infra::process,
};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::timeout,
};

use crate::lab::{Lab, on_a_terminal, read, shell, until, within};

/// How long a command is watched that waits for somebody who reads.
const WATCHED: Duration = Duration::from_secs(1);

const NODE: &str = "EXECLET_TEST_ENGINE_NODE";

/// Whose turn it is: the tests share one engine.
static TURN: Mutex<()> = Mutex::const_new(());

/// The engine of one node, with its settings as they were when dropped.
struct Own {
    _turn: MutexGuard<'static, ()>,
    node: String,
    settings: PathBuf,
    before: String,
}

fn cluster(args: &[&str]) -> String {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/cluster");
    let output = Command::new(tool).args(args).output().expect("the cluster's tool");
    assert!(output.status.success(), "cluster {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Own {
    async fn open(live_restore: bool) -> Self {
        let turn = TURN.lock().await;
        let node = env::var(NODE).unwrap_or_else(|_| {
            panic!("{NODE} is not set: it names a node whose engine may be killed; `make test-engine` sets it")
        });
        // The folder that is `/run` on the node is beside the one that holds its settings.
        let socket = PathBuf::from(cluster(&["socket", &node]));
        let settings = socket.parent().and_then(|run| run.parent()).unwrap().join("lib/docker-daemon.json");
        let before = std::fs::read_to_string(&settings).expect("the engine's settings");
        let own = Self { _turn: turn, node, settings, before };
        own.set(live_restore);
        own
    }

    fn set(&self, live_restore: bool) {
        let text = self.before.replace("\"live-restore\": false", &format!("\"live-restore\": {live_restore}"));
        std::fs::write(&self.settings, text).expect("written");
        // It reads its settings again.
        cluster(&["kill", &self.node, "dockerd", "HUP"]);
    }

    async fn lab(&self) -> Lab {
        Lab::at(cluster(&["socket", &self.node]).into()).await
    }

    fn kill(&self) {
        cluster(&["kill", &self.node, "dockerd"]);
    }

    fn start(&self) {
        cluster(&["start", &self.node, "dockerd"]);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.start();
        self.set(false);
    }
}

#[tokio::test]
async fn an_engine_that_is_killed_forgets_every_exec_and_ends_streams_as_if_all_were_well() {
    for live_restore in [false, true] {
        let own = Own::open(live_restore).await;
        let lab = own.lab().await;
        let container = lab.container().await;
        let created = lab.create(&container, &shell("true")).await;
        let finished = lab.run(&container, &shell("exit 3")).await.exec;
        let script = "echo begun; read _ < /gate; exit 7";
        let tagged = |spec, uid: &str| ExecSpec { env: vec![format!("EXECLET_UID={uid}")], ..spec };
        let (running, stream) = lab.begin(&container, &tagged(shell(script), "one")).await;
        let spec = tagged(on_a_terminal("echo begun; sleep 300; true"), "two");
        let (terminal, terminal_stream) = lab.begin(&container, &spec).await;
        let [one, two] =
            [lab.pid(&running).await, lab.pid(&terminal).await].map(|pid| process::find(pid).expect("a process"));
        let ended = tokio::spawn(process::ended(one));

        own.kill();
        read(stream).await.expect("a clean end of the stream, which tells nothing");
        read(terminal_stream).await.expect("the same with a terminal");
        assert!(process::alive(one) && process::alive(two), "the processes outlive the engine");

        own.start();
        let lab = own.lab().await;
        for exec in [&created, &finished, &running, &terminal] {
            let inspect = lab.engine.inspect_exec(exec).await;
            assert!(matches!(inspect, Err(EngineError::NoSuchExec(_))), "live-restore {live_restore}: {inspect:?}");
        }
        if live_restore {
            let began = |uid: &str| process::began(&container.id, &uid.into()).unwrap();
            assert_eq!(
                (began("one"), began("two")),
                (Some(one), Some(two)),
                "they run on, and are found by their tags"
            );
            container.open_gate();
            let code = within("the end", ended).await.unwrap().expect("a handle");
            assert!(code.is_none_or(|code| code == 7), "only the kernel knows it: {code:?}");
            assert_eq!(lab.death(&running).await.code, 127, "the event comes, and is false");
        } else {
            until("the processes to be ended with their container", async || {
                (!process::alive(one) && !process::alive(two)).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn what_a_command_writes_that_a_killed_engine_reads_no_more_can_be_read_in_its_place() {
    let own = Own::open(true).await;
    let lab = own.lab().await;
    let container = lab.container().await;
    // More than the pipe, the FIFO and whoever copies from one to the other hold.
    let script = "echo begun; read _ < /gate; head -c 400000 /dev/zero; head -c 400000 /dev/zero >&2; exit 7";
    let mut all = Vec::new();
    for spec in [shell(script), on_a_terminal(script)] {
        let (exec, stream) = lab.begin(&container, &spec).await;
        let process = process::find(lab.pid(&exec).await).expect("a process");
        all.push((exec, stream, tokio::spawn(process::ended(process))));
    }
    own.kill();
    own.start();
    let lab = own.lab().await;
    // One line each: either may take the first.
    for _ in &all {
        container.open_gate();
    }
    for (exec, stream, mut ended) in all {
        read(stream).await.expect("a clean end");
        // The length of the moment is what is shown here.
        assert!(timeout(WATCHED, &mut ended).await.is_err(), "it waits for somebody who reads");
        let exec = ExecRef { id: exec, container: ContainerRef { id: container.id.clone(), started_at: None } };
        // Whoever copies into them keeps the FIFOs of an exec open that the engine has forgotten, also when it has ended.
        let code = tokio::select! {
            code = within("the end", &mut ended) => code.unwrap().expect("a handle"),
            () = async {
                lab.engine.drain(&exec).await;
                std::future::pending::<()>().await;
            } => unreachable!(),
        };
        assert!(code.is_none_or(|code| code == 7), "{code:?}");
    }
}
