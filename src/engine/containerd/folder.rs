//! The folder of an exec: what it writes to and reads from, and what has to be known of it after a crash.
//!
//! It is where the FIFOs are, which the shim opens by their paths, and says whether the one start was ever tried. It has to
//! be in memory that ends with the node's run, as the execs do.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FsWord, Mode, OFlags, mkfifoat, statfs};
use serde::{Deserialize, Serialize};

use crate::{
    core::ids::{ContainerRef, ExecName, ExecRef},
    wire::OutputStream,
};

/// Whoever has made it was about to start the exec.
const STARTED: &str = "started";
/// A part of its output was thrown away.
const INCOMPLETE: &str = "incomplete";
/// All of the input was given, and its end follows.
const INPUT_ENDED: &str = "input-ended";
const ABOUT: &str = "about.json";
/// Made and removed again, to see whether that is possible.
const PROBE: &str = ".probe";
/// What the kernel calls file systems that are in memory: tmpfs, ramfs.
const MEMORY: [FsWord; 2] = [0x0102_1994, 0x8584_58f6];
/// Of such a file.
const MOST_BYTES: u64 = 1024 * 1024;

#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// What was asked of an exec, as far as it matters later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    pub program: String,
    pub working_dir: String,
    pub tty: bool,
    pub input: bool,
}

/// The right to the one start of an exec. Nobody gets it twice, not even after a crash.
#[derive(Debug)]
pub struct Claim(());

impl Folder {
    /// `None`: these are not names of anything of ours.
    pub fn of(base: &Path, exec: &ExecRef) -> Option<Self> {
        let (container, exec) = (exec.container.id.as_str(), exec.id.as_str());
        (is_name(container) && is_name(exec)).then(|| Self(base.join(container).join(exec)))
    }

    /// Makes it, with all that is in it. One that is there is replaced, unless its exec may have been started: then this is
    /// `AlreadyExists`.
    pub fn make(&self, about: &About) -> io::Result<()> {
        if self.may_have_been_started() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.remove()?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let private = Mode::RUSR | Mode::WUSR;
        mkfifoat(CWD, self.fifo(OutputStream::Stdout), private)?;
        if !about.tty {
            mkfifoat(CWD, self.fifo(OutputStream::Stderr), private)?;
        }
        if about.input {
            mkfifoat(CWD, self.input(), private)?;
        }
        fs::write(self.0.join(ABOUT), serde_json::to_vec(about)?)
    }

    pub fn exists(&self) -> bool {
        self.0.is_dir()
    }

    /// `None`: it is not there, or not whole.
    pub fn about(&self) -> Option<About> {
        let path = self.0.join(ABOUT);
        let small = fs::metadata(&path).ok()?.len() <= MOST_BYTES;
        small.then(|| fs::read(&path).ok()).flatten().and_then(|text| serde_json::from_slice(&text).ok())
    }

    /// Whether it is known that nobody has ever tried to start its exec.
    pub fn was_never_started(&self) -> bool {
        self.exists() && !self.may_have_been_started()
    }

    /// Whether somebody has been about to start its exec.
    pub fn may_have_been_started(&self) -> bool {
        !matches!(fs::symlink_metadata(self.0.join(STARTED)), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// `AlreadyExists`: somebody has had it.
    pub fn claim(&self) -> io::Result<Claim> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.0.join(STARTED))?;
        Ok(Claim(()))
    }

    /// From now on its output is not to be had any more.
    pub fn give_output_up(&self) -> io::Result<()> {
        fs::write(self.0.join(INCOMPLETE), "")
    }

    pub fn has_output(&self) -> bool {
        !self.0.join(INCOMPLETE).exists()
    }

    /// From now on there is no more input.
    pub fn end_input(&self) -> io::Result<()> {
        fs::write(self.0.join(INPUT_ENDED), "")
    }

    pub fn has_input_ended(&self) -> bool {
        self.0.join(INPUT_ENDED).exists()
    }

    pub fn fifo(&self, stream: OutputStream) -> PathBuf {
        self.0.join(name(stream))
    }

    /// The outputs, open for reading: whoever opens one for writing does not wait for somebody who reads.
    pub fn hold_outputs(&self) -> Vec<File> {
        let hold = |stream| {
            let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
            OpenOptions::new().read(true).custom_flags(nonblocking).open(self.fifo(stream)).ok()
        };
        [OutputStream::Stdout, OutputStream::Stderr].into_iter().filter_map(hold).collect()
    }

    /// What was taken from that FIFO.
    pub fn backlog(&self, stream: OutputStream) -> PathBuf {
        self.0.join(name(stream)).with_extension("backlog")
    }

    pub fn input(&self) -> PathBuf {
        self.0.join("in")
    }

    /// What is to go into that FIFO.
    pub fn input_backlog(&self) -> PathBuf {
        self.0.join("in.backlog")
    }

    /// It is no harm if there is none.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // That of the container goes with the last.
        if let Some(container) = self.0.parent() {
            fs::remove_dir(container).ok();
        }
        Ok(())
    }
}

/// The execs that have a folder.
pub fn all(base: &Path) -> io::Result<Vec<ExecRef>> {
    let mut execs = Vec::new();
    for container in names_in(base)? {
        for exec in names_in(&base.join(&container))? {
            let container = ContainerRef { id: container.as_str().into(), started_at: None };
            let exec = ExecRef { id: exec.into(), container };
            if ExecName::of(&exec.id).is_some() && Folder::of(base, &exec).is_some() {
                execs.push(exec);
            }
        }
    }
    Ok(execs)
}

/// The folders in a folder.
fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

/// What is in it has to end with the node's run, and must not wait for a disk. An error says what to do.
pub fn look_at_base(base: &Path) -> Result<(), String> {
    let next = "mount a tmpfs there, or name a folder of one (--run-dir, agent.runDir of the chart)";
    let wanted = |found: &str| {
        format!("the folder {} for the output of commands {found}; wanted is one on a tmpfs: {next}", base.display())
    };
    let found = statfs(base).map_err(|error| wanted(&format!("cannot be looked at ({error})")))?;
    if !MEMORY.contains(&found.f_type) {
        return Err(wanted(&format!("is on a file system of type {:#x}", found.f_type)));
    }
    let probe = base.join(PROBE);
    let written = fs::write(&probe, "").and_then(|()| fs::remove_file(&probe));
    written.map_err(|error| wanted(&format!("cannot be written to ({error})")))
}

const fn name(stream: OutputStream) -> &'static str {
    match stream {
        OutputStream::Stdout => "out",
        OutputStream::Stderr => "err",
    }
}

/// As the engine takes them, and no way out of a folder.
pub fn is_name(id: &str) -> bool {
    let may_be = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !id.is_empty() && !id.starts_with('.') && id.bytes().all(may_be)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About { program: "id".to_owned(), working_dir: "/".to_owned(), tty: false, input: true }
    }

    fn exec(container: &str, id: &str) -> ExecRef {
        ExecRef { id: id.into(), container: ContainerRef { id: container.into(), started_at: None } }
    }

    #[test]
    fn an_exec_is_claimed_once_and_then_its_folder_is_made_no_more() {
        let base = tempfile::tempdir().expect("a folder");
        let folder = Folder::of(base.path(), &exec("c", "u.1")).expect("names");
        assert!(!folder.exists() && !folder.was_never_started() && !folder.may_have_been_started());
        folder.make(&about()).expect("made");
        folder.make(&about()).expect("made again");
        assert_eq!(folder.about(), Some(about()));
        assert!(folder.was_never_started());
        folder.claim().expect("the first");
        for _ in 0..2 {
            assert_eq!(folder.claim().expect_err("claimed").kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(folder.make(&about()).expect_err("claimed").kind(), io::ErrorKind::AlreadyExists);
        }
        assert!(!folder.was_never_started() && folder.may_have_been_started());
        folder.remove().expect("removed");
        folder.remove().expect("no harm");
        assert_eq!(fs::read_dir(base.path()).expect("a folder").count(), 0);
        assert!(folder.claim().is_err(), "what is not there cannot be claimed");
    }

    #[test]
    fn a_terminal_has_one_output_and_input_only_if_asked() {
        let base = tempfile::tempdir().expect("a folder");
        let folder = Folder::of(base.path(), &exec("c", "u.1")).expect("names");
        folder.make(&About { tty: true, input: false, ..about() }).expect("made");
        assert!(folder.fifo(OutputStream::Stdout).exists());
        assert!(!folder.fifo(OutputStream::Stderr).exists() && !folder.input().exists());
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let base = Path::new("/b");
        for (container, id) in [("..", "u.1"), ("c", ".."), ("c/d", "u.1"), ("", "u.1"), ("c", ""), ("c", "a b")] {
            assert!(Folder::of(base, &exec(container, id)).is_none(), "{container} {id}");
        }
    }

    #[test]
    fn all_that_is_ours_is_listed_and_nothing_else() {
        let base = tempfile::tempdir().expect("a folder");
        assert_eq!(all(base.path()).expect("listed"), []);
        let one = exec("c", "u.1");
        Folder::of(base.path(), &one).expect("names").make(&about()).expect("made");
        fs::create_dir_all(base.path().join("c/other")).expect("made");
        fs::write(base.path().join("file.1"), "").expect("written");
        fs::write(base.path().join("c/file.2"), "").expect("written");
        assert_eq!(all(base.path()).expect("listed"), [one]);
        assert!(all(&base.path().join("none")).is_err());
    }

    #[test]
    fn the_base_is_in_memory_or_it_is_said_what_it_is_and_what_to_do() {
        let memory = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        assert_eq!(look_at_base(memory.path()), Ok(()));
        assert_eq!(fs::read_dir(memory.path()).expect("a folder").count(), 0, "nothing stays");
        let missing = look_at_base(&memory.path().join("none")).expect_err("it is not there");
        assert!(missing.contains("none") && missing.contains("cannot be looked at"), "{missing}");
        let other = look_at_base(Path::new("/proc")).expect_err("it is no tmpfs");
        assert!(other.contains("/proc") && other.contains("0x9fa0") && other.contains("--run-dir"), "{other}");
    }
}
