//! `approve`: lets the plan of a batch run, which somebody else has asked for.

use std::io::{self, IsTerminal as _};

use kube::ResourceExt as _;

use crate::{
    api::ExecBatch,
    cli::{
        batch::{asked, fold::fold_within, report::waits_for_approval, summary, words},
        cluster::connection::Cluster,
        error::Error,
        exit::Exit,
        say::{
            page::{Colour, Page},
            print, speech,
            speech::Speech,
            summary::who,
        },
        typed::batch_name,
    },
    core::batch::{
        child::{index_in, target_of},
        plan::digest,
        targets::Target,
    },
};

/// Most characters of the names of targets.
const NAMES: usize = 600;

/// Look at the plan of a batch, and let it run.
#[derive(Clone, Debug, clap::Args)]
pub struct ApproveArgs {
    /// The batch: xb/NAME or NAME.
    #[arg(value_name = "NAME", value_parser = batch_name)]
    pub name: String,

    /// Do not ask.
    #[arg(long, short = 'y')]
    pub yes: bool,
}

pub async fn run(cluster: &Cluster, args: ApproveArgs) -> Result<Exit, Error> {
    let batch = cluster.batch(&args.name).await?;
    let name = words::typed(&batch);
    let refused = |why: &str| Error::Message(format!("{name} {why}"));
    if words::is_finished(&batch) {
        return Err(refused(&format!("has finished: {}", words::state(&batch))));
    }
    if !batch.spec.approval.required {
        return Err(refused("needs no approval: it was created without --require-approval (spec.approval.required)"));
    }
    if !waits_for_approval(&batch) || !batch.spec.approval.plan_digest.is_empty() {
        return Err(refused("is approved already"));
    }
    let plan = batch.status.as_ref().and_then(|status| status.plan.as_ref());
    let Some(wanted) = plan.and_then(|plan| plan.digest.as_deref()) else {
        return Err(refused(&format!("has no plan yet: {}. Try again in a moment", words::state(&batch))));
    };
    // What is approved is what is seen: the digest is that of these targets.
    let targets = targets(cluster, &batch).await?;
    if digest(&batch, &targets).ok().as_deref() != Some(wanted) {
        return Err(refused(&format!(
            "has a plan whose digest {wanted} is not that of its {} requests: some may have been deleted, or somebody may \
             have written its status. Cancel it, and create another: {}",
            targets.len(),
            cluster.plugin(&format!("cancel {name}"))
        )));
    }
    print::out(&page(&batch, &targets, wanted))?;
    if !args.yes && !confirmed().await? {
        return Err(refused("was not approved"));
    }
    let approved = cluster.approve_batch(&batch, wanted).await?;
    print::out(&Page::default().line(&format!("{} approved", print::full_name(&approved))))
}

/// The targets that its requests are for, in their order.
async fn targets(cluster: &Cluster, batch: &ExecBatch) -> Result<Vec<Target>, Error> {
    let Some(plan) = batch.status.as_ref().and_then(words::frozen) else { return Ok(Vec::new()) };
    let (uid, mut all) = (batch.uid().unwrap_or_default(), Vec::new());
    cluster
        .children(batch, |child| {
            all.extend(index_in(&child, &uid, plan).map(|index| (index, target_of(&child))));
        })
        .await?;
    all.sort_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, target)| target).collect())
}

fn page(batch: &ExecBatch, targets: &[Target], digest: &str) -> Page {
    let line = |page: Page, heading: &str, text: &str| page.line(&format!("  {heading:<9}{text}"));
    let name = words::typed(batch);
    let mut page = Page::in_colour(speech::colours()).painted(&name, Colour::Bold).end();
    page = line(page, "Who", &who(batch.spec.requested_by.as_ref()));
    page = line(page, "Why", batch.spec.reason.as_deref().unwrap_or("no reason given"));
    page = line(page, "What", &summary::what(batch));
    page = line(page, "Where", &words::place(&batch.spec.targets));
    let names = fold_within(targets.iter().map(|target| target.pod.as_str()), NAMES);
    page = line(page, "Targets", &format!("{}: {names}", targets.len()));
    line(page, "Digest", &format!("{digest}, which is that of these targets and this command"))
}

async fn confirmed() -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Message("nobody can be asked, as standard input is no terminal: give --yes".to_owned()));
    }
    Speech::new(true).say("let it run? Type y, then Enter; anything else does not:");
    let answer = asked::line().await.unwrap_or_default();
    Ok(matches!(answer.as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::{
        batch::{
            children::tests::object,
            words::tests::{object as batch_object, status},
        },
        follow::scripted,
    };

    /// An API server that has a batch with this digest, and requests for these indexes.
    async fn approves(
        digest: &str,
        indexes: &[u16],
        change: impl Fn(&mut Value),
    ) -> (Result<Exit, Error>, Vec<String>) {
        let more = json!({"plan": {"number": 1, "total": 2, "digest": digest}});
        let mut batch = batch_object(status("Paused", "ApprovalRequired", "", &more));
        batch["spec"]["approval"] = json!({"required": true, "planDigest": ""});
        change(&mut batch);
        let items: Vec<Value> = indexes.iter().map(|index| object(*index, json!({}))).collect();
        let list =
            json!({"kind": "ExecRequestList", "apiVersion": "execlet.dev/v1alpha1", "metadata": {}, "items": items});
        let (cluster, calls) = scripted::cluster(move |call| match call {
            call if call.contains("spec.batch.uid") => Some((200, list.clone())),
            call if call.starts_with("POST") => scripted::status(404, "too old"),
            _ => Some((200, batch.clone())),
        });
        let approved = run(&cluster, ApproveArgs { name: "b".into(), yes: true }).await;
        let calls = calls.lock().clone();
        (approved, calls)
    }

    fn digest_of(indexes: &[u16]) -> String {
        let mut batch = batch_object(Value::Null);
        batch["spec"]["approval"] = json!({"required": true, "planDigest": ""});
        let batch = serde_json::from_value(batch).expect("a batch");
        let target = |index: &u16| target_of(&serde_json::from_value(object(*index, json!({}))).expect("a request"));
        digest(&batch, &indexes.iter().map(target).collect::<Vec<_>>()).expect("a digest")
    }

    #[tokio::test]
    async fn what_is_approved_is_what_was_seen() {
        let patched = |calls: &[String]| calls.iter().any(|call| call.starts_with("PATCH"));
        let (approved, calls) = approves(&digest_of(&[0, 1]), &[1, 0], |_| {}).await;
        assert_eq!((approved.expect("an approval"), patched(&calls)), (Exit::SUCCESS, true));
        // A target less, another command: its digest is not that.
        let other = |batch: &mut Value| batch["spec"]["template"]["spec"]["command"] = json!(["rm"]);
        let digest = digest_of(&[0, 1]);
        for (approved, calls) in [approves(&digest, &[0], |_| {}).await, approves(&digest, &[0, 1], other).await] {
            let error = approved.expect_err("another plan").to_string();
            assert!(error.contains("is not that of its") && !patched(&calls), "{error}");
        }
    }

    #[tokio::test]
    async fn what_needs_no_approval_gets_none() {
        let not_required = |batch: &mut Value| batch["spec"]["approval"] = json!({"required": false});
        let approved = |batch: &mut Value| batch["spec"]["approval"]["planDigest"] = json!("d");
        let unplanned = |batch: &mut Value| batch["status"]["plan"] = json!({"number": 1});
        for (approves, why) in [
            (approves("d", &[], not_required).await, "needs no approval"),
            (approves("d", &[], approved).await, "approved already"),
            (approves("d", &[], unplanned).await, "no plan yet"),
        ] {
            let error = approves.0.expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
