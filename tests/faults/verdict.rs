//! What became of one request, held against what really happened.

use execlet::api::ExecRequest;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A clock's tick, and the time that a kill takes to show, between two programs of one machine.
const SLACK: SignedDuration = SignedDuration::from_secs(2);
/// What the runtime returns that cannot execute a command: without the output nobody can tell whose code it is.
const RUNTIMES: i32 = 1;
/// SIGKILL: what the processes of a container get whose engine is killed, without live-restore.
const KILLED: i32 = 137;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Agent(&'static str),
    Engine(&'static str),
    ApiServer,
}

/// Something was killed.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    pub at: Timestamp,
    pub back: Timestamp,
}

/// Everything that is known of one request.
#[derive(Clone, Debug)]
pub struct Told {
    /// The code that its script returns.
    pub code: i32,
    pub node: &'static str,
    /// It writes to both streams, or to a terminal: if nobody reads that, the engine tells a false code, and lets nobody see that it lives.
    pub falsified: bool,
    /// Its container outlives the engine.
    pub live_restore: bool,
    /// Lines that it wrote when it started, and before it ended.
    pub starts: u32,
    pub ends: u32,
    pub request: Option<ExecRequest>,
}

impl Told {
    pub fn new(code: i32, node: &'static str, falsified: bool) -> Self {
        Self { code, node, falsified, live_restore: false, starts: 0, ends: 0, request: None }
    }

    pub fn reason(&self) -> &str {
        let status = self.request.as_ref().and_then(|request| request.status.as_ref());
        let finished = status.and_then(|status| status.conditions.iter().find(|c| c.type_ == "Finished"));
        finished.map_or("(none)", |condition| &condition.reason)
    }

    pub fn is_unknown(&self) -> bool {
        let status = self.request.as_ref().and_then(|request| request.status.as_ref());
        status.is_some_and(|status| status.phase.to_string() == "Unknown")
    }
}

/// What is wrong with it.
pub fn judge(told: &Told, faults: &[Fault]) -> Vec<String> {
    let mut wrong = Vec::new();
    if told.starts > 1 || told.ends > 1 {
        wrong.push(format!("ran {} times", told.starts.max(told.ends)));
    }
    let Some(request) = &told.request else {
        wrong.push("is gone".to_owned());
        return wrong;
    };
    let status = request.status.clone().unwrap_or_default();
    let Some(completed) = status.completion_time.as_ref().map(|time| time.0) else {
        wrong.push(format!("is unfinished, in phase {}", status.phase));
        return wrong;
    };
    let created = request.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    // Whatever was killed, or away, while it was under way.
    let hit = |is: &dyn Fn(Kind) -> bool| {
        faults.iter().any(|fault| is(fault.kind) && fault.at <= completed + SLACK && fault.back + SLACK >= created)
    };
    let engine = hit(&|kind| kind == Kind::Engine(told.node));
    let agent = hit(&|kind| kind == Kind::Agent(told.node));
    let started = status.conditions.iter().any(|c| c.type_ == "Started" && c.status != "False");
    if !started && told.starts > 0 {
        wrong.push(format!("is said never to have started ({}), and did", told.reason()));
    }
    match status.exit_code {
        Some(code) if code == told.code && told.ends == 0 => {
            wrong.push(format!("is said to have ended with {code}, and did not come to its end"));
        }
        Some(code) if code == told.code => {}
        Some(KILLED) if engine && !told.live_restore => {}
        Some(code) => wrong.push(format!("is said to have ended with {code}, and returns {}", told.code)),
        None => {}
    }
    // An engine that was killed knows no exec. One that was not tells the next agent the code of any but this kind.
    let agent_alone = told.falsified || told.code == RUNTIMES;
    if told.is_unknown() && !engine && !(agent && agent_alone) {
        wrong.push(format!("is Unknown ({}), and nothing was killed that alone knew the truth", told.reason()));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[allow(clippy::unnecessary_wraps, reason = "one that is gone is None")]
    fn request(phase: &str, code: Option<i32>, started: &str) -> Option<ExecRequest> {
        let request = json!({
            "apiVersion": "execlet.dev/v1alpha1", "kind": "ExecRequest",
            "metadata": {"name": "r", "creationTimestamp": at(0).to_string()},
            "spec": {"target": {"podName": "web"}, "command": ["true"]},
            "status": {"phase": phase, "exitCode": code, "completionTime": format!("{:.6}", at(10)), "conditions": [
                {"type": "Started", "status": started, "reason": "R", "message": "", "lastTransitionTime": at(1).to_string()},
                {"type": "Finished", "status": "True", "reason": "R", "message": "", "lastTransitionTime": at(10).to_string()},
            ]},
        });
        Some(serde_json::from_value(request).unwrap())
    }

    fn told(starts: u32, ends: u32, request: Option<ExecRequest>) -> Told {
        Told { starts, ends, request, ..Told::new(7, "n1", false) }
    }

    fn killed(kind: Kind) -> Vec<Fault> {
        vec![Fault { kind, at: at(5), back: at(6) }]
    }

    #[test]
    fn a_truth_is_let_pass() {
        assert!(judge(&told(1, 1, request("Failed", Some(7), "True")), &[]).is_empty());
        assert!(judge(&told(0, 0, request("Failed", None, "False")), &[]).is_empty());
        let engine = killed(Kind::Engine("n1"));
        assert!(judge(&told(1, 0, request("Failed", Some(137), "True")), &engine).is_empty());
        assert!(judge(&told(1, 1, request("Unknown", None, "True")), &engine).is_empty());
        let falsified = Told { falsified: true, ..told(1, 1, request("Unknown", None, "True")) };
        assert!(judge(&falsified, &killed(Kind::Agent("n1"))).is_empty());
        let runtimes = Told { code: RUNTIMES, ..told(1, 1, request("Unknown", None, "Unknown")) };
        assert!(judge(&runtimes, &killed(Kind::Agent("n1"))).is_empty());
    }

    #[test]
    fn every_kind_of_untruth_is_found() {
        let unfinished = request("Running", None, "True").map(|mut request| {
            request.status.as_mut().unwrap().completion_time = None;
            request
        });
        let late = vec![Fault { kind: Kind::Engine("n1"), at: at(20), back: at(21) }];
        let outlives = Told { live_restore: true, ..told(1, 0, request("Failed", Some(137), "True")) };
        let found = |what: &str, told: Told, faults: Vec<Fault>| assert_eq!(judge(&told, &faults).len(), 1, "{what}");
        found("ran twice", told(2, 1, request("Failed", Some(7), "True")), vec![]);
        found("gone", told(1, 1, None), vec![]);
        found("unfinished", told(1, 1, unfinished), vec![]);
        found("another code", told(1, 1, request("Succeeded", Some(0), "True")), vec![]);
        found("a code before the end", told(1, 0, request("Failed", Some(7), "True")), vec![]);
        found("never started, and ran", told(1, 1, request("Failed", None, "False")), vec![]);
        found("killed by nobody", told(1, 0, request("Failed", Some(137), "True")), killed(Kind::Agent("n1")));
        found("killed, with live-restore", outlives, killed(Kind::Engine("n1")));
        found("Unknown for an agent", told(1, 1, request("Unknown", None, "True")), killed(Kind::Agent("n1")));
        found("Unknown for nothing", told(1, 1, request("Unknown", None, "True")), killed(Kind::Engine("n2")));
        found("Unknown before the fault", told(1, 1, request("Unknown", None, "True")), late);
        found("Unknown for the API server", told(1, 1, request("Unknown", None, "True")), killed(Kind::ApiServer));
    }
}
