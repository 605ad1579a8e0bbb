//! Asking the API server whether somebody has a right: `SubjectAccessReview`.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};

use super::call::{ApiError, within};
use crate::{api::Requester, core::access::Right};

/// An authorizer may be a webhook.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    pub reason: Option<String>,
}

#[derive(Clone)]
pub struct Access {
    reviews: Api<SubjectAccessReview>,
}

impl Access {
    /// The client's user must be allowed to create `subjectaccessreviews`.
    pub fn new(client: Client) -> Self {
        Self { reviews: Api::all(client) }
    }

    pub async fn first_lacking<'a>(&self, who: &Requester, rights: &'a [Right]) -> Result<Option<&'a Right>, ApiError> {
        for right in rights {
            if !self.ask(who, right).await?.allowed {
                return Ok(Some(right));
            }
        }
        Ok(None)
    }

    /// Whether `who` has this right, as every authorizer of the cluster sees it now.
    pub async fn ask(&self, who: &Requester, right: &Right) -> Result<Verdict, ApiError> {
        let (params, review) = (PostParams::default(), review(who, right));
        let call = format!("say whether {} may {right}", who.username);
        let answer = within(TIMEOUT, call, self.reviews.create(&params, &review)).await?;
        let status = answer.status.unwrap_or_default();
        Ok(Verdict {
            allowed: status.allowed && status.denied != Some(true),
            reason: status.reason.filter(|reason| !reason.is_empty()),
        })
    }
}

fn review(who: &Requester, right: &Right) -> SubjectAccessReview {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let attributes = ResourceAttributes {
        verb: Some(right.verb.to_owned()),
        group: given(right.group),
        resource: Some(right.resource.to_owned()),
        subresource: given(right.subresource),
        namespace: given(&right.namespace),
        name: given(&right.name),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: Some(who.username.clone()),
        uid: given(&who.uid),
        groups: Some(who.groups.clone()),
        extra: Some(who.extra.clone()),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn all_that_is_known_of_the_requester_is_passed_on() {
        let who = Requester {
            username: "alice".to_owned(),
            uid: "7".to_owned(),
            groups: vec!["dev".to_owned()],
            extra: BTreeMap::from([("scopes".to_owned(), vec!["a".to_owned()])]),
        };
        let spec = review(&who, &Right::exec("shop", "web")).spec;
        assert_eq!((spec.user.as_deref(), spec.uid.as_deref()), (Some("alice"), Some("7")));
        assert_eq!((spec.groups, spec.extra), (Some(who.groups), Some(who.extra)));
        let asked = spec.resource_attributes.expect("attributes");
        assert_eq!(
            (asked.verb.as_deref(), asked.group, asked.resource.as_deref()),
            (Some("create"), None, Some("pods"))
        );
        assert_eq!((asked.subresource.as_deref(), asked.name.as_deref()), (Some("exec"), Some("web")));
        assert_eq!(asked.namespace.as_deref(), Some("shop"));
    }
}
