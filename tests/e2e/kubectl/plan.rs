//! What a command comes to.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{
    kinds::Kind,
    object::{Form, in_file},
    server::{Call, JSON},
    words::Words,
};

/// How long kubectl waits for what it deletes to be gone, unless it is told: for ever.
const FOR_EVER: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
pub enum Plan {
    /// One call, and what it answers.
    Raw(Call),
    Get {
        places: Vec<Place>,
        form: Form,
        selection: Vec<(&'static str, String)>,
        may_lack: bool,
    },
    Create {
        objects: Vec<(&'static Kind, Value)>,
        namespace: String,
        query: Query,
        form: Form,
    },
    Replace {
        objects: Vec<(&'static Kind, Value)>,
        namespace: String,
        query: Query,
        form: Form,
    },
    Patch {
        places: Vec<Place>,
        subresource: String,
        media: &'static str,
        patch: String,
        query: Query,
        form: Form,
    },
    Delete {
        places: Vec<Place>,
        propagation: &'static str,
        wait: Option<Duration>,
        may_lack: bool,
    },
    Token(Call),
    CanI(Call),
}

/// An object, or all of a kind.
#[derive(Debug)]
pub struct Place {
    pub kind: &'static Kind,
    pub namespace: Option<String>,
    pub name: Option<String>,
}

impl Place {
    pub fn path(&self) -> String {
        let all = self.kind.path(self.namespace.as_deref());
        self.name.as_ref().map_or_else(|| all.clone(), |name| format!("{all}/{name}"))
    }
}

#[derive(Debug)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    fn of(manager: &str, words: &Words<'_>) -> Option<Self> {
        let mut query = vec![("fieldManager", manager.to_owned())];
        if words.is_dry()? {
            query.push(("dryRun", "All".to_owned()));
        }
        Some(Self(query))
    }

    /// As kubectl has the API server check the fields.
    fn strict(mut self, words: &Words<'_>) -> Option<Self> {
        let validation = match words.flag("--validate") {
            None | Some("true" | "strict") => "Strict",
            Some("false" | "ignore") => "Ignore",
            Some(_) => return None,
        };
        self.0.push(("fieldValidation", validation.to_owned()));
        Some(self)
    }

    pub fn on(&self, path: &str) -> String {
        with_query(path, &self.0)
    }
}

pub fn with_query(path: &str, query: &[(&'static str, String)]) -> String {
    if query.is_empty() {
        return path.to_owned();
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{query}")
}

impl Plan {
    /// Nothing, if it is for kubectl.
    pub fn of(words: &Words<'_>, input: &str) -> Option<Self> {
        let namespace = words.flag("-n").unwrap_or("default").to_owned();
        let form = || Form::parse(words.flag("-o"));
        let (verb, about) = words.said.split_first()?;
        if let Some(path) = words.flag("--raw") {
            words.only(&["--raw", "-f"])?;
            let method = match *verb {
                "get" => Method::GET,
                "create" => Method::POST,
                "replace" => Method::PUT,
                "delete" => Method::DELETE,
                _ => return None,
            };
            let from_input = words.flag("-f").is_none_or(|file| file == "-");
            return (from_input && about.is_empty())
                .then(|| Self::Raw(Call { method, path: path.to_owned(), media: JSON, body: input.to_owned() }));
        }
        match *verb {
            "get" => {
                words.only(&["-n", "-o", "-l", "-A", "--field-selector", "--ignore-not-found"])?;
                let form = form().filter(|form| !matches!(form, Form::Words))?;
                let places = places(words, about)?;
                // Several kinds in one list are kubectl's to join.
                (places.len() == 1 || matches!(form, Form::Name)).then_some(())?;
                let flags = [("labelSelector", "-l"), ("fieldSelector", "--field-selector")];
                let selection = flags.into_iter().filter_map(|(name, flag)| Some((name, words.owned(flag)?))).collect();
                Some(Self::Get { places, form, selection, may_lack: words.flag("--ignore-not-found").is_some() })
            }
            "create" | "replace" if about.is_empty() && words.flag("-f") == Some("-") => {
                words.only(&["-n", "-o", "-f", "--dry-run", "--validate"])?;
                let query = Query::of(&format!("kubectl-{verb}"), words)?.strict(words)?;
                let (objects, form) = (in_file(input)?, form()?);
                Some(match *verb {
                    "create" => Self::Create { objects, namespace, query, form },
                    _ => Self::Replace { objects, namespace, query, form },
                })
            }
            "create" => match about {
                ["namespace" | "serviceaccount", name] => {
                    words.only(&["-n"])?;
                    let kind = Kind::typed(about[0])?;
                    let object = json!({"apiVersion": kind.version, "kind": kind.name, "metadata": {"name": name}});
                    let query = Query::of("kubectl-create", words)?;
                    Some(Self::Create { objects: vec![(kind, object)], namespace, query, form: Form::Words })
                }
                ["token", account] => token(words, &namespace, account),
                _ => None,
            },
            "patch" => {
                words.only(&["-n", "-o", "-p", "--type", "--subresource", "--dry-run"])?;
                let media = match words.flag("--type")? {
                    "merge" => "application/merge-patch+json",
                    "json" => "application/json-patch+json",
                    _ => return None,
                };
                let subresource = words.flag("--subresource").map_or_else(String::new, |name| format!("/{name}"));
                let (places, patch) = (places(words, about)?, words.owned("-p")?);
                places.iter().all(|place| place.name.is_some()).then_some(())?;
                let query = Query::of("kubectl-patch", words)?;
                Some(Self::Patch { places, subresource, media, patch, query, form: form()? })
            }
            "delete" => delete(words, about),
            "auth" => can_i(words, about, &namespace),
            _ => None,
        }
    }
}

fn delete(words: &Words<'_>, about: &[&str]) -> Option<Plan> {
    words.only(&["-n", "--wait", "--ignore-not-found", "--cascade", "--timeout"])?;
    let places = places(words, about)?;
    places.iter().all(|place| place.name.is_some()).then_some(())?;
    let propagation = match words.flag("--cascade") {
        None | Some("true" | "background") => "Background",
        Some("foreground") => "Foreground",
        Some("orphan" | "false") => "Orphan",
        Some(_) => return None,
    };
    let patience = match words.flag("--timeout") {
        None => FOR_EVER,
        Some(text) => Duration::from_secs(text.strip_suffix('s')?.parse().ok()?),
    };
    let wait = (words.flag("--wait") != Some("false")).then_some(patience);
    Some(Plan::Delete { places, propagation, wait, may_lack: words.flag("--ignore-not-found").is_some() })
}

fn token(words: &Words<'_>, namespace: &str, account: &str) -> Option<Plan> {
    words.only(&["-n", "--audience", "--bound-object-kind", "--bound-object-name", "--bound-object-uid"])?;
    let mut spec = json!({});
    if let Some(audience) = words.flag("--audience") {
        spec["audiences"] = json!([audience]);
    }
    if let Some(kind) = words.flag("--bound-object-kind") {
        spec["boundObjectRef"] = json!({"kind": kind, "apiVersion": "v1", "name": words.flag("--bound-object-name")?});
        if let Some(uid) = words.flag("--bound-object-uid") {
            spec["boundObjectRef"]["uid"] = json!(uid);
        }
    }
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    Some(Plan::Token(Call::with(Method::POST, path, &request)))
}

fn can_i(words: &Words<'_>, about: &[&str], namespace: &str) -> Option<Plan> {
    words.only(&["-n", "--subresource"])?;
    let &["can-i", verb, resource] = about else { return None };
    let (resource, group) = match resource.split_once('.') {
        Some(named) => named,
        None => Kind::typed(resource).map(|kind| (kind.plural, kind.group()))?,
    };
    let attributes = json!({"namespace": namespace, "verb": verb, "group": group, "resource": resource,
        "subresource": words.flag("--subresource").unwrap_or_default()});
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned();
    Some(Plan::CanI(Call::with(Method::POST, path, &review)))
}

/// `KIND`, `KIND NAME…`, `KIND,KIND NAME…` or `KIND/NAME…`
fn places(words: &Words<'_>, about: &[&str]) -> Option<Vec<Place>> {
    let namespace = words.flag("-A").is_none().then(|| words.flag("-n").unwrap_or("default").to_owned());
    let place = |kind: &str, name: Option<&str>| {
        let kind = Kind::typed(kind)?;
        Some(Place { kind, namespace: namespace.clone(), name: name.map(str::to_owned) })
    };
    let (kinds, names) = about.split_first()?;
    if kinds.contains('/') {
        return about.iter().map(|one| one.split_once('/').and_then(|(kind, name)| place(kind, Some(name)))).collect();
    }
    let of_kind = |kind| match names {
        [] => vec![place(kind, None)],
        names => names.iter().map(|name| place(kind, Some(name))).collect(),
    };
    kinds.split(',').flat_map(of_kind).collect()
}
