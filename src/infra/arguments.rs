//! The command line of a program, parsed once.

use std::{ffi::OsString, io};

use clap::{
    Parser,
    error::{ContextValue, Error},
};

use super::print::say;
use crate::core::printable::one_line;

/// Why there is nothing to do. It was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Help or the version was asked for.
    Told,
    /// It makes no sense, or what was asked for could not be printed.
    Failed,
}

/// Parses the words of a command line; the first one is the program's name.
pub fn parse<A: Parser>(words: &[OsString]) -> Result<A, Done> {
    let error = match A::try_parse_from(words) {
        Ok(args) => return Ok(args),
        Err(error) => error,
    };
    // It quotes words, which may come from anybody: a script, a list of names.
    let shown = words.iter().map(|word| one_line(&word.to_string_lossy()));
    let Err(mut shown) = A::try_parse_from(shown) else {
        say("error", &error.to_string());
        return Err(Done::Failed);
    };
    escape(&mut shown);
    let wrong = shown.use_stderr();
    match shown.print() {
        Ok(()) if !wrong => Err(Done::Told),
        // Whoever reads it has read enough.
        Err(error) if !wrong && error.kind() == io::ErrorKind::BrokenPipe => Err(Done::Told),
        Ok(()) | Err(_) => Err(Done::Failed),
    }
}

/// It quotes variables of the environment, too.
fn escape(error: &mut Error) {
    let quoted = |value: &ContextValue| match value {
        ContextValue::String(text) => Some(ContextValue::String(one_line(text))),
        ContextValue::Strings(texts) => Some(ContextValue::Strings(texts.iter().map(|text| one_line(text)).collect())),
        // Words of our own: usages, numbers, suggestions.
        _ => None,
    };
    let escaped: Vec<_> = error.context().filter_map(|(kind, value)| Some((kind, quoted(value)?))).collect();
    for (kind, value) in escaped {
        error.insert(kind, value);
    }
}
