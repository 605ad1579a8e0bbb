//! Durations: read as kubectl takes them (`90s`, `1h30m`, `1.5h`, and `90` for seconds), and written for people.

use std::time::Duration;

use k8s_openapi::jiff::fmt::friendly::SpanParser;

/// Longest duration taken, far from where arithmetic ends: ten years.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

pub fn parse(text: &str) -> Result<Duration, String> {
    // jiff also takes `1 hour, 2 minutes` and `01:02:03`.
    let plain = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.');
    let unit = if text.contains(|c: char| c.is_ascii_lowercase()) { "" } else { "s" };
    let parsed = SpanParser::new().parse_unsigned_duration(format!("{text}{unit}")).ok().filter(|_| plain);
    match parsed {
        None => Err(format!("{text:?} is not a duration: use 90s, 10m or 1h30m")),
        Some(duration) if duration > LONGEST => Err(format!("{text:?} is longer than ten years")),
        Some(duration) => Ok(duration),
    }
}

/// Reads whole seconds, at least 1, for a field of the API.
pub fn parse_seconds(text: &str) -> Result<i32, String> {
    let duration = parse(text)?;
    match i32::try_from(duration.as_secs()) {
        Ok(seconds) if seconds > 0 && duration.subsec_nanos() == 0 => Ok(seconds),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a whole number of seconds, 1 or more")),
    }
}

/// A duration for people: `0.3 s`, `12 s`, `3 min 5 s`, `2 h 5 min`.
pub fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        7200..172_800 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_kubectl_reads_them() {
        for (text, milliseconds) in [
            ("90s", 90_000),
            ("90", 90_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("300ms", 300),
            ("1m0.5s", 60_500),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "1x", "-1s", "1h30", "1 h", "1..5s", "1e3s", "inf", "9999999999h", "м"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_field_of_the_api_takes_whole_seconds() {
        assert_eq!(parse_seconds("2m"), Ok(120));
        for text in ["0", "500ms", "1.5s", "9999999h"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn people_read_two_places_at_most() {
        let all: Vec<String> = [0, 9, 12, 185, 7500, 200_000].map(|s| words(Duration::from_secs(s))).into();
        assert_eq!(all, ["0.0 s", "9.0 s", "12 s", "3 min 5 s", "2 h 5 min", "2 d 7 h"]);
    }
}
