//! Lines at the end of a terminal that are drawn again in place, and leave nothing behind.
//!
//! Who draws is told the size each time: where the terminal became narrower, it may have broken lines, and more of them
//! have to be taken away.

use std::{fmt::Write as _, io, sync::Arc};

use parking_lot::Mutex;

use super::{
    page::{Colour, Page},
    terminal::Size,
};
use crate::core::printable::is_printable;

/// A line of text, in parts that may have colours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(String, Option<Colour>)>);

impl Line {
    pub fn text(self, text: &str) -> Self {
        self.part(text, None)
    }

    pub fn painted(self, text: &str, colour: Colour) -> Self {
        self.part(text, Some(colour))
    }

    fn part(mut self, text: &str, colour: Option<Colour>) -> Self {
        let plain = text.chars().map(|c| if is_printable(c) { c } else { ' ' }).collect();
        self.0.push((plain, colour));
        self
    }

    /// Columns that it takes.
    pub fn width(&self) -> usize {
        self.0.iter().flat_map(|(text, _)| text.chars()).map(width).sum()
    }

    /// As much of it as fits.
    fn cut(self, columns: usize) -> Self {
        if self.width() <= columns {
            return self;
        }
        let mut room = columns.saturating_sub(3);
        let mut cut = Self::default();
        for (text, colour) in self.0 {
            let mut kept = String::new();
            for c in text.chars() {
                if width(c) > room {
                    cut.0.push((kept + "...", colour));
                    return cut;
                }
                room -= width(c);
                kept.push(c);
            }
            cut.0.push((kept, colour));
        }
        cut
    }

    fn put(&self, page: Page) -> Page {
        self.0.iter().fold(page, |page, (text, colour)| match colour {
            Some(colour) => page.painted(text, *colour),
            None => page.text(text),
        })
    }

    /// As text, without colours.
    #[cfg(test)]
    pub fn plain(&self) -> String {
        self.put(Page::default()).as_str().to_owned()
    }
}

/// At most: many a character takes two columns, and which do is the terminal's to know.
const fn width(c: char) -> usize {
    if c.is_ascii() { 1 } else { 2 }
}

#[derive(Clone)]
pub struct Live {
    to: Arc<Mutex<dyn io::Write + Send>>,
    colours: bool,
    /// The width of each line that is on the terminal.
    drawn: Vec<usize>,
}

impl Live {
    pub fn new(to: impl io::Write + Send + 'static, colours: bool) -> Self {
        Self { to: Arc::new(Mutex::new(to)), colours, drawn: Vec::new() }
    }

    /// Draws these lines in place of the last ones: as much of each as fits, and as many as do.
    pub fn draw(&mut self, lines: Vec<Line>, size: Size) {
        let mut text = self.erasure(size);
        let columns = usize::from(size.columns).saturating_sub(1);
        let rows = usize::from(size.rows).saturating_sub(1).max(1);
        let lines: Vec<Line> = lines.into_iter().take(rows).map(|line| line.cut(columns)).collect();
        let page = lines.iter().fold(Page::in_colour(self.colours), |page, line| line.put(page).end());
        text.push_str(page.as_str());
        self.drawn = lines.iter().map(Line::width).collect();
        self.write(&text);
    }

    /// Takes them away.
    pub fn erase(&mut self, size: Size) {
        let text = self.erasure(size);
        if !text.is_empty() {
            self.write(&text);
        }
    }

    fn erasure(&mut self, size: Size) -> String {
        let columns = usize::from(size.columns).max(1);
        let rows: usize = std::mem::take(&mut self.drawn).iter().map(|width| width.div_ceil(columns).max(1)).sum();
        let mut text = String::new();
        if rows > 0 {
            // Writing to a string does not fail.
            write!(text, "\r\x1b[{rows}A\x1b[J").unwrap_or_default();
        }
        text
    }

    fn write(&self, text: &str) {
        // A terminal that is gone has nobody to tell.
        drop(self.to.lock().write_all(text.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::print::kept::Kept;

    const WIDE: Size = Size { columns: 80, rows: 24 };

    #[test]
    fn what_was_drawn_is_taken_away_however_the_terminal_broke_it() {
        let shown = Kept::default();
        let mut live = Live::new(shown.clone(), true);
        live.draw(vec![Line::default().text("a"), Line::default().painted(&"b".repeat(70), Colour::Red)], WIDE);
        assert_eq!(shown.text(), format!("a\n\x1b[31m{}\x1b[0m\n", "b".repeat(70)));
        live.draw(vec![Line::default().text("c")], WIDE);
        assert_eq!(shown.text(), "\r\x1b[2A\x1b[Jc\n");
        live.draw(vec![Line::default().text(&"d".repeat(70))], WIDE);
        shown.take();
        // 70 characters take two rows of 40.
        live.erase(Size { columns: 40, rows: 24 });
        assert_eq!(shown.text(), "\r\x1b[2A\x1b[J");
        live.erase(WIDE);
        assert_eq!(shown.text(), "", "there is nothing left");
    }

    #[test]
    fn lines_are_cut_to_the_terminal() {
        let shown = Kept::default();
        let mut live = Live::new(shown.clone(), false);
        let pod = || Line::default().painted("db-0", Colour::Red).text(": a message\x1b[2J\nof more words than fit");
        live.draw(vec![pod(), pod(), pod()], Size { columns: 20, rows: 3 });
        assert_eq!(shown.text(), "db-0: a message ...\ndb-0: a message ...\n");
        let wide = Line::default().text("漢字漢字").cut(7);
        assert_eq!((wide.plain().as_str(), wide.width()), ("漢字...", 7));
        assert_eq!(Line::default().text("abcdef").cut(2).width(), 3, "narrower than makes sense: no panic");
    }
}
