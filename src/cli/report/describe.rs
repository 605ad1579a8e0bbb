//! What is said of a batch beside its results: what it runs, how fast, and when it stops.

use serde::Serialize;

use crate::{api::ExecBatch, cli::batch::words::as_written};

/// What runs in each target. Values of variables and standard input are no part of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct What {
    pub command: Vec<String>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    /// Names of variables.
    pub env: Vec<String>,
    pub stdin: bool,
    pub active_deadline_seconds: Option<i32>,
}

impl What {
    pub fn of(batch: &ExecBatch) -> Self {
        let spec = &batch.spec.template.spec;
        Self {
            command: spec.command.clone(),
            working_dir: spec.working_dir.clone(),
            user: spec.user.clone(),
            env: spec.env.iter().map(|variable| variable.name.clone()).collect(),
            stdin: spec.stdin.is_some(),
            active_deadline_seconds: spec.active_deadline_seconds,
        }
    }

    /// What a command runs with, if with anything.
    pub fn with(&self) -> Option<String> {
        let all = [
            self.user.as_ref().map(|user| format!("user {user}")),
            self.working_dir.as_ref().map(|folder| format!("folder {folder}")),
            (!self.env.is_empty()).then(|| format!("variables {}", self.env.join(", "))),
            self.stdin.then(|| "standard input".to_owned()),
            self.active_deadline_seconds.map(|seconds| format!("at most {seconds} s each")),
        ];
        let all: Vec<String> = all.into_iter().flatten().collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// As it was at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pace {
    pub parallelism: String,
    pub release_limit: String,
    pub max_failed: String,
    pub failure_action: String,
    pub active_deadline_seconds: Option<i32>,
    pub suspended: bool,
    pub canceled: bool,
}

impl Pace {
    pub fn of(batch: &ExecBatch) -> Self {
        let spec = &batch.spec;
        Self {
            parallelism: as_written(&spec.parallelism),
            release_limit: as_written(&spec.release_limit),
            max_failed: as_written(&spec.failure_policy.max_failed),
            failure_action: format!("{:?}", spec.failure_policy.action),
            active_deadline_seconds: spec.active_deadline_seconds,
            suspended: spec.suspend,
            canceled: spec.cancel,
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        let deadline = self.active_deadline_seconds.map(|seconds| format!("; ends after {seconds} s"));
        let states = [(self.suspended, "; suspended"), (self.canceled, "; canceled")];
        let states: String = states.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
        format!(
            "{} at a time, up to {}; no more once more than {} ended without success ({}){}{states}",
            self.parallelism,
            self.release_limit,
            self.max_failed,
            self.failure_action,
            deadline.unwrap_or_default()
        )
    }
}
