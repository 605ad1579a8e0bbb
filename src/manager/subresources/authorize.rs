//! May they: asked of the API server, with everything that it told of the user itself.

use std::{fmt, time::Duration};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};
use tokio::time::timeout;

use super::{query::Target, refusal::Refusal};
use crate::api::{Requester, names::SUBRESOURCES_GROUP};

/// How long the API server may take.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// What somebody has to be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Right<'a> {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Right<'a> {
    /// The API server itself asks only `get` for a WebSocket: who may read shall not command.
    pub(super) fn attach(target: &'a Target) -> Self {
        Self::on_request("create", "attach", target)
    }

    pub(super) fn log(target: &'a Target) -> Self {
        Self::on_request("get", "log", target)
    }

    /// Input is a command: who gives it needs what `kubectl exec` needs.
    pub(super) fn exec(namespace: &'a str, pod: &'a str) -> Self {
        Self { verb: "create", group: "", resource: "pods", subresource: "exec", namespace, name: pod }
    }

    fn on_request(verb: &'static str, subresource: &'static str, target: &'a Target) -> Self {
        let Target { namespace, name } = target;
        Self { verb, group: SUBRESOURCES_GROUP, resource: "execrequests", subresource, namespace, name }
    }

    fn review(&self, who: &Requester) -> SubjectAccessReview {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(who.username.clone()),
                uid: some(&who.uid),
                groups: Some(who.groups.clone()),
                extra: Some(who.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: some(self.verb),
                    group: some(self.group),
                    resource: some(self.resource),
                    subresource: some(self.subresource),
                    namespace: some(self.namespace),
                    name: some(self.name),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        }
    }
}

/// In Kubernetes' own words.
impl fmt::Display for Right<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, subresource, namespace, name } = self;
        write!(
            f,
            r#"{verb} resource "{resource}/{subresource}" in API group "{group}" in the namespace "{namespace}" for "{name}""#
        )
    }
}

/// Asks.
pub(super) async fn check(client: &Client, who: &Requester, right: &Right<'_>) -> Result<(), Refusal> {
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let params = PostParams::default();
    let review = right.review(who);
    let status = match timeout(REVIEW_TIMEOUT, api.create(&params, &review)).await {
        Ok(Ok(answer)) => answer.status.unwrap_or_default(),
        Ok(Err(error)) => return Err(Refusal::Internal(format!("the API server does not say who may what: {error}"))),
        Err(_) => return Err(Refusal::Internal("the API server does not say in time who may what".to_owned())),
    };
    if status.allowed && status.denied != Some(true) {
        return Ok(());
    }
    let why = status.reason.filter(|reason| !reason.is_empty()).map(|reason| format!(": {reason}"));
    Err(Refusal::Forbidden(format!(r#"User "{}" cannot {right}{}"#, who.username, why.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_is_asked_with_all_that_is_known_of_the_user() {
        let target = Target::new("shop".into(), "check".into()).expect("a target");
        let jane = Requester {
            username: "jane".into(),
            uid: "42".into(),
            groups: vec!["devs".into()],
            extra: [("scopes".to_owned(), vec!["a".to_owned()])].into(),
        };
        let review = serde_json::to_value(Right::attach(&target).review(&jane)).expect("JSON");
        assert_eq!(
            review["spec"],
            serde_json::json!({
                "user": "jane", "uid": "42", "groups": ["devs"], "extra": {"scopes": ["a"]},
                "resourceAttributes": {
                    "verb": "create", "group": "subresources.execlet.dev", "resource": "execrequests",
                    "subresource": "attach", "namespace": "shop", "name": "check",
                },
            })
        );
    }

    #[test]
    fn a_right_reads_as_in_kubernetes_own_messages() {
        let right = Right::exec("shop", "db-0").to_string();
        assert_eq!(right, r#"create resource "pods/exec" in API group "" in the namespace "shop" for "db-0""#);
    }
}
