//! What the engine refuses, and what each refusal becomes.

use std::time::Duration;

use bollard::query_parameters::{KillContainerOptions, RestartContainerOptionsBuilder, StartContainerOptions};
use execlet::engine::{ContainerQuery, ContainerState, Engine, EngineError, StartError, docker::DockerEngine};
use futures::StreamExt;
use tokio::time::sleep;

use crate::lab::{Lab, shell, until};

#[tokio::test]
async fn what_the_engine_does_not_know_is_told_as_such() {
    let lab = Lab::open().await;
    let unknown = "0123456789abcdef";
    let create = lab.engine.create_exec(&unknown.into(), &shell("true")).await;
    assert!(matches!(create, Err(EngineError::NoSuchContainer(_))), "{create:?}");
    let inspect = lab.engine.inspect_exec(&unknown.into()).await;
    assert!(matches!(inspect, Err(EngineError::NoSuchExec(_))), "{inspect:?}");
    let start = lab.engine.start_exec(&unknown.into(), false).await.err();
    assert!(matches!(start, Some(StartError::Absent(_))), "{start:?}");
}

#[tokio::test]
async fn a_start_that_is_refused_while_its_container_ends_has_run_nothing() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let (mut refused, mut begun) = (0, 0);
    for round in 0..40 {
        let exec = lab.create(&container, &shell("echo run >> /runs")).await;
        let start = async {
            // Around the moment of the end, which comes some milliseconds after the call.
            sleep(Duration::from_millis(round)).await;
            lab.engine.start_exec(&exec, false).await
        };
        let end = lab.docker.kill_container(container.id(), None::<KillContainerOptions>);
        let (started, killed) = tokio::join!(start, end);
        killed.unwrap();
        until("the container to end", async || {
            let found = lab.engine.container(&container.id).await.unwrap()?;
            matches!(found.state, ContainerState::Stopped(_)).then_some(())
        })
        .await;
        lab.docker.start_container(container.id(), None::<StartContainerOptions>).await.unwrap();
        let runs = lab.sh(&container, "cat /runs 2>/dev/null; rm -f /runs").await;
        match started {
            Ok(stream) => {
                begun += 1;
                drop(stream);
            }
            Err(error) => {
                refused += 1;
                assert!(matches!(error, StartError::Refused(_) | StartError::Absent(_)), "{error:?}");
                assert_eq!(runs, "", "{error:?}");
            }
        }
    }
    assert!(refused > 0, "of 40 starts around the end of their container {begun} were begun, and none refused");
}

#[tokio::test]
async fn an_exec_of_an_earlier_run_of_its_container_cannot_be_started() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let created = lab.create(&container, &shell("echo run >> /runs")).await;
    let finished = lab.run(&container, &shell("exit 7")).await;

    let options = RestartContainerOptionsBuilder::new().t(0).build();
    lab.docker.restart_container(container.id(), Some(options)).await.unwrap();

    let start = lab.engine.start_exec(&created, false).await.err();
    assert!(matches!(start, Some(StartError::Absent(_))), "{start:?}");
    assert_eq!(lab.sh(&container, "test ! -e /runs; echo $?").await, "0\n");
    assert_eq!(lab.inspect(&finished.exec).await.code, Some(7), "a finished one still answers");
}

#[tokio::test]
async fn an_engine_that_is_not_there_does_not_answer() {
    let nowhere = DockerEngine::new("/no/such/socket");
    let query = ContainerQuery { namespace: "n".into(), pod_name: "p".into(), container: "c".into() };
    let errors = [
        nowhere.version().await.err(),
        nowhere.find_containers(&query).await.err(),
        nowhere.create_exec(&"c".into(), &shell("true")).await.err(),
        nowhere.inspect_exec(&"e".into()).await.err(),
        nowhere.exec_deaths(None).next().await.expect("an error").err(),
    ];
    for error in errors {
        assert!(matches!(error, Some(EngineError::Unreachable { .. })), "{error:?}");
    }
    let error = nowhere.start_exec(&"e".into(), false).await.err().expect("no engine");
    assert!(matches!(error, StartError::Refused(EngineError::Unreachable { .. })), "nothing was started: {error:?}");
}
