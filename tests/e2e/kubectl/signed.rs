//! Who asks, in what they write: before Kubernetes 1.36 the API server does not set it, and clients must. So a request or
//! a batch that a policy refuses because nobody is named in it is tried again with whoever asks. Where the server can
//! set it, what is refused stays refused.

use http::Method;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::server::{Answer, Call, Refusal, Who};

/// What the policies say to whoever has left it out, and where it belongs.
const LACKING: [(&str, &str); 3] = [
    ("spec.requestedBy is empty, and no policy has filled it in", "/requestedBy"),
    ("spec.releasedBy must say who raises", "/releasedBy"),
    ("spec.approval.by must say who sets", "/approval/by"),
];

static STAMPS: OnceCell<bool> = OnceCell::const_new();

/// Whether the API server can set who asks: whether it has `MutatingAdmissionPolicy`.
pub async fn server_stamps() -> bool {
    let ask = async || {
        let group = Call::get("/apis/admissionregistration.k8s.io/v1".to_owned());
        let answer = Who::default().call(&group).await.expect("the resources of a group");
        answer.body.contains("\"mutatingadmissionpolicies\"")
    };
    *STAMPS.get_or_init(ask).await
}

/// A call whose body is an object, or a merge patch of one.
pub async fn call(who: &Who, call: &Call) -> Result<Answer, Refusal> {
    let refusal = match who.call(call).await {
        Ok(answer) => return Ok(answer),
        Err(refusal) => refusal,
    };
    if server_stamps().await {
        return Err(refusal);
    }
    let lacking = LACKING.iter().find(|(said, _)| refusal.message.contains(said));
    let body = serde_json::from_str::<Value>(&call.body).ok();
    let (Some((_, place)), Some(mut body)) = (lacking, body) else { return Err(refusal) };
    let (above, field) = place.rsplit_once('/').expect("a path");
    let Some(above) = body["spec"].pointer_mut(above).and_then(Value::as_object_mut) else { return Err(refusal) };
    if above.contains_key(field) {
        return Err(refusal);
    }
    above.insert(field.to_owned(), myself(who, field == "requestedBy").await?);
    who.call(&Call { body: body.to_string(), ..call.clone() }).await
}

/// All of it, or name and UID.
async fn myself(who: &Who, all: bool) -> Result<Value, Refusal> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned();
    let answer = who.call(&Call::with(Method::POST, path, &review)).await?;
    let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
    let user = &answer["status"]["userInfo"];
    let name_and_uid = json!({"username": user["username"], "uid": user["uid"].as_str().unwrap_or_default()});
    Ok(if all { user.clone() } else { name_and_uid })
}
