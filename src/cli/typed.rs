//! Values as they are typed on the command line: names as kubectl prints them, and `KEY=VALUE`.

/// Reads `NAME` or `pod/NAME`.
pub fn pod_name(text: &str) -> Result<String, String> {
    let kinds = ["pod", "pods", "po"];
    name(text, &kinds, |kind| format!("a request is for one pod: give its name, not a {kind}"))
}

/// Reads `NAME`, `xr/NAME` or `execrequest.execlet.dev/NAME`.
pub fn request_name(text: &str) -> Result<String, String> {
    let kinds = ["xr", "execrequest", "execrequests", "execrequest.execlet.dev", "execrequests.execlet.dev"];
    name(text, &kinds, |kind| format!("a {kind} is not a request: give NAME or xr/NAME"))
}

/// Reads `NAME`, `xb/NAME` or `execbatch.execlet.dev/NAME`.
pub fn batch_name(text: &str) -> Result<String, String> {
    let kinds = ["xb", "execbatch", "execbatches", "execbatch.execlet.dev", "execbatches.execlet.dev"];
    name(text, &kinds, |kind| format!("a {kind} is not a batch: give xb/NAME"))
}

fn name(text: &str, kinds: &[&str], other: impl Fn(&str) -> String) -> Result<String, String> {
    match text.split_once('/') {
        None if text.is_empty() => Err("the name is empty".to_owned()),
        None => Ok(text.to_owned()),
        Some((kind, name)) if kinds.contains(&kind) && !name.is_empty() && !name.contains('/') => Ok(name.to_owned()),
        Some((kind, _)) => Err(other(kind)),
    }
}

pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_kubectl_prints_them() {
        for text in ["r", "xr/r", "execrequest/r", "execrequest.execlet.dev/r"] {
            assert_eq!(request_name(text).as_deref(), Ok("r"), "{text}");
        }
        for text in ["", "xr/", "pod/r", "xr/a/b"] {
            assert!(request_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_may_be_empty_and_hold_more_of_them() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!((key_value("a=b=c"), key_value("a=")), (pair("a", "b=c"), pair("a", "")));
        assert!(key_value("scopes").is_err() && key_value("=a").is_err());
    }
}
