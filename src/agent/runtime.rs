//! Which engine runs the containers of this node: its Node says so.
//!
//! A node that is given another engine gets other pods, and so another agent; one that began before the Node had said so finds
//! out and ends. What the Node said last is kept on the node, for an agent that starts while the API server is away.

use std::{fs, io, path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{error::AgentError, refusal::Refusal};
use crate::{
    core::{ids::NodeName, runtime::Runtime},
    infra::call::{ApiError, within},
};

const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before the API server is asked again, after it has not answered.
const RETRY: Duration = Duration::from_secs(2);
/// The same, where it has named an engine that is not worked with.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// File in the folder of the agent's state.
const FILE: &str = "engine";

/// Asks the Node.
pub struct NodeRuntime {
    nodes: Api<Node>,
    node: NodeName,
    remembered: PathBuf,
}

/// What the Node has said, now or to an agent before this one.
pub struct Named {
    asked: NodeRuntime,
    runtime: Runtime,
    /// It has said so now.
    confirmed: bool,
}

impl NodeRuntime {
    /// `state`: the folder of the agent's state.
    pub fn new(client: Client, node: &NodeName, state: &std::path::Path) -> Self {
        Self { nodes: Api::all(client), node: node.clone(), remembered: state.join(FILE) }
    }

    /// Waits until the Node names an engine that `choose` takes, and says meanwhile why there is none. `None`: told to stop
    /// before.
    pub async fn find<C>(
        self,
        choose: impl Fn(&Runtime) -> Result<C, String>,
        refusal: &mut Refusal,
        shutdown: &CancellationToken,
    ) -> Option<(C, Named)> {
        loop {
            let pause = match self.ask().await {
                Ok(runtime) => match choose(&runtime) {
                    Ok(chosen) => {
                        tracing::info!(node = %self.node, engine = %runtime, "the Node names the engine");
                        self.remember(&runtime);
                        return Some((chosen, Named { asked: self, runtime, confirmed: true }));
                    }
                    Err(why) => {
                        refusal.refuse(&format!("node {} runs its containers in {why}", self.node)).await;
                        LOOK_AGAIN
                    }
                },
                Err(why) => {
                    let remembered = self.recall().and_then(|runtime| Some((choose(&runtime).ok()?, runtime)));
                    if let Some((chosen, runtime)) = remembered {
                        tracing::warn!(node = %self.node, engine = %runtime, why, "the Node cannot be asked: this is what it named before");
                        return Some((chosen, Named { asked: self, runtime, confirmed: false }));
                    }
                    refusal.wait(&why);
                    RETRY
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = sleep(pause) => {}
            }
        }
    }

    async fn ask(&self) -> Result<Runtime, String> {
        let node = &self.node;
        let found = within(ASK_TIMEOUT, format!("get node {node}"), self.nodes.get(node.as_str())).await;
        let found = found.map_err(|error: ApiError| {
            let hint = match error.code() {
                Some(403) => ": give the agents the right (helm upgrade), or tell them the engine (--engine)",
                Some(_) | None => "",
            };
            format!("which engine runs the containers of node {node} is not known: {error}{hint}")
        })?;
        let info = found.status.and_then(|status| status.node_info);
        let said = info.map(|info| info.container_runtime_version).unwrap_or_default();
        said.parse().map_err(|error| format!("node {node} does not say which engine runs its containers: {error}"))
    }

    fn remember(&self, runtime: &Runtime) {
        if self.recall().as_ref() == Some(runtime) {
            return;
        }
        let folder = self.remembered.parent().map_or(Ok(()), fs::create_dir_all);
        // Renamed, so that there is none or a whole one.
        let new = self.remembered.with_extension("new");
        let written = folder
            .and_then(|()| fs::write(&new, runtime.to_string()))
            .and_then(|()| fs::rename(&new, &self.remembered));
        if let Err(error) = written {
            tracing::warn!(path = %self.remembered.display(), %error, "the engine's name cannot be kept: the next agent needs the API server to start");
        }
    }

    fn recall(&self) -> Option<Runtime> {
        match fs::read_to_string(&self.remembered) {
            Ok(text) => text.trim().parse().ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %self.remembered.display(), %error, "the engine's name cannot be read");
                None
            }
        }
    }
}

impl Named {
    /// Waits until the Node has said it itself.
    pub(super) async fn confirm(&mut self, refusal: &Refusal) -> Result<(), AgentError> {
        while !self.confirmed {
            if let Err(why) = self.check().await? {
                let (node, runtime) = (&self.asked.node, &self.runtime);
                refusal.wait(&format!("node {node} named {runtime} before, and does not confirm it: {why}"));
                sleep(RETRY).await;
            }
        }
        Ok(())
    }

    /// Asks once more, and tells why it could not. An error says that the Node names another engine: then this agent is
    /// that of the wrong one.
    pub(super) async fn check(&mut self) -> Result<Result<(), String>, AgentError> {
        match self.asked.ask().await {
            Ok(now) if now.name == self.runtime.name => {
                self.confirmed = true;
                Ok(Ok(()))
            }
            Ok(now) => {
                // The next one finds this, even if the API server is away.
                self.asked.remember(&now);
                let (node, was) = (self.asked.node.to_string(), self.runtime.to_string());
                Err(AgentError::EngineChanged { node, was, now: now.to_string() })
            }
            Err(why) => Ok(Err(why)),
        }
    }
}
