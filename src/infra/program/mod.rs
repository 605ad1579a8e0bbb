//! Whether a program in a container can be executed at all: looked at from outside, through the root of its main process.
//!
//! Whoever may change files there wants to deceive. So only what has not changed since a moment counts, on file systems that
//! this kernel keeps itself, and only what the kernel would refuse to everybody. Nothing here waits for a file system.

mod mounts;
mod walk;

use std::{fs, os::fd::OwnedFd, path::Path, time::Duration};

use rustix::io::pread;

use self::walk::{Place, Unclear, View};
use super::process;
use crate::{
    api::bytes::MAX_PATH_BYTES,
    core::{
        execution::Obstacle,
        ids::ContainerId,
        program::{HEAD_BYTES, Kind, Table, kind},
    },
};

/// Scripts that are run by scripts, at most.
const SCRIPTS: usize = 5;
/// Bytes of a path, with its end.
const PATH_BYTES: usize = MAX_PATH_BYTES + 1;
/// Where the kernel tells which formats it has learned, if that is mounted.
const FORMATS: [&str; 2] = ["/proc/sys/fs/binfmt_misc", "/proc/1/root/proc/sys/fs/binfmt_misc"];
/// What is there in any case; the first one only if it is mounted.
const NO_FORMATS: [&str; 2] = ["register", "status"];
const FILE_SYSTEMS: &str = "/proc/filesystems";

/// A program as a name in a container.
#[derive(Clone, Debug)]
pub struct Program {
    pub container: ContainerId,
    /// PID of the container's main process on the node.
    pub main: u32,
    /// Where it is looked for: in the last place it is.
    pub places: Vec<String>,
    /// Nothing of it must have changed since, as time since 1970.
    pub since: Duration,
}

/// Why the kernel executes it for nobody, if that is certain: what it answers, and in words.
pub fn obstacle(program: &Program) -> Option<(Obstacle, String)> {
    let main = process::find(program.main).filter(|_| process::is_in(program.main, &program.container))?;
    let view = View::of(program.main, program.since)?;
    let found = look(&view, &program.places).ok().flatten();
    // What was looked at may have been another process's.
    found.filter(|_| process::alive(main) && process::is_in(program.main, &program.container))
}

fn look(view: &View, places: &[String]) -> Result<Option<(Obstacle, String)>, Unclear> {
    let Some((last, before)) = places.split_last() else { return Ok(None) };
    for path in before {
        // It would have been found here.
        if matches!(view.walk(path)?, Place::File(file) if file.may_be_executed()) {
            return Ok(None);
        }
    }
    let mut path = last.clone();
    for scripts in 0..=SCRIPTS {
        let file = match view.walk(&path)? {
            Place::File(file) => file,
            // The runtime has found it.
            Place::Missing if scripts == 0 => return Ok(None),
            Place::Missing => return Ok(Some((Obstacle::Missing, format!("its interpreter {path:?} is missing")))),
        };
        if file.is_denied() {
            return Ok(Some((Obstacle::Denied, format!("{path:?} is no file that may be executed"))));
        }
        let file = file.open()?;
        let interpreter = match kind(&read(&file, 0, HEAD_BYTES)?) {
            Kind::Unclear => return Ok(None),
            // A format is known by a number at the beginning, or by the end of the file's name.
            Kind::Text if learned() == Learned::Formats || learned() == Learned::Unknown && has_ending(&path) => {
                return Ok(None);
            }
            Kind::Foreign if learned() != Learned::Nothing => return Ok(None),
            Kind::Text | Kind::Foreign => {
                return Ok(Some((Obstacle::Format, format!("{path:?} is no program for this machine"))));
            }
            Kind::Program(table) => return interpreter_of(view, &file, &table),
            Kind::Script(interpreter) => interpreter,
        };
        if !interpreter.starts_with('/') {
            return Ok(None);
        }
        path = interpreter;
    }
    view.walk(&path).map(|place| match place {
        Place::File(file) if !file.is_denied() => Some((Obstacle::Loop, "it is a script for scripts".to_owned())),
        Place::File(_) | Place::Missing => None,
    })
}

/// Whether a program's loader is missing.
fn interpreter_of(view: &View, file: &OwnedFd, table: &Table) -> Result<Option<(Obstacle, String)>, Unclear> {
    let Some((at, length)) = table.interpreter(&read(file, table.at, table.length)?) else { return Ok(None) };
    let path = read(file, at, length.min(PATH_BYTES))?;
    let path = path.strip_suffix(b"\0").and_then(|path| std::str::from_utf8(path).ok()).ok_or(Unclear)?;
    if length > PATH_BYTES || !path.starts_with('/') {
        return Ok(None);
    }
    Ok(match view.walk(path)? {
        Place::Missing => Some((Obstacle::Missing, format!("its interpreter {path:?} is missing"))),
        Place::File(file) if file.is_denied() => {
            Some((Obstacle::Denied, format!("its interpreter {path:?} is no file that may be executed")))
        }
        Place::File(_) => None,
    })
}

/// As many bytes as there are, of those asked for.
fn read(file: &OwnedFd, at: u64, bytes: usize) -> Result<Vec<u8>, Unclear> {
    let mut buffer = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        match pread(file, &mut buffer[filled..], at + filled as u64).map_err(|_| Unclear)? {
            0 => break,
            read => filled += read,
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

/// What this kernel runs beside its own formats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Learned {
    Nothing,
    Formats,
    /// A container does not see that.
    Unknown,
}

fn learned() -> Learned {
    if fs::read_to_string(FILE_SYSTEMS).is_ok_and(|list| !list.contains("binfmt_misc")) {
        return Learned::Nothing;
    }
    let mounted = FORMATS.iter().find(|folder| Path::new(folder).join(NO_FORMATS[0]).exists());
    let Some(formats) = mounted.and_then(|folder| fs::read_dir(folder).ok()) else { return Learned::Unknown };
    let learned = |name: &str| !NO_FORMATS.contains(&name);
    let any = formats.flatten().any(|entry| entry.file_name().to_str().is_none_or(learned));
    if any { Learned::Formats } else { Learned::Nothing }
}

fn has_ending(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.contains('.'))
}
