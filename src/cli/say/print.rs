//! Writing to standard output, and objects as kubectl prints them: JSON, YAML, names.

use std::io::{self, Write};

use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;

use super::page::Page;
use crate::cli::{error::Error, exit::Exit};

/// How an object is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The object as JSON.
    Json,
    /// The object as YAML.
    Yaml,
    /// The name alone, as `execrequest.execlet.dev/NAME`.
    Name,
}

/// Writes a command's output as it is, and flushes; `false` if the reader has closed the pipe, as `| head` does.
pub fn write(mut to: impl Write, bytes: &[u8]) -> Result<bool, Error> {
    match to.write_all(bytes).and_then(|()| to.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::output(error)),
    }
}

/// Writes to standard output; a closed pipe is not an error.
pub fn out(page: &Page) -> Result<Exit, Error> {
    write(io::stdout().lock(), page.as_str().as_bytes()).map(|_| Exit::SUCCESS)
}

/// As kubectl prints it: `execrequest.execlet.dev/NAME`.
pub fn full_name<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{}.{}/{}", K::kind(&()).to_lowercase(), K::group(&()), object.name_any())
}

pub fn object<K: Resource<DynamicType = ()> + Serialize>(object: &K, format: Format) -> Result<Page, Error> {
    match format {
        Format::Name => Ok(Page::default().line(&full_name(object))),
        Format::Json | Format::Yaml => encode(&value(object)?, format),
    }
}

/// Prints an object that was created, or would have been.
pub fn announce<K: Resource<DynamicType = ()> + Serialize>(
    created: &K,
    format: Option<Format>,
    what: &str,
) -> Result<Exit, Error> {
    out(&match format {
        Some(format) => object(created, format)?,
        None => Page::default().line(&format!("{} {what}", full_name(created))),
    })
}

pub fn encode(value: &Value, format: Format) -> Result<Page, Error> {
    match format {
        Format::Json | Format::Name => Page::json(value),
        Format::Yaml => Page::yaml(value),
    }
}

/// An object as a value, without what kubectl leaves out and what is not set.
pub fn value(object: &impl Serialize) -> Result<Value, Error> {
    let mut value = serde_json::to_value(object).map_err(Error::output)?;
    if let Some(meta) = value.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ExecRequest;

    #[test]
    fn a_request_is_printed_as_kubectl_prints_it() {
        let request: ExecRequest = serde_json::from_value(json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": "r", "managedFields": [{"manager": "x"}]},
            "spec": {"target": {"podName": "web"}, "command": ["true"]},
        }))
        .expect("a request");
        let object = |format| object(&request, format).expect("text").as_str().to_owned();
        assert_eq!(object(Format::Name), "execrequest.execlet.dev/r\n");
        let yaml = object(Format::Yaml);
        assert!(yaml.starts_with("apiVersion: execlet.dev/v1alpha1\nkind: ExecRequest\nmetadata:\n  name: r\nspec:\n"));
        assert!(!yaml.contains("managedFields") && !yaml.contains("null"), "{yaml}");
        let json: Value = serde_json::from_str(&object(Format::Json)).expect("JSON");
        assert_eq!(json["spec"]["command"], json!(["true"]));
    }
}
