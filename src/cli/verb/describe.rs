//! `describe`: one request or batch in words.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::cli::{
    batch::{children::Children, summary as batch_summary, words::frozen},
    cluster::connection::Cluster,
    error::Error,
    exit::Exit,
    say::{
        page::Page,
        print,
        speech::{self, Speech},
        summary::summary,
    },
    typed::{Name, object_name},
};

/// Describe requests and batches: who, what, where, when, why, the outcome, and what to do next.
#[derive(Clone, Debug, clap::Args)]
pub struct DescribeArgs {
    /// Names of the requests, or xb/NAME of batches.
    #[arg(value_name = "NAME", required = true, value_parser = object_name)]
    pub names: Vec<Name>,
}

pub async fn run(cluster: &Cluster, args: DescribeArgs) -> Result<Exit, Error> {
    for (at, name) in args.names.iter().enumerate() {
        let page = match name {
            Name::Request(name) => {
                let request = cluster.get(name).await?;
                summary(&request, Timestamp::now(), speech::colours(), |command| cluster.plugin(command))
            }
            Name::Batch(name) => batch(cluster, name).await?,
        };
        if at > 0 {
            print::out(&Page::ours("\n"))?;
        }
        print::out(&page)?;
    }
    Ok(Exit::SUCCESS)
}

async fn batch(cluster: &Cluster, name: &str) -> Result<Page, Error> {
    let batch = cluster.batch(name).await?;
    let mut children = Children::of(&batch.uid().unwrap_or_default());
    if let Some(plan) = batch.status.as_ref().and_then(frozen) {
        children.count_only(plan);
        let read = cluster.children(&batch, |child| {
            children.see(child);
        });
        if let Err(error) = read.await {
            Speech::new(true).say(&format!("{error}; targets are told by their index"));
        }
    }
    let now = Timestamp::now();
    Ok(batch_summary::summary(&batch, &children, now, speech::colours(), |command| cluster.plugin(command)))
}
