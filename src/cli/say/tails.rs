//! The end of a stream, as a status keeps it.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::api::StreamStatus;

pub fn tail_bytes(stream: &StreamStatus) -> Vec<u8> {
    match (&stream.tail, &stream.tail_base64) {
        (Some(text), _) => text.clone().into_bytes(),
        // The schema says base64; if it is not, there is nothing to show.
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).unwrap_or_default(),
        (None, None) => Vec::new(),
    }
}
