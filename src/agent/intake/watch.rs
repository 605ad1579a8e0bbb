//! The stream of requests that are bound to this node and not finished.

use futures::{Stream, StreamExt, TryStreamExt};
use kube::{Api, Client, core::DeserializeGuard, runtime::watcher};

use crate::{
    api::ExecRequest,
    core::ids::NodeName,
    infra::{retry, watch::watch},
};

/// Objects in one page of the first list. One may be as large as 1.5 MB.
const PAGE: u32 = 50;

pub type Event = watcher::Event<DeserializeGuard<ExecRequest>>;

pub fn events(client: Client, node: &NodeName) -> impl Stream<Item = Result<Event, String>> + Send + Unpin {
    let fields = format!("status.nodeName={node},status.completionTime=");
    let config = retry::watching().fields(&fields).page_size(PAGE);
    let api: Api<DeserializeGuard<ExecRequest>> = Api::all(client);
    watch(api, config)
        .map_err(|error| error.to_string())
        .map_ok(|event| {
            event.modify(|guard| {
                if let Ok(request) = &mut guard.0 {
                    // Often more than the rest of the object, and of no use here.
                    request.metadata.managed_fields = None;
                }
            })
        })
        .boxed()
}
