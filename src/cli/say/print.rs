//! Objects as kubectl prints them: JSON, YAML, names.

use std::io::{self, Write as _};

use kube::ResourceExt as _;
use serde_json::Value;

use crate::{api::ExecRequest, cli::error::Error};

/// How an object is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The object as JSON.
    Json,
    /// The object as YAML.
    Yaml,
    /// `execrequest.execlet.dev/NAME`.
    Name,
}

/// Writes to standard output; a reader who has left is none of our errors.
///
/// # Errors
/// When it cannot be written.
pub fn out(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Show(error.to_string())),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The name of a request as kubectl prints and takes it.
pub fn full_name(request: &ExecRequest) -> String {
    format!("execrequest.execlet.dev/{}", request.name_any())
}

/// An object in a format.
///
/// # Errors
/// When it cannot be encoded.
pub fn object(request: &ExecRequest, format: Format) -> Result<String, Error> {
    if format == Format::Name {
        return Ok(full_name(request) + "\n");
    }
    let value = serde_json::to_value(request).map_err(|error| Error::Show(error.to_string()))?;
    encode(&tidy(value), format)
}

/// JSON or YAML of any value.
///
/// # Errors
/// When it cannot be encoded.
pub fn encode(value: &Value, format: Format) -> Result<String, Error> {
    match format {
        Format::Json | Format::Name => {
            serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| Error::Show(error.to_string()))
        }
        Format::Yaml => serde_yaml_ng::to_string(value).map_err(|error| Error::Show(error.to_string())),
    }
}

/// Without what kubectl leaves out, and without what is not set.
pub fn tidy(mut value: Value) -> Value {
    if let Some(meta) = value.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_printed_as_kubectl_prints_it() {
        let request: ExecRequest = serde_json::from_value(json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": "r", "managedFields": [{"manager": "x"}]},
            "spec": {"target": {"podName": "web"}, "command": ["true"]},
        }))
        .expect("a request");
        assert_eq!(object(&request, Format::Name).expect("text"), "execrequest.execlet.dev/r\n");
        let yaml = object(&request, Format::Yaml).expect("text");
        assert!(yaml.starts_with("apiVersion: execlet.dev/v1alpha1\nkind: ExecRequest\nmetadata:\n  name: r\nspec:\n"));
        assert!(!yaml.contains("managedFields") && !yaml.contains("null"), "{yaml}");
        let json: Value = serde_json::from_str(&object(&request, Format::Json).expect("text")).expect("JSON");
        assert_eq!(json["spec"]["command"], json!(["true"]));
    }
}
