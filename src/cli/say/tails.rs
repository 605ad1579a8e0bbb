//! What the status keeps of a stream.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::api::StreamStatus;

/// The end of a stream, as the status keeps it.
pub fn tail_bytes(stream: &StreamStatus) -> Vec<u8> {
    match (&stream.tail, &stream.tail_base64) {
        (Some(text), _) => text.clone().into_bytes(),
        // The API server holds it to be base64; if it is none, there is nothing to show.
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).unwrap_or_default(),
        (None, None) => Vec::new(),
    }
}
