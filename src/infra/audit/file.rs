//! Audit lines in the files of a folder. A file is named by the number of its first line and never renamed; the oldest
//! are deleted when there are too many.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::core::{
    audit::{
        chain::{End, Head},
        verify::{file_name, first_in},
    },
    digest::sha256,
};

/// For root, and a log collector in its group.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;
const LOCK: &str = "lock";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// A file of this size is not appended to.
    pub file_bytes: u64,
    /// Files, including the one that is written; at least 2.
    pub files: usize,
}

/// A folder, and the lock that makes this process its only writer.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    retention: Retention,
    _lock: File,
}

#[derive(Debug)]
pub(super) struct Open {
    file: File,
    bytes: u64,
    /// Without lines it is used whatever its size: the next file would have the same name.
    has_lines: bool,
    unended: bool,
}

#[derive(Debug, Default)]
pub(super) struct Found {
    /// The last line, and its writer.
    pub(super) last: Option<(String, Head)>,
    /// Notes for the next record, on what was cut off.
    pub(super) confession: BTreeMap<String, String>,
}

impl Folder {
    pub(super) fn open(path: &Path, retention: Retention) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(FILE_MODE).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), retention, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process writes this audit log"))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Finds the end of the lines, and opens the file that it is in; none if there is no file yet.
    pub(super) fn find(&self) -> io::Result<(Found, Option<Open>)> {
        let mut found = Found::default();
        let mut open = None;
        for path in self.files()?.iter().rev() {
            let text = fs::read(path)?;
            let end = End::of(&text);
            if open.is_none() {
                found.confession = end.cut_notes();
                let file = OpenOptions::new().append(true).open(path)?;
                let (bytes, has_lines) = (text.len() as u64, end.last.is_some());
                open = Some(Open { file, bytes, has_lines, unended: end.is_open() });
            }
            if end.last.is_some() {
                found.last = end.last;
                break;
            }
        }
        Ok((found, open))
    }

    /// Adds lines, of which the first has this number, and waits until they survive a crash. After an error a part of them
    /// may be there.
    pub(super) fn add(&self, open: Option<Open>, first: u64, lines: &[u8]) -> io::Result<Open> {
        let open = open.filter(|open| !open.has_lines || open.bytes < self.retention.file_bytes);
        let mut open = match open {
            Some(open) => open,
            None => self.next(first)?,
        };
        let text: &[u8] = if open.unended { &[b"\n", lines].concat() } else { lines };
        open.file.write_all(text)?;
        open.file.sync_data()?;
        Ok(Open { bytes: open.bytes + text.len() as u64, has_lines: true, unended: false, ..open })
    }

    /// A new file, and one fewer of the old ones if there are too many.
    fn next(&self, first: u64) -> io::Result<Open> {
        let path = self.path.join(file_name(first));
        let file = OpenOptions::new().create_new(true).append(true).mode(FILE_MODE).open(path)?;
        File::open(&self.path)?.sync_all()?;
        let files = self.files()?;
        let excess = files.len().saturating_sub(self.retention.files);
        for old in &files[..excess] {
            fs::remove_file(old)?;
        }
        Ok(Open { file, bytes: 0, has_lines: false, unended: false })
    }

    /// Whether this line is there.
    pub(super) fn has(&self, line: &Head) -> io::Result<bool> {
        let in_it = |path: &PathBuf| first_in(path).is_some_and(|first| first <= line.sequence);
        let Some(path) = self.files()?.into_iter().rfind(in_it) else { return Ok(line.sequence == 0) };
        Ok(fs::read(path)?.split(|byte| *byte == b'\n').any(|text| sha256(text) == line.sha256))
    }

    /// The files with lines, the oldest first.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if let Some(first) = first_in(&path) {
                files.push((first, path));
            }
        }
        files.sort_unstable();
        Ok(files.into_iter().map(|(_, path)| path).collect())
    }
}
