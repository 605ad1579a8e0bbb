//! Text of others in a page: it can be read, and nothing else. Only text of our own is put there as it is.

use crate::core::printable::{is_printable, one_line};

#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// As it is.
    pub(super) fn ours(&mut self, text: &'static str) -> &mut Self {
        self.0.push_str(text);
        self
    }

    /// In one line. What is not printable is written out, and marked so that nobody can write it himself.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        text.chars().for_each(|c| self.letter(c, false));
        self
    }

    /// What a command wrote: the same, with its lines and tabs.
    pub(super) fn output(&mut self, text: &str) -> &mut Self {
        text.chars().for_each(|c| self.letter(c, true));
        self
    }

    /// Between the quotes of an attribute.
    pub(super) fn attribute(&mut self, text: &str) -> &mut Self {
        one_line(text).chars().for_each(|c| self.escaped(c));
        self
    }

    pub(super) fn number(&mut self, number: impl Into<i64>) -> &mut Self {
        self.0.push_str(&number.into().to_string());
        self
    }

    pub(super) fn decimal(&mut self, number: f64) -> &mut Self {
        self.0.push_str(&format!("{number:.3}"));
        self
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    fn letter(&mut self, c: char, lines: bool) {
        if is_printable(c) || (lines && matches!(c, '\n' | '\t')) {
            self.escaped(c);
        } else {
            self.0.push_str("<i>");
            self.0.push_str(&one_line(c.encode_utf8(&mut [0; 4])));
            self.0.push_str("</i>");
        }
    }

    fn escaped(&mut self, c: char) {
        match c {
            '&' => self.0.push_str("&amp;"),
            '<' => self.0.push_str("&lt;"),
            '>' => self.0.push_str("&gt;"),
            '"' => self.0.push_str("&quot;"),
            '\'' => self.0.push_str("&#39;"),
            c => self.0.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_others_wrote_is_markup_or_hides_something() {
        let mut page = Html::default();
        page.ours("<p title=\"").attribute("\"><script>\n'").ours("\">").text("</p>&\u{202e}\r\n\t").ours("</p><pre>");
        page.output("</pre>\n\tx\x1b[2J\0\r\n").ours("</pre>").number(3).decimal(0.5);
        assert_eq!(
            page.into_text(),
            "<p title=\"&quot;&gt;&lt;script&gt;\\n&#39;\">&lt;/p&gt;&amp;<i>\\u{202e}</i><i>\\r</i><i>\\n</i><i>\\t</i></p>\
             <pre>&lt;/pre&gt;\n\tx<i>\\x1b</i>[2J<i>\\x00</i><i>\\r</i>\n</pre>30.500"
        );
    }
}
