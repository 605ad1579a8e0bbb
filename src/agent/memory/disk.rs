//! The folder of the agent's memory: files that are replaced whole, and files that only grow. What is written survives a
//! crash once the call has returned.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    future::Future,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// For root alone: an outcome holds the end of the output.
const FILE_MODE: u32 = 0o600;
/// Least size of a file that is replaced whole, and of its spare, in bytes. Everything that is remembered of a request
/// fits, except the end of its output.
pub const SLOT: usize = 8192;
/// Fills a slot behind the text.
const PAD: u8 = b'\n';
const NEXT: &str = "next";
const SPARE: &str = "spare";

/// Files by name, in one folder.
pub trait Disk: Send + Sync + 'static {
    /// Replaces a file whole: after a crash it is the old one or the new one. Once a file exists, a text of up to [`SLOT`]
    /// bytes replaces it even on a full disk. Of several calls for one name the last one stands, even if its future or that
    /// of an earlier one was dropped.
    /// On an error the former file still stands.
    fn replace(&self, name: &str, text: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send;

    /// Replaces a file whole, without waiting for the disk: it is the old one or the new one also if this process ends,
    /// but not if the node does.
    /// On an error the former file still stands.
    fn note(&self, name: &str, text: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send;

    /// Removes a file, if it is there.
    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>> + Send;

    /// Adds to the end of a file, and returns the offset of what was added.
    /// After an error a part of the line may be there.
    fn append(&self, name: &str, line: Vec<u8>) -> impl Future<Output = io::Result<u64>> + Send;

    /// Renames a file, in place of whatever had the name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Reads a file whole; `None` if there is none.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Reads a part of a file.
    /// An error if the file is shorter.
    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    fn list(&self) -> io::Result<Vec<String>>;
}

/// A folder of this node, and the lock that makes this process its only writer.
#[derive(Debug)]
pub struct Folder {
    path: Arc<PathBuf>,
    turns: Turns,
    _lock: File,
}

#[derive(Debug)]
pub enum Taken {
    /// Another process has the lock, which is this file.
    ByAnother(PathBuf),
    /// What the file system refuses to do, with which path.
    Failed(&'static str, PathBuf, io::Error),
}

impl Folder {
    /// Opens or makes the folder `name` in `state`, and takes the lock of `state` in the name of `holder`.
    pub fn open(state: &Path, name: &str, holder: &str) -> Result<Self, Taken> {
        let path = state.join(name);
        fs::create_dir_all(&path).map_err(|error| Taken::Failed("make folder", path.clone(), error))?;
        let lock_path = state.join("lock");
        let failed = |act, error| Taken::Failed(act, lock_path.clone(), error);
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&lock_path);
        let mut lock = open.map_err(|error| failed("open", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Taken::ByAnother(lock_path)),
            Err(TryLockError::Error(error)) => return Err(failed("lock", error)),
        }
        // Whoever waits for the lock can see who has it.
        let sign = lock.set_len(0).and_then(|()| lock.write_all(holder.as_bytes()));
        sign.map_err(|error| failed("write", error))?;
        let folder = Self { path: Arc::new(path), turns: Turns::default(), _lock: lock };
        folder.tidy().map_err(|error| Taken::Failed("tidy", folder.path.to_path_buf(), error))?;
        Ok(folder)
    }

    /// Removes what an interrupted write has left behind: the former file still stands.
    fn tidy(&self) -> io::Result<()> {
        for entry in fs::read_dir(&*self.path)? {
            let path = entry?.path();
            let whole = match path.extension().and_then(|suffix| suffix.to_str()) {
                Some(NEXT) => None,
                Some(SPARE) => Some(path.with_extension("")),
                Some(_) | None => continue,
            };
            if whole.is_none_or(|whole| !whole.exists()) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

impl Disk for Folder {
    fn replace(&self, name: &str, text: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send {
        let turn = self.turns.next(name);
        let (folder, name) = (Arc::clone(&self.path), name.to_owned());
        blocking(move || turn.take(|| replace(&folder, &name, text)))
    }

    fn note(&self, name: &str, text: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send {
        let turn = self.turns.next(name);
        let path = self.path.join(name);
        blocking(move || {
            turn.take(|| {
                let next = with(&path, NEXT);
                create(&next, &text)?;
                fs::rename(&next, &path)
            })
        })
    }

    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>> + Send {
        let turn = self.turns.next(name);
        self.turns.forget(name);
        let path = self.path.join(name);
        blocking(move || {
            turn.take(|| {
                for path in [path.as_path(), &with(&path, SPARE)] {
                    match fs::remove_file(path) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        Ok(()) | Err(_) => {}
                    }
                }
                Ok(())
            })
        })
    }

    fn append(&self, name: &str, line: Vec<u8>) -> impl Future<Output = io::Result<u64>> + Send {
        let path = self.path.join(name);
        blocking(move || {
            let mut file = OpenOptions::new().create(true).append(true).mode(FILE_MODE).open(path)?;
            file.write_all(&line)?;
            let end = file.stream_position()?;
            file.sync_data()?;
            Ok(end.saturating_sub(line.len() as u64))
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        sync(&self.path)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut text = vec![0; length];
        file.read_exact(&mut text)?;
        Ok(text)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&*self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn replace(folder: &Path, name: &str, mut text: Vec<u8>) -> io::Result<()> {
    let path = folder.join(name);
    let spare = with(&path, SPARE);
    text.resize(text.len().max(SLOT), PAD);
    // Written into the blocks that the spare has already, then the two are exchanged: that needs no room.
    if text.len() == SLOT && path.exists() && spare.exists() && exchange(&path, &spare, &text).is_ok() {
        return sync(folder);
    }
    let next = with(&path, NEXT);
    let written = create(&next, &text).and_then(|file| {
        file.sync_all()?;
        if !spare.exists() {
            create(&spare, &[PAD; SLOT])?.sync_all()?;
        }
        fs::rename(&next, &path)
    });
    if written.is_err() {
        // Half a file would only fill the disk.
        fs::remove_file(&next).ok();
        if !path.exists() {
            fs::remove_file(&spare).ok();
        }
    }
    written?;
    sync(folder)
}

fn exchange(path: &Path, spare: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(spare)?;
    file.write_all(text)?;
    // The spare may have been larger.
    file.set_len(text.len() as u64)?;
    file.sync_all()?;
    Ok(renameat_with(CWD, spare, CWD, path, RenameFlags::EXCHANGE)?)
}

fn create(path: &Path, text: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(FILE_MODE).open(path)?;
    file.write_all(text)?;
    Ok(file)
}

/// Keeps the writes of one file in the order of the calls. A write whose future was dropped may still wait for a thread: it
/// must not undo a later one.
#[derive(Clone, Debug, Default)]
struct Turns(Arc<Mutex<HashMap<String, Arc<Mutex<u64>>>>>);

/// The right to write, unless a later turn was used meanwhile.
struct Turn {
    number: u64,
    last: Arc<Mutex<u64>>,
}

impl Turns {
    fn next(&self, name: &str) -> Turn {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let mut all = self.0.lock();
        let last = Arc::clone(all.entry(name.to_owned()).or_default());
        Turn { number: NUMBER.fetch_add(1, Ordering::Relaxed), last }
    }

    fn forget(&self, name: &str) {
        self.0.lock().remove(name);
    }
}

impl Turn {
    fn take(self, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut last = self.last.lock();
        if self.number < *last {
            return Ok(());
        }
        *last = self.number;
        act()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(state: &Path) -> Folder {
        Folder::open(state, "journal", "me").expect("a folder")
    }

    fn trimmed(text: Option<Vec<u8>>) -> Option<String> {
        text.map(|text| String::from_utf8(text).expect("text").trim_end().to_owned())
    }

    #[test]
    fn a_write_that_comes_late_does_not_undo_a_later_one() {
        let turns = Turns::default();
        let (first, second) = (turns.next("f"), turns.next("f"));
        let mut done = Vec::new();
        second
            .take(|| {
                done.push(2);
                Ok(())
            })
            .expect("taken");
        first
            .take(|| {
                done.push(1);
                Ok(())
            })
            .expect("passed over");
        assert_eq!(done, [2]);
    }

    #[test]
    fn a_second_process_is_refused() {
        let state = tempfile::tempdir().expect("a folder");
        let _first = folder(state.path());
        assert!(matches!(Folder::open(state.path(), "journal", "you"), Err(Taken::ByAnother(_))));
        assert_eq!(fs::read_to_string(state.path().join("lock")).expect("read"), "me");
    }

    #[tokio::test]
    async fn files_of_any_length_are_replaced_whole() {
        let state = tempfile::tempdir().expect("a folder");
        let folder = folder(state.path());
        for text in ["one".to_owned(), "two".to_owned(), "x".repeat(SLOT * 2), "three".to_owned(), String::new()] {
            folder.replace("f", text.clone().into_bytes()).await.expect("written");
            assert_eq!(trimmed(folder.read("f").expect("read")), Some(text));
        }
        folder.remove("f").await.expect("removed");
        folder.remove("f").await.expect("removing twice is no error");
        assert_eq!(folder.read("f").expect("read"), None);
        assert_eq!(folder.list().expect("listed"), Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_was_appended_is_found_again() {
        let state = tempfile::tempdir().expect("a folder");
        let folder = folder(state.path());
        assert_eq!(folder.append("log", b"one\n".to_vec()).await.expect("added"), 0);
        assert_eq!(folder.append("log", b"two\n".to_vec()).await.expect("added"), 4);
        assert_eq!(folder.read_at("log", 4, 3).expect("read"), b"two");
        folder.rename("log", "old").expect("renamed");
        assert_eq!(folder.read("log").expect("read"), None);
        assert_eq!(folder.read("old").expect("read"), Some(b"one\ntwo\n".to_vec()));
    }

    #[tokio::test]
    async fn what_was_cut_off_is_tidied_away_and_the_file_before_it_stands() {
        let state = tempfile::tempdir().expect("a folder");
        {
            let folder = folder(state.path());
            folder.replace("f.json", b"whole".to_vec()).await.expect("written");
        }
        let path = |name: &str| state.path().join("journal").join(name);
        fs::write(path("f.json.next"), b"half").expect("written");
        fs::write(path("g.json.spare"), b"alone").expect("written");
        let folder = folder(state.path());
        assert_eq!(folder.list().expect("listed"), ["f.json", "f.json.spare"]);
        assert_eq!(trimmed(folder.read("f.json").expect("read")), Some("whole".to_owned()));
    }
}
