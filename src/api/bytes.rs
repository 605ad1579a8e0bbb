//! Limits in bytes, which a schema cannot express: its lengths, and CEL's `size`, are in characters.

use kube::core::Rule;

/// Most bytes of one argument, and of one variable as NAME=VALUE: 128 KiB with its NUL, of Linux with pages of
/// 4 KiB. With larger ones it takes more.
pub const MAX_STRING_BYTES: usize = 131_071;
/// Most bytes of a path: 4 KiB with its NUL.
pub const MAX_PATH_BYTES: usize = 4095;
/// Most bytes of command, env and stdin together. In JSON a byte may take six, and all of it has to fit into the 1.5 MiB of
/// an object in etcd, with a status.
const MAX_SPEC_BYTES: usize = 240 << 10;
/// The same, of a batch: each of its requests has a copy.
const MAX_BATCH_SPEC_BYTES: usize = 32 << 10;
/// Most bytes of a character.
const WIDEST: usize = 4;

fn rule(holds: &str, else_say: &str) -> Rule {
    Rule::new(holds).message(else_say)
}

/// The number of bytes of a text, in CEL. Of `bytes(TEXT)` the API server would expect more work than it allows, for as many
/// texts as a request may have.
fn bytes_of(text: &str) -> String {
    format!("size('%x'.format([{text}])) / 2")
}

pub(super) fn arguments_fit() -> Rule {
    let (few, bytes) = (MAX_STRING_BYTES / WIDEST, bytes_of("c"));
    rule(
        &format!("self.all(c, size(c) <= {few} || {bytes} <= {MAX_STRING_BYTES})"),
        &format!(
            "an argument has more than {MAX_STRING_BYTES} bytes, the most that Linux takes: use stdin, or a file or a \
             ConfigMap that the pod mounts"
        ),
    )
}

/// An engine may hang on one that is much longer: `docs/engines.md`.
pub(super) fn program_fits() -> Rule {
    rule(
        &format!("size(self) == 0 || {} <= {MAX_PATH_BYTES}", bytes_of("self[0]")),
        &format!(
            "command[0] has more than {MAX_PATH_BYTES} bytes, the most that Linux takes of a path: it names the program to \
             run"
        ),
    )
}

pub(super) fn variables_fit() -> Rule {
    let (few, most) = (MAX_STRING_BYTES / WIDEST - 1, MAX_STRING_BYTES - 1);
    let (name, value) = (bytes_of("e.name"), bytes_of("e.value"));
    rule(
        &format!("self.all(e, size(e.name) + size(e.value) <= {few} || {name} + {value} <= {most})"),
        &format!(
            "a variable has more than {MAX_STRING_BYTES} bytes as NAME=VALUE, the most that Linux takes: use stdin, or a \
             file or a ConfigMap that the pod mounts"
        ),
    )
}

pub(super) fn folder_fits() -> Rule {
    rule(
        &format!("{} <= {MAX_PATH_BYTES}", bytes_of("self")),
        &format!("workingDir has more than {MAX_PATH_BYTES} bytes, the most that Linux takes"),
    )
}

pub(super) fn spec_fits() -> Rule {
    fits(MAX_SPEC_BYTES, "put larger input into a file or a ConfigMap that the pod mounts")
}

pub(super) fn batch_spec_fits() -> Rule {
    fits(MAX_BATCH_SPEC_BYTES, "each request of a batch has a copy of them; put more into a file that the pods have")
}

fn fits(most: usize, or_else: &str) -> Rule {
    let sum = |of: &dyn Fn(&str) -> String| {
        let stdin = |field: &str| {
            let text = format!("self.stdin.{field}");
            format!("(has(self.stdin) && has({text}) ? {} : 0)", of(&text))
        };
        let command = format!("self.command.map(x, {}).sum()", of("x"));
        let env = format!("self.env.map(x, {} + {}).sum()", of("x.name"), of("x.value"));
        [command, env, stdin("text"), stdin("data")].join(" + ")
    };
    let (characters, bytes, few) = (sum(&|text| format!("size({text})")), sum(&bytes_of), most / WIDEST);
    rule(
        &format!("{characters} <= {few} || {characters} <= {most} && {bytes} <= {most}"),
        &format!("command, env and stdin are too long: at most {most} bytes together; {or_else}"),
    )
}
