//! The file into which the runtime writes the PID of an exec, once it has made its process. The engine deletes it with the
//! exec.

use std::{
    ffi::CString,
    fs, io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init},
    io::Errno,
};

use super::{connection::NAMESPACE, folder::is_name};
use crate::core::ids::ExecRef;

/// The folder of containers below that of the engine's state.
const TASKS: &str = "io.containerd.runtime.v2.task";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidFile {
    Missing,
    There,
    /// The folder that it would be in cannot be seen.
    Unseen,
}

/// `state`: the folder of the engine's state, which is that of its socket.
pub(super) fn look(state: Option<&Path>, exec: &ExecRef) -> PidFile {
    let Some((folder, name)) = state.and_then(|state| place(state, exec)) else { return PidFile::Unseen };
    match fs::symlink_metadata(folder.join(name)) {
        Ok(_) => PidFile::There,
        Err(error) if error.kind() == io::ErrorKind::NotFound => PidFile::Missing,
        Err(_) => PidFile::Unseen,
    }
}

/// Sees that it is written, even if it is deleted again.
pub(super) struct Watch {
    events: OwnedFd,
    name: CString,
}

impl Watch {
    /// `None`: it could not be seen.
    pub(super) fn begin(state: Option<&Path>, exec: &ExecRef) -> Option<Self> {
        let (folder, name) = place(state?, exec)?;
        let events = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        add_watch(&events, &folder, WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR).ok()?;
        Some(Self { events, name: CString::new(name).ok()? })
    }

    /// Whether it was written since, or may have been.
    pub(super) fn has_seen(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.events, &mut buffer);
        loop {
            match events.next() {
                // One without a name says that there were too many, or that the folder has gone.
                Ok(event) if event.file_name().is_none_or(|name| name == self.name.as_c_str()) => return true,
                Ok(_) => {}
                Err(Errno::WOULDBLOCK) => return false,
                Err(_) => return true,
            }
        }
    }
}

fn place(state: &Path, exec: &ExecRef) -> Option<(PathBuf, String)> {
    let (container, id) = (exec.container.id.as_str(), exec.id.as_str());
    let folder = state.join(TASKS).join(NAMESPACE).join(container);
    (is_name(container) && is_name(id) && folder.is_dir()).then(|| (folder, format!("{id}.pid")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::ContainerRef;

    fn exec(container: &str) -> ExecRef {
        ExecRef { id: "u.1".into(), container: ContainerRef { id: container.into(), started_at: None } }
    }

    #[test]
    fn it_is_looked_for_only_where_it_would_be_and_seen_even_if_it_is_deleted_again() {
        let state = tempfile::tempdir().expect("a folder");
        let at = Some(state.path());
        assert_eq!(look(at, &exec("c")), PidFile::Unseen, "another folder than the engine's");
        assert!(Watch::begin(at, &exec("c")).is_none() && Watch::begin(None, &exec("c")).is_none());
        let folder = state.path().join(TASKS).join(NAMESPACE).join("c");
        fs::create_dir_all(&folder).expect("made");
        assert_eq!(look(at, &exec("c")), PidFile::Missing);
        assert_eq!(look(at, &exec("..")), PidFile::Unseen);
        for way in ["written", "renamed", "deleted"] {
            let watch = Watch::begin(at, &exec("c")).expect("a watch");
            fs::write(folder.join("u.2.pid"), "7").expect("written");
            assert!(!watch.has_seen(), "another exec's");
            let file = folder.join("u.1.pid");
            if way == "renamed" {
                fs::write(folder.join(".u.1.pid"), "7").expect("written");
                assert!(!watch.has_seen());
                fs::rename(folder.join(".u.1.pid"), &file).expect("renamed");
            } else {
                fs::write(&file, "7").expect("written");
            }
            assert_eq!(look(at, &exec("c")), PidFile::There);
            fs::remove_file(&file).expect("removed");
            assert_eq!(look(at, &exec("c")), PidFile::Missing);
            assert!(watch.has_seen(), "{way}");
        }
        let watch = Watch::begin(at, &exec("c")).expect("a watch");
        fs::remove_dir_all(&folder).expect("removed");
        assert!(watch.has_seen(), "nothing is known of a folder that has gone");
    }
}
