//! Labels that cri-dockerd puts on the containers of pods.

/// Namespace of the pod.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Name of the pod.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// UID of the pod.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Name of the container in the pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// `container` or `podsandbox`.
pub const TYPE: &str = "io.kubernetes.docker.type";
/// Value of [`TYPE`] for a container of a pod.
pub const TYPE_CONTAINER: &str = "container";
