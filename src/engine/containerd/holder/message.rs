//! What is asked of a holder, and what it answers: a packet each, in words. A descriptor goes beside the words.

/// Bytes of a packet.
pub(super) const LONGEST: usize = 64 * 1024;
/// Bytes of a name.
const LONGEST_NAME: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question<'a> {
    /// Hold the descriptor that comes with it. The answer comes once it is held.
    Put(&'a str),
    Get(&'a str),
    /// Let go of it.
    Delete(&'a str),
    /// Which names there are behind this one, in order: as many as go into a packet.
    List(&'a str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// The descriptor comes with it.
    Found,
    Absent,
    Names(Vec<String>),
    /// It was not done, and why.
    Refused(String),
}

impl<'a> Question<'a> {
    pub(super) fn encode(self) -> String {
        match self {
            Self::Put(name) => format!("PUT {name}"),
            Self::Get(name) => format!("GET {name}"),
            Self::Delete(name) => format!("DEL {name}"),
            Self::List(after) => format!("LIST {after}"),
        }
    }

    /// The error says what is wrong.
    pub(super) fn parse(packet: &'a [u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(packet).map_err(|_| "it is no text")?;
        let (word, name) = text.split_once(' ').ok_or("it is no question")?;
        let is_name = is_name(name);
        match word {
            "LIST" if name.is_empty() || is_name => Ok(Self::List(name)),
            "PUT" if is_name => Ok(Self::Put(name)),
            "GET" if is_name => Ok(Self::Get(name)),
            "DEL" if is_name => Ok(Self::Delete(name)),
            "PUT" | "GET" | "DEL" | "LIST" => Err("its name is no name"),
            _ => Err("it is no question"),
        }
    }
}

impl Answer {
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Done => "DONE".to_owned(),
            Self::Found => "FOUND".to_owned(),
            Self::Absent => "ABSENT".to_owned(),
            Self::Names(names) => format!("NAMES {}", names.join("\n")),
            Self::Refused(why) => format!("REFUSED {why}"),
        }
    }

    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(packet).ok()?;
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "DONE" => Some(Self::Done),
            "FOUND" => Some(Self::Found),
            "ABSENT" => Some(Self::Absent),
            "NAMES" => Some(Self::Names(rest.lines().map(str::to_owned).collect())),
            "REFUSED" => Some(Self::Refused(rest.to_owned())),
            _ => None,
        }
    }

    /// As many of these names as one answer takes.
    pub(super) fn names<'a>(names: impl IntoIterator<Item = &'a String>) -> Self {
        let mut left = LONGEST - LONGEST_NAME;
        let fits = |name: &&String| {
            let taken = left.checked_sub(name.len() + 1);
            left = taken.unwrap_or(0);
            taken.is_some()
        };
        Self::Names(names.into_iter().take_while(fits).cloned().collect())
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_are_read_as_they_were_written() {
        for question in [
            Question::Put("c/u.1/out"),
            Question::Get("a"),
            Question::Delete("a"),
            Question::List(""),
            Question::List("a"),
        ] {
            assert_eq!(Question::parse(question.encode().as_bytes()), Ok(question));
        }
        for answer in [
            Answer::Done,
            Answer::Found,
            Answer::Absent,
            Answer::Names(Vec::new()),
            Answer::Names(vec!["a".into(), "b/c".into()]),
            Answer::Refused("it has no room".into()),
        ] {
            assert_eq!(Answer::parse(answer.encode().as_bytes()), Some(answer));
        }
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let long = format!("GET {}", "n".repeat(LONGEST_NAME + 1));
        for packet in ["", "PUT", "PUT ", "put a", "GET a b", "DEL a\nb", "LIST \n", "TAKE a", "GET \u{fc}", &long] {
            assert!(Question::parse(packet.as_bytes()).is_err(), "{packet}");
        }
        assert!(Question::parse(b"GET \xff").is_err());
        assert_eq!(Answer::parse(b"PERHAPS"), None);
    }

    #[test]
    fn a_list_is_cut_where_a_packet_is_full_and_is_never_empty_where_there_are_names() {
        let names: Vec<String> = (0..10_000).map(|number| format!("{number:0>500}")).collect();
        let answer = Answer::names(&names);
        assert!(answer.encode().len() <= LONGEST);
        let Answer::Names(listed) = answer else { panic!("{answer:?}") };
        assert!(!listed.is_empty() && listed.len() < names.len() && names.starts_with(&listed));
    }
}
