//! The labels with which the kubelet marks a container in its engine, whichever that is.

pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Name of the container in the pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
