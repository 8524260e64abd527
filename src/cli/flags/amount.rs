//! Times and shares, as people write them.

use crate::cli::flags::size::parse_size;
use std::time::Duration;

/// Reads a size that may be 0.
///
/// # Errors
/// A text for the user.
pub(crate) fn parse_size_or_nothing(text: &str) -> Result<u64, String> {
    match text.trim() {
        "0" => Ok(0),
        text => parse_size(text),
    }
}

/// Reads `10%` or `10` as a tenth.
///
/// # Errors
/// A text for the user.
pub(crate) fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim();
    match number.parse::<f64>() {
        Ok(percent) if percent >= 0.0 && percent.is_finite() => Ok(percent / 100.0),
        _ => Err(format!("'{text}' is no percentage such as 10%")),
    }
}

/// Reads a time: a number and `ms`, `s`, `min` or `h`.
///
/// # Errors
/// A text for the user.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let seconds = match unit.trim() {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("'{unit}' is no unit of time (ms, s, min, h)")),
    };
    let number: f64 = number.parse().map_err(|_| format!("'{text}' is no time"))?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("a time must be more than 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_and_shares() {
        assert_eq!(parse_time("5min"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_time("200 ms"), Ok(Duration::from_millis(200)));
        for bad in ["", "x", "5d", "0", "-1s", "99999999999999999999999h"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_percent("10%"), Ok(0.1));
        assert!(parse_percent("-3").is_err() && parse_percent("x").is_err());
        assert_eq!(parse_size_or_nothing("0"), Ok(0));
    }
}
