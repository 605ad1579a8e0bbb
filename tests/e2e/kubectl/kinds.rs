//! The kinds that tests name, as kubectl and the API server know them.

/// A kind of objects.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    pub name: &'static str,
    /// Its group and version, or only the version of those without a group.
    pub version: &'static str,
    pub plural: &'static str,
    short: &'static str,
    pub is_namespaced: bool,
}

const ADMISSION: &str = "admissionregistration.k8s.io/v1";
const RBAC: &str = "rbac.authorization.k8s.io/v1";
const OURS: &str = "execlet.dev/v1alpha1";

const fn within(name: &'static str, version: &'static str, plural: &'static str, short: &'static str) -> Kind {
    Kind { name, version, plural, short, is_namespaced: true }
}

const fn alone(name: &'static str, version: &'static str, plural: &'static str, short: &'static str) -> Kind {
    Kind { name, version, plural, short, is_namespaced: false }
}

const KINDS: &[Kind] = &[
    within("Pod", "v1", "pods", "po"),
    within("Secret", "v1", "secrets", ""),
    within("ConfigMap", "v1", "configmaps", "cm"),
    within("ServiceAccount", "v1", "serviceaccounts", "sa"),
    within("Event", "v1", "events", "ev"),
    within("Event", "events.k8s.io/v1", "events", ""),
    within("ResourceQuota", "v1", "resourcequotas", "quota"),
    within("Lease", "coordination.k8s.io/v1", "leases", ""),
    within("Role", RBAC, "roles", ""),
    within("RoleBinding", RBAC, "rolebindings", ""),
    within("Deployment", "apps/v1", "deployments", "deploy"),
    within("DaemonSet", "apps/v1", "daemonsets", "ds"),
    within("StatefulSet", "apps/v1", "statefulsets", "sts"),
    within("ExecRequest", OURS, "execrequests", "xr"),
    within("ExecBatch", OURS, "execbatches", "xb"),
    alone("Namespace", "v1", "namespaces", "ns"),
    alone("Node", "v1", "nodes", "no"),
    alone("ClusterRole", RBAC, "clusterroles", ""),
    alone("ClusterRoleBinding", RBAC, "clusterrolebindings", ""),
    alone("ValidatingAdmissionPolicy", ADMISSION, "validatingadmissionpolicies", ""),
    alone("ValidatingAdmissionPolicyBinding", ADMISSION, "validatingadmissionpolicybindings", ""),
    alone("MutatingAdmissionPolicy", ADMISSION, "mutatingadmissionpolicies", ""),
    alone("MutatingAdmissionPolicyBinding", ADMISSION, "mutatingadmissionpolicybindings", ""),
    alone("ValidatingWebhookConfiguration", ADMISSION, "validatingwebhookconfigurations", ""),
    alone("CustomResourceDefinition", "apiextensions.k8s.io/v1", "customresourcedefinitions", "crd"),
    alone("APIService", "apiregistration.k8s.io/v1", "apiservices", ""),
    alone("SelfSubjectAccessReview", "authorization.k8s.io/v1", "selfsubjectaccessreviews", ""),
    alone("SubjectAccessReview", "authorization.k8s.io/v1", "subjectaccessreviews", ""),
];

impl Kind {
    /// By what people type: plural, singular or short. Of two groups that have one, kubectl takes the first too.
    pub fn typed(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| {
            name == kind.plural || (name == kind.short && !name.is_empty()) || name == kind.name.to_lowercase()
        })
    }

    /// By what stands in an object.
    pub fn of(version: &str, name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.version == version && kind.name == name)
    }

    pub fn group(&self) -> &'static str {
        self.version.split_once('/').map_or("", |(group, _)| group)
    }

    /// As kubectl prints it before a name: `execrequest.execlet.dev`.
    pub fn printed(&self) -> String {
        let dot = if self.group().is_empty() { "" } else { "." };
        format!("{}{dot}{}", self.name.to_lowercase(), self.group())
    }

    /// Where all of them are, or those of a namespace.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let api = if self.group().is_empty() { "api" } else { "apis" };
        match namespace.filter(|_| self.is_namespaced) {
            Some(namespace) => format!("/{api}/{}/namespaces/{namespace}/{}", self.version, self.plural),
            None => format!("/{api}/{}/{}", self.version, self.plural),
        }
    }
}
