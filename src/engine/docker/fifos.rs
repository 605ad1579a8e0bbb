//! The FIFOs over which the output of an exec comes to the engine.
//!
//! Whoever copies into them on behalf of the runtime holds both ends: they outlive the engine, and a command whose output
//! fills them waits.

use std::path::Path;

use crate::{core::ids::ExecRef, engine::fifo::empty};

/// Below the folder of the engine's socket: its `exec-root` is there unless it is told otherwise.
const FOLDER: &str = "docker/containerd";

/// Reads and throws away what is written to both, until nobody can write to them any more.
pub(super) async fn drain(socket: &Path, exec: &ExecRef) {
    let (container, id) = (exec.container.id.as_str(), exec.id.as_str());
    let is_name = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let Some(folder) = socket.parent().filter(|_| is_name(container) && is_name(id)) else { return };
    let folder = folder.join(FOLDER).join(container);
    let drain = async |output: &str| {
        let path = folder.join(format!("{id}-{output}"));
        match empty(&path).await {
            Ok(bytes) => tracing::debug!(path = %path.display(), bytes, "read to its end"),
            Err(error) => tracing::debug!(path = %path.display(), %error, "what is written to it cannot be read"),
        }
    };
    tokio::join!(drain("stdout"), drain("stderr"));
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, process::Command};

    use tokio::task::spawn_blocking;

    use super::*;
    use crate::core::ids::ContainerRef;

    #[tokio::test]
    async fn a_writer_that_waits_for_somebody_who_reads_goes_on_and_no_other_file_is_opened() {
        let run = tempfile::tempdir().expect("a folder");
        let folder = run.path().join(FOLDER).join("c0");
        std::fs::create_dir_all(&folder).expect("made");
        let fifo = |name: &str| {
            let path = folder.join(name);
            assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
            // Open for both, it waits for nobody.
            std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("opened")
        };
        let mut outputs = [fifo("e0-stdout"), fifo("e0-stderr")];
        let writing = spawn_blocking(move || {
            for output in &mut outputs {
                output.write_all(&vec![0; 300_000]).expect("written");
            }
        });
        let exec = |id: &str| {
            let container = ContainerRef { id: "c0".into(), started_at: None };
            ExecRef { id: id.into(), container }
        };
        let socket = run.path().join("docker.sock");
        // Neither is there.
        drain(&socket, &exec("e1")).await;
        drain(&socket, &exec("../c0/e0")).await;
        assert!(!writing.is_finished());
        drain(&socket, &exec("e0")).await;
        writing.await.expect("all was written");
    }
}
