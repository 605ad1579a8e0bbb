//! The stream of `exec_die` events.

use execlet::engine::docker::calls::Died;
use futures::StreamExt;

use crate::lab::{Lab, shell, within};

#[tokio::test]
async fn events_of_the_past_are_told_again_from_the_moment_asked_for() {
    let lab = Lab::open().await;
    let container = lab.container().await;
    let first = lab.run(&container, &shell("exit 3")).await;
    let second = lab.run(&container, &shell("exit 4")).await;
    let (first, second) = (lab.death(&first.exec).await, lab.death(&second.exec).await);
    assert_eq!((first.code, second.code), (3, 4));
    assert!(first.at < second.at);

    let ours = |died: &Died| died.exec == first.exec || died.exec == second.exec;
    for (since, expected) in [(first.at, vec![&first, &second]), (second.at, vec![&second])] {
        let again = lab.engine.exec_deaths(Some(since)).map(|died| died.expect("an event"));
        let again = again.filter(|died| std::future::ready(ours(died))).take(expected.len());
        let again: Vec<Died> = within("the events of the past", again.collect()).await;
        assert_eq!(again.iter().collect::<Vec<_>>(), expected);
    }
}
