//! Custody: that somebody has open what commands write to, and the place of their input, also when this agent is killed.
//!
//! Before a start all of that goes to this pod's holder. The next agent takes it from its own holder, or from that of the
//! pod before it: an update is the same to it as a crash. Whoever finds something with a holder knows that somebody has had
//! it all the time. All that is here is given to a holder again that was restarted.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::sleep;

use super::{
    folder::Folder,
    holder::{self, client::Client},
    output::pipe::leads_to,
};
use crate::wire::OutputStream;

/// Pause before a holder is looked for again that is not there.
const AGAIN: Duration = Duration::from_millis(500);
/// A file is in the folder of an exec in that of a container.
const DEPTH: usize = 3;

pub struct Custody {
    /// Where the folders of execs are, and those of the holders.
    base: PathBuf,
    /// Where this pod's holder listens.
    own: Option<PathBuf>,
    /// What is to be held, by the path of its file below the base.
    ends: Mutex<BTreeMap<String, Arc<OwnedFd>>>,
}

impl Custody {
    /// `holder`: the name of this pod's.
    pub fn new(base: PathBuf, holder: Option<&str>) -> Self {
        let own = holder.map(|name| holder::socket(&base, name));
        Self { base, own, ends: Mutex::default() }
    }

    /// Gives these to the holder, each with the path of its file. If that fails, it gets them when it is there again. The
    /// error says why.
    pub(super) async fn hold<'a>(
        &self,
        ends: impl IntoIterator<Item = (&'a Path, BorrowedFd<'a>)>,
    ) -> Result<(), String> {
        let Some(own) = &self.own else { return Err("this agent was told of no holder".to_owned()) };
        let mut names = Vec::new();
        for (path, end) in ends {
            let end = end.try_clone_to_owned().map_err(|error| error.to_string())?;
            names.extend(self.name_of(path).inspect(|name| self.keep(name, end)));
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

    /// What was held of the file at this path, all the time.
    pub(super) async fn held(&self, path: &Path) -> Option<OwnedFd> {
        let name = self.name_of(path)?;
        let here = self.ends.lock().get(&name).cloned();
        if let Some(end) = here {
            return copy(&name, &end);
        }
        for socket in self.own.iter().cloned().chain(self.others()) {
            let found = async { Client::connect(&socket)?.get(&name).await }.await;
            match found {
                Ok(Some(end)) if leads_to(path, &end) => {
                    self.keep(&name, copy(&name, &end)?);
                    return Some(end);
                }
                Ok(Some(_)) => tracing::warn!(name, "a holder has another file of that name"),
                Ok(None) => {}
                Err(error) => tracing::debug!(socket = %socket.display(), %error, "a holder does not answer"),
            }
        }
        None
    }

    /// Nothing of an exec is needed any more.
    pub(super) async fn let_go(&self, folder: &Folder) {
        let [out, err] = [OutputStream::Stdout, OutputStream::Stderr].map(|stream| folder.fifo(stream));
        let names: Vec<String> =
            [out, err, folder.input_backlog()].iter().filter_map(|path| self.name_of(path)).collect();
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

    fn name_of(&self, path: &Path) -> Option<String> {
        path.strip_prefix(&self.base).ok()?.to_str().map(str::to_owned)
    }

    /// Whether there is a file of this name: a FIFO goes once its end was read, all with the folder of their exec.
    fn is_wanted(&self, name: &str) -> bool {
        let path = Path::new(name);
        let is_name = path.components().all(|part| matches!(part, Component::Normal(_)));
        is_name && path.components().count() == DEPTH && self.base.join(path).exists()
    }
}

/// Without one it is as if nobody had held it.
fn copy(name: &str, end: &OwnedFd) -> Option<OwnedFd> {
    end.try_clone().inspect_err(|error| tracing::warn!(name, %error, "what was held cannot be used")).ok()
}

#[cfg(test)]
#[path = "custody_tests.rs"]
mod tests;
