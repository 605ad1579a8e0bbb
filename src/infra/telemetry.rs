//! Logs, as JSON lines for machines or as text for people.

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

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
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
            registry.with(layer.with_writer(std::io::stderr)).try_init()
        }
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(fmt::layer().with_ansi(colour).with_writer(std::io::stderr)).try_init()
        }
    };
    result.map_err(|error| TelemetryError::Twice(error.to_string()))
}
