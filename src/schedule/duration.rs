//! Durations as Go writes them (`1h30m`, `1.5s`, `300ms`), which is how Dkron's users write them.
//!
//! **Invariants**
//! - What [`format_go_duration`] writes, [`parse_go_duration`] reads back to the same duration, if
//!   it is at most [`GO_DURATION_NANOS_MAX`].
//! - Integers only: no text is rounded through a floating-point number.

use std::time::Duration;

/// Go's longest duration in nanoseconds: an `i64`, 292 years.
pub const GO_DURATION_NANOS_MAX: u128 = i64::MAX as u128;

/// The longest text that is read; Go writes at most 25 characters.
const TEXT_LEN_MAX: usize = 128;

/// Digits of a fraction that are read; further ones are below a nanosecond in every unit.
const FRACTION_DIGITS_MAX: u32 = 18;

/// Unit names and their nanoseconds. The micro sign exists twice in Unicode, and Go takes both.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Why a text is not a duration. The wording of all but `Negative` is Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number where one has to be, or more than 292 years.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that is none of `ns`, `us`, `ms`, `s`, `m`, `h`.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// What stands in the unit's place.
        unit: String,
        /// The whole text.
        text: String,
    },
    /// Below zero, which is a duration in Go but none here.
    #[error("duration {0:?} is negative")]
    Negative(String),
}

/// Reads a duration in Go's syntax: numbers, each with an optional fraction and a unit.
///
/// # Errors
/// If `text` is not in that syntax, is negative, or exceeds [`GO_DURATION_NANOS_MAX`].
pub fn parse_go_duration(text: &str) -> Result<Duration, DurationError> {
    let shown = || text.chars().take(TEXT_LEN_MAX).collect::<String>();
    if text.len() > TEXT_LEN_MAX {
        return Err(DurationError::Invalid(shown()));
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(DurationError::Invalid(shown()));
    }
    let mut rest = unsigned;
    let mut nanos = 0_u128;
    while !rest.is_empty() {
        let (part, after) = parse_part(rest, text)?;
        nanos += part;
        if nanos > GO_DURATION_NANOS_MAX {
            return Err(DurationError::Invalid(shown()));
        }
        rest = after;
    }
    if text.starts_with('-') && nanos > 0 {
        return Err(DurationError::Negative(shown()));
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| DurationError::Invalid(shown()))
}

/// Writes `duration` as Go's `Duration.String` does: `1h30m0s`, `1.5s`, `300ms`, `0s`.
pub fn format_go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}\u{b5}s", decimal(nanos, 1_000));
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", decimal(nanos, 1_000_000));
    }
    let secs = duration.as_secs();
    let (hours, minutes) = (secs / 3_600, secs / 60 % 60);
    let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
    if hours > 0 {
        format!("{hours}h{minutes}m{seconds}s")
    } else if minutes > 0 {
        format!("{minutes}m{seconds}s")
    } else {
        format!("{seconds}s")
    }
}

/// Reads one number with its unit from the head of `rest`; returns its nanoseconds and the tail.
fn parse_part<'a>(rest: &'a str, text: &str) -> Result<(u128, &'a str), DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (whole, rest) = split_digits(rest);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(tail) => split_digits(tail),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let unit_len = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_len);
    if unit.is_empty() {
        return Err(DurationError::MissingUnit(text.to_owned()));
    }
    let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() });
    };
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().map_err(|_| invalid())? };
    let mut nanos = u128::from(whole) * scale;
    let mut place = 1_u128;
    let mut numerator = 0_u128;
    for digit in fraction.bytes().take(FRACTION_DIGITS_MAX as usize) {
        numerator = numerator * 10 + u128::from(digit - b'0');
        place *= 10;
    }
    nanos += numerator * scale / place;
    Ok((nanos, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    let len = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(len)
}

/// `value / scale` as a decimal number without trailing zeros; `scale` is a power of ten.
fn decimal(value: u128, scale: u128) -> String {
    let (whole, fraction) = (value / scale, value % scale);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let cases = [
            ("0", 0),
            ("-0s", 0),
            ("5s", 5_000_000_000),
            ("+1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5m", 30_000_000_000),
            ("5.s", 5_000_000_000),
            ("300ms", 300_000_000),
            ("2us", 2_000),
            ("2\u{b5}s", 2_000),
            ("2\u{3bc}s", 2_000),
            ("1s1h", 3_601_000_000_000),
            ("0.0000000009s", 0),
            ("0.3333333333333333333h", 1_200_000_000_000 - 1),
            ("9223372036854775807ns", i64::MAX as u64),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse_go_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused_in_gos_words() {
        let cases = [
            ("", "time: invalid duration \"\""),
            ("-", "time: invalid duration \"-\""),
            (".s", "time: invalid duration \".s\""),
            ("1 h", "time: unknown unit \" h\" in duration \"1 h\""),
            ("3", "time: missing unit in duration \"3\""),
            ("1h3", "time: missing unit in duration \"1h3\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
            ("99999999999999999999h", "time: invalid duration \"99999999999999999999h\""),
            ("-1s", "duration \"-1s\" is negative"),
        ];
        for (text, message) in cases {
            assert_eq!(parse_go_duration(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        let cases = [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5\u{b5}s"),
            (300_000_000, "300ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (5_400_000_000_000, "1h30m0s"),
            (3_600_000_000_001, "1h0m0.000000001s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(format_go_duration(Duration::from_nanos(nanos)), text);
        }
    }

    proptest! {
        #[test]
        fn a_written_duration_reads_back(nanos in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_go_duration(&format_go_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_unwinds_the_reader(text in "[-+0-9.a-z\u{b5} ]{0,24}") {
            let _ = parse_go_duration(&text);
        }
    }
}
