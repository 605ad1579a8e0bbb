//! What a test could not show where it ran.

use std::io::{self, Write as _};

/// Says what could not be shown here, and why, also of a test that passes.
pub fn not_shown(what: &str) {
    // Not by a macro: what these print is kept back.
    writeln!(io::stderr(), "NOT SHOWN HERE: {what}").expect("standard error");
}
