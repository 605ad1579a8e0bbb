//! Where a request is: on which node, or why on none yet.

use std::time::Duration;

use axum::http::StatusCode;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    runtime::wait::{self, await_condition},
};
use tokio::time::{Instant, timeout_at};

use super::connect::Endpoint;
use crate::{
    api::{
        ExecRequest,
        conditions::{self, ConditionType},
        names,
    },
    infra::{call::within, refusal::Refusal},
    manager::subresources::target::Target,
};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Where {
    Node(String),
    /// Finished without ever being bound, and why.
    Nowhere(String),
    /// Waits to be bound, and why.
    Waits(String),
}

fn place_of(request: &ExecRequest) -> Where {
    let Some(status) = &request.status else { return Where::Waits("no manager has looked at it yet".to_owned()) };
    if let Some(node) = status.node_name.as_ref().filter(|node| !node.is_empty()) {
        return Where::Node(node.clone());
    }
    let why = conditions::get(&status.conditions, ConditionType::Finished)
        .map(|finished| format!("{}: {}", finished.reason, finished.message))
        .unwrap_or_default();
    if status.completion_time.is_some() { Where::Nowhere(why) } else { Where::Waits(why) }
}

#[derive(Clone)]
pub(crate) struct Locator {
    pub(crate) client: Client,
    /// Of the agents' Leases.
    pub(crate) namespace: String,
}

impl Locator {
    pub(crate) async fn request(&self, target: &Target) -> Result<ExecRequest, Refusal> {
        let api: Api<ExecRequest> = Api::namespaced(self.client.clone(), &target.namespace);
        let found = within(CALL_TIMEOUT, format!("get ExecRequest {target}"), api.get_opt(&target.name)).await;
        found.map_err(Refusal::internal)?.ok_or_else(|| gone(target))
    }

    pub(crate) async fn bound(
        &self,
        target: &Target,
        request: ExecRequest,
        until: Instant,
    ) -> Result<(ExecRequest, String), Refusal> {
        let uid = request.metadata.uid.clone();
        let mut latest = request;
        if let Where::Waits(_) = place_of(&latest) {
            let api: Api<ExecRequest> = Api::namespaced(self.client.clone(), &target.namespace);
            // Another request of the same name ends the waiting too.
            let settled = |now: Option<&ExecRequest>| {
                now.is_none_or(|now| now.metadata.uid != uid || !matches!(place_of(now), Where::Waits(_)))
            };
            latest = match timeout_at(until, await_condition(api, &target.name, settled)).await {
                Ok(Ok(Some(now))) if now.metadata.uid == uid => now,
                Ok(Ok(_)) => return Err(gone(target)),
                Ok(Err(wait::Error::ProbeFailed(error))) => {
                    return Err(Refusal::internal(format!("ExecRequest {target} cannot be watched: {error}")));
                }
                // For the latest reason.
                Err(_) => self.request(target).await?,
            };
        }
        match place_of(&latest) {
            Where::Node(node) => Ok((latest, node)),
            Where::Nowhere(why) => {
                Err(Refusal::bad_request(format!("the command of ExecRequest {target} never ran: {why}")))
            }
            Where::Waits(why) => Err(Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!("ExecRequest {target} is not bound to a node yet: {why}"),
            )),
        }
    }

    pub(crate) async fn agent(&self, node: &str) -> Result<Endpoint, Refusal> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = names::agent_lease(node);
        let lease = within(CALL_TIMEOUT, format!("get Lease {name}"), api.get_opt(&name)).await;
        Endpoint::of(node, lease.map_err(Refusal::internal)?.as_ref()).map_err(Refusal::unavailable)
    }
}

fn gone(target: &Target) -> Refusal {
    Refusal::not_found(format!(
        r#"execrequests.execlet.dev "{}" not found in namespace "{}""#,
        target.name, target.namespace
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(status: serde_json::Value) -> ExecRequest {
        serde_json::from_value(json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest", "metadata": {"name": "a"},
            "spec": {"target": {"podName": "db-0"}, "command": ["true"]}, "status": status,
        }))
        .expect("a request")
    }

    fn finished(status: &str) -> serde_json::Value {
        json!([{"type": "Finished", "status": status, "reason": "PodNotRunning", "message": "pod db-0 is Pending",
            "lastTransitionTime": "2026-01-02T03:04:05Z"}])
    }

    #[test]
    fn a_request_is_on_its_node_or_says_why_on_none() {
        let why = "PodNotRunning: pod db-0 is Pending".to_owned();
        for (status, expected) in [
            (json!({"phase": "Running", "nodeName": "n1"}), Where::Node("n1".to_owned())),
            (
                json!({"phase": "Failed", "nodeName": "n1", "completionTime": "2026-01-02T03:04:05.000000Z"}),
                Where::Node("n1".to_owned()),
            ),
            (json!({"phase": "Pending", "conditions": finished("Unknown")}), Where::Waits(why.clone())),
            (
                json!({"phase": "Failed", "conditions": finished("True"), "completionTime": "2026-01-02T03:04:05.000000Z"}),
                Where::Nowhere(why),
            ),
        ] {
            assert_eq!(place_of(&request(status.clone())), expected, "{status}");
        }
    }
}
