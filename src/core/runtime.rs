//! What a Node says of the engine that runs its containers.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// Its `status.nodeInfo.containerRuntimeVersion`: `NAME://VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    pub name: String,
    /// For people: engines number as they like.
    pub version: String,
}

#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no containerRuntimeVersion: wanted is NAME://VERSION")]
pub struct NotARuntime(String);

impl FromStr for Runtime {
    type Err = NotARuntime;

    fn from_str(text: &str) -> Result<Self, NotARuntime> {
        let (name, version) = text.split_once("://").ok_or_else(|| NotARuntime(text.to_owned()))?;
        let is_name = |name: &str| {
            let may_be = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            !name.is_empty() && name.bytes().all(may_be)
        };
        let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_name(name) || !is_version {
            return Err(NotARuntime(text.to_owned()));
        }
        Ok(Self { name: name.to_ascii_lowercase(), version: version.to_owned() })
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_version_are_told_apart_and_nothing_else_is_a_runtime() {
        for (text, name, version) in [
            ("one://20.10.24", "one", "20.10.24"),
            ("cri-o://1.30.0", "cri-o", "1.30.0"),
            ("One://1.6.20~ds1", "one", "1.6.20~ds1"),
            ("one://2.1.1-k3s1", "one", "2.1.1-k3s1"),
            ("one://Unknown", "one", "Unknown"),
        ] {
            let runtime: Runtime = text.parse().expect(text);
            assert_eq!((runtime.name.as_str(), runtime.version.as_str()), (name, version));
            assert_eq!(runtime.to_string().parse(), Ok(runtime));
        }
        for text in ["", "one", "one:/1", "://1", "one://", "o ne://1", "one://1\n2", "one://1 2"] {
            assert_eq!(text.parse::<Runtime>(), Err(NotARuntime(text.to_owned())));
        }
    }
}
