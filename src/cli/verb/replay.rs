//! `replay`: plays a recording.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, IsTerminal as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    cli::{
        error::Error,
        exit::Exit,
        follow::signals::Stops,
        say::{duration, print, screen::Screen, speech::Speech, terminal},
    },
    wire::asciicast::{Event, Malformed, decode_event, decode_header},
};

/// Play a recording (asciicast v2).
#[derive(Clone, Debug, clap::Args)]
pub struct ReplayArgs {
    /// The recording.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Speed, as a multiple of the original.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    pub speed: f64,

    /// Longest pause; longer ones are shortened.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub idle_limit: Option<Duration>,
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(factor) if (0.01..=1000.0).contains(&factor) => Ok(factor),
        Ok(_) | Err(_) => Err("give a number from 0.01 to 1000".to_owned()),
    }
}

pub async fn run(args: ReplayArgs) -> Result<Exit, Error> {
    let mut stops = Stops::listen()?;
    let unreadable = |source| Error::File { path: args.file.clone(), source };
    let wrong = |line: usize, why: Malformed| Error::Content { path: args.file.clone(), line, why: why.to_string() };
    let mut lines = BufReader::new(File::open(&args.file).map_err(unreadable)?).lines();
    let first = lines.next().unwrap_or(Ok(String::new())).map_err(unreadable)?;
    let header = decode_header(&first).map_err(|why| wrong(1, why))?;
    if let Some(size) = terminal::size().filter(|_| io::stdout().is_terminal())
        && (size.columns < header.width || size.rows < header.height)
    {
        let (columns, rows) = (header.width, header.height);
        Speech::new(true).say(&format!("recorded on a larger terminal: {columns} columns, {rows} rows"));
    }
    let mut screen = Screen::of_the_past(io::stdout());
    let (mut due, mut before) = (Instant::now(), 0.0);
    for (number, line) in (2..).zip(lines) {
        let line = line.map_err(unreadable)?;
        if line.trim().is_empty() {
            continue;
        }
        let (seconds, event) = decode_event(&line).map_err(|why| wrong(number, why))?;
        due += pause(seconds - before, args.speed, args.idle_limit);
        before = seconds;
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            signal = stops.next() => return Ok(Exit::of_signal(signal)),
        }
        if let Event::Output(text) = event
            && !print::write(&mut screen, text.as_bytes())?
        {
            break;
        }
    }
    Ok(Exit::SUCCESS)
}

fn pause(seconds: f64, speed: f64, limit: Option<Duration>) -> Duration {
    let pause = Duration::try_from_secs_f64((seconds / speed).max(0.0)).unwrap_or(Duration::MAX);
    // A year: far from where the clock's arithmetic ends.
    pause.min(limit.unwrap_or(Duration::MAX)).min(Duration::from_secs(366 * 24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_as_recorded_or_faster() {
        assert_eq!(pause(2.0, 1.0, None), Duration::from_secs(2));
        assert_eq!(pause(2.0, 4.0, None), Duration::from_millis(500));
        assert_eq!(pause(20.0, 1.0, Some(Duration::from_secs(1))), Duration::from_secs(1));
        assert_eq!(pause(-1.0, 1.0, None), Duration::ZERO);
        assert!(pause(1e300, 0.01, None) <= Duration::from_secs(366 * 24 * 3600));
    }
}
