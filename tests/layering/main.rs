//! Holds the structure of `src/`: see `ARCHITECTURE.md`.
//!
//! | file | rule |
//! |---|---|
//! | `direction.rs` | who may import whom, and who may name the engine |
//! | `purity.rs` | the inner modules know no IO and no clock; one file may be unsafe |
//! | `circles.rs` | no files import each other in a circle |
//! | `words.rs` | only the rooms of an engine know facts of that engine |
//! | `sizes.rs` | functions and files stay readable |
//!
//! Each rule has tests with planted sources, which show that it can fail.

mod circles;
mod direction;
mod purity;
mod sizes;
mod source;
mod words;

type Tested = Result<(), Box<dyn std::error::Error>>;
