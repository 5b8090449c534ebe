//! Which wall clock times an expression names: [`Fields`] handed over to the crate `cron`.
//!
//! `cron` counts weekdays from 1 and wants a day to be in both day sets, so the weekdays are
//! shifted, and an expression with two restricted day fields becomes two, of which the earlier
//! match counts. Times go in and out as [`Civil`], so `cron` never meets a time zone.

use chrono::{DateTime, Datelike, NaiveDateTime, Utc};

use super::ScheduleError;
use super::fields::{Days, Fields, Set};

/// What a clock on the wall shows: seconds since 1970-01-01T00:00:00 of that clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Civil(pub(super) i64);

impl Civil {
    /// The same as a `chrono` value; `None` outside its range of years.
    pub(super) fn to_naive(self) -> Option<NaiveDateTime> {
        DateTime::from_timestamp(self.0, 0).map(|time| time.naive_utc())
    }

    /// The year it shows; `None` outside chrono's range.
    pub(super) fn year(self) -> Option<i32> {
        self.to_naive().map(|time| time.year())
    }
}

/// The wall clock times of an expression. It knows the years 1970 to 2100.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Calendar {
    first: cron::Schedule,
    /// Only where a day may be in either day set.
    second: Option<cron::Schedule>,
}

impl Calendar {
    /// Hands `fields` over to `cron`.
    pub(super) fn new(fields: &Fields) -> Result<Self, ScheduleError> {
        let days = numbers(fields.days, 0, 31);
        let weekdays = numbers(fields.weekdays, 1, 7);
        Ok(match fields.day_rule {
            Days::Both => Self { first: translate(fields, &days, &weekdays)?, second: None },
            Days::Either => Self {
                first: translate(fields, &days, "*")?,
                second: Some(translate(fields, "*", &weekdays)?),
            },
        })
    }

    /// The first time strictly after `after`.
    pub(super) fn next_after(&self, after: Civil) -> Option<Civil> {
        let after: DateTime<Utc> = DateTime::from_timestamp(after.0, 0)?;
        let first = self.first.after(&after).next();
        let second = self.second.as_ref().and_then(|schedule| schedule.after(&after).next());
        [first, second].into_iter().flatten().min().map(|time| Civil(time.timestamp()))
    }
}

fn translate(fields: &Fields, days: &str, weekdays: &str) -> Result<cron::Schedule, ScheduleError> {
    let text = format!(
        "{} {} {} {days} {} {weekdays}",
        numbers(fields.seconds, 0, 60),
        numbers(fields.minutes, 0, 60),
        numbers(fields.hours, 0, 24),
        numbers(fields.months, 0, 12),
    );
    text.parse().map_err(|_| ScheduleError::Untranslatable(text))
}

/// The numbers of `set`, each raised by `shift`, or `*` if it holds all `count` of its field.
fn numbers(set: Set, shift: u32, count: u32) -> String {
    if set.count() == count {
        return "*".to_owned();
    }
    set.iter().map(|value| (value + shift).to_string()).collect::<Vec<_>>().join(",")
}
