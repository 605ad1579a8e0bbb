//! What tests ask the nodes' engines for again and again, without a program for each question.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::LazyLock,
};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error, query_parameters::ListContainersOptionsBuilder};
use parking_lot::Mutex;

use crate::{
    kubectl::wait_on,
    lab::{PATIENCE, tool},
};

/// The socket of a node's engine. It stays where it is when the engine is started again.
pub fn socket(node: &str) -> PathBuf {
    static SOCKETS: LazyLock<Mutex<BTreeMap<String, PathBuf>>> = LazyLock::new(Mutex::default);
    SOCKETS.lock().entry(node.to_owned()).or_insert_with(|| tool(&["socket", node]).into()).clone()
}

fn engine(node: &str) -> Docker {
    Docker::connect_with_unix(&socket(node).to_string_lossy(), PATIENCE.as_secs(), API_DEFAULT_VERSION)
        .expect("a client of the engine")
}

/// The IDs of the containers that run on a node and have these labels.
pub fn running(node: &str, labels: &[(&str, &str)]) -> Vec<String> {
    let labels = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let node = node.to_owned();
    wait_on(async move {
        let options = ListContainersOptionsBuilder::default().filters(&HashMap::from([("label", labels)])).build();
        let found =
            engine(&node).list_containers(Some(options)).await.unwrap_or_else(|error| panic!("{node}: {error}"));
        found.into_iter().filter_map(|container| container.id).collect()
    })
}

/// The process of a container, as the host numbers it.
pub fn pid(node: &str, container: &str) -> String {
    let (node, container) = (node.to_owned(), container.to_owned());
    wait_on(async move {
        let found = engine(&node).inspect_container(&container, None).await;
        let found = found.unwrap_or_else(|error| panic!("{container} on {node}: {error}"));
        found.state.and_then(|state| state.pid).expect("a process").to_string()
    })
}

/// Kills a container; what the engine says if it does not.
pub fn kill(node: &str, container: &str) -> Result<(), String> {
    let (node, container) = (node.to_owned(), container.to_owned());
    wait_on(async move {
        engine(&node).kill_container(&container, None).await.map_err(|error| match error {
            Error::DockerResponseServerError { message, .. } => message,
            other => other.to_string(),
        })
    })
}
