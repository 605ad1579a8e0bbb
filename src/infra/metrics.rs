//! Metrics; `register` says what each counts. Labels come from fixed lists, never from names of objects; but for the
//! engine's version.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelValue, LabelValueEncoder},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::{api::Reason, core::audit::event::Verb, wire::OutputStream};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Manager: from creation to the binding.
    Bind,
    /// Agent: container found, exec created, journal written.
    Prepare,
    /// Agent: the status write that decides.
    Commit,
    /// Agent: until the engine has accepted the start.
    Start,
    /// Agent: from the start to the end of the output.
    Pump,
    /// Agent: from the end of the output to the outcome.
    Settle,
    /// Agent: until the outcome is in the status.
    Report,
}

/// The label's name and value.
type Label<V> = [(&'static str, V); 1];

impl Step {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Prepare => "prepare",
            Self::Commit => "commit",
            Self::Start => "start",
            Self::Pump => "pump",
            Self::Settle => "settle",
            Self::Report => "report",
        }
    }
}

macro_rules! label_by_name {
    ($($label:ty),*) => {$(
        impl EncodeLabelValue for $label {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }
    )*};
}

label_by_name!(Step, Reason, Verb, OutputStream);

#[derive(Clone, Default)]
pub struct Metrics {
    finished: Family<Label<Reason>, Counter>,
    batches_finished: Family<Label<Reason>, Counter>,
    steps: Steps,
    output: Family<Label<OutputStream>, Counter>,
    recorded: Family<Label<Verb>, Counter>,
    pub unrecorded: Counter,
    pub running: Gauge,
    pub waiting: Gauge,
    pub unheld: Counter,
    pub spool_bytes: Gauge,
    pub viewers: Gauge,
    pub viewer_bytes: Counter,
    pub viewers_cut: Counter,
    streams_refused: Counter,
    pub leader: Gauge,
    pub agents: Gauge,
    engine: Family<[(&'static str, String); 2], Gauge>,
    pub engine_supported: Gauge,
    pub admission: Gauge,
    pub unreadable: Counter,
}

#[derive(Clone)]
struct Steps(Family<Label<Step>, Histogram, fn() -> Histogram>);

impl Default for Steps {
    fn default() -> Self {
        // From 1 ms, doubling, to about 9 minutes.
        Self(Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 20))))
    }
}

impl Metrics {
    pub fn for_agent() -> (Self, Registry) {
        let (metrics, mut registry) = Self::common();
        registry.register("execs_running", "Execs that run now", metrics.running.clone());
        registry.register(
            "requests_waiting",
            "Requests that wait for a free place on this node",
            metrics.waiting.clone(),
        );
        let unheld = "Commands that were started without a holder of their output";
        registry.register("commands_unheld", unheld, metrics.unheld.clone());
        registry.register_with_unit("output", "Output received from commands", Unit::Bytes, metrics.output.clone());
        registry.register_with_unit("spool", "Size of the spool on disk", Unit::Bytes, metrics.spool_bytes.clone());
        registry.register("viewers", "Viewers that are attached now", metrics.viewers.clone());
        let sent = "Output sent to viewers, attached or reading the log";
        registry.register_with_unit("viewer_output", sent, Unit::Bytes, metrics.viewer_bytes.clone());
        let cut = "Viewers that were cut: too slow, silent, against the protocol, or because the agent ended";
        registry.register("viewers_cut", cut, metrics.viewers_cut.clone());
        let refused = "Connections and requests for streams that were refused: not the manager's, or too many";
        registry.register("streams_refused", refused, metrics.streams_refused.clone());
        let which = "Which engine runs the node's containers, and its version; always 1";
        registry.register("engine_info", which, metrics.engine.clone());
        let supported =
            "Whether the agent takes work: 0 while its engine has not answered, or is not one that it works with";
        registry.register("engine_supported", supported, metrics.engine_supported.clone());
        (metrics, registry)
    }

    pub fn for_manager() -> (Self, Registry) {
        let (metrics, mut registry) = Self::common();
        registry.register(
            "batches_finished",
            "Batches that this process finished, by reason",
            metrics.batches_finished.clone(),
        );
        registry.register("leader", "Whether this manager leads", metrics.leader.clone());
        registry.register("agents_live", "Agents whose Lease is fresh, as the leader sees it", metrics.agents.clone());
        registry.register(
            "admission_enforced",
            "Whether every admission policy stands: 0 if one is missing or altered, or if admission is off",
            metrics.admission.clone(),
        );
        (metrics, registry)
    }

    fn common() -> (Self, Registry) {
        let metrics = Self::default();
        let mut registry = Registry::with_prefix("execlet");
        registry.register(
            "requests_finished",
            "Requests that this process finished, by reason",
            metrics.finished.clone(),
        );
        registry.register_with_unit("step_duration", "How long each step took", Unit::Seconds, metrics.steps.0.clone());
        registry.register(
            "requests_unreadable",
            "Objects that could not be read as an ExecRequest",
            metrics.unreadable.clone(),
        );
        registry.register("audit_records", "Audit records that are on the disk, by verb", metrics.recorded.clone());
        registry.register(
            "audit_failures",
            "Audit records that could not be written when they should have been",
            metrics.unrecorded.clone(),
        );
        (metrics, registry)
    }

    pub fn engine(&self, name: &'static str, version: &str) {
        self.engine.clear();
        self.engine.get_or_create(&[("engine", name.to_owned()), ("version", version.to_owned())]).set(1);
        self.engine_supported.set(1);
    }

    pub fn finished(&self, reason: Reason) {
        self.finished.get_or_create(&[("reason", reason)]).inc();
    }

    pub fn batch_finished(&self, reason: Reason) {
        self.batches_finished.get_or_create(&[("reason", reason)]).inc();
    }

    pub fn recorded(&self, verb: Verb) {
        self.recorded.get_or_create(&[("verb", verb)]).inc();
    }

    pub fn stream_refused(&self) {
        self.streams_refused.inc();
    }

    pub fn step(&self, step: Step, took: Duration) {
        self.steps.0.get_or_create(&[("step", step)]).observe(took.as_secs_f64());
    }

    pub fn output(&self, stream: OutputStream, bytes: usize) {
        self.output.get_or_create(&[("stream", stream)]).inc_by(bytes as u64);
    }
}
