//! Custody: that somebody has the outputs of the commands open, also when this agent is killed.
//!
//! Before a start the ends from which it is read go to this pod's holder. The next agent takes them from its own holder, or
//! from that of the pod before it: an update is the same to it as a crash. Whoever finds an end with a holder knows that
//! somebody has had it all the time. All that is here is given to a holder again that was restarted.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::sleep;

use super::{
    folder::Folder,
    holder::{self, client::Client},
    output::pipe::Pipe,
};
use crate::wire::OutputStream;

/// Pause before a holder is looked for again that is not there.
const AGAIN: Duration = Duration::from_millis(500);
/// A FIFO is in the folder of an exec in that of a container.
const DEPTH: usize = 3;

pub struct Custody {
    /// Where the folders of execs are, and those of the holders.
    base: PathBuf,
    /// Where this pod's holder listens.
    own: Option<PathBuf>,
    /// Ends that are to be held, by the place of their FIFO below the base.
    ends: Mutex<BTreeMap<String, Arc<OwnedFd>>>,
}

impl Custody {
    /// `holder`: the name of this pod's.
    pub fn new(base: PathBuf, holder: Option<&str>) -> Self {
        let own = holder.map(|name| holder::socket(&base, name));
        Self { base, own, ends: Mutex::default() }
    }

    /// Gives the ends of these to the holder. If that fails, it gets them when it is there again. The error says why.
    pub(super) async fn hold(&self, pipes: &[Pipe]) -> Result<(), String> {
        let Some(own) = &self.own else { return Err("this agent was told of no holder".to_owned()) };
        let mut names = Vec::new();
        for pipe in pipes {
            let Some(receiver) = pipe.receiver() else { continue };
            let end = receiver.as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
            names.extend(self.name_of(pipe.path()).inspect(|name| self.keep(name, end)));
        }
        let given: io::Result<()> = async {
            let client = Client::connect(own)?;
            for name in &names {
                self.give(&client, name).await?;
            }
            Ok(())
        }
        .await;
        given.map_err(|error| format!("the holder at {} does not answer: {error}", own.display()))
    }

    /// The end of a FIFO that was held all the time.
    pub(super) async fn held(&self, fifo: &Path) -> Option<OwnedFd> {
        let name = self.name_of(fifo)?;
        let here = self.ends.lock().get(&name).cloned();
        if let Some(end) = here {
            return end.try_clone().ok();
        }
        for socket in self.own.iter().cloned().chain(self.others()) {
            let found = async { Client::connect(&socket)?.get(&name).await }.await;
            match found {
                Ok(Some(end)) => {
                    self.keep(&name, end.try_clone().ok()?);
                    return Some(end);
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(socket = %socket.display(), %error, "a holder does not answer"),
            }
        }
        None
    }

    /// The outputs of an exec are needed no more.
    pub(super) async fn let_go(&self, folder: &Folder) {
        let fifos = [OutputStream::Stdout, OutputStream::Stderr].map(|stream| folder.fifo(stream));
        let names: Vec<String> = fifos.iter().filter_map(|fifo| self.name_of(fifo)).collect();
        self.ends.lock().retain(|name, _| !names.contains(name));
        let Some(own) = &self.own else { return };
        let told: io::Result<()> = async {
            let client = Client::connect(own)?;
            for name in &names {
                client.delete(name).await?;
            }
            Ok(())
        }
        .await;
        // It is told when it is there again.
        if let Err(error) = told {
            tracing::debug!(%error, "the holder was not told to let go");
        }
    }

    /// Sees to it for ever that the holder has what is to be held, and nothing else. Of the node's one agent alone.
    pub async fn follow(&self) {
        let Some(own) = &self.own else { return };
        let mut missing = false;
        loop {
            match self.bring_up_to_date(own).await {
                Ok(client) => {
                    tracing::info!(socket = %own.display(), "the holder has all that is to be held");
                    missing = false;
                    client.gone().await;
                    tracing::warn!("the holder has ended");
                }
                Err(error) if !missing => {
                    let socket = own.display();
                    tracing::warn!(%socket, %error, "no holder: what a command writes just before its end is lost if this agent is killed");
                    missing = true;
                }
                Err(_) => {}
            }
            sleep(AGAIN).await;
        }
    }

    async fn bring_up_to_date(&self, own: &Path) -> io::Result<Client> {
        let client = Client::connect(own)?;
        let listed = self.take_from(&client).await?;
        let mut others = Vec::new();
        for socket in self.others() {
            let found: io::Result<_> = async {
                let other = Client::connect(&socket)?;
                let listed = self.take_from(&other).await?;
                Ok((other, listed))
            }
            .await;
            match found {
                Ok(found) => others.push(found),
                // Of a pod that was killed.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(&socket).ok();
                }
                Err(error) => tracing::debug!(socket = %socket.display(), %error, "another holder does not answer"),
            }
        }
        let names: Vec<String> = self.ends.lock().keys().filter(|name| !listed.contains(name)).cloned().collect();
        for name in &names {
            self.give(&client, name).await?;
        }
        for (other, listed) in others {
            if !listed.is_empty() {
                tracing::info!(ends = listed.len(), "taken over from another holder");
            }
            for name in &listed {
                other.delete(name).await?;
            }
        }
        Ok(client)
    }

    /// Has it let go of what nobody will read any more, and takes the rest. Gives all that it has listed.
    async fn take_from(&self, client: &Client) -> io::Result<Vec<String>> {
        let listed = client.list().await?;
        for name in &listed {
            if self.is_wanted(name)
                && !self.ends.lock().contains_key(name)
                && let Some(end) = client.get(name).await?
            {
                self.keep(name, end);
            }
            // It may have gone meanwhile.
            if !self.is_wanted(name) {
                self.ends.lock().remove(name);
                client.delete(name).await?;
            }
        }
        Ok(listed)
    }

    async fn give(&self, client: &Client, name: &str) -> io::Result<()> {
        let end = self.ends.lock().get(name).cloned();
        match end {
            Some(end) => client.put(name, end.as_fd()).await,
            None => Ok(()),
        }
    }

    fn keep(&self, name: &str, end: OwnedFd) {
        self.ends.lock().insert(name.to_owned(), Arc::new(end));
    }

    /// Those of other pods.
    fn others(&self) -> Vec<PathBuf> {
        let mut sockets = holder::sockets(&self.base);
        sockets.retain(|socket| Some(socket) != self.own.as_ref());
        sockets
    }

    fn name_of(&self, fifo: &Path) -> Option<String> {
        fifo.strip_prefix(&self.base).ok()?.to_str().map(str::to_owned)
    }

    /// Whether there is a FIFO of this name: it goes once its end was read, or with the folder of its exec.
    fn is_wanted(&self, name: &str) -> bool {
        let path = Path::new(name);
        let is_name = path.components().all(|part| matches!(part, Component::Normal(_)));
        is_name && path.components().count() == DEPTH && self.base.join(path).exists()
    }
}

#[cfg(test)]
#[path = "custody_tests.rs"]
mod tests;
