//! Every name that execlet shares with the cluster, in one place.

/// API group of the custom resources.
pub const GROUP: &str = "execlet.dev";

/// API group that the manager serves: attach and log.
pub const SUBRESOURCES_GROUP: &str = "subresources.execlet.dev";
/// Its only version.
pub const SUBRESOURCES_VERSION: &str = "v1alpha1";

/// Where an agent serves streams, as IP:PORT; on its Lease.
pub const STREAM_ENDPOINT_ANNOTATION: &str = "execlet.dev/stream-endpoint";
/// The certificate that it serves them with, in PEM; on its Lease.
pub const STREAM_CERTIFICATE_ANNOTATION: &str = "execlet.dev/stream-certificate";
/// Header in which the manager names the user to an agent: base64 of the JSON of a `Requester`.
pub const USER_HEADER: &str = "x-execlet-user";
/// Header in which the manager gives an agent the client's address, where it is known.
pub const CLIENT_HEADER: &str = "x-execlet-client";

/// Which engine runs the node's containers, and its version, as `NAME://VERSION`; on an agent's Lease.
pub const ENGINE_ANNOTATION: &str = "execlet.dev/engine";
/// Why the agent of a node takes no work: its engine is not one to work with; on its Lease.
pub const ENGINE_REFUSED_ANNOTATION: &str = "execlet.dev/engine-refused";
/// Field manager of [`ENGINE_REFUSED_ANNOTATION`]. Another one than that of the rest of the Lease, which an agent that takes
/// no work leaves as it is.
pub const ENGINE_REFUSED_MANAGER: &str = "execlet.dev/agent-engine";

/// That an agent holds each request of a batch against its batch; on its Lease. Agents of earlier versions do not.
pub const BATCHES_ANNOTATION: &str = "execlet.dev/batches";
/// Value of [`BATCHES_ANNOTATION`].
pub const BATCHES_HELD: &str = "held";

/// Prefix of the name of each agent's Lease, followed by its node's name.
pub const AGENT_LEASE_PREFIX: &str = "execlet-agent.";

/// Lease that the leading manager holds.
pub const LEADER_LEASE: &str = "execlet-manager";

/// Label on every Lease of an agent, so that the manager can watch just those.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Value of [`COMPONENT_LABEL`] on an agent's Lease.
pub const COMPONENT_AGENT: &str = "agent";

/// `reportingController` of the Events that agents write.
pub const AGENT_CONTROLLER: &str = "execlet.dev/agent";
/// `reportingController` of the Events that the manager writes.
pub const MANAGER_CONTROLLER: &str = "execlet.dev/manager";

/// Annotation of a Lease: the heads of its holders' audit chains.
pub const AUDIT_HEADS_ANNOTATION: &str = "execlet.dev/audit-heads";

/// Annotation of a pod that names its default container for `kubectl exec`.
pub const DEFAULT_CONTAINER_ANNOTATION: &str = "kubectl.kubernetes.io/default-container";

/// Annotation of a static pod's mirror: the UID that the kubelet uses for the pod.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Environment variable that tags every process of a request; reserved in `spec.env`.
pub const UID_ENV: &str = "EXECLET_UID";
/// What each command of a batch finds in its environment beside it; reserved in the template of a batch: the batch's name,
pub const BATCH_ENV: &str = "EXECLET_BATCH";
/// the index of this target, from 0 on,
pub const BATCH_INDEX_ENV: &str = "EXECLET_BATCH_INDEX";
/// the number of all targets,
pub const BATCH_TOTAL_ENV: &str = "EXECLET_BATCH_TOTAL";
/// and the name of the pod.
pub const POD_NAME_ENV: &str = "EXECLET_POD_NAME";

/// Label of a batch's requests: its name, for people. What counts is `spec.batch.uid`.
pub const BATCH_LABEL: &str = "execlet.dev/batch";

/// The virtual resource that `spec.user` is checked against: verb `use`, resource name the user.
/// It has no objects; only roles name it.
pub const EXEC_USERS: &str = "execusers";

/// Annotation on [`LEADER_LEASE`]: which policies are in place, and since when.
pub const POLICIES_ANNOTATION: &str = "execlet.dev/policies";

/// The admission policies.
pub mod policies {
    /// API group of their kinds.
    pub const GROUP: &str = "admissionregistration.k8s.io";
    /// Version of their kinds.
    pub const VERSION: &str = "v1";

    /// The plural of one of their kinds, as in a URL.
    pub fn plural(kind: &str) -> String {
        let kind = kind.to_ascii_lowercase();
        match kind.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{kind}s"),
        }
    }
}
/// DNS name in an agent's certificate, beside the address.
pub const STREAM_SERVER: &str = "execlet-agent";
/// Prefix of the audience of the manager's token for an agent, followed by the agent's node name.
pub const STREAM_AUDIENCE_PREFIX: &str = "streams.execlet.dev/";

/// The name of the Lease of the agent on `node`.
pub fn agent_lease(node: &str) -> String {
    format!("{AGENT_LEASE_PREFIX}{node}")
}

/// The audience of tokens for the agent on `node`, and for no other.
pub fn stream_audience(node: &str) -> String {
    format!("{STREAM_AUDIENCE_PREFIX}{node}")
}
