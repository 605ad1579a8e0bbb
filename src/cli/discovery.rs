//! What the cluster can do for the plugin.

use super::{Cluster, Error};

/// The group of the streams.
pub const SUBRESOURCES: &str = "subresources.execlet.dev";
/// Its version.
pub const SUBRESOURCES_VERSION: &str = "v1alpha1";

/// Whether `attach` and `log` are served at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Streams {
    /// They are.
    Served,
    /// They are not, and why, with what to do.
    Missing(String),
}

/// Asks whether the streams are served.
///
/// # Errors
/// When the API server does not say.
pub async fn streams(cluster: &Cluster) -> Result<Streams, Error> {
    let group = format!("{SUBRESOURCES}/{SUBRESOURCES_VERSION}");
    let asked = cluster.client.list_api_group_resources(&group);
    match cluster.call(format!("asking for {group}"), asked).await {
        Ok(_) => Ok(Streams::Served),
        Err(error) => match error.answer() {
            Some(404) => Ok(Streams::Missing(format!(
                "this cluster does not serve {group}: attach and logs are switched off in its installation of execlet"
            ))),
            Some(503) => Ok(Streams::Missing(format!("{group} is not available now: no execlet manager answers"))),
            // Discovery may be closed to some; they may attach all the same.
            Some(403) => Ok(Streams::Served),
            Some(_) | None => Err(error),
        },
    }
}
