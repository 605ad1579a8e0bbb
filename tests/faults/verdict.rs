//! What became of one request, held against what really happened.

use std::fmt::Write as _;

use execlet::{
    api::{ExecRequest, StreamStatus},
    core::digest::sha256,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::node::Kind as EngineKind;

/// A clock's tick, and the time that a kill takes to show, between two programs of one machine.
const SLACK: SignedDuration = SignedDuration::from_secs(2);
/// What the runtime returns that cannot execute a command: without the output nobody can tell whose code it is.
const RUNTIMES: i32 = 1;
/// SIGKILL: what the processes of a container get whose engine is killed, without live-restore.
const KILLED: i32 = 137;
/// The code of one that was killed by SIGHUP.
const HUNG_UP: i32 = 129;

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

/// What a command writes to each stream, if it comes to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written([(i64, String); 2]);

impl Written {
    /// The numbers up to `lines`, on as many `streams`, so many `times`; a terminal has all of it on one.
    pub fn counting(lines: u32, streams: usize, times: usize, tty: bool) -> Self {
        let end = if tty { "\r\n" } else { "\n" };
        let once = (1..=lines).fold(String::new(), |mut text, line| {
            write!(text, "{line}{end}").unwrap();
            text
        });
        let on_each = if tty { [streams, 0] } else { [streams.min(1), streams / 2] };
        Self(on_each.map(|often| {
            let all = once.repeat(often * times);
            (i64::try_from(all.len()).unwrap(), sha256(all.as_bytes()))
        }))
    }

    /// How what was received differs from it.
    fn differs(&self, received: [&StreamStatus; 2]) -> Option<String> {
        self.0.iter().zip(received).find_map(|((bytes, digest), received)| {
            let is_same = received.bytes == *bytes && received.sha256.as_ref().is_none_or(|found| found == digest);
            (!is_same).then(|| format!("{} bytes of {bytes}, digest {:?}", received.bytes, received.sha256))
        })
    }

    fn has_less_than(&self, received: [&StreamStatus; 2]) -> bool {
        self.0.iter().zip(received).any(|((bytes, _), received)| received.bytes > *bytes)
    }
}

/// Everything that is known of one request.
#[derive(Clone, Debug)]
pub struct Told {
    /// The code that its script returns.
    pub code: i32,
    pub node: &'static str,
    pub engine: EngineKind,
    /// It writes to both streams, or to a terminal: if nobody reads that, a Docker Engine tells a false code, and lets nobody
    /// see that it lives.
    pub falsified: bool,
    pub terminal: bool,
    /// Its container outlives the engine.
    pub outlives: bool,
    pub output: Written,
    /// Lines that it wrote when it started, and before it ended.
    pub starts: u32,
    pub ends: u32,
    pub request: Option<ExecRequest>,
}

impl Told {
    pub fn new(code: i32, node: &'static str, engine: EngineKind, output: Written) -> Self {
        Self {
            code,
            node,
            engine,
            falsified: false,
            terminal: false,
            outlives: false,
            output,
            starts: 0,
            ends: 0,
            request: None,
        }
    }

    pub fn reason(&self) -> &str {
        let status = self.request.as_ref().and_then(|request| request.status.as_ref());
        let finished = status.and_then(|status| status.conditions.iter().find(|c| c.type_ == "Finished"));
        finished.map_or("(none)", |condition| &condition.reason)
    }

    /// `complete`, or why not.
    pub fn output_is(&self) -> &str {
        let output = self.request.as_ref().and_then(|request| request.status.as_ref()?.output.as_ref());
        output.map_or("none", |output| output.incomplete_reason.as_deref().unwrap_or("complete"))
    }

    /// Whether its engine was killed while it started the command.
    pub fn was_starting(&self, faults: &[Fault]) -> bool {
        let status = self.request.as_ref().and_then(|request| request.status.as_ref());
        let start = status.and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        faults.iter().any(|fault| {
            fault.kind == Kind::Engine(self.node)
                && start.is_some_and(|start| fault.at <= start + SLACK && fault.back + SLACK >= start)
        })
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
        Some(KILLED) if engine && !told.outlives => {}
        // A Docker Engine may hang up a terminal that is written to when its client is gone.
        Some(HUNG_UP)
            if told.engine == EngineKind::Docker
                && told.terminal
                && told.falsified
                && (agent || engine)
                && told.ends == 0 => {}
        Some(code) => wrong.push(format!("is said to have ended with {code}, and returns {}", told.code)),
        None => {}
    }
    if let Some(output) = &status.output {
        let received = [&output.stdout, &output.stderr];
        if told.output.has_less_than(received) {
            wrong.push(format!("has more output than it wrote: {:?}", told.output.differs(received)));
        } else if output.complete
            && told.ends == 1
            && let Some(difference) = told.output.differs(received)
        {
            wrong.push(format!("is said to have its whole output, and has {difference}"));
        }
    }
    match told.engine {
        // An engine that was killed knows no exec. One that was not tells the next agent the code of any but this kind.
        EngineKind::Docker => {
            let agent_alone = told.falsified || told.code == RUNTIMES;
            if told.is_unknown() && !engine && !(agent && agent_alone) {
                wrong.push(format!("is Unknown ({}), and nothing was killed that alone knew the truth", told.reason()));
            }
        }
        // Nothing is lost but what a start gives that was under way when the engine was killed: its answer, and, since the shim
        // opens the output for the call that starts the command, what the command writes.
        EngineKind::Containerd if told.was_starting(faults) => {}
        EngineKind::Containerd => {
            if told.is_unknown() {
                wrong.push(format!(
                    "is Unknown ({}), and its start was not under way when its engine was killed",
                    told.reason()
                ));
            } else if told.ends == 1 && told.output_is() != "complete" {
                wrong.push(format!("has lost output: {}", told.output_is()));
            }
        }
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
        Told { starts, ends, request, ..Told::new(7, "n1", EngineKind::Docker, Written::counting(3, 2, 1, false)) }
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
        let hung_up = Told { falsified: true, terminal: true, ..told(1, 0, request("Failed", Some(HUNG_UP), "True")) };
        assert!(judge(&hung_up, &killed(Kind::Agent("n1"))).is_empty());
        assert_eq!(judge(&hung_up, &[]).len(), 1);
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
        let outlives = Told { outlives: true, ..told(1, 0, request("Failed", Some(137), "True")) };
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

    /// With this output, complete or not.
    fn wrote(stdout: &str, stderr: &str, why: Option<&str>) -> Option<ExecRequest> {
        let mut request = request("Failed", Some(7), "True")?;
        let stream = |text: &str| json!({"bytes": text.len(), "sha256": sha256(text.as_bytes()), "truncated": false});
        let output = json!({"complete": why.is_none(), "incompleteReason": why, "stdout": stream(stdout), "stderr": stream(stderr)});
        request.status.as_mut().unwrap().output = serde_json::from_value(output).unwrap();
        Some(request)
    }

    #[test]
    fn output_that_was_lost_or_doubled_is_found() {
        let whole = "1\n2\n3\n";
        let wrong = |request| judge(&told(1, 1, request), &[]).len();
        assert_eq!(wrong(wrote(whole, whole, None)), 0);
        assert_eq!(wrong(wrote(whole, "1\n", Some("StreamBroken"))), 0, "it is said");
        assert_eq!(wrong(wrote(whole, "1\n", None)), 1, "less");
        assert_eq!(wrong(wrote("1\n2\n4\n", whole, None)), 1, "other");
        assert_eq!(wrong(wrote("1\n2\n3\n3\n", whole, Some("StreamBroken"))), 1, "more");
        let on_a_terminal =
            Told { output: Written::counting(2, 2, 1, true), ..told(1, 1, wrote("1\r\n2\r\n1\r\n2\r\n", "", None)) };
        assert!(judge(&on_a_terminal, &[]).is_empty());
    }

    #[test]
    fn containerd_loses_nothing_but_a_start_that_was_under_way() {
        let whole = "1\n2\n3\n";
        let on = |request: Option<ExecRequest>| Told {
            engine: EngineKind::Containerd,
            falsified: true,
            ..told(1, 1, request)
        };
        let begun = |request: Option<ExecRequest>, start: Timestamp| {
            let mut request = request.unwrap();
            let time = serde_json::to_value(start.to_string()).unwrap();
            request.status.as_mut().unwrap().start_time = serde_json::from_value(time).unwrap();
            Some(request)
        };
        let unknown = |start| begun(request("Unknown", None, "True"), start);
        let cut = |start| begun(wrote(whole, "1\n", Some("ForcedEnd")), start);
        assert!(judge(&on(wrote(whole, whole, None)), &[]).is_empty());
        assert_eq!(judge(&on(wrote(whole, "1\n", Some("StreamBroken"))), &[]).len(), 1);
        assert!(judge(&on(unknown(at(6))), &killed(Kind::Engine("n1"))).is_empty());
        assert_eq!(judge(&on(unknown(at(1))), &killed(Kind::Engine("n1"))).len(), 1);
        assert_eq!(judge(&on(unknown(at(6))), &killed(Kind::Agent("n1"))).len(), 1);
        assert!(judge(&on(cut(at(6))), &killed(Kind::Engine("n1"))).is_empty());
        assert_eq!(judge(&on(cut(at(1))), &killed(Kind::Engine("n1"))).len(), 1);
        let doubled = begun(wrote(whole, "1\n2\n3\n3\n", Some("ForcedEnd")), at(6));
        assert_eq!(judge(&on(doubled), &killed(Kind::Engine("n1"))).len(), 1);
    }
}
