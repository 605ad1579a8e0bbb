//! What the engine refuses, and what each refusal becomes.

use execlet::{
    core::ids::{ContainerRef, ExecName},
    engine::{Engine as _, EngineError, ExecState, StartError},
};

use crate::{
    lab::shell,
    stage::{Stage as _, Staged as _, on_the_engine},
};

fn name(request: &str) -> ExecName {
    ExecName { request: request.into(), number: 1 }
}

#[tokio::test]
async fn no_exec_is_created_in_a_container_that_does_not_run() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        let reference = container.reference();
        let create = async || stage.engine().prepare(&reference, &name("u"), &shell("true")).await;

        stage.pause(&container).await;
        let refusal = create().await;
        assert!(matches!(refusal, Err(EngineError::ContainerNotRunning(_))), "paused: {refusal:?}");

        stage.resume(&container).await;
        stage.end(&container).await;
        let refusal = create().await;
        assert!(matches!(refusal, Err(EngineError::ContainerNotRunning(_))), "exited: {refusal:?}");

        let unknown = ContainerRef { id: "0123456789abcdef".into(), started_at: None };
        let refusal = stage.engine().prepare(&unknown, &name("u"), &shell("true")).await;
        assert!(matches!(refusal, Err(EngineError::NoSuchContainer(_))), "{refusal:?}");
    });
}

#[tokio::test]
async fn a_start_in_a_paused_container_is_refused_and_may_be_tried_again() {
    on_the_engine!(stage => {
        let container = stage.gated().await;
        let exec = stage.make(&container, &shell("echo run >> /runs; exit 7")).await;

        stage.pause(&container).await;
        for _ in 0..2 {
            let start = stage.engine().start(&exec, false).await.err();
            assert!(matches!(start, Some(StartError::Refused(EngineError::ContainerNotRunning(_)))), "{start:?}");
        }
        assert_eq!(stage.engine().state(&exec).await.expect("a state"), ExecState::Untouched);

        stage.resume(&container).await;
        stage.rest_of(&exec, stage.go(&exec, false).await).await.expect("a clean end");
        assert_eq!(stage.code_of(&exec).await, 7);
        assert_eq!(stage.text_of(&container, "cat /runs").await, "run\n");
    });
}
