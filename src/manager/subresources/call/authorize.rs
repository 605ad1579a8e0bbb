//! Asks the API server whether a user may, with all that it told about the user.

use kube::Client;

use crate::{
    api::Requester,
    core::access::Right,
    infra::{access::Access, refusal::Refusal},
};

pub(crate) async fn check(client: &Client, who: &Requester, right: &Right) -> Result<(), Refusal> {
    let verdict = Access::new(client.clone()).ask(who, right).await;
    let verdict = verdict.map_err(|error| Refusal::internal(error.to_string()))?;
    if verdict.allowed {
        return Ok(());
    }
    let why = verdict.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Err(Refusal::forbidden(format!(r#"User "{}" cannot {right}{why}"#, who.username)))
}
