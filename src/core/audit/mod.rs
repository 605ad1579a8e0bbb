//! The audit trail: who ran what, where, when, why, with which outcome.
//!
//! `event` is one record, an `audit.k8s.io/v1` Event; `subject` makes one for each
//! act on a request; `redact` decides how much of a command goes into it; `chain`
//! joins the records of one writer so that none can be changed unnoticed; `verify`
//! checks a chain; `complete` checks that a request has all its records. Where the
//! lines are kept is not known here. `docs/audit.md` has the format for readers.

pub mod chain;
pub mod complete;
pub mod event;
pub mod finding;
pub mod key;
pub mod redact;
pub mod subject;
pub mod verify;

use sha2::{Digest, Sha256};

/// The SHA-256 of these bytes, in lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest = Sha256::digest(bytes);
    digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_digest_is_what_sha256sum_prints() {
        assert_eq!(super::sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
