//! Commands, done.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Said,
    kinds::Kind,
    object::{Form, items, shown},
    plan::{Place, Plan, Query, with_query},
    server::{Answer, Call, Refusal, Who},
    signed,
};

/// How long it is tried to replace what others write.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether what was deleted is gone.
const OFTEN: Duration = Duration::from_millis(50);

pub async fn run(who: Who, plan: Plan) -> Said {
    let mut said = Said::default();
    match plan {
        Plan::Raw(call) => match who.call(&call).await {
            Ok(answer) => said.out = answer.body,
            Err(refusal) => said.refuse(&refusal.printed("")),
        },
        Plan::Get { places, form, selection, may_lack } => {
            for place in &places {
                get(&who, place, &form, &selection, may_lack, &mut said).await;
            }
        }
        Plan::Create { objects, namespace, query, form } => {
            for (kind, object) in objects {
                let path = kind.path(Some(object["metadata"]["namespace"].as_str().unwrap_or(&namespace)));
                let created = signed::call(&who, &Call::with(Method::POST, query.on(&path), &object)).await;
                tell(&mut said, &form, kind, created, "created", "error when creating \"STDIN\": ");
            }
        }
        Plan::Replace { objects, namespace, query, form } => {
            for (kind, object) in objects {
                let replaced = replace(&who, kind, object, &namespace, &query).await;
                tell(&mut said, &form, kind, replaced, "replaced", "error when replacing \"STDIN\": ");
            }
        }
        Plan::Patch { places, subresource, media, patch, query, form } => {
            for place in places {
                let path = query.on(&(place.path() + &subresource));
                let patched =
                    signed::call(&who, &Call { method: Method::PATCH, path, media, body: patch.clone() }).await;
                tell(&mut said, &form, place.kind, patched, "patched", "");
            }
        }
        Plan::Delete { places, propagation, wait, may_lack } => {
            delete(&who, places, propagation, wait, may_lack, &mut said).await;
        }
        Plan::Token(call) => match who.call(&call).await {
            Ok(answer) => said.out = object(&answer)["status"]["token"].as_str().expect("a token").to_owned() + "\n",
            Err(refusal) => said.refuse(&refusal.printed("")),
        },
        Plan::CanI(call) => match who.call(&call).await {
            Ok(answer) => {
                said.failed = object(&answer)["status"]["allowed"] != true;
                said.out += if said.failed { "no\n" } else { "yes\n" };
            }
            Err(refusal) => said.refuse(&refusal.printed("")),
        },
    }
    said
}

fn object(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
}

fn tell(said: &mut Said, form: &Form, kind: &Kind, answer: Result<Answer, Refusal>, done: &str, about: &str) {
    match answer {
        Ok(answer) => {
            said.err += &answer.warnings;
            print(said, form, kind, &shown(object(&answer)), done);
        }
        Err(refusal) => said.refuse(&refusal.printed(about)),
    }
}

fn print(said: &mut Said, form: &Form, kind: &Kind, object: &Value, done: &str) {
    match form.print(kind, object, done) {
        Ok(printed) => said.out += &printed,
        Err(why) => said.refuse(&why),
    }
}

async fn get(
    who: &Who,
    place: &Place,
    form: &Form,
    selection: &[(&'static str, String)],
    may_lack: bool,
    said: &mut Said,
) {
    let got = match who.call(&Call::get(with_query(&place.path(), selection))).await {
        Ok(answer) => object(&answer),
        Err(refusal) if refusal.is_not_found() && may_lack => return,
        Err(refusal) => return said.refuse(&refusal.printed("")),
    };
    if place.name.is_some() {
        return print(said, form, place.kind, &shown(got), "");
    }
    let mut list = got;
    let items = items(place.kind, &mut list);
    if matches!(form, Form::Name) {
        for item in &items {
            print(said, form, place.kind, item, "");
        }
    } else {
        print(said, form, place.kind, &json!({"apiVersion": "v1", "kind": "List", "items": items}), "");
    }
}

/// Where no version is named, it takes the place of the one that is there, whoever writes that meanwhile.
async fn replace(who: &Who, kind: &Kind, mut object: Value, namespace: &str, query: &Query) -> Result<Answer, Refusal> {
    let meta = &object["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    let path = format!("{}/{name}", kind.path(Some(meta["namespace"].as_str().unwrap_or(namespace))));
    if !meta["resourceVersion"].is_null() {
        return who.call(&Call::with(Method::PUT, query.on(&path), &object)).await;
    }
    let until = Instant::now() + PATIENCE;
    loop {
        let there = self::object(&who.call(&Call::get(path.clone())).await?);
        object["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
        match who.call(&Call::with(Method::PUT, query.on(&path), &object)).await {
            Err(refusal) if refusal.reason == "Conflict" && Instant::now() < until => {}
            outcome => return outcome,
        }
    }
}

async fn delete(
    who: &Who,
    places: Vec<Place>,
    propagation: &str,
    wait: Option<Duration>,
    may_lack: bool,
    said: &mut Said,
) {
    let options = json!({"propagationPolicy": propagation});
    let mut going = Vec::new();
    for place in places {
        match who.call(&Call::with(Method::DELETE, place.path(), &options)).await {
            Ok(answer) => {
                let name = place.name.as_deref().unwrap_or_default();
                said.out += &[&place.kind.printed(), " \"", name, "\" deleted\n"].concat();
                // Of an object that has gone it tells a status, which has the UID in its details.
                let answer = object(&answer);
                let of =
                    if answer["kind"] == "Status" { &answer["details"]["uid"] } else { &answer["metadata"]["uid"] };
                going.push((place, of.clone()));
            }
            Err(refusal) if refusal.is_not_found() && may_lack => {}
            Err(refusal) => said.refuse(&refusal.printed("")),
        }
    }
    let Some(patience) = wait else { return };
    let until = Instant::now() + patience;
    for (place, uid) in going {
        loop {
            match who.call(&Call::get(place.path())).await {
                Ok(there) if object(&there)["metadata"]["uid"] == uid => {}
                Err(refusal) if !refusal.is_not_found() => return said.refuse(&refusal.printed("")),
                Ok(_) | Err(_) => break,
            }
            if Instant::now() >= until {
                let name = place.name.as_deref().unwrap_or_default();
                return said
                    .refuse(&format!("error: timed out waiting for the condition on {}/{name}", place.kind.plural));
            }
            sleep(OFTEN).await;
        }
    }
}
