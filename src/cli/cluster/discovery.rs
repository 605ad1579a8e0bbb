//! What the cluster can do for the plugin.

use crate::cli::{cluster::connection::Cluster, error::Error};

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
            // Discovery may be closed to some; they may attach all the same. And a manager that does not answer now,
            // as when it is being replaced, will.
            Some(403 | 503) => Ok(Streams::Served),
            Some(_) | None => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::follow::scripted;

    #[tokio::test]
    async fn only_a_group_that_is_not_there_is_missing() {
        for (code, served) in [(200, true), (403, true), (503, true), (404, false)] {
            let list = serde_json::json!({"kind": "APIResourceList", "groupVersion": "x/v1", "resources": []});
            let (cluster, _) =
                scripted::cluster(
                    move |_| {
                        if code == 200 { Some((200, list.clone())) } else { scripted::status(code, "no") }
                    },
                );
            let streams = streams(&cluster).await.expect("an answer");
            assert_eq!(streams == Streams::Served, served, "{code}: {streams:?}");
        }
    }
}
