//! Creating a batch, and what comes then: following it, or not.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ListParams, ObjectMeta},
};

use super::{fold::fold_within, follow::follow, report::left};
use crate::{
    api::{
        ExecBatch,
        batch::{Targets, spec::LONGEST_NAME},
    },
    cli::{
        cluster::connection::Cluster,
        error::Error,
        exit::Exit,
        say::{
            print::{self, Format, announce},
            speech::Speech,
        },
    },
    core::batch::{
        plan,
        targets::{select, selector_text},
    },
};

/// What the API server adds to a base of which it makes a name.
const ADDED: usize = 5;
/// Most characters of the names that a dry run tells.
const TOLD: usize = 400;

/// Where a dry run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// Before the API server.
    Client,
    /// In the API server, which checks the object and stores nothing.
    Server,
}

/// A batch as it is to be created.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub batch: ExecBatch,
    pub dry_run: Option<DryRun>,
    pub output: Option<Format>,
    pub detach: bool,
    /// Show equal output once, at the end.
    pub group: bool,
}

/// The name of a batch: this one, or one that begins with `base`.
pub fn named(name: Option<String>, base: &str, namespace: &str) -> ObjectMeta {
    let base: String = base.chars().take(LONGEST_NAME - ADDED - 1).collect();
    ObjectMeta {
        generate_name: name.is_none().then(|| format!("{}-", base.trim_end_matches(['-', '.']))),
        name,
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    }
}

pub async fn run(cluster: &Cluster, wanted: Wanted, speech: &Speech) -> Result<Exit, Error> {
    let Wanted { mut batch, dry_run, output, detach, group } = wanted;
    if dry_run == Some(DryRun::Client) {
        return print::out(&print::object(&batch, output.unwrap_or(Format::Yaml))?);
    }
    // Where the cluster has a policy that fills it in, the policy overwrites it.
    batch.spec.requested_by = cluster.myself().await?;
    if dry_run.is_some() {
        let created = cluster.create_batch(&batch, true).await?;
        announce(&created, output, "created (server dry run)")?;
        speech.say(&would_run(cluster, &created).await?);
        return Ok(Exit::SUCCESS);
    }
    let created = create(cluster, &batch).await?;
    if detach {
        return announce(&created, output, "created").map_err(|error| error.leaves(left(cluster, &created)));
    }
    follow_created(cluster, created, speech, group).await
}

pub async fn create(cluster: &Cluster, batch: &ExecBatch) -> Result<ExecBatch, Error> {
    let doubt = || format!("the batch may exist all the same, and run: {}", cluster.plugin("get --batches"));
    cluster.create_batch(batch, false).await.map_err(|error| in_doubt(error, &doubt()))
}

pub async fn follow_created(
    cluster: &Cluster,
    created: ExecBatch,
    speech: &Speech,
    group: bool,
) -> Result<Exit, Error> {
    let left = left(cluster, &created);
    Box::pin(follow(cluster, created, speech, group)).await.map_err(|error| error.leaves(left))
}

/// The error of a creation that failed, or may have failed: then this may be so.
pub fn in_doubt(error: Error, then: &str) -> Error {
    if matches!(error.answer(), Some(400..500)) { error } else { error.leaves(then) }
}

/// Where it would run, as far as can be told here: nothing plans what is not stored.
async fn would_run(cluster: &Cluster, batch: &ExecBatch) -> Result<String, Error> {
    let targets = &batch.spec.targets;
    if let Some(workload) = &targets.workload {
        return Ok(format!(
            "nothing was planned: which pods {:?} {} has, a preview tells: leave out --dry-run, and give --limit 0",
            workload.kind, workload.name
        ));
    }
    let found = select(targets, &candidates(cluster, targets).await?);
    let names = fold_within(found.iter().map(|target| target.pod.as_str()), TOLD);
    let refusal = plan::check(batch, &found).err().map_or_else(String::new, |refusal| format!("; {}", refusal.message));
    Ok(format!(
        "nothing was planned; by your own rights this plugin finds {} targets now: {names}{refusal}",
        found.len()
    ))
}

async fn candidates(cluster: &Cluster, targets: &Targets) -> Result<Vec<Pod>, Error> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let mut params = ListParams::default();
    if let Some(selector) = &targets.selector {
        params = params.labels(&selector_text(selector));
    }
    Ok(cluster.call("listing pods", api.list(&params)).await?.items)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::{
        batch::words::tests::{batch, object},
        follow::scripted::{self, Answer, Kept},
    };

    #[test]
    fn a_name_that_is_made_up_leaves_room_for_what_is_added() {
        let name = |base: &str| named(None, base, "shop").generate_name.expect("a base");
        assert_eq!(name("web"), "web-");
        assert_eq!(name(&"x".repeat(80)).len() + ADDED, LONGEST_NAME);
        assert_eq!(named(Some("b".to_owned()), "web", "shop").generate_name, None);
    }

    /// Creates a batch at an API server that answers so, and gives what was said.
    async fn creates(dry_run: Option<DryRun>, detach: bool, post: Answer) -> (Result<Exit, Error>, String) {
        let (cluster, _) = scripted::cluster(move |call| match call.split('?').next().unwrap_or_default() {
            "POST /apis/authentication.k8s.io/v1/selfsubjectreviews" => scripted::status(404, "too old"),
            "POST /apis/execlet.dev/v1alpha1/namespaces/shop/execbatches" => post.clone(),
            "GET /api/v1/namespaces/shop/pods" => {
                let pod = |at: u16| json!({"metadata": {"name": format!("db-{at}"), "uid": format!("p{at}")}});
                let items: Vec<Value> = [10, 1, 2].into_iter().map(pod).collect();
                Some((200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})))
            }
            call => panic!("{call}"),
        });
        let heard = Kept::default();
        let wanted = Wanted { batch: batch(Value::Null), dry_run, output: None, detach, group: false };
        let exit = run(&cluster, wanted, &Speech::to(false, heard.clone())).await;
        (exit, heard.text())
    }

    #[tokio::test]
    async fn a_dry_run_tells_where_it_would_run() {
        let created = Some((201, object(Value::Null)));
        let (exit, said) = creates(Some(DryRun::Server), false, created).await;
        assert_eq!(exit.expect("an exit code"), Exit::SUCCESS);
        assert!(said.contains("this plugin finds 3 targets now: db-[1-2,10]\n"), "{said}");
    }

    #[tokio::test]
    async fn a_creation_of_which_nothing_is_known_is_not_called_a_failure() {
        for (code, exit) in [(403, Exit::FAILED), (504, Exit::LEFT)] {
            let (error, _) = creates(None, true, scripted::status(code, "no")).await;
            let error = error.expect_err("an error");
            assert_eq!(error.exit(), exit, "{error}");
            assert_eq!(
                error.to_string().contains("kubectl execlet -n shop get --batches"),
                exit == Exit::LEFT,
                "{error}"
            );
        }
        let (exit, _) = creates(None, true, Some((201, object(Value::Null)))).await;
        assert_eq!(exit.expect("an exit code"), Exit::SUCCESS);
    }
}
