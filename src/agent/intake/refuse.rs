//! Refuses an object that cannot be read as a request.

use std::sync::Arc;

use kube::core::error_boundary::InvalidObject;

use crate::{
    agent::node::{Node, World},
    api::ExecRequestStatus,
    core::ids::RequestKey,
    infra::unreadable::Refuser,
};

pub(super) async fn refuse_unreadable<W: World>(node: Arc<Node<W>>, key: RequestKey, invalid: InvalidObject) {
    let Node { requests, audit, events, metrics, .. } = &*node;
    let from = ExecRequestStatus { node_name: Some(node.name.to_string()), ..ExecRequestStatus::default() };
    let refuser = Refuser { requests, audit, events, metrics, action: "Exec" };
    if let Err(error) = refuser.refuse(&key, &invalid, &from, node.clock.now()).await {
        tracing::error!(request = %key, %error, "an unreadable object could not be refused");
    }
}
