//! What can be followed to its end: a request, or a batch.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::{
    api::{ExecBatch, ExecRequest},
    cli::{batch::words as batch_words, request::is_finished, say::words},
};

pub trait Followed:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// As it is typed.
    fn name(&self) -> String;

    fn has_finished(&self) -> bool;

    /// What it waits for, does, or has come to: the rest of the sentence "NAME: ...".
    fn in_words(&self) -> String;
}

impl Followed for ExecRequest {
    fn name(&self) -> String {
        self.name_any()
    }

    fn has_finished(&self) -> bool {
        is_finished(self)
    }

    fn in_words(&self) -> String {
        words::state(self)
    }
}

impl Followed for ExecBatch {
    fn name(&self) -> String {
        batch_words::typed(self)
    }

    fn has_finished(&self) -> bool {
        batch_words::is_finished(self)
    }

    fn in_words(&self) -> String {
        batch_words::state(self)
    }
}
