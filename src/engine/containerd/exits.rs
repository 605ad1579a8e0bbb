//! The ends of execs, as the engine announces them. It remembers none.

use futures::{StreamExt as _, TryStreamExt as _, future, stream::BoxStream};
use prost::Message as _;

use super::{
    calls::Calls,
    connection::NAMESPACE,
    containers::time,
    messages::{Envelope, TaskExit},
};
use crate::{
    core::{
        ids::{ExecId, ExecName},
        outcome::Testimony,
    },
    engine::{EngineError, ExecExit},
};

const TOPIC: &str = "/tasks/exit";
const FILTER: &str = "topic==\"/tasks/exit\"";

pub(super) fn exits(calls: Calls) -> BoxStream<'static, Result<ExecExit, EngineError>> {
    let opened = async move {
        let events = calls.events(FILTER).await?;
        let broken = move |status| calls.unreachable("events", &status);
        let exits = events.map_err(broken).try_filter_map(|event| future::ready(Ok(exit(&event))));
        Ok::<_, EngineError>(exits)
    };
    futures::stream::once(opened).try_flatten().boxed()
}

/// If it is of an exec of ours. A subscription hears of all namespaces.
fn exit(event: &Envelope) -> Option<ExecExit> {
    if event.namespace != NAMESPACE || event.topic != TOPIC {
        return None;
    }
    let exit = TaskExit::decode(event.event.as_ref()?.value.as_slice()).ok()?;
    let exec = ExecId::from(exit.id);
    ExecName::of(&exec)?;
    let at = exit.exited_at.filter(|at| at.has_come()).and_then(time)?;
    let code = i32::try_from(exit.exit_status).ok()?;
    Some(ExecExit { exec, testimony: Testimony { code, certain: true }, at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::containerd::messages::{Any, Moment};

    #[test]
    fn only_ends_of_our_own_execs_in_the_kubelets_namespace_are_told() {
        let event = |namespace: &str, id: &str, seconds| {
            let exited_at = Some(Moment { seconds, nanos: 0 });
            let exit = TaskExit { container_id: "c".to_owned(), id: id.to_owned(), exit_status: 7, exited_at };
            let event = Some(Any { type_url: String::new(), value: exit.encode_to_vec() });
            Envelope { namespace: namespace.to_owned(), topic: TOPIC.to_owned(), event }
        };
        let told = exit(&event("k8s.io", "u.1", 9)).expect("an exit");
        assert_eq!((told.exec.as_str(), told.testimony), ("u.1", Testimony { code: 7, certain: true }));
        assert_eq!(exit(&event("moby", "u.1", 9)), None);
        assert_eq!(exit(&event("k8s.io", "c", 9)), None, "the container itself");
        assert_eq!(exit(&event("k8s.io", "u.1", -62_135_596_800)), None);
        let other = Envelope { topic: "/tasks/start".to_owned(), ..event("k8s.io", "u.1", 9) };
        assert_eq!(exit(&other), None);
    }
}
