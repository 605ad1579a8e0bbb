//! Path and query of a call, read once into types that hold no wrong value.
//!
//! What an option does is the agent's to know. As everywhere in Kubernetes, parameters that are not
//! known are passed over; they are not passed on, so nothing but what is read here reaches an agent.

use form_urlencoded::{Serializer, parse};
use k8s_openapi::jiff::Timestamp;

use crate::infra::refusal::Refusal;

/// Longest name of an object.
const LONGEST_NAME: usize = 253;

/// The request that a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Target {
    /// From the parts of a path, decoded.
    pub(crate) fn new(namespace: String, name: String) -> Result<Self, Refusal> {
        for part in [&namespace, &name] {
            if !is_name(part) {
                return Err(Refusal::BadRequest(format!("{part:?} is no name of a Kubernetes object")));
            }
        }
        Ok(Self { namespace, name })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A DNS subdomain: what goes into the path of a call to the API server or an agent as it is.
fn is_name(text: &str) -> bool {
    let fits = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= LONGEST_NAME && text.split('.').all(fits)
}

/// Which of the command's streams a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "they are the parameters of the call")]
pub(crate) struct AttachOptions {
    pub(crate) stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl AttachOptions {
    pub(crate) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut options = Self::default();
        for (name, value) in parse(query.as_bytes()) {
            match &*name {
                "stdin" => options.stdin = boolean(&name, &value)?,
                "stdout" => options.stdout = boolean(&name, &value)?,
                "stderr" => options.stderr = boolean(&name, &value)?,
                "tty" => options.tty = boolean(&name, &value)?,
                _ => {}
            }
        }
        if !(options.stdin || options.stdout || options.stderr) {
            return bad("at least one of stdin, stdout and stderr must be true");
        }
        if options.tty && options.stderr {
            return bad("tty and stderr exclude each other: with a terminal, both outputs are one");
        }
        Ok(options)
    }

    /// For the agent.
    pub(crate) fn query(self) -> String {
        let mut query = Serializer::new(String::new());
        for (name, value) in
            [("stdin", self.stdin), ("stdout", self.stdout), ("stderr", self.stderr), ("tty", self.tty)]
        {
            query.append_pair(name, if value { "true" } else { "false" });
        }
        query.finish()
    }
}

/// Which of the output a client wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    pub(crate) follow: bool,
    /// The parameters, as they are to reach the agent.
    given: Vec<(&'static str, String)>,
}

impl LogOptions {
    pub(crate) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut options = Self::default();
        for (name, value) in parse(query.as_bytes()) {
            let (name, value) = match &*name {
                "follow" => {
                    options.follow = boolean(&name, &value)?;
                    ("follow", options.follow.to_string())
                }
                "timestamps" => ("timestamps", boolean(&name, &value)?.to_string()),
                "tailLines" => ("tailLines", number(&name, &value, 0)?.to_string()),
                "sinceSeconds" => ("sinceSeconds", number(&name, &value, 1)?.to_string()),
                "limitBytes" => ("limitBytes", number(&name, &value, 1)?.to_string()),
                "sinceTime" => match value.parse::<Timestamp>() {
                    Ok(time) => ("sinceTime", time.to_string()),
                    Err(_) => return bad(&format!("sinceTime={value}: not a time as in RFC 3339")),
                },
                "stream" if matches!(&*value, "All" | "Stdout" | "Stderr") => ("stream", value.into_owned()),
                "stream" => return bad(&format!("stream={value}: give All, Stdout or Stderr")),
                _ => continue,
            };
            if options.has(name) {
                return bad(&format!("{name} is given twice"));
            }
            options.given.push((name, value));
        }
        if options.has("sinceSeconds") && options.has("sinceTime") {
            return bad("sinceSeconds and sinceTime exclude each other");
        }
        Ok(options)
    }

    fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    /// For the agent.
    pub(crate) fn query(&self) -> String {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(&self.given);
        query.finish()
    }
}

/// As the API server reads it: a parameter without a value is true.
fn boolean(name: &str, value: &str) -> Result<bool, Refusal> {
    match value.to_ascii_lowercase().as_str() {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => bad(&format!("{name}={value}: give true or false")),
    }
}

fn number(name: &str, value: &str, least: u32) -> Result<i64, Refusal> {
    match value.parse() {
        Ok(number) if number >= i64::from(least) => Ok(number),
        Ok(_) | Err(_) => bad(&format!("{name}={value}: give a whole number, at least {least}")),
    }
}

fn bad<T>(message: &str) -> Result<T, Refusal> {
    Err(Refusal::BadRequest(message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_names_no_object_is_refused() {
        let target = |namespace: &str, name: &str| Target::new(namespace.into(), name.into());
        assert!(target("shop", "check-1.a").is_ok());
        for wrong in ["", ".", "..", "a/b", "../log", "A", "a b", "a%2f", "-a", "a-", "a..b", &"a".repeat(254)] {
            assert!(target("shop", wrong).is_err(), "{wrong}");
            assert!(target(wrong, "check").is_err(), "{wrong}");
        }
    }

    #[test]
    fn attach_options_are_read_as_the_api_server_reads_them() {
        let options = AttachOptions::parse("stdin=true&stdout=1&stderr=false&tty&container=x").expect("options");
        assert_eq!(options.query(), "stdin=true&stdout=true&stderr=false&tty=true");
        for wrong in ["", "tty=true", "stdout=yes", "stdout=true&stderr=true&tty=true"] {
            assert!(AttachOptions::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn log_options_are_checked_and_nothing_else_is_passed_on() {
        let query = "follow=1&tailLines=0&sinceTime=2026-01-02T03%3A04%3A05%2B01%3A00&stream=Stdout&token=secret&timestamps=false";
        let options = LogOptions::parse(query).expect("options");
        assert!(options.follow);
        assert_eq!(
            options.query(),
            "follow=true&tailLines=0&sinceTime=2026-01-02T02%3A04%3A05Z&stream=Stdout&timestamps=false"
        );
        assert_eq!(LogOptions::parse("").expect("none").query(), "");
        for wrong in [
            "tailLines=-1",
            "tailLines=many",
            "tailLines=1&tailLines=2",
            "sinceSeconds=0",
            "limitBytes=0",
            "limitBytes=99999999999999999999",
            "sinceTime=yesterday",
            "sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z",
            "stream=stdout",
            "follow=maybe",
        ] {
            assert!(LogOptions::parse(wrong).is_err(), "{wrong}");
        }
    }
}
