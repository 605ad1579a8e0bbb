//! The request that a call names in its path.

use crate::infra::refusal::Refusal;

const LONGEST_NAME: usize = 253;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Target {
    pub(crate) fn new(namespace: String, name: String) -> Result<Self, Refusal> {
        for part in [&namespace, &name] {
            if !is_name(part) {
                return Err(Refusal::bad_request(format!("{part:?} is not a name of a Kubernetes object")));
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

/// Whether it is a DNS subdomain, which needs no escaping in the path of a call.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= LONGEST_NAME && text.split('.').all(is_label)
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
}
