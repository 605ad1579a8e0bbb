//! How much of a command goes into the audit trail. Values of variables and
//! standard input never do.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde_json::Value;

use super::{event::key, sha256};

/// Most bytes of a command, as JSON, in a record. A longer one is cut after a whole argument, and
/// its digest is added.
pub const COMMAND_LIMIT: usize = 32 << 10;

/// What of a command is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommandDetail {
    /// All of it.
    #[default]
    Full,
    /// The program, without its arguments.
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

    /// Puts as much of a command into annotations as may be shown.
    pub(super) fn annotate(self, command: &[String], into: &mut BTreeMap<String, String>) {
        let whole = json(command);
        let mut note = |key: &str, value| drop(into.insert(key.to_owned(), value));
        match self {
            Self::Full if whole.len() <= COMMAND_LIMIT => note(key::COMMAND, whole),
            Self::Full => {
                let kept = fitting(command);
                note(key::COMMAND, json(kept));
                note(key::ARGUMENTS_LEFT_OUT, (command.len() - kept.len()).to_string());
                note(key::COMMAND_SHA256, sha256(whole.as_bytes()));
            }
            Self::Program => {
                let kept = &command[..command.len().min(1)];
                note(key::COMMAND, json(kept));
                note(key::ARGUMENTS_LEFT_OUT, (command.len() - kept.len()).to_string());
            }
            Self::Digest => note(key::COMMAND_SHA256, sha256(whole.as_bytes())),
        }
    }
}

/// The first arguments, as many as fit into the limit.
fn fitting(command: &[String]) -> &[String] {
    let mut taken = "[]".len();
    let count = command.iter().take_while(|argument| {
        // As a list of one, without its brackets, with a comma.
        taken += json(std::slice::from_ref(*argument)).len() - 1;
        taken <= COMMAND_LIMIT
    });
    &command[..count.count()]
}

/// A list of texts as JSON.
pub(super) fn json(texts: &[String]) -> String {
    Value::Array(texts.iter().cloned().map(Value::String).collect()).to_string()
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
        found.ok_or_else(|| "full, program or digest".to_owned())
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
    fn a_setting_is_read_as_it_is_written() {
        for detail in CommandDetail::ALL {
            assert_eq!(detail.to_string().parse(), Ok(detail));
        }
        assert!("some".parse::<CommandDetail>().is_err());
    }
}
