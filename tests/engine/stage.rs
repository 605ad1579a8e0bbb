//! What a test needs that is about no engine alone: one of them, and containers on it.
//!
//! `EXECLET_TEST_ENGINE` chooses: the socket of a Docker Engine, or `containerd`, which each test then starts for itself.

use std::{collections::HashMap, env};

use execlet::{
    core::{
        ids::{ContainerRef, ExecName, ExecRef},
        offsets::StreamOffsets,
    },
    engine::{Engine, ExecSpec, ExecState, ExecStream, Prepared, StreamError},
    wire::OutputStream,
};

use crate::lab::{Output, shell, unique, until, within};

pub const ENGINE: &str = "EXECLET_TEST_ENGINE";
const CONTAINERD: &str = "containerd";

pub enum Chosen {
    Docker,
    Containerd,
}

pub fn chosen() -> Chosen {
    if env::var_os(ENGINE).is_some_and(|engine| engine == CONTAINERD) { Chosen::Containerd } else { Chosen::Docker }
}

/// Runs a test on the engine that is chosen.
macro_rules! on_the_engine {
    ($stage:ident => $test:block) => {
        match $crate::stage::chosen() {
            $crate::stage::Chosen::Docker => {
                let $stage = $crate::lab::Lab::open().await;
                $test
            }
            $crate::stage::Chosen::Containerd => {
                let $stage = $crate::containerd::node::Node::open().await;
                $test
            }
        }
    };
}
pub(crate) use on_the_engine;

/// An exec that was run to its end.
pub struct Ran {
    pub output: Output,
    pub code: i32,
}

#[allow(async_fn_in_trait, reason = "tests need no bounds")]
pub trait Stage {
    type Engine: Engine;
    type Container: Staged;

    fn engine(&self) -> &Self::Engine;

    /// A label that tells containers (`container`) from sandboxes (`sandbox`).
    fn kind_label(is_container: bool) -> (&'static str, &'static str);

    /// A running container with a fifo `/gate`, at which a command can wait for a line.
    async fn gated(&self) -> Self::Container;

    /// A running container with these labels.
    async fn with_labels(&self, labels: HashMap<String, String>) -> Self::Container;

    /// A container that was never started.
    async fn never_started(&self, labels: HashMap<String, String>) -> Self::Container;

    async fn pause(&self, container: &Self::Container);

    async fn resume(&self, container: &Self::Container);

    /// Kills the container, and waits for its end.
    async fn end(&self, container: &Self::Container);

    /// Creates an exec.
    async fn make(&self, container: &Self::Container, spec: &ExecSpec) -> ExecRef {
        let name = ExecName { request: unique("exec").into(), number: 1 };
        match self.engine().prepare(&container.reference(), &name, spec).await.expect("an exec") {
            Prepared::Created(exec) => exec,
            Prepared::Existed => panic!("{name} exists"),
        }
    }

    async fn go(&self, exec: &ExecRef, tty: bool) -> ExecStream {
        self.engine().start(exec, tty).await.expect("a started exec").stream
    }

    /// Reads to the end, and lets the engine forget what was read.
    async fn rest_of(&self, exec: &ExecRef, mut stream: ExecStream) -> Result<Output, StreamError> {
        let mut output = Output::default();
        let reading = async {
            while let Some(chunk) = stream.next().await? {
                match chunk.stream {
                    OutputStream::Stdout => output.stdout.extend_from_slice(&chunk.bytes),
                    OutputStream::Stderr => output.stderr.extend_from_slice(&chunk.bytes),
                }
                let position = StreamOffsets { stdout: output.stdout.len() as u64, stderr: output.stderr.len() as u64 };
                self.engine().release(exec, position).await.expect("released");
            }
            Ok(())
        };
        within("the end of the stream", reading).await.map(|()| output)
    }

    /// Waits until the engine tells its code.
    async fn code_of(&self, exec: &ExecRef) -> i32 {
        let code = async || match self.engine().state(exec).await {
            Ok(ExecState::Ended { word, .. }) => Some(word.testimony.code),
            Ok(ExecState::Absent | ExecState::Untouched | ExecState::Spent | ExecState::Running { .. }) | Err(_) => {
                None
            }
        };
        until("a code", code).await
    }

    /// Runs a command to the end of its output.
    async fn all_of(&self, container: &Self::Container, spec: &ExecSpec) -> Ran {
        let exec = self.make(container, spec).await;
        let output = self.rest_of(&exec, self.go(&exec, spec.tty).await).await.expect("an unbroken stream");
        Ran { output, code: self.code_of(&exec).await }
    }

    /// Runs a script that must succeed, and gives its standard output.
    async fn text_of(&self, container: &Self::Container, script: &str) -> String {
        let ran = self.all_of(container, &shell(script)).await;
        assert_eq!(ran.code, 0, "{script}: {:?}", ran.output);
        String::from_utf8(ran.output.stdout).expect("text")
    }

    /// Starts a command, and waits until it has written something.
    async fn begun(&self, container: &Self::Container, spec: &ExecSpec) -> (ExecRef, ExecStream) {
        let exec = self.make(container, spec).await;
        let mut stream = self.go(&exec, spec.tty).await;
        within("first output", stream.next()).await.expect("a stream").expect("output");
        (exec, stream)
    }
}

/// A container that is removed with its value, however the test ends.
pub trait Staged {
    fn reference(&self) -> ContainerRef;

    /// Lets one command pass that waits at the gate, or is about to.
    fn pass(&self);
}
