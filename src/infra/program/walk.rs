//! The way of a path through a container's files, as the kernel goes it, and whether any of it may have been another one
//! since a moment.
//!
//! Whatever is put in another's place has a new time of change, and so has the folder in which that is done. A time of change
//! cannot be set.

use std::{
    collections::VecDeque,
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2, readlinkat},
    io::Errno,
};

use super::mounts::Mounts;

/// Symbolic links on the way, at most.
const LINKS: usize = 40;

/// It cannot be told, or is not the same as it was.
#[derive(Debug)]
pub(super) struct Unclear;

pub(super) enum Place {
    File(File),
    /// There is nothing, and was nothing since.
    Missing,
}

pub(super) struct File {
    handle: OwnedFd,
    kind: FileType,
    mode: Mode,
    noexec: bool,
}

impl File {
    /// Whether anybody may execute it, by its kind and mode.
    pub(super) fn may_be_executed(&self) -> bool {
        self.kind == FileType::RegularFile && self.mode.bits() & 0o111 != 0
    }

    /// Whether the kernel executes it for nobody, whatever is in it.
    pub(super) fn is_denied(&self) -> bool {
        self.noexec || !self.may_be_executed()
    }

    /// For reading. It is a regular file.
    pub(super) fn open(&self) -> Result<OwnedFd, Unclear> {
        // Whoever has a lease on it would be waited for.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        open(format!("/proc/self/fd/{}", self.handle.as_raw_fd()), flags, Mode::empty()).map_err(|_| Unclear)
    }
}

/// A container's files, as its main process sees them.
pub(super) struct View {
    root: OwnedFd,
    mounts: Mounts,
    since: Duration,
}

/// A folder on the way.
struct Step {
    handle: OwnedFd,
    /// Without symbolic links.
    path: String,
    stat: Stat,
    noexec: bool,
}

impl View {
    /// `None`: its root is none that a container is given.
    pub(super) fn of(pid: u32, since: Duration) -> Option<Self> {
        let mounts = Mounts::of(pid).ok()?;
        mounts.root()?;
        // Whoever has made a namespace for himself mounts in it what he likes.
        let same_users =
            fs::read_link(format!("/proc/{pid}/ns/user")).ok()? == fs::read_link("/proc/self/ns/user").ok()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(format!("/proc/{pid}/root"), flags, Mode::empty()).ok().filter(|_| same_users)?;
        Some(Self { root, mounts, since })
    }

    /// Whether it has not changed since.
    fn is_old(&self, stat: &Stat) -> bool {
        let seconds = u64::try_from(stat.st_ctime).unwrap_or(u64::MAX);
        let nanoseconds = u32::try_from(stat.st_ctime_nsec).unwrap_or(u32::MAX).min(999_999_999);
        Duration::new(seconds, nanoseconds) < self.since
    }

    pub(super) fn walk(&self, path: &str) -> Result<Place, Unclear> {
        let noexec = self.mounts.root().is_some_and(|root| root.noexec);
        let root = self.root.try_clone().map_err(|_| Unclear)?;
        let stat = fstat(&root).map_err(|_| Unclear)?;
        let mut way = vec![Step { handle: root, path: String::new(), stat, noexec }];
        let mut ahead: VecDeque<String> = parts(path);
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let folder = way.last().ok_or(Unclear)?;
            let Some(step) = self.step(folder, &name)? else {
                return if self.is_old(&folder.stat) { Ok(Place::Missing) } else { Err(Unclear) };
            };
            match FileType::from_raw_mode(step.stat.st_mode) {
                FileType::Symlink => {
                    links += 1;
                    let target = readlinkat(&step.handle, "", Vec::new()).map_err(|_| Unclear)?;
                    let target = target.into_string().map_err(|_| Unclear)?;
                    if links > LINKS {
                        return Err(Unclear);
                    }
                    if target.starts_with('/') {
                        way.truncate(1);
                    }
                    for part in parts(&target).into_iter().rev() {
                        ahead.push_front(part);
                    }
                }
                FileType::Directory => way.push(step),
                _ if !ahead.is_empty() || path.ends_with('/') => return Err(Unclear),
                _ => return self.file(step),
            }
        }
        self.file(way.pop().ok_or(Unclear)?)
    }

    /// The next step on the way, which nobody can have put in another's place since. `None`: there is nothing.
    fn step(&self, folder: &Step, name: &str) -> Result<Option<Step>, Unclear> {
        let path = format!("{}/{name}", folder.path);
        let mount = self.mounts.at(&path);
        let same = if mount.is_some() { ResolveFlags::empty() } else { ResolveFlags::NO_XDEV };
        if mount.is_some_and(|mount| !mount.is_own()) {
            return Err(Unclear);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = match openat2(&folder.handle, name, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS | same) {
            Ok(handle) => handle,
            Err(Errno::NOENT) => return Ok(None),
            Err(_) => return Err(Unclear),
        };
        let stat = fstat(&handle).map_err(|_| Unclear)?;
        if !self.is_old(&stat) && !self.is_old(&folder.stat) {
            return Err(Unclear);
        }
        let noexec = mount.map_or(folder.noexec, |mount| mount.noexec);
        Ok(Some(Step { handle, path, stat, noexec }))
    }

    fn file(&self, Step { handle, stat, noexec, .. }: Step) -> Result<Place, Unclear> {
        if !self.is_old(&stat) {
            return Err(Unclear);
        }
        let (kind, mode) = (FileType::from_raw_mode(stat.st_mode), Mode::from_raw_mode(stat.st_mode));
        Ok(Place::File(File { handle, kind, mode, noexec }))
    }
}

fn parts(path: &str) -> VecDeque<String> {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect()
}
