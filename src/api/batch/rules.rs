//! Rules that several parts of an `ExecBatch` share, in CEL.

use kube::core::Rule;

/// A label's key, as the API server takes it: a name, and a domain before it.
const LABEL_KEY: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";

fn rule(holds: &str, else_say: &str) -> Rule {
    Rule::new(holds).message(else_say)
}

/// A number of targets, or a share of all of them.
pub(super) fn share(field: &str, least: u8) -> Rule {
    rule(
        &format!("type(self) == int ? self >= {least} && self <= 10000 : string(self).matches('^(100|[1-9]?[0-9])%$')"),
        &format!("{field} is a number from {least} to 10000, or a share of all targets from 0% to 100%, such as 10%"),
    )
}

/// A key that the API server would refuse would stop a plan half-way.
pub(super) fn keys_are_valid(what: &str) -> Rule {
    rule(
        &format!("self.all(k, k.indexOf('/') <= 253 && k.matches('{LABEL_KEY}'))"),
        &format!(
            "a key of {what} is not valid: it is a name of at most 63 letters, digits, '-', '_' and '.', which may have a \
             domain and '/' before it"
        ),
    )
}

/// Those that execlet sets itself.
pub(super) fn keys_are_free(what: &str) -> Rule {
    rule(
        "self.all(k, !k.startsWith('execlet.dev/'))",
        &format!("the keys of {what} that begin with execlet.dev/ are set by execlet: leave them out"),
    )
}
