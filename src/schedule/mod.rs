//! Schedules: a text becomes a [`Schedule`], and a schedule tells its next due instant.
//!
//! The syntax is Dkron's: six cron fields (seconds first), `@every 1h30m`, `@daily` and its kin,
//! `@at 2026-11-23T02:00:00Z`, `@manually`, with an optional `CRON_TZ=Zone ` or `TZ=Zone ` before
//! it. What Dkron gets wrong is right here: a job's zone counts for `@daily` too, `~/15` is every
//! 15 from where the job's name puts it, and a prefix without a space is an error.
//!
//! Where the clocks of the zone are changed, the hour field decides:
//! - **It is restricted** (`0 30 2 * * *`, `@daily`): the schedule names times that the clock on
//!   the wall reaches, and each is due once. A time that the clock leaps over is due at the
//!   instant of the leap, the first valid one; several of them fall together into one run there.
//!   A time that the clock shows twice is due when it first does. So `*/10 30 2 * * *` runs six
//!   times on an ordinary day, and once where 02:30 is skipped. Where a whole day is skipped
//!   (Apia, 2011-12-30), its times fall together at the midnight that follows.
//! - **It covers every hour** (`0 15 * * * *`, `@hourly`, `0-23`): the schedule names real time,
//!   and every instant at which the clock shows a match is due, so an hour that comes twice is
//!   two hours, and one that is skipped is none.
//!
//! **Invariants**
//! - [`Schedule::next_after`] is a function of its arguments and of the time zone database that is
//!   compiled in ([`TZ_VERSION`]); it reads no clock and no setting of the machine.
//! - Its result is strictly later than what it was asked for.
//! - `Display` gives a canonical text with the zone in it, which reads back to an equal schedule.
//!
//! **Left out on purpose**
//! - `L`, `W`, `#`, `H`, ranges that wrap around, a year field: Dkron has none of them.
//! - Whether a job is enabled, begins later or has expired: that is the job's business.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Datelike};
use chrono_tz::Tz;

use crate::id::JobName;
use crate::time::Wall;

mod calendar;
mod clock;
mod duration;
mod fields;
#[cfg(test)]
mod tests;

pub use clock::parse_zone;
pub use duration::{DurationError, GO_DURATION_NANOS_MAX, format_go_duration, parse_go_duration};
pub use fields::FieldProblem;

use calendar::{Calendar, Civil};
use clock::Clock;
use fields::Fields;

/// The version of the IANA time zone database that is compiled in.
pub const TZ_VERSION: &str = chrono_tz::IANA_TZDB_VERSION;

/// The longest schedule text in bytes. One that lists every number of each field has less than 600.
pub const SCHEDULE_LEN_MAX: usize = 2_048;

/// How many calendar years ahead a match is looked for, as in robfig/cron.
const SEARCH_YEARS_MAX: i32 = 5;

/// 1969-12-30T00:00:00Z: searches begin here at the earliest, since the calendar begins in 1970.
const SEARCH_START_SECS: i64 = -2 * 86_400;

/// 2101-01-02T00:00:00Z: beyond it the calendar has no years.
const SEARCH_END_SECS: i64 = 4_134_067_200;

/// When a job is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    /// By calendar and clock.
    Cron(Box<Cron>),
    /// Every so many seconds after the anchor, at least 1.
    Every { secs: u64 },
    /// Once.
    At(Wall),
    /// Only when a client asks.
    Manually,
}

/// Why a text is not a schedule. The wording is that of Dkron and robfig/cron where they have one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// There is no text.
    #[error("empty spec string")]
    Empty,
    /// The text is longer than [`SCHEDULE_LEN_MAX`].
    #[error("schedule has {0} bytes, at most {SCHEDULE_LEN_MAX} are allowed")]
    TooLong(usize),
    /// Not six fields.
    #[error("expected exactly 6 fields, found {found}: [{fields}]{hint}")]
    FieldCount {
        /// How many there are.
        found: usize,
        /// The fields.
        fields: String,
        /// What was probably meant, after a semicolon; or nothing.
        hint: String,
    },
    /// A field that cannot be read.
    #[error("{field}: {problem}: {item}; expected {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// The item of its list.
        item: String,
        /// What is wrong with it.
        problem: FieldProblem,
        /// The numbers and names that the field takes.
        expected: &'static str,
    },
    /// A word after `@` that is not known.
    #[error(
        "unrecognized descriptor: {0}; known are @yearly, @annually, @monthly, @weekly, @daily, \
         @midnight, @hourly, @minutely, @every <duration>, @at <RFC 3339 time>, @manually"
    )]
    Descriptor(String),
    /// `@every` with something else than a duration.
    #[error("failed to parse duration {text}: {error}; expected for example @every 1h30m")]
    Every {
        /// The whole text.
        text: String,
        /// What is wrong with the duration.
        error: DurationError,
    },
    /// `@at` with something else than a time.
    #[error("failed to parse date {text}: {reason}; expected for example @at 2026-11-23T02:00:00Z")]
    At {
        /// The whole text.
        text: String,
        /// What is wrong with the time.
        reason: String,
    },
    /// A time zone that is not in the database.
    #[error("provided bad location {name}: unknown time zone {name}{}", near_text(*.near))]
    UnknownZone {
        /// The name.
        name: String,
        /// One that is, and was probably meant.
        near: Option<&'static str>,
    },
    /// `TZ=` or `CRON_TZ=` with nothing after the zone.
    #[error("no schedule after the time zone in {0}; expected for example TZ=UTC 0 0 2 * * *")]
    ZoneAlone(String),
    /// The calendar refused what the fields accepted: a fault of this program.
    #[error("the calendar refuses {0}")]
    Untranslatable(String),
}

impl Schedule {
    /// Reads `text`. The zone is that of a `TZ=` or `CRON_TZ=` prefix, else `timezone` (the job's
    /// field), else, if that is empty, `default_zone` (the cluster's). `name` settles each `~`.
    ///
    /// # Errors
    /// If `text` is not a schedule, or one of the zones does not exist.
    pub fn parse(
        text: &str,
        timezone: &str,
        default_zone: Tz,
        name: &JobName,
    ) -> Result<Self, ScheduleError> {
        let form = Form::parse(text, timezone, default_zone, name)?;
        Ok(Self { rule: form.rule()? })
    }

    /// Whether [`Schedule::parse`] can read `text`, without the work of making ready to tell a next
    /// instant.
    ///
    /// # Errors
    /// If `text` is not a schedule, or one of the zones does not exist.
    pub fn check(
        text: &str,
        timezone: &str,
        default_zone: Tz,
        name: &JobName,
    ) -> Result<(), ScheduleError> {
        Form::parse(text, timezone, default_zone, name).map(drop)
    }

    /// The first due instant strictly after `after`; `None` if there is none, or none within five
    /// years, or none by 2100. `@every d` falls at `anchor` + k * d, k from 1; nothing else
    /// depends on the anchor.
    pub fn next_after(&self, after: Wall, anchor: Wall) -> Option<Wall> {
        match &self.rule {
            Rule::Cron(cron) => cron.next_after(after),
            Rule::Every { secs } => next_step(*secs, after, anchor),
            Rule::At(at) => Some(*at).filter(|at| *at > after),
            Rule::Manually => None,
        }
    }
}

/// What a text says, read and checked.
enum Form {
    Cron(Fields, Tz),
    Every { secs: u64 },
    At(Wall),
    Manually,
}

impl Form {
    fn parse(
        text: &str,
        timezone: &str,
        default_zone: Tz,
        name: &JobName,
    ) -> Result<Self, ScheduleError> {
        if text.len() > SCHEDULE_LEN_MAX {
            return Err(ScheduleError::TooLong(text.len()));
        }
        let (prefix, spec) = split_prefix(text.trim())?;
        // The field is checked even where the prefix wins, as Dkron does.
        let field = if timezone.is_empty() { default_zone } else { parse_zone(timezone)? };
        let zone = prefix.map_or(Ok(field), parse_zone)?;
        match spec.strip_prefix('@') {
            Some(_) => parse_descriptor(spec, zone, name),
            None if spec.is_empty() => Err(ScheduleError::Empty),
            None => Ok(Self::Cron(Fields::parse(spec, name)?, zone)),
        }
    }

    fn rule(self) -> Result<Rule, ScheduleError> {
        Ok(match self {
            Self::Cron(fields, zone) => {
                let calendar = Calendar::new(&fields)?;
                Rule::Cron(Box::new(Cron { fields, calendar, clock: Clock { zone } }))
            }
            Self::Every { secs } => Rule::Every { secs },
            Self::At(at) => Rule::At(at),
            Self::Manually => Rule::Manually,
        })
    }
}

/// The canonical text: `CRON_TZ=UTC 0 0 2 * * *`, `@every 1h30m0s`, `@at ...`, `@manually`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::Cron(cron) => write!(f, "CRON_TZ={} {}", cron.clock.zone.name(), cron.fields),
            Rule::Every { secs } => {
                write!(f, "@every {}", format_go_duration(Duration::from_secs(*secs)))
            }
            Rule::At(at) => write!(f, "@at {at}"),
            Rule::Manually => f.write_str("@manually"),
        }
    }
}

impl ScheduleError {
    fn field_count(parts: &[&str]) -> Self {
        let fields = parts.join(" ");
        // Five fields are nearly always the cron of other systems, which has no seconds.
        let hint = match parts.len() {
            5 => format!("; seconds come first: 0 {fields}"),
            _ => String::new(),
        };
        Self::FieldCount { found: parts.len(), fields, hint }
    }
}

/// Six fields on the clock of a zone.
#[derive(Clone, Debug, PartialEq)]
struct Cron {
    fields: Fields,
    calendar: Calendar,
    clock: Clock,
}

impl Cron {
    fn next_after(&self, after: Wall) -> Option<Wall> {
        let after = after.as_secs().max(SEARCH_START_SECS);
        if after > SEARCH_END_SECS {
            return None;
        }
        let next = if self.fields.is_every_hour() {
            self.next_real(after)
        } else {
            self.next_shown(after)
        };
        next.map(Wall::from_secs)
    }

    /// Each time that the clock reaches counts once.
    ///
    /// The instant at which the clock has first reached a time grows with that time, so the
    /// first match later than anything the clock has shown is the next.
    fn next_shown(&self, after: i64) -> Option<i64> {
        let mut shown = self.clock.latest_shown(after)?;
        let year_max = shown.year()? + SEARCH_YEARS_MAX;
        loop {
            shown = self.match_after(shown, year_max)?;
            let due = self.clock.reach(shown)?;
            // A match that was reached before counts no more. `latest_shown` has passed over these;
            // the check stands here so that no fault in a zone's data can give a due instant again.
            if due > after {
                return Some(due);
            }
        }
    }

    /// Each instant at which the clock shows a match counts: the search goes through the
    /// stretches between two changes of the offset, in which the clock runs evenly.
    fn next_real(&self, after: i64) -> Option<i64> {
        let mut start = after + 1;
        let year_max = self.clock.show(start)?.year()? + SEARCH_YEARS_MAX;
        loop {
            let shown = self.clock.show(start)?;
            let matched = self.match_after(Civil(shown.0 - 1), year_max)?;
            let due = start + (matched.0 - shown.0);
            match self.clock.next_change(start, due)? {
                Some(change) => start = change,
                None => return Some(due),
            }
        }
    }

    fn match_after(&self, shown: Civil, year_max: i32) -> Option<Civil> {
        let matched = self.calendar.next_after(shown)?;
        if matched.year()? > year_max { None } else { Some(matched) }
    }
}

/// The first of `anchor` + k * `secs`, k from 1, that is after `after`.
fn next_step(secs: u64, after: Wall, anchor: Wall) -> Option<Wall> {
    assert!(secs > 0, "@every is at least a second");
    let step = i128::from(secs) * 1_000_000;
    let gone = i128::from(after.as_micros()) - i128::from(anchor.as_micros());
    let steps = if gone < step { 1 } else { gone / step + 1 };
    let due = i128::from(anchor.as_micros()) + steps * step;
    i64::try_from(due).ok().map(Wall::from_micros)
}

/// Cuts a `TZ=Zone ` or `CRON_TZ=Zone ` off the front.
fn split_prefix(text: &str) -> Result<(Option<&str>, &str), ScheduleError> {
    let Some(rest) = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) else {
        return Ok((None, text));
    };
    let Some((zone, spec)) = rest.split_once(char::is_whitespace) else {
        return Err(ScheduleError::ZoneAlone(text.to_owned()));
    };
    Ok((Some(zone), spec.trim_start()))
}

fn parse_descriptor(spec: &str, zone: Tz, name: &JobName) -> Result<Form, ScheduleError> {
    let cron = |fields: &str| Ok(Form::Cron(Fields::parse(fields, name)?, zone));
    match spec {
        "@yearly" | "@annually" => cron("0 0 0 1 1 *"),
        "@monthly" => cron("0 0 0 1 * *"),
        "@weekly" => cron("0 0 0 * * 0"),
        "@daily" | "@midnight" => cron("0 0 0 * * *"),
        "@hourly" => cron("0 0 * * * *"),
        "@minutely" => cron("0 * * * * *"),
        "@manually" => Ok(Form::Manually),
        _ => match spec.split_once(char::is_whitespace) {
            Some(("@every", rest)) => parse_every(spec, rest.trim()),
            Some(("@at", rest)) => parse_at(spec, rest.trim()),
            Some(_) | None => Err(ScheduleError::Descriptor(spec.to_owned())),
        },
    }
}

fn parse_every(spec: &str, text: &str) -> Result<Form, ScheduleError> {
    match parse_go_duration(text) {
        Ok(duration) => Ok(Form::Every { secs: duration.as_secs().max(1) }),
        Err(error) => Err(ScheduleError::Every { text: spec.to_owned(), error }),
    }
}

fn parse_at(spec: &str, text: &str) -> Result<Form, ScheduleError> {
    let refuse = |reason: String| ScheduleError::At { text: spec.to_owned(), reason };
    let time = DateTime::parse_from_rfc3339(text).map_err(|error| refuse(error.to_string()))?;
    // The offset may carry a time out of the four-digit years, which RFC 3339 could not write.
    if !(0..=9_999).contains(&time.to_utc().year()) {
        return Err(refuse("the year in UTC has to have four digits".to_owned()));
    }
    Ok(Form::At(Wall::from_utc(&time)))
}

fn near_text(near: Option<&'static str>) -> String {
    near.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}
