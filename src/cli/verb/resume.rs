//! `resume`: lets more targets of a batch run.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{
    api::{ExecBatch, ExecBatchSpec},
    cli::{
        batch::{
            report::waits_for_approval,
            words::{self, as_written},
        },
        cluster::connection::Cluster,
        error::Error,
        exit::Exit,
        say::{page::Page, print, speech::Speech},
        typed::{batch_name, share},
    },
    core::batch::share::limit,
};

/// Let more targets of a batch run: raise its limit, and end its suspension.
#[derive(Clone, Debug, clap::Args)]
pub struct ResumeArgs {
    /// The batch: xb/NAME or NAME.
    #[arg(value_name = "NAME", value_parser = batch_name)]
    pub name: String,

    /// How many targets may run, with those that already have: a number, or a share of all such as 10%.
    #[arg(long, value_name = "NUMBER|SHARE", value_parser = share, default_value = "100%")]
    pub limit: IntOrString,
}

pub async fn run(cluster: &Cluster, args: ResumeArgs) -> Result<Exit, Error> {
    let batch = cluster.batch(&args.name).await?;
    if let Some(why) = refusal(&batch, &args.limit) {
        return Err(Error::Message(format!("{} {why}", words::typed(&batch))));
    }
    let resumed = cluster.resume_batch(&batch, &args.limit).await?;
    if waits_for_approval(&resumed) {
        let approve = cluster.plugin(&format!("approve {}", words::typed(&batch)));
        Speech::new(true).say(&format!("nothing of it runs until somebody else has approved its plan: {approve}"));
    }
    print::out(&Page::default().line(&format!("{} resumed", print::full_name(&resumed))))
}

fn refusal(batch: &ExecBatch, to: &IntOrString) -> Option<String> {
    if words::is_finished(batch) {
        return Some("has finished: to run it again where it did not succeed, use rerun".to_owned());
    }
    if batch.spec.cancel {
        return Some("is canceled, which cannot be undone: nothing more of it runs".to_owned());
    }
    if !batch.spec.suspend && batch.spec.release_limit == *to {
        return Some(if waits_for_approval(batch) {
            "waits for somebody else to approve its plan, with approve: there is nothing to resume".to_owned()
        } else {
            format!("is not held: its limit is {} already, and it is not suspended", as_written(to))
        });
    }
    let total = batch.status.as_ref().and_then(words::total)?;
    let after = ExecBatchSpec { release_limit: to.clone(), ..batch.spec.clone() };
    let (before, after) = (limit(&batch.spec, total), limit(&after, total));
    (after < before).then(|| {
        format!(
            "has a limit of {} already, which is {before} of {total} targets, and {} would be {after}: give more, or to hold \
             it patch spec.suspend to true",
            as_written(&batch.spec.release_limit),
            as_written(to)
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::{
        batch::words::tests::{object, status},
        follow::scripted,
    };

    fn paused() -> Value {
        let mut batch = object(status("Paused", "ReleaseLimit", "", &json!({"released": 2})));
        batch["spec"]["releaseLimit"] = json!("50%");
        batch
    }

    #[test]
    fn a_limit_is_raised_and_never_lowered() {
        let refused = |batch: &Value, to: &str| {
            let batch = serde_json::from_value(batch.clone()).expect("a batch");
            refusal(&batch, &share(to).expect("a share"))
        };
        assert_eq!(refused(&paused(), "100%"), None);
        assert_eq!(refused(&paused(), "3"), None);
        assert_eq!(refused(&paused(), "2"), None, "it may be suspended");
        assert!(refused(&paused(), "1").is_some_and(|why| why.contains("2 of 4 targets")));
        assert!(refused(&paused(), "50%").is_some_and(|why| why.contains("is not held")), "nothing would be let run");
        let mut canceled = paused();
        canceled["spec"]["cancel"] = json!(true);
        assert!(refused(&canceled, "100%").is_some());
        assert!(refused(&object(status("Failed", "Canceled", "", &Value::Null)), "100%").is_some());
    }

    #[tokio::test]
    async fn only_this_very_batch_is_resumed() {
        let (cluster, calls) = scripted::cluster(|call| match call {
            call if call.starts_with("GET") => Some((200, paused())),
            call if call.starts_with("POST") => scripted::status(404, "too old"),
            _ => scripted::status(409, "the UID in the precondition is another"),
        });
        let args = ResumeArgs { name: "b".into(), limit: IntOrString::String("100%".into()) };
        let error = run(&cluster, args).await.expect_err("another batch");
        assert_eq!(error.exit(), Exit::FAILED);
        assert!(calls.lock().iter().any(|call| call.starts_with("PATCH") && call.contains("execbatches/b")));
    }
}
