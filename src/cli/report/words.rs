//! What a report says, in words that every format has.

use k8s_openapi::jiff::Timestamp;

use super::value::{Command, Counts, Report, Same};
use crate::{api::Requester, core::audit::batch::Word};

impl Report {
    /// Who, why, where and when, in words; what there is none of is left out.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let person = |name: &str, uid: &str| if uid.is_empty() { name.to_owned() } else { format!("{name} ({uid})") };
        let word = |by: &Word| person(&by.username, &by.uid);
        let asked = self.requested_by.as_ref().map_or_else(|| "not recorded".to_owned(), |by| with_groups(by));
        let approved = match (&self.approved_by, self.approval_required) {
            (Some(by), _) => Some(word(by)),
            (None, true) => Some("required; by whom is not recorded".to_owned()),
            (None, false) => None,
        };
        let total = self.plan.total;
        let targets = format!("{total} of plan {}: {}", self.plan.number, self.targets);
        let all = [
            ("Asked for by", Some(asked)),
            ("Let run by", self.released_by.as_ref().map(word)),
            ("Approved by", approved),
            ("Why", Some(self.why.clone().unwrap_or_else(|| "no reason given".to_owned()))),
            ("Targets", Some(targets)),
            ("Pace", Some(self.pace.words())),
            ("When", Some(self.when())),
            ("With", self.what.with()),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn when(&self) -> String {
        let at = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M:%S").to_string();
        let created = self.created.map(|time| format!("created {}", at(time)));
        let started = self.started.map(|time| format!("first released {}", at(time)));
        let finished = self.finished.map(|time| format!("finished {}", at(time)));
        let all: Vec<String> = [created, started, finished].into_iter().flatten().collect();
        format!("{} (UTC)", all.join(", "))
    }
}

fn with_groups(by: &Requester) -> String {
    let groups = by.groups.iter().map(String::as_str).filter(|group| *group != "system:authenticated");
    let groups = groups.collect::<Vec<_>>().join(", ");
    if groups.is_empty() { by.username.clone() } else { format!("{} ({groups})", by.username) }
}

impl Counts {
    /// Each with the end that it counts, and in words.
    pub(super) fn all(&self) -> [(&'static str, &'static str, u16); 6] {
        [
            ("succeeded", "succeeded", self.succeeded),
            ("failed", "failed", self.failed),
            ("notRun", "never ran", self.not_run),
            ("unknown", "may have run", self.unknown),
            ("skipped", "skipped", self.skipped),
            ("unfinished", "not accounted for yet", self.unfinished),
        ]
    }
}

impl Same {
    /// How they ended.
    pub(super) fn title(&self) -> String {
        match self.exit_code {
            Some(code) => format!("{}, exit code {code}", self.reason),
            None => self.reason.clone(),
        }
    }

    /// Why their output may not be all that they wrote.
    pub(super) fn incomplete(&self) -> Option<String> {
        let why = self.incomplete_reason.as_deref().unwrap_or("no reason given");
        (self.output_complete == Some(false)).then(|| format!("The output may be incomplete: {why}."))
    }
}

impl Command {
    /// What tells it from others.
    pub(super) fn title(&self) -> String {
        let uid = self.pod_uid.as_deref().unwrap_or("unknown");
        let request = self.request.as_deref().unwrap_or("gone");
        let container = self.container.as_ref().map(|name| format!(", container {name}")).unwrap_or_default();
        format!("pod UID {uid}{container}, request {request}")
    }
}
