//! Objects, in what kubectl sends and prints.

use serde_json::{Value, json};

use super::{jsonpath::Template, kinds::Kind};

/// How an object is printed.
#[derive(Debug)]
pub enum Form {
    /// `execrequest.execlet.dev/NAME created`
    Words,
    Name,
    Json,
    Path(Template),
}

impl Form {
    /// By `-o`. Nothing, if it is another one.
    pub fn parse(output: Option<&str>) -> Option<Self> {
        match output {
            None => Some(Self::Words),
            Some("name") => Some(Self::Name),
            Some("json") => Some(Self::Json),
            Some(other) => Some(Self::Path(Template::parse(other.strip_prefix("jsonpath=")?)?)),
        }
    }

    /// With what was done to it.
    pub fn print(&self, kind: &Kind, object: &Value, done: &str) -> Result<String, String> {
        let name = || format!("{}/{}", kind.printed(), object["metadata"]["name"].as_str().unwrap_or_default());
        match self {
            Self::Words => Ok(format!("{} {done}\n", name())),
            Self::Name => Ok(name() + "\n"),
            Self::Json => Ok(object.to_string() + "\n"),
            Self::Path(template) => template.print(object),
        }
    }
}

/// Without what kubectl does not show.
pub fn shown(mut object: Value) -> Value {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    object
}

/// The items of a list, each with its kind, which the API server leaves out.
pub fn items(kind: &Kind, list: &mut Value) -> Vec<Value> {
    let items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let named = |mut item: Value| {
        item["apiVersion"] = json!(kind.version);
        item["kind"] = json!(kind.name);
        shown(item)
    };
    items.into_iter().map(named).collect()
}

/// What stands in a file, each with its kind. Nothing, if it is no JSON or has a kind that is not known here.
pub fn in_file(input: &str) -> Option<Vec<(&'static Kind, Value)>> {
    let object: Value = serde_json::from_str(input).ok()?;
    let objects = if object["kind"] == "List" { object["items"].as_array()?.clone() } else { vec![object] };
    let of = |object: Value| {
        let kind = Kind::of(object["apiVersion"].as_str()?, object["kind"].as_str()?)?;
        Some((kind, object))
    };
    objects.into_iter().map(of).collect()
}
