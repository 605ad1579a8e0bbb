//! What can be told from a request object.

use crate::api::{
    ExecRequest,
    conditions::{self, ConditionType, Truth},
};

pub fn is_finished(request: &ExecRequest) -> bool {
    request.status.as_ref().is_some_and(|status| status.completion_time.is_some())
}

/// Whether it was committed, and is not known never to have run: its command may have run.
pub fn may_have_run(request: &ExecRequest) -> bool {
    let Some(status) = &request.status else { return false };
    match conditions::get(&status.conditions, ConditionType::Started) {
        Some(started) => started.status != Truth::False.as_str(),
        None => status.start_time.is_some(),
    }
}

/// Whether it is bound to a node, or has finished without.
pub fn is_attachable(request: &ExecRequest) -> bool {
    is_finished(request) || request.status.as_ref().is_some_and(|status| status.node_name.is_some())
}

pub fn takes_input(request: &ExecRequest) -> bool {
    request.spec.input_from_client().is_some()
}
