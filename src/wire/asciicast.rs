//! asciicast v2: a recording of a terminal, one JSON value a line.
//!
//! <https://docs.asciinema.org/manual/asciicast/v2/>. The first line is the
//! header, every other one `[seconds, kind, data]`. Data is text: an incomplete
//! character at the end of a piece waits for the rest of it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub version: u8,
    pub width: u16,
    pub height: u16,
    /// When it began, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Output(String),
    /// Columns and rows.
    Resize(u16, u16),
    /// What is not played: input, markers.
    Other,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    #[error("not an asciicast: the first line must be a JSON object with version, width and height")]
    Header,
    #[error("asciicast version {0} is not supported, only version 2")]
    Version(u8),
    #[error("not an asciicast event: it must be [SECONDS, KIND, DATA]")]
    Event,
}

pub fn encode_header(header: &Header) -> String {
    line(header)
}

/// A line with its newline; `micros` since the beginning.
pub fn encode_event(micros: u64, event: &Event) -> Option<String> {
    #[expect(clippy::cast_precision_loss, reason = "exact for a hundred years")]
    let seconds = micros as f64 / 1e6;
    match event {
        Event::Output(text) => Some(line(&(seconds, "o", text))),
        Event::Resize(columns, rows) => Some(line(&(seconds, "r", format!("{columns}x{rows}")))),
        Event::Other => None,
    }
}

fn line(value: &impl Serialize) -> String {
    // Strings and numbers: this cannot fail.
    serde_json::to_string(value).unwrap_or_default() + "\n"
}

pub fn decode_header(line: &str) -> Result<Header, Malformed> {
    let header: Header = serde_json::from_str(line).map_err(|_| Malformed::Header)?;
    if header.version == 2 { Ok(header) } else { Err(Malformed::Version(header.version)) }
}

/// Reads a line after the header: seconds since the beginning, and the event.
pub fn decode_event(line: &str) -> Result<(f64, Event), Malformed> {
    let (seconds, kind, data): (f64, String, String) = serde_json::from_str(line).map_err(|_| Malformed::Event)?;
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(Malformed::Event);
    }
    let event = match kind.as_str() {
        "o" => Event::Output(data),
        "r" => {
            let (columns, rows) = data.split_once('x').ok_or(Malformed::Event)?;
            let number = |text: &str| text.parse().map_err(|_| Malformed::Event);
            Event::Resize(number(columns)?, number(rows)?)
        }
        _ => Event::Other,
    };
    Ok((seconds, event))
}

#[derive(Debug, Default)]
pub struct Text {
    rest: Vec<u8>,
}

impl Text {
    /// The text that is complete by now. Invalid bytes become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let mut text = String::new();
        let mut unfinished = Vec::new();
        let mut chunks = self.rest.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            match std::str::from_utf8(chunk.invalid()) {
                Ok(_) => {}
                // The last one may still become a character.
                Err(error) if error.error_len().is_none() && chunks.peek().is_none() => {
                    unfinished = chunk.invalid().to_vec();
                }
                Err(_) => text.push(char::REPLACEMENT_CHARACTER),
            }
        }
        self.rest = unfinished;
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_recording_looks_as_players_read_it() {
        let header = Header {
            version: 2,
            width: 80,
            height: 24,
            timestamp: Some(1_700_000_000),
            command: Some("sh".into()),
            title: None,
        };
        let first = encode_header(&header);
        assert_eq!(first, "{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1700000000,\"command\":\"sh\"}\n");
        assert_eq!(decode_header(&first), Ok(header));
        let output = Event::Output("\u{1b}[1mä\r\n".into());
        let second = encode_event(1_500_000, &output).expect("a line");
        assert_eq!(second, "[1.5,\"o\",\"\\u001b[1mä\\r\\n\"]\n");
        assert_eq!(decode_event(&second), Ok((1.5, output)));
        assert_eq!(encode_event(0, &Event::Resize(100, 30)).as_deref(), Some("[0.0,\"r\",\"100x30\"]\n"));
    }

    #[test]
    fn others_recordings_can_be_read() {
        let header = "{\"version\": 2, \"width\": 80, \"height\": 24, \"env\": {\"TERM\": \"xterm\"}, \"theme\": {}}";
        assert!(decode_header(header).is_ok());
        assert_eq!(decode_event("[0.5, \"i\", \"x\"]"), Ok((0.5, Event::Other)));
        assert_eq!(decode_event("[1, \"r\", \"80x25\"]"), Ok((1.0, Event::Resize(80, 25))));
        assert_eq!(decode_header("{\"version\": 1, \"width\": 80, \"height\": 24}"), Err(Malformed::Version(1)));
        assert_eq!(decode_header("#!/bin/sh"), Err(Malformed::Header));
        for line in ["", "[1]", "[-1, \"o\", \"\"]", "[1, \"r\", \"80\"]", "[1e999, \"o\", \"\"]", "{}"] {
            assert_eq!(decode_event(line), Err(Malformed::Event), "{line}");
        }
    }

    #[test]
    fn a_character_that_is_cut_waits_for_its_rest() {
        let mut text = Text::default();
        assert_eq!(text.push(b"a\xc3"), "a");
        assert_eq!(text.push(b"\xa4b"), "äb");
        assert_eq!(text.push(b"\xff\xc3("), "\u{fffd}\u{fffd}(");
    }

    proptest! {
        #[test]
        fn text_is_the_same_however_it_is_cut(whole in ".{0,40}", cut in 1_usize..7) {
            let mut text = Text::default();
            let joined: String = whole.as_bytes().chunks(cut).map(|part| text.push(part)).collect();
            prop_assert_eq!(joined, whole);
        }

        #[test]
        fn nonsense_is_refused_or_read_but_never_more(line in "\\PC{0,60}") {
            prop_assert!(decode_header(&line).is_err() || line.contains("version"));
            prop_assert!(decode_event(&line).is_err() || line.trim_start().starts_with('['));
        }
    }
}
