//! Terminal sizes: a stream of JSON documents, which may be cut anywhere.

use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};

use super::message::ProtocolError;

/// Most bytes that wait for the rest of a document. One has about 30.
const MAX_PENDING: usize = 1024;

/// In characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    #[serde(rename = "Width", alias = "width", default)]
    pub width: u16,
    #[serde(rename = "Height", alias = "height", default)]
    pub height: u16,
}

impl TerminalSize {
    /// A client without a terminal sends 0.
    pub const fn is_real(self) -> bool {
        self.width > 0 && self.height > 0
    }
}

#[derive(Debug, Default)]
pub(super) struct Decoder {
    pending: BytesMut,
}

impl Decoder {
    /// The latest complete size in the bytes so far; earlier ones no longer matter.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<TerminalSize>, ProtocolError> {
        if self.pending.len() + bytes.len() > MAX_PENDING.max(bytes.len()) {
            return Err(ProtocolError::Resize(format!("{MAX_PENDING} bytes without an end")));
        }
        self.pending.extend_from_slice(bytes);
        let mut documents = serde_json::Deserializer::from_slice(&self.pending).into_iter::<TerminalSize>();
        let mut last = None;
        let mut read = 0;
        loop {
            match documents.next() {
                Some(Ok(size)) => {
                    last = Some(size).filter(|size| size.is_real()).or(last);
                    read = documents.byte_offset();
                }
                Some(Err(error)) if error.is_eof() => break,
                Some(Err(error)) => return Err(ProtocolError::Resize(error.to_string())),
                None => {
                    read = self.pending.len();
                    break;
                }
            }
        }
        self.pending.advance(read);
        if self.pending.len() > MAX_PENDING {
            return Err(ProtocolError::Resize(format!("{MAX_PENDING} bytes without an end")));
        }
        Ok(last)
    }
}
