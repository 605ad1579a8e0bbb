//! Where a batch that is followed is seen: a live view on a terminal, else a sentence for each target; and what its
//! commands wrote.

use std::io::{self, IsTerminal as _, Write};

use super::{
    children::Ended,
    view::{View, lines},
    words,
    written::written,
};
use crate::{
    api::ExecRequest,
    cli::{
        cluster::connection::Cluster,
        error::Error,
        say::{live::Live, page::Page, print, speech, speech::Speech, terminal, terminal::Size},
    },
    core::batch::end::End,
};

/// Of a terminal that does not tell.
const SIZE: Size = Size { columns: 80, rows: 24 };

pub struct Stage {
    pub speech: Speech,
    live: Option<Live>,
    /// Output is shown at the end.
    group: bool,
    colours: bool,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Nobody reads the output any more.
    pub closed: bool,
}

impl Stage {
    pub fn new(speech: &Speech, group: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let live = (io::stderr().is_terminal() && !speech.is_quiet() && !dumb)
            .then(|| Live::new(io::stderr(), speech::colours_on(&io::stderr())));
        Self {
            speech: speech.clone(),
            live,
            group,
            colours: speech::colours(),
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            closed: false,
        }
    }

    /// To something that is no terminal.
    #[cfg(test)]
    pub fn to(speech: &Speech, group: bool, to: impl Write + Send + Clone + 'static) -> Self {
        let (out, err) = (Box::new(to.clone()), Box::new(to));
        Self { speech: speech.clone(), live: None, group, colours: false, out, err, closed: false }
    }

    pub const fn is_live(&self) -> bool {
        self.live.is_some()
    }

    pub const fn is_group(&self) -> bool {
        self.group
    }

    pub fn draw(&mut self, view: &View<'_>) {
        match (&mut self.live, view.trouble) {
            (Some(live), _) => {
                let size = terminal::size().unwrap_or(SIZE);
                live.draw(lines(view, size), size);
            }
            (None, Some(why)) => {
                let name = words::typed(view.batch);
                self.speech.trouble(&format!("{name}: the API server does not answer: {why}; retrying"));
            }
            (None, None) => self.speech.clear(),
        }
    }

    /// Takes the view away.
    pub fn clear(&mut self) {
        if let Some(live) = &mut self.live {
            live.erase(terminal::size().unwrap_or(SIZE));
        }
    }

    pub fn say(&mut self, sentence: &str) {
        self.clear();
        self.speech.say(sentence);
    }

    /// Asks, and leaves the cursor where the answer is typed.
    pub fn ask(&mut self, question: &str) -> Result<(), Error> {
        self.clear();
        print::write(&mut self.err, Page::default().text(question).as_str().as_bytes()).map(drop)
    }

    /// One target has ended: what it wrote, and, where there is no view, how. Those of which a batch that has stopped ends
    /// many at once are told together, at the end.
    pub fn ended(&mut self, cluster: &Cluster, child: &ExecRequest, ended: &Ended, of_many: bool) -> Result<(), Error> {
        if !self.is_live() && !self.speech.is_quiet() && !of_many {
            let sentence = match ended.end {
                End::Succeeded => format!("{} succeeded", ended.pod),
                End::Failed | End::NotRun | End::Unknown | End::Skipped => {
                    format!("{} {}: {}", ended.pod, words::ended(ended.end), ended.words)
                }
            };
            self.say(&sentence);
        }
        if self.group {
            return Ok(());
        }
        let written = written(child, self.colours, |name| cluster.plugin(&format!("logs {name}")));
        if written.stdout.is_empty() && written.stderr.is_empty() {
            return Ok(());
        }
        self.clear();
        self.page(&written.stdout)?;
        print::write(&mut self.err, written.stderr.as_str().as_bytes())?;
        for sentence in written.missing {
            self.say(&sentence);
        }
        Ok(())
    }

    /// Prints on standard output.
    pub fn page(&mut self, page: &Page) -> Result<(), Error> {
        if !page.is_empty() {
            self.clear();
            self.closed |= !print::write(&mut self.out, page.as_str().as_bytes())?;
        }
        Ok(())
    }

    pub fn blank(&self) -> Page {
        Page::in_colour(self.colours)
    }
}
