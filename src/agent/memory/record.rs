//! One record of the journal, and how it is written: JSON with its SHA-256.

use std::{io, path::PathBuf};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::core::{
    digest::sha256,
    entry::{Entry, Stage},
    ids::{RequestKey, RequestUid},
    transition::without_tails,
};

const FORMAT: u32 = 1;
/// Characters of a SHA-256.
const DIGEST: usize = 64;

pub(super) const SUFFIX: &str = ".json";

pub(super) fn file_name(uid: &RequestUid) -> String {
    format!("{uid}{SUFFIX}")
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    format: u32,
    pub request: RequestKey,
    pub created: Timestamp,
    pub entry: Entry,
}

impl Record {
    pub fn new(request: RequestKey, created: Timestamp, entry: Entry) -> Self {
        Self { format: FORMAT, request, created, entry }
    }

    pub(super) fn without_tails(mut self) -> Self {
        if let Stage::Ended { outcome } = self.entry.stage {
            self.entry.stage = Stage::Ended { outcome: without_tails(outcome) };
        }
        self
    }

    fn json(&self) -> Result<Vec<u8>, JournalError> {
        serde_json::to_vec(self).map_err(|source| JournalError::Encode { request: self.request.to_string(), source })
    }

    pub(super) fn to_file(&self) -> Result<Vec<u8>, JournalError> {
        let mut text = self.json()?;
        let digest = sha256(&text);
        text.push(b'\n');
        text.extend_from_slice(digest.as_bytes());
        text.push(b'\n');
        Ok(text)
    }

    /// `None` if the file was cut or changed.
    pub(super) fn from_file(text: &[u8]) -> Option<Self> {
        // The file is padded with line ends.
        let end = text.iter().rposition(|byte| *byte != b'\n')? + 1;
        let (json, digest) = text.get(..end)?.split_at_checked(end.checked_sub(DIGEST + 1)?)?;
        Self::checked(json, digest.strip_prefix(b"\n")?).filter(|_| text.len() > end)
    }

    /// A line, without its end.
    pub(super) fn to_line(&self) -> Result<Vec<u8>, JournalError> {
        let json = self.json()?;
        let mut line = sha256(&json).into_bytes();
        line.push(b' ');
        line.extend(json);
        Ok(line)
    }

    /// `None` if the line was cut or changed.
    pub(super) fn from_line(line: &[u8]) -> Option<Self> {
        let (digest, json) = line.split_at_checked(DIGEST)?;
        Self::checked(json.strip_prefix(b" ")?, digest)
    }

    fn checked(json: &[u8], digest: &[u8]) -> Option<Self> {
        if sha256(json).as_bytes() != digest {
            return None;
        }
        serde_json::from_slice::<Self>(json).ok().filter(|record| record.format == FORMAT)
    }
}

#[derive(Debug, Error)]
pub enum JournalError {
    #[error("{path} is locked: another execlet agent runs on this node with the same state folder")]
    Locked { path: PathBuf },
    #[error("journal: cannot {act} {what}: {source}")]
    Io {
        act: &'static str,
        /// A file, or a request.
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("journal: another request of the same batch has the pod of {request}")]
    Taken { request: String },
    #[error("journal: cannot encode the record of {request}: {source}")]
    Encode {
        request: String,
        #[source]
        source: serde_json::Error,
    },
}

impl JournalError {
    pub(super) fn io(act: &'static str, what: &str) -> impl FnOnce(io::Error) -> Self + use<> {
        let what = what.to_owned();
        move |source| Self::Io { act, what, source }
    }

    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}
