//! Messages of an agent that a client acts upon: both sides take the words from here. A client
//! may be older or newer than the agent, so they do not change.

use std::fmt;

use thiserror::Error;

const NOTICE: (&str, &str) = ("[execlet: ", " of output are not kept, and are missing here]");
const UNKNOWN: &str = "an unknown number of bytes";
const BYTES: &str = " bytes";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Bytes(u64),
    Unknown,
}

impl Missing {
    /// What is shown in their place, without a newline.
    pub fn notice(self) -> String {
        let (before, after) = NOTICE;
        format!("{before}{self}{after}")
    }

    /// Reads such a notice. A command can forge one, but only about its own output.
    pub fn read(notice: &str) -> Option<Self> {
        let (before, after) = NOTICE;
        match notice.strip_prefix(before)?.strip_suffix(after)? {
            UNKNOWN => Some(Self::Unknown),
            count => count.strip_suffix(BYTES)?.parse().ok().map(Self::Bytes),
        }
    }
}

impl From<Option<u64>> for Missing {
    fn from(bytes: Option<u64>) -> Self {
        bytes.map_or(Self::Unknown, Self::Bytes)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}{BYTES}"),
            Self::Unknown => f.write_str(UNKNOWN),
        }
    }
}

const HELD: &str = "the input is held by ";
const ENDED: &str = "the input was ended already";
const LOST: &str = "the input cannot reach the command any more";

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InputError {
    #[error("{HELD}{0}: attach without stdin to watch")]
    Held(String),
    #[error("{ENDED}: attach without stdin to watch")]
    Ended,
    #[error("{LOST}: the agent was restarted and has lost the connection; attach without stdin to watch")]
    Lost,
}

impl InputError {
    /// Reads its message; `None` if it is another one.
    pub fn read(words: &str) -> Option<Self> {
        if let Some(holder) = words.strip_prefix(HELD) {
            return Some(Self::Held(holder.split(": ").next().unwrap_or(holder).to_owned()));
        }
        [(ENDED, Self::Ended), (LOST, Self::Lost)]
            .into_iter()
            .find_map(|(begin, error)| words.starts_with(begin).then_some(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_says_the_other_understands() {
        for missing in [Missing::Bytes(0), Missing::Bytes(7), Missing::Bytes(u64::MAX), Missing::Unknown] {
            assert_eq!(Missing::read(&missing.notice()), Some(missing));
        }
        assert_eq!(Missing::Bytes(96).notice(), "[execlet: 96 bytes of output are not kept, and are missing here]");
        for error in [InputError::Held("jane from 10.0.0.7".to_owned()), InputError::Ended, InputError::Lost] {
            assert_eq!(InputError::read(&error.to_string()), Some(error));
        }
        assert_eq!(InputError::read("the object has been modified"), None);
    }
}
