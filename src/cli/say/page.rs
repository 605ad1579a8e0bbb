//! What the plugin prints on standard output: lines of text, whoever's it is, and objects as JSON and YAML.
//!
//! There is no way to put text on a page as it is: of what a terminal obeys a page has its own line ends and colours.

use serde_json::Value;

use crate::{
    cli::error::Error,
    core::printable::{is_printable, json, one_line, yaml},
};

/// A colour, by its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Bold = 1,
    Red = 31,
    Green = 32,
    Yellow = 33,
}

#[derive(Clone, Debug, Default)]
pub struct Page {
    text: String,
    colours: bool,
}

impl Page {
    pub fn in_colour(colours: bool) -> Self {
        Self { text: String::new(), colours }
    }

    /// Text of our own, as it is.
    pub fn ours(text: &'static str) -> Self {
        Self { text: text.to_owned(), colours: false }
    }

    /// An object as JSON: others than printable characters are escaped, as JSON can.
    pub fn json(value: &Value) -> Result<Self, Error> {
        let text = serde_json::to_string_pretty(value).map_err(Error::output)?;
        Ok(Self { text: json(&text) + "\n", colours: false })
    }

    /// An object as YAML. What has others than printable characters is a string of JSON, which YAML has too.
    pub fn yaml(value: &Value) -> Result<Self, Error> {
        let mut aside = Aside::new(value);
        let value = aside.put(value);
        let mut text = serde_yaml_ng::to_string(&value).map_err(Error::output)?;
        for (at, string) in aside.strings.iter().enumerate() {
            let quoted = serde_json::to_string(string).map_err(Error::output)?;
            text = text.replace(&aside.name(at), &yaml(&quoted));
        }
        Ok(Self { text, colours: false })
    }

    /// Adds text to the line.
    pub fn text(mut self, text: &str) -> Self {
        self.text.push_str(&one_line(text));
        self
    }

    /// Adds a line of a command's output: what is not printable there is worth a place, but not its code.
    pub fn output(mut self, line: &str) -> Self {
        let plain = |c: char| if is_printable(c) || c == '\t' { c } else { char::REPLACEMENT_CHARACTER };
        self.text.extend(line.chars().map(plain));
        self
    }

    pub fn painted(mut self, text: &str, colour: Colour) -> Self {
        let text = one_line(text);
        if self.colours {
            self.text.extend(["\x1b[", &(colour as u8).to_string(), "m", &text, "\x1b[0m"]);
        } else {
            self.text.push_str(&text);
        }
        self
    }

    pub fn tab(mut self) -> Self {
        self.text.push('\t');
        self
    }

    /// Ends the line.
    pub fn end(mut self) -> Self {
        self.text.push('\n');
        self
    }

    pub fn line(self, text: &str) -> Self {
        self.text(text).end()
    }

    /// Adds another page.
    pub fn then(mut self, other: &Self) -> Self {
        self.text.push_str(&other.text);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The strings of a value that YAML would print with characters that are not printable. A name stands for each of them.
struct Aside {
    begin: String,
    strings: Vec<String>,
}

impl Aside {
    /// With a name that no string of the value has.
    fn new(value: &Value) -> Self {
        let (text, mut begin) = (value.to_string(), "STRING".to_owned());
        while text.contains(&begin) {
            begin.push('G');
        }
        Self { begin, strings: Vec::new() }
    }

    fn name(&self, at: usize) -> String {
        format!("{}-{at}-", self.begin)
    }

    fn put(&mut self, value: &Value) -> Value {
        match value {
            Value::String(string) => Value::String(self.put_string(string)),
            Value::Array(values) => values.iter().map(|value| self.put(value)).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(name, value)| (self.put_string(name), self.put(value))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn put_string(&mut self, string: &str) -> String {
        // Text of several lines is a block, whose lines are indented.
        if string.chars().all(|c| is_printable(c) || c == '\n') {
            return string.to_owned();
        }
        self.strings.push(string.to_owned());
        self.name(self.strings.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_is_put_on_a_page_moves_the_cursor_or_makes_a_line() {
        let forged = "INC-1\x1b[1A\x1b[2K\n  Who      nobody";
        let page = Page::in_colour(true).painted(forged, Colour::Red).text(" and ").line(forged).line("\u{202e}\r");
        assert_eq!(
            page.as_str(),
            "\x1b[31mINC-1\\x1b[1A\\x1b[2K\\n  Who      nobody\x1b[0m and INC-1\\x1b[1A\\x1b[2K\\n  Who      nobody\n\\u{202e}\\r\n"
        );
        let plain = Page::default().painted(forged, Colour::Red);
        assert_eq!(plain.as_str(), r"INC-1\x1b[1A\x1b[2K\n  Who      nobody", "without colours nothing is added");
    }

    #[test]
    fn an_object_is_printed_without_them_and_means_the_same() {
        let all: String = ('\0'..=char::MAX).filter(|c| !is_printable(*c)).collect();
        let mut value = json!({
            "STRING": "STRING-0-", "plain": "ä 'x': #y", "lines": "two\nlines\n", "all": all, "bidi": "a\u{202e}b",
            "keys": {"a\u{1b}[2Jb": ["\r\n", "\u{85}", "\u{2028}", "STRINGG"], "a\u{202e}b": 1}, "nothing": null,
        });
        for c in ('\0'..='\u{ffff}').filter(|c| !is_printable(*c)) {
            value["each"][format!("{:x}", u32::from(c))] = json!(format!("one {c} two"));
        }
        let (json, yaml) = (Page::json(&value).expect("JSON"), Page::yaml(&value).expect("YAML"));
        for page in [&json, &yaml] {
            assert!(page.as_str().chars().all(|c| is_printable(c) || c == '\n'));
        }
        assert_eq!(serde_json::from_str::<Value>(json.as_str()).expect("JSON"), value);
        assert_eq!(serde_yaml_ng::from_str::<Value>(yaml.as_str()).expect("YAML"), value);
    }
}
