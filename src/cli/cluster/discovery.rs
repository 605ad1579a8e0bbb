//! Whether the cluster serves the streams that the plugin needs.

use super::connection::Cluster;
use crate::{
    api::names::{SUBRESOURCES_GROUP, SUBRESOURCES_VERSION},
    cli::error::Error,
};

/// Why `attach` and `log` are not served; `None` if they are.
pub async fn missing_streams(cluster: &Cluster) -> Result<Option<String>, Error> {
    let group = format!("{SUBRESOURCES_GROUP}/{SUBRESOURCES_VERSION}");
    let asked = cluster.client.list_api_group_resources(&group);
    match cluster.call(format!("discovering {group}"), asked).await {
        Ok(_) => Ok(None),
        Err(error) => match error.answer() {
            Some(404) => Ok(Some(format!(
                "this cluster does not serve {group}: attach and logs are disabled in its installation of execlet"
            ))),
            // Who may not discover it may still be allowed to attach; and a manager that is just being replaced
            // will answer soon.
            Some(403 | 503) => Ok(None),
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
            let missing = missing_streams(&cluster).await.expect("an answer");
            assert_eq!(missing.is_none(), served, "{code}: {missing:?}");
        }
    }
}
