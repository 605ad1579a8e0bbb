//! Metrics of the aggregated API. Labels come from fixed lists.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::agent::join::Carried;
use crate::infra::listener::Dropped;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: &'static str,
    code: u16,
}

/// The label's name and value.
type Label = [(&'static str, &'static str); 1];

#[derive(Clone, Default)]
pub(in crate::manager) struct Metrics {
    calls: Family<CallLabels, Counter>,
    carried: Family<Label, Counter>,
    dropped: Family<Label, Counter>,
    pub(super) streams: Gauge,
    /// When the certificate that is served ends, in Unix seconds.
    pub(super) certificate_ends: Gauge,
}

impl Metrics {
    pub(in crate::manager) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "subresource_calls",
            "Calls of the aggregated API, by what was called and the HTTP code",
            metrics.calls.clone(),
        );
        registry.register(
            "subresource_streams_open",
            "Attached clients and logs that are open",
            metrics.streams.clone(),
        );
        registry.register_with_unit(
            "subresource_carried",
            "Bytes carried between clients and agents",
            Unit::Bytes,
            metrics.carried.clone(),
        );
        registry.register(
            "subresource_connections_dropped",
            "Connections that were not served",
            metrics.dropped.clone(),
        );
        registry.register_with_unit(
            "subresource_certificate_end_timestamp",
            "When the certificate that is served ends, in Unix time",
            Unit::Seconds,
            metrics.certificate_ends.clone(),
        );
        metrics
    }

    pub(super) fn call(&self, call: &'static str, code: u16) {
        self.calls.get_or_create(&CallLabels { call, code }).inc();
    }

    pub(super) fn carried(&self, bytes: Carried) {
        self.carried.get_or_create(&[("direction", "to_agent")]).inc_by(bytes.upstream);
        self.carried.get_or_create(&[("direction", "to_client")]).inc_by(bytes.downstream);
    }

    pub(super) fn dropped(&self, why: Dropped) {
        let why = match why {
            Dropped::Handshake => "handshake",
            Dropped::Crowded => "crowded",
            Dropped::Full => "full",
        };
        self.dropped.get_or_create(&[("why", why)]).inc();
    }
}
