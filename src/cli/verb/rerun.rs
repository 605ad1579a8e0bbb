//! `rerun`: another batch, for the targets of one that did not succeed.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use crate::{
    api::{
        ExecBatch, ExecBatchSpec,
        batch::{Approval, GivenPod, Pick, Targets, spec::DEFAULT_RELEASE_LIMIT},
    },
    cli::{
        batch::{
            create::{create, follow_created, named},
            report::{ledger, left},
            words,
        },
        cluster::connection::Cluster,
        error::Error,
        exit::{Exit, HELP},
        say::{print::announce, speech::Speech},
        typed::batch_name,
    },
    core::batch::{
        child::{index_in, target_of},
        end::End,
        indexes::IndexSet,
        targets::Target,
    },
};
/// Most pods that a batch names.
const MOST: usize = 1000;

/// Run the command of a finished batch again, in the very pods in which it did not succeed, as another batch.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = HELP)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct RerunArgs {
    /// The batch: xb/NAME or NAME.
    #[arg(value_name = "NAME", value_parser = batch_name)]
    pub name: String,

    /// Where it ran and failed.
    #[arg(long)]
    pub failed: bool,

    /// Where it never ran.
    #[arg(long)]
    pub not_run: bool,

    /// Where it may have run. Check first what it did there.
    #[arg(long)]
    pub unknown: bool,

    /// Why it is run, for the record (default: the reason of the batch).
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// Create the batch and do not wait for it.
    #[arg(long, short = 'd')]
    pub detach: bool,

    /// Show the output at the end: equal output once, and how it differs from that of the most.
    #[arg(long)]
    pub group: bool,

    /// Show no progress.
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

pub async fn run(cluster: &Cluster, args: RerunArgs) -> Result<Exit, Error> {
    let speech = Speech::new(args.quiet);
    let batch = cluster.batch(&args.name).await?;
    let wanted = wanted(cluster, &batch, &args)?;
    let pods = pods(cluster, &batch, &wanted, &speech).await?;
    let by = cluster.myself().await?;
    let mut created = Vec::new();
    for pods in pods.chunks(MOST) {
        let spec = ExecBatchSpec { requested_by: by.clone(), ..again(&batch.spec, pods, &args) };
        let mut next = ExecBatch::new("", spec);
        next.metadata = named(None, &batch.name_any(), &cluster.namespace);
        match create(cluster, &next).await {
            Ok(batch) => created.push(batch),
            Err(error) => {
                // Those before it run.
                let before: Vec<String> = created.iter().map(|batch| left(cluster, batch)).collect();
                return Err(if before.is_empty() { error } else { error.leaves(before.join("; ")) });
            }
        }
    }
    if created.len() == 1 && !args.detach {
        let [batch] = <[ExecBatch; 1]>::try_from(created).map_err(|_| Error::Message("no batch".to_owned()))?;
        return follow_created(cluster, batch, &speech, args.group).await;
    }
    if created.len() > 1 {
        speech.say("one batch names at most 1000 pods: these run beside each other, each with its own parallelism");
    }
    for batch in &created {
        announce(batch, None, "created").map_err(|error| error.leaves(left(cluster, batch)))?;
    }
    Ok(Exit::SUCCESS)
}

/// The indexes that are run again.
fn wanted(cluster: &Cluster, batch: &ExecBatch, args: &RerunArgs) -> Result<IndexSet, Error> {
    let name = words::typed(batch);
    let flags = [(args.failed, End::Failed), (args.not_run, End::NotRun), (args.unknown, End::Unknown)];
    if !flags.iter().any(|(given, _)| *given) {
        return Err(Error::Message(format!(
            "say which targets of {name} to run again: --failed, --not-run and --unknown, any of them"
        )));
    }
    if !words::is_finished(batch) {
        let wait = cluster.plugin(&format!("wait {name}"));
        return Err(Error::Message(format!("{name} has not finished, and more may end so: {wait}")));
    }
    let ledger = batch.status.as_ref().map(ledger).unwrap_or_default();
    let given = flags.iter().filter(|(given, _)| *given);
    let wanted: IndexSet = given.flat_map(|(_, end)| ledger.set(*end).iter()).collect();
    if wanted.is_empty() {
        return Err(Error::Message(format!("no target of {name} ended so: {}", words::state(batch))));
    }
    Ok(wanted)
}

/// The pods of these indexes, as they were planned.
async fn pods(
    cluster: &Cluster,
    batch: &ExecBatch,
    wanted: &IndexSet,
    speech: &Speech,
) -> Result<Vec<GivenPod>, Error> {
    let plan = batch.status.as_ref().and_then(words::frozen).unwrap_or_default();
    let (uid, mut found) = (batch.uid().unwrap_or_default(), Vec::new());
    cluster
        .children(batch, |child| {
            let index = index_in(&child, &uid, plan).filter(|index| wanted.contains(*index));
            found.extend(index.map(|index| (index, target_of(&child))));
        })
        .await?;
    found.sort_by_key(|(index, _)| *index);
    let missing = usize::from(wanted.len()).saturating_sub(found.len());
    if missing > 0 {
        let what = format!(
            "the requests of {missing} targets of {} are gone, and with them which pods they were for",
            words::typed(batch)
        );
        if found.is_empty() {
            return Err(Error::Message(format!("{what}: nothing can be run again")));
        }
        speech.say(&format!("{what}: those are left out"));
    }
    Ok(found.into_iter().map(|(_, Target { pod, uid, .. })| GivenPod { name: pod, uid }).collect())
}

/// The same again in these pods, from the beginning.
fn again(spec: &ExecBatchSpec, pods: &[GivenPod], args: &RerunArgs) -> ExecBatchSpec {
    let most = i32::try_from(pods.len()).unwrap_or(i32::MAX).max(spec.targets.max_targets);
    ExecBatchSpec {
        targets: Targets {
            selector: None,
            workload: None,
            all: None,
            pods: Some(pods.to_vec()),
            pick: Pick::All,
            container: spec.targets.container.clone(),
            max_targets: most,
            allow_empty: spec.targets.allow_empty,
            on_forbidden: spec.targets.on_forbidden,
        },
        template: spec.template.clone(),
        parallelism: spec.parallelism.clone(),
        release_limit: IntOrString::String(DEFAULT_RELEASE_LIMIT.to_owned()),
        suspend: false,
        cancel: false,
        approval: Approval { required: spec.approval.required, plan_digest: String::new(), by: None },
        failure_policy: spec.failure_policy.clone(),
        active_deadline_seconds: spec.active_deadline_seconds,
        ttl_seconds_after_finished: spec.ttl_seconds_after_finished,
        reason: args.reason.clone().or_else(|| spec.reason.clone()),
        requested_by: None,
        released_by: None,
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::{
        batch::{
            children::tests::{exited, object},
            words::tests as batches,
        },
        follow::scripted,
    };

    fn finished() -> Value {
        let ends = |count: i32, indexes: &str| json!({"count": count, "indexes": indexes});
        let more = json!({"succeeded": ends(1, "0"), "failed": ends(2, "1-2"), "notRun": ends(1, "3")});
        let mut batch = batches::object(batches::status("Failed", "TargetsFailed", "", &more));
        batch["spec"]["releaseLimit"] = json!(1);
        batch["spec"]["parallelism"] = json!("10%");
        batch["spec"]["reason"] = json!("CHG-1");
        batch
    }

    #[tokio::test]
    async fn the_very_pods_that_did_not_succeed_are_named_in_a_batch_of_the_same() {
        let mut missing = object(3, exited(0, ""));
        missing["spec"]["target"]["podUID"] = json!("none");
        let items = json!([object(2, exited(3, "")), object(0, exited(0, "")), missing]);
        let list =
            json!({"kind": "ExecRequestList", "apiVersion": "execlet.dev/v1alpha1", "metadata": {}, "items": items});
        let (cluster, _) = scripted::cluster(move |call| match call {
            call if call.contains("spec.batch.uid") => Some((200, list.clone())),
            _ => None,
        });
        let batch: ExecBatch = serde_json::from_value(finished()).expect("a batch");
        let args = RerunArgs { failed: true, not_run: true, ..RerunArgs::default() };
        let heard = scripted::Kept::default();
        let speech = Speech::to(true, heard.clone());
        let wanted = wanted(&cluster, &batch, &args).expect("indexes");
        assert_eq!(wanted.to_string(), "1-3");
        let pods = pods(&cluster, &batch, &wanted, &speech).await.expect("pods");
        let spec = serde_json::to_value(again(&batch.spec, &pods, &args)).expect("JSON");
        assert_eq!(spec["targets"]["pods"], json!([{"name": "db-2", "uid": "p2"}, {"name": "db-3"}]));
        assert_eq!((&spec["releaseLimit"], &spec["parallelism"]), (&json!("100%"), &json!("10%")));
        assert_eq!((&spec["reason"], &spec["targets"]["selector"]), (&json!("CHG-1"), &Value::Null));
        assert!(heard.text().contains("the requests of 1 targets of xb/b are gone"));
    }

    #[tokio::test]
    async fn what_is_not_said_or_not_over_is_not_run_again() {
        let (cluster, _) = scripted::cluster(|_| None);
        let running = batches::object(batches::status("Running", "Running", "", &Value::Null));
        let all = RerunArgs { failed: true, ..RerunArgs::default() };
        let unknown = RerunArgs { unknown: true, ..RerunArgs::default() };
        for (batch, args, why) in [
            (finished(), RerunArgs::default(), "say which targets of xb/b to run again"),
            (running, all, "has not finished"),
            (finished(), unknown, "no target of xb/b ended so"),
        ] {
            let batch = serde_json::from_value(batch).expect("a batch");
            let error = wanted(&cluster, &batch, &args).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[tokio::test]
    async fn more_pods_than_one_batch_names_are_several_batches() {
        let many =
            |indexes: std::ops::Range<u16>| -> Vec<Value> { indexes.map(|at| object(at, exited(1, ""))).collect() };
        let (items, made) = (many(0..1001), std::sync::Arc::new(Mutex::new(0)));
        let counted = made.clone();
        let more = json!({"failed": {"count": 1001, "indexes": "0-1000"}, "plan": {"number": 1, "total": 1001, "digest": "d"}});
        let batch = batches::object(batches::status("Failed", "TargetsFailed", "", &more));
        let list =
            json!({"kind": "ExecRequestList", "apiVersion": "execlet.dev/v1alpha1", "metadata": {}, "items": items});
        let (cluster, _) = scripted::cluster(move |call| match call {
            call if call.contains("spec.batch.uid") => Some((200, list.clone())),
            call if call.starts_with("GET") => Some((200, batch.clone())),
            call if call.contains("/execbatches") => {
                *counted.lock() += 1;
                Some((201, batch.clone()))
            }
            _ => scripted::status(404, "too old"),
        });
        let args = RerunArgs { name: "b".into(), failed: true, quiet: true, ..RerunArgs::default() };
        assert_eq!(run(&cluster, args).await.expect("an exit code"), Exit::SUCCESS);
        assert_eq!(*made.lock(), 2);
    }
}
