//! Small files in the root of a container, which whoever is in the container may have made.
//!
//! The way to them leaves neither that root nor its file system: what is mounted in it may never answer. Nothing but a
//! regular file is opened, and nobody is waited for.

use std::{
    fs::{self, File},
    io::Read as _,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::{task::spawn_blocking, time::timeout};

/// Bytes of a file.
const MOST_BYTES: u64 = 1024 * 1024;
/// How long it may all take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The main process of a container, and no later one of its number.
pub struct Main {
    pid: u32,
    handle: OwnedFd,
}

impl Main {
    /// Whoever then still finds that the container's main process has this number knows whose handle this is.
    pub fn of(pid: u32) -> Result<Self, String> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("it has no main process")?;
        let handle = pidfd_open(number, PidfdFlags::empty())
            .map_err(|error| format!("its main process {pid} cannot be looked at: {error}"))?;
        Ok(Self { pid, handle })
    }

    /// The contents of each file; `None`: there is none.
    pub async fn read<const N: usize>(self, paths: [&'static str; N]) -> Result<[Option<Vec<u8>>; N], String> {
        let reading = spawn_blocking(move || {
            let root = format!("/proc/{}/root", self.pid);
            let root = open(&root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| format!("its root cannot be opened: {error}"))?;
            if !self.lives() {
                return Err("it has ended".to_owned());
            }
            let mut files = [const { None }; N];
            for (file, path) in files.iter_mut().zip(paths) {
                *file = read(&root, path)?;
            }
            Ok(files)
        });
        match timeout(PATIENCE, reading).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("its files could not be read within {PATIENCE:?}")),
        }
    }

    fn lives(&self) -> bool {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.handle.as_raw_fd())).unwrap_or_default();
        info.lines().any(|line| line.strip_prefix("Pid:").is_some_and(|pid| pid.trim() == self.pid.to_string()))
    }
}

fn read(root: &OwnedFd, path: &str) -> Result<Option<Vec<u8>>, String> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let found = match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::XDEV) => {
            return Err(format!("{path} is on a volume, in which no user is looked for: name the user by number"));
        }
        Err(error) => return Err(format!("{path} cannot be opened: {error}")),
    };
    let is_file = fstat(&found).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    if !is_file {
        return Err(format!("{path} is not a regular file"));
    }
    // Whoever has a lease on it would be waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = open(format!("/proc/self/fd/{}", found.as_raw_fd()), flags, Mode::empty())
        .map_err(|error| format!("{path} cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    let taken = File::from(file).take(MOST_BYTES + 1).read_to_end(&mut bytes);
    match taken {
        Err(error) => Err(format!("{path} cannot be read: {error}")),
        Ok(_) if bytes.len() as u64 > MOST_BYTES => Err(format!("{path} has more than {MOST_BYTES} bytes")),
        Ok(_) => Ok(Some(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, path::Path, process::Command};

    use super::*;

    fn root(folder: &Path) -> OwnedFd {
        open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("a root")
    }

    #[test]
    fn what_is_hostile_is_an_error_and_nothing_outside_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("plain"), "a").expect("written");
        fs::write(at("large"), vec![b'a'; usize::try_from(MOST_BYTES).expect("a size") + 1]).expect("written");
        fs::File::create(at("sparse")).expect("made").set_len(1 << 40).expect("sparse");
        symlink("/plain", at("absolute")).expect("a link");
        symlink("../../../../../../../../etc/passwd", at("up")).expect("a link");
        symlink("/etc/passwd", at("outside")).expect("a link");
        symlink("loop", at("loop")).expect("a link");
        fs::create_dir(at("folder")).expect("a folder");
        assert!(Command::new("mkfifo").arg(at("fifo")).status().expect("mkfifo").success());
        let root = root(folder.path());
        assert_eq!(read(&root, "plain"), Ok(Some(b"a".to_vec())));
        assert_eq!(read(&root, "absolute"), Ok(Some(b"a".to_vec())), "within its root");
        // There is none in this root, whatever is on this machine.
        for missing in ["none", "up", "outside", "plain/x"] {
            assert_eq!(read(&root, missing), Ok(None), "{missing}");
        }
        for hostile in ["large", "sparse", "loop", "folder", "fifo"] {
            assert!(read(&root, hostile).is_err(), "{hostile}");
        }
    }

    #[test]
    fn neither_another_file_system_nor_what_it_may_hang_on_is_entered() {
        let root = root(Path::new("/"));
        assert!(read(&root, "proc/version").is_err_and(|error| error.contains("name the user by number")));
        // By a link of the kernel's own, too.
        assert!(read(&root, "proc/self/root/etc/passwd").is_err());
    }

    #[tokio::test]
    async fn a_process_that_has_ended_has_no_files() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let main = Main::of(child.id()).expect("a process");
        assert!(main.lives());
        assert!(main.read(["/etc/passwd"]).await.expect("read")[0].is_some());
        let main = Main::of(child.id()).expect("a process");
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert!(!main.lives());
        assert!(main.read(["/etc/passwd"]).await.is_err());
        assert!(Main::of(0).is_err());
    }
}
