//! `--record FILE`: what the command writes, as asciicast v2. Input is never recorded.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    time::Instant,
};

use k8s_openapi::jiff::Timestamp;

use crate::{
    cli::{error::Error, say::terminal::Size},
    wire::{
        OutputStream,
        asciicast::{Event, Header, Text, encode_event, encode_header},
    },
};

/// The size to record where there is no terminal.
const NO_TERMINAL: Size = Size { columns: 80, rows: 24 };

#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Recording {
    /// Creates the file, or empties it.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file) })
    }

    fn write(&mut self, line: &str) -> Result<(), Error> {
        self.file.write_all(line.as_bytes()).map_err(|source| Error::File { path: self.path.clone(), source })
    }
}

#[derive(Debug)]
pub struct Recorder {
    to: Recording,
    since: Instant,
    stdout: Text,
    stderr: Text,
    size: Size,
    /// A pipe has no carriage returns; a player's terminal needs them.
    lines_need_return: bool,
}

impl Recorder {
    pub fn begin(mut to: Recording, title: &str, command: &str, size: Option<Size>, tty: bool) -> Result<Self, Error> {
        let size = size.unwrap_or(NO_TERMINAL);
        let header = Header {
            version: 2,
            width: size.columns,
            height: size.rows,
            timestamp: Some(Timestamp::now().as_second()),
            command: Some(command.to_owned()),
            title: Some(title.to_owned()),
        };
        to.write(&encode_header(&header))?;
        Ok(Self {
            to,
            since: Instant::now(),
            stdout: Text::default(),
            stderr: Text::default(),
            size,
            lines_need_return: !tty,
        })
    }

    pub fn output(&mut self, stream: OutputStream, bytes: &[u8]) -> Result<(), Error> {
        let mut text = match stream {
            OutputStream::Stdout => self.stdout.push(bytes),
            OutputStream::Stderr => self.stderr.push(bytes),
        };
        if self.lines_need_return {
            text = text.replace('\n', "\r\n");
        }
        if text.is_empty() { Ok(()) } else { self.event(&Event::Output(text)) }
    }

    pub fn resize(&mut self, size: Size) -> Result<(), Error> {
        if size == self.size {
            return Ok(());
        }
        self.size = size;
        self.event(&Event::Resize(size.columns, size.rows))
    }

    /// Everything is in the file after this.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.to.file.flush().map_err(|source| Error::File { path: self.to.path.clone(), source })
    }

    fn event(&mut self, event: &Event) -> Result<(), Error> {
        let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.to.write(&encode_event(micros, event).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::asciicast::{decode_event, decode_header};

    #[test]
    fn what_is_recorded_can_be_played() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.cast");
        let size = Size { columns: 100, rows: 30 };
        let to = Recording::create(&path).expect("a file");
        let mut recorder = Recorder::begin(to, "r", "seq 2", Some(size), false).expect("a file");
        recorder.output(OutputStream::Stdout, b"1\n\xc3").expect("written");
        recorder.output(OutputStream::Stderr, b"oops\n").expect("written");
        recorder.output(OutputStream::Stdout, b"\xa4\n").expect("written");
        recorder.resize(size).expect("written");
        recorder.resize(Size { columns: 80, rows: 30 }).expect("written");
        recorder.finish().expect("written");
        let text = std::fs::read_to_string(&path).expect("a recording");
        let mut lines = text.lines();
        let header = decode_header(lines.next().expect("a header")).expect("a header");
        assert_eq!((header.width, header.height, header.command.as_deref()), (100, 30, Some("seq 2")));
        let events: Vec<Event> = lines.map(|line| decode_event(line).expect("an event").1).collect();
        let text = |text: &str| Event::Output(text.into());
        assert_eq!(events, [text("1\r\n"), text("oops\r\n"), text("ä\r\n"), Event::Resize(80, 30)]);
    }
}
