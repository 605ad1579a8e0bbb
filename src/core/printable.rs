//! Text of others, written so that it can only be read: whatever a terminal would obey, hide or reorder is escaped.
//!
//! A name, a reason, a message of the runtime is anybody's: with a line end it would be a line of ours, with an escape
//! sequence it would take one away.

use std::fmt::{self, Write as _};

/// Whether a terminal shows it, in its place and as nothing else: no control character, no line end, nothing that
/// turns the direction of text, and nothing without a width (the default ignorable code points of Unicode).
pub const fn is_printable(c: char) -> bool {
    !matches!(c,
        '\0'..='\x1f' | '\x7f'..='\u{9f}'
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// The text as one line: `\n`, `\x1b`, `\u{202e}` in place of what is not printable.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match u8::try_from(c) {
            _ if is_printable(c) => line.push(c),
            Ok(byte) if byte.is_ascii() => line.extend(byte.escape_ascii().map(char::from)),
            Ok(_) | Err(_) => line.extend(c.escape_unicode()),
        }
    }
    line
}

/// JSON that has only printable characters, and the line ends between its parts.
pub fn json(text: &str) -> String {
    // JSON has others than ASCII in its strings alone, where each may be written so.
    let escape = |json: &mut String, c: char| {
        c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(json, "\\u{unit:04x}"))
    };
    quoted(text, escape)
}

/// The same of a quoted string of YAML.
pub fn yaml(text: &str) -> String {
    quoted(text, |yaml, c| write!(yaml, "\\U{:08x}", u32::from(c)))
}

fn quoted(text: &str, escape: impl Fn(&mut String, char) -> fmt::Result) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) || c == '\n' {
            quoted.push(c);
        } else {
            // Writing to a string does not fail.
            escape(&mut quoted, c).unwrap_or_default();
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_hides_or_reorders_is_written_out() {
        for (text, line) in [
            ("plain, with ä, 漢字 and 🦀", "plain, with ä, 漢字 and 🦀"),
            ("\x1b[1A\x1b[2K\n  Who      nobody", r"\x1b[1A\x1b[2K\n  Who      nobody"),
            ("a\r\tb\0\x07\x08\x7f", r"a\r\tb\x00\x07\x08\x7f"),
            ("\u{9b}2J\u{85}\u{2028}\u{2029}", r"\u{9b}2J\u{85}\u{2028}\u{2029}"),
            ("\u{202e}txt\u{2066}\u{200e}\u{61c}", r"\u{202e}txt\u{2066}\u{200e}\u{61c}"),
            ("a\u{200b}b\u{feff}c\u{2060}d\u{ad}\u{e0041}", r"a\u{200b}b\u{feff}c\u{2060}d\u{ad}\u{e0041}"),
        ] {
            assert_eq!(one_line(text), line);
        }
    }

    #[test]
    fn no_character_that_is_not_text_is_left_and_json_means_the_same() {
        let all: String = ('\0'..=char::MAX).filter(|c| !is_printable(*c)).collect();
        for c in ["\x1b", "\x7f", "\u{9b}", "\u{202a}", "\u{202e}", "\u{2066}", "\u{2069}", "\u{200f}", "\u{200d}"] {
            assert!(all.contains(c), "{c:?}");
        }
        assert!(one_line(&all).chars().all(is_printable));
        let written = json(&serde_json::to_string_pretty(&[&all]).expect("JSON"));
        assert!(written.chars().all(|c| is_printable(c) || c == '\n'));
        assert_eq!(serde_json::from_str::<Vec<String>>(&written).expect("JSON"), [all]);
    }
}
