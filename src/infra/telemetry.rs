//! Logs, as JSON lines for machines or as text for people.
//!
//! An event is one line, whatever is in its fields: messages of the API server and the runtime, names of users.

use std::{
    fmt,
    io::{self, Write},
};

use tracing::{Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::MakeExt as _,
    fmt::{
        format::{Writer, debug_fn},
        layer,
    },
    prelude::*,
    registry::LookupSpan,
};

use crate::core::printable::{json, one_line};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text, in colour on a terminal.
    Text,
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "log level {0:?} is not understood: use error, warn, info, debug or trace, or a filter such as info,execlet=debug"
    )]
    Level(String),
    #[error("logging was set up twice: {0}")]
    Twice(String),
}

pub fn init(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(level).map_err(|_| TelemetryError::Level(level.to_owned()))?;
    let registry = tracing_subscriber::registry().with(filter);
    let result = match format {
        LogFormat::Json => registry.with(as_json(io::stderr)).try_init(),
        LogFormat::Text => registry.with(as_text(io::stderr, io::IsTerminal::is_terminal(&io::stderr()))).try_init(),
    };
    result.map_err(|error| TelemetryError::Twice(error.to_string()))
}

/// A log that cannot be written is not told of: that would go the same way, and panic there.
fn as_json<S, W>(to: impl Fn() -> W + Send + Sync + 'static) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + 'static,
{
    let layer = layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
    layer.log_internal_errors(false).with_writer(move || Printable(to()))
}

fn as_text<S, W>(to: impl Fn() -> W + Send + Sync + 'static, colour: bool) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + 'static,
{
    let fields = debug_fn(field).delimited(" ");
    layer().log_internal_errors(false).with_ansi(colour).fmt_fields(fields).with_writer(to)
}

fn field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = one_line(&format!("{value:?}"));
    if field.name() == "message" { to.write_str(&value) } else { write!(to, "{field}={value}") }
}

/// Writes JSON without the characters that a terminal obeys. It is given whole events.
struct Printable<W>(W);

impl<W: Write> Write for Printable<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(json(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::printable::is_printable, infra::print::kept::Kept};

    const FORGED: &str = "x\n2026-01-02T03:04:05Z  INFO nobody\x1b[2J\u{9b}1A\u{202e}\u{2028}\u{7f}";

    /// Logs values of others in each way in which a value is logged.
    fn logged<L: Layer<tracing_subscriber::Registry> + Send + Sync>(layer: L) {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _span = tracing::info_span!("one", user = FORGED, by = %FORGED).entered();
            let error = io::Error::other(FORGED);
            tracing::info!(user = FORGED, by = %FORGED, seen = ?FORGED, %error, "it says {FORGED}");
            tracing::info!(error = &error as &dyn std::error::Error, "two");
        });
    }

    #[test]
    fn an_event_is_one_line_whatever_it_tells_of() {
        let (text, json) = (Kept::default(), Kept::default());
        let to = text.clone();
        logged(as_text(move || to.clone(), false));
        let to = json.clone();
        logged(as_json(move || to.clone()));
        for written in [text, json] {
            let written = String::from_utf8(written.take()).expect("text");
            assert_eq!(written.lines().count(), 2, "{written}");
            assert!(written.chars().all(|c| is_printable(c) || c == '\n'), "{written:?}");
            assert!(written.contains("nobody") && written.ends_with('\n'), "{written}");
        }
    }
}
