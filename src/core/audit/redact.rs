//! How much of a request goes into the audit trail: never the values of variables
//! nor standard input, and everything else up to a limit.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::Serialize;

use super::key;
use crate::{api::Requester, core::digest::sha256};

/// In bytes of JSON. A longer command is cut after a whole argument, and its digest is added.
pub const COMMAND_LIMIT: usize = 32 << 10;
/// The same for the names of environment variables.
pub const ENV_LIMIT: usize = 4 << 10;
/// In bytes of JSON. Of a larger user the name, the UID, the first groups and the digest of the whole
/// are recorded.
pub const USER_LIMIT: usize = 16 << 10;
/// In characters, of such a user's name and UID: what the `CustomResourceDefinition` allows.
const NAME_LIMIT: usize = 1024;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommandDetail {
    #[default]
    Full,
    Program,
    /// The SHA-256 of the command as JSON. A short command can be guessed from it.
    Digest,
}

impl CommandDetail {
    const ALL: [Self; 3] = [Self::Full, Self::Program, Self::Digest];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Program => "program",
            Self::Digest => "digest",
        }
    }

    pub(super) fn annotate(self, command: &[String], into: &mut BTreeMap<String, String>) {
        let whole = json(command);
        let mut note = |key: &str, value| drop(into.insert(key.to_owned(), value));
        match self {
            Self::Full if whole.len() <= COMMAND_LIMIT => note(key::COMMAND, whole),
            Self::Full => {
                let kept = fitting(command, COMMAND_LIMIT);
                note(key::COMMAND, json(kept));
                note(key::ARGUMENTS_LEFT_OUT, (command.len() - kept.len()).to_string());
                note(key::COMMAND_SHA256, sha256(whole.as_bytes()));
            }
            Self::Program => {
                let kept = fitting(&command[..command.len().min(1)], COMMAND_LIMIT);
                note(key::COMMAND, json(kept));
                note(key::ARGUMENTS_LEFT_OUT, (command.len() - kept.len()).to_string());
            }
            Self::Digest => note(key::COMMAND_SHA256, sha256(whole.as_bytes())),
        }
    }
}

pub(super) fn annotate_env(names: &[String], into: &mut BTreeMap<String, String>) {
    let whole = json(names);
    if whole.len() > ENV_LIMIT {
        let kept = fitting(names, ENV_LIMIT);
        into.insert(key::ENV.to_owned(), json(kept));
        into.insert(key::ENV_LEFT_OUT.to_owned(), (names.len() - kept.len()).to_string());
        into.insert(key::ENV_SHA256.to_owned(), sha256(whole.as_bytes()));
    } else if !names.is_empty() {
        into.insert(key::ENV.to_owned(), whole);
    }
}

/// As much of a user as is recorded, and the digest of the whole if that is not all.
pub(super) fn limited(user: &Requester) -> (Requester, Option<String>) {
    let whole = json(user);
    if whole.len() <= USER_LIMIT {
        return (user.clone(), None);
    }
    let name = |text: &str| text.chars().take(NAME_LIMIT).collect();
    let groups = fitting(&user.groups, USER_LIMIT / 2).to_vec();
    let shown = Requester { username: name(&user.username), uid: name(&user.uid), groups, extra: BTreeMap::new() };
    (shown, Some(sha256(whole.as_bytes())))
}

/// As many of the first texts as fit into `limit` bytes of JSON.
fn fitting(texts: &[String], limit: usize) -> &[String] {
    let mut taken = "[]".len();
    let count = texts.iter().take_while(|text| {
        // As a list of one, without its brackets, with a comma.
        taken += json(std::slice::from_ref(*text)).len() - 1;
        taken <= limit
    });
    &texts[..count.count()]
}

pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    // Strings only: this cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

impl fmt::Display for CommandDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CommandDetail {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|detail| detail.as_str() == text);
        found.ok_or_else(|| "must be full, program or digest".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(detail: CommandDetail, command: &[&str]) -> BTreeMap<String, String> {
        let command: Vec<String> = command.iter().map(|argument| (*argument).to_owned()).collect();
        let mut into = BTreeMap::new();
        detail.annotate(&command, &mut into);
        into
    }

    #[test]
    fn a_command_is_shown_as_far_as_the_setting_allows() {
        let command = ["psql", "-c", "alter user app password 'hunter2'"];
        let full = noted(CommandDetail::Full, &command);
        assert_eq!(full[key::COMMAND], r#"["psql","-c","alter user app password 'hunter2'"]"#);
        let program = noted(CommandDetail::Program, &command);
        assert_eq!((program[key::COMMAND].as_str(), program[key::ARGUMENTS_LEFT_OUT].as_str()), (r#"["psql"]"#, "2"));
        let digest = noted(CommandDetail::Digest, &command);
        assert_eq!(digest[key::COMMAND_SHA256], sha256(full[key::COMMAND].as_bytes()));
        for redacted in [program, digest] {
            assert!(!format!("{redacted:?}").contains("hunter2"), "{redacted:?}");
        }
    }

    #[test]
    fn a_command_that_is_too_long_is_cut_after_a_whole_argument_and_its_digest_is_added() {
        let long = "x".repeat(COMMAND_LIMIT / 2);
        let noted = noted(CommandDetail::Full, &["sh", &long, &long, "end"]);
        assert!(noted[key::COMMAND].len() <= COMMAND_LIMIT);
        assert_eq!(noted[key::COMMAND], format!(r#"["sh","{long}"]"#));
        assert_eq!((noted[key::ARGUMENTS_LEFT_OUT].as_str(), noted[key::COMMAND_SHA256].len()), ("2", 64));
    }

    #[test]
    fn names_of_variables_are_limited_as_a_command_is() {
        let names = |count: usize| (0..count).map(|number| format!("{number:0256}")).collect::<Vec<_>>();
        let mut few = BTreeMap::new();
        annotate_env(&names(15), &mut few);
        assert_eq!(few.keys().collect::<Vec<_>>(), [key::ENV]);
        let mut many = BTreeMap::new();
        annotate_env(&names(256), &mut many);
        assert!(many[key::ENV].len() <= ENV_LIMIT);
        assert_eq!(many[key::ENV], few[key::ENV]);
        assert_eq!(many[key::ENV_LEFT_OUT], "241");
        assert_eq!(many[key::ENV_SHA256], sha256(json(&names(256)).as_bytes()));
    }

    #[test]
    fn of_a_user_that_is_too_long_the_name_and_the_first_groups_are_shown() {
        let mut user = Requester { username: "ann".to_owned(), groups: vec!["dba".to_owned()], ..Default::default() };
        user.extra.insert("scopes".to_owned(), vec!["all".to_owned()]);
        assert_eq!(limited(&user), (user.clone(), None));
        user.groups.extend((0..1024).map(|number| format!("{number:01024}")));
        let (shown, digest) = limited(&user);
        assert_eq!((shown.username.as_str(), shown.groups[0].as_str(), shown.extra.len()), ("ann", "dba", 0));
        assert!(json(&shown).len() <= USER_LIMIT);
        assert_eq!(digest, Some(sha256(json(&user).as_bytes())));
    }

    #[test]
    fn a_setting_is_read_as_it_is_written() {
        for detail in CommandDetail::ALL {
            assert_eq!(detail.to_string().parse(), Ok(detail));
        }
        assert!("some".parse::<CommandDetail>().is_err());
    }
}
