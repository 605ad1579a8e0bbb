//! What it means that a command's input cannot be had, by the words in which an agent says so.

use crate::{cli::error, wire::words::InputError};

/// Why it cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoInput {
    /// A client has it: another, or a connection of ours that is not missed yet.
    Held,
    /// It was ended, or lost: nobody can have it any more.
    Over,
}

/// Reads a refusal; `None` if it is about something else.
pub fn no_input(refusal: &kube::Error) -> Option<NoInput> {
    if error::answer(refusal) != Some(409) {
        return None;
    }
    InputError::read(&error::explain(refusal)).map(|error| match error {
        InputError::Held(_) => NoInput::Held,
        InputError::Ended | InputError::Lost => NoInput::Over,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

    use super::*;

    #[test]
    fn a_refusal_says_whether_to_wait_for_the_input_or_to_do_without() {
        for (code, message, expected) in [
            (409, "the input is held by jane from 10.0.0.7: attach without stdin to watch", Some(NoInput::Held)),
            (409, "the input was ended already: attach without stdin to watch", Some(NoInput::Over)),
            (
                409,
                "the input cannot reach the command any more: the agent was restarted and has lost the connection; attach without stdin to watch",
                Some(NoInput::Over),
            ),
            (409, "the object has been modified", None),
            (429, "the input was ended already", None),
        ] {
            let status = Status { code: Some(code), message: Some(message.to_owned()), ..Status::default() };
            let refusal = kube::Error::Api(serde_json::from_value(serde_json::json!(status)).expect("a Status"));
            assert_eq!(no_input(&refusal), expected, "{code} {message}");
        }
    }
}
