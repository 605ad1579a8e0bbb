//! The report of a batch: what a change ticket keeps of it.
//!
//! | file | what |
//! |---|---|
//! | `value` | the report as a value, which is also its JSON: pure, of a batch and its requests |
//! | `describe` | of that, what is said of a batch beside its results |
//! | `words` | what every format says of it in words |
//! | `captured` | what a command wrote, as far as it is kept |
//! | `safe` | text of others in HTML: it can be read, and nothing else |
//! | `html`, `timeline` | the page |
//! | `markdown`, `csv` | the same for other readers |

pub(crate) mod captured;
pub(crate) mod csv;
pub(crate) mod describe;
pub(crate) mod html;
pub(crate) mod markdown;
mod safe;
mod timeline;
pub(crate) mod value;
mod words;

#[cfg(test)]
mod fixture;
