//! A message in a status.

/// Longest one that is written, in characters; the schema takes more.
const LIMIT: usize = 4096;

/// Its beginning, if it is longer.
pub(super) fn cut(message: &str) -> String {
    message.chars().take(LIMIT).collect()
}
