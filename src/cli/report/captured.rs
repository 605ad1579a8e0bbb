//! What a command wrote to one stream, as far as its request keeps it.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;

use crate::{api::StreamStatus, cli::say::tails::tail_bytes};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Captured {
    /// How many bytes it wrote.
    pub bytes: i64,
    /// Of all of them.
    pub sha256: Option<String>,
    /// The end of it. What is not UTF-8 is replaced.
    pub text: String,
    /// The text is not all of it.
    pub truncated: bool,
    /// The kept bytes, if they are not UTF-8.
    pub base64: Option<String>,
}

impl Captured {
    pub fn of(stream: &StreamStatus) -> Self {
        let bytes = tail_bytes(stream);
        let (text, base64) = match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let bytes = error.into_bytes();
                (String::from_utf8_lossy(&bytes).into_owned(), Some(BASE64_STANDARD.encode(&bytes)))
            }
        };
        Self { bytes: stream.bytes, sha256: stream.sha256.clone(), text, truncated: stream.truncated, base64 }
    }

    /// What a reader has to know of the text.
    pub fn notes(&self) -> Vec<String> {
        let kept = self.text.len();
        let truncated = match (self.truncated, kept) {
            (false, _) => None,
            (true, 0) => Some(format!("none of its {} bytes are kept here", self.bytes)),
            (true, _) => Some(format!("the end of {} bytes", self.bytes)),
        };
        let lossy = self.base64.is_some().then(|| "not UTF-8: replaced where it is not".to_owned());
        truncated.into_iter().chain(lossy).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tail: Option<&str>, base64: Option<&[u8]>, bytes: i64, truncated: bool) -> Captured {
        let tail_base64 = base64.map(|bytes| BASE64_STANDARD.encode(bytes));
        Captured::of(&StreamStatus { tail: tail.map(str::to_owned), tail_base64, bytes, sha256: None, truncated })
    }

    #[test]
    fn what_is_not_text_or_not_all_is_said_to_be_so() {
        let whole = of(Some("ok\n"), None, 3, false);
        assert_eq!((whole.text.as_str(), whole.notes()), ("ok\n", Vec::new()));
        assert_eq!(of(Some("end"), None, 9, true).notes(), ["the end of 9 bytes"]);
        assert_eq!(of(None, None, 9, true).notes(), ["none of its 9 bytes are kept here"]);
        assert_eq!(of(None, None, 0, false).notes(), Vec::<String>::new());
        let control = of(None, Some(b"\x1b[2J"), 4, false);
        assert_eq!((control.text.as_str(), control.base64), ("\x1b[2J", None), "it is UTF-8");
        let binary = of(None, Some(b"a\xff\xfe"), 3, false);
        assert_eq!((binary.text.as_str(), binary.notes().len()), ("a\u{fffd}\u{fffd}", 1));
        assert_eq!(binary.base64.as_deref(), Some("Yf/+"));
    }
}
