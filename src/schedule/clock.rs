//! The clock on the wall of a time zone: it leaps forward, and it goes back.
//!
//! Instants are seconds since the Unix epoch, wall clock times are [`Civil`].
//!
//! **Left out on purpose**
//! - Leap seconds: neither Unix time nor the zones know them.

use chrono::{LocalResult, Offset, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};

use super::ScheduleError;
use super::calendar::Civil;

/// How far apart the zone is probed for a change of its offset. Two changes that cancel each other
/// are never closer: in the database the closest since 1970 are almost seven days apart.
const PROBE_SECS: i64 = 86_400;

/// No offset from UTC is greater: the widest since 1970 are -12 h and +14 h.
const OFFSET_SECS_MAX: i64 = 16 * 3_600;

/// Finds a time zone of the IANA database by its name.
///
/// # Errors
/// If there is none of that name; the error proposes one that differs only in case or lacks its
/// region.
pub fn parse_zone(name: &str) -> Result<Tz, ScheduleError> {
    if let Ok(zone) = name.parse() {
        return Ok(zone);
    }
    let near = |zone: &&Tz| {
        let full = zone.name();
        let city = full.rsplit('/').next().unwrap_or(full);
        full.eq_ignore_ascii_case(name) || city.eq_ignore_ascii_case(name)
    };
    let near = TZ_VARIANTS.iter().find(near).map(|zone| zone.name());
    Err(ScheduleError::UnknownZone { name: name.to_owned(), near })
}

/// The clock of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    pub(super) zone: Tz,
}

impl Clock {
    /// What it shows at the instant `at`.
    pub(super) fn show(self, at: i64) -> Option<Civil> {
        Some(Civil(at + self.offset(at)?))
    }

    /// The latest time that it has shown up to the instant `at`: where it was set back shortly
    /// before, later than what it shows.
    pub(super) fn latest_shown(self, at: i64) -> Option<Civil> {
        let shown = self.show(at)?;
        match self.zone.offset_from_local_datetime(&shown.to_naive()?) {
            LocalResult::Ambiguous(first, _) => {
                let first = shown.0 - seconds(&first);
                if first >= at {
                    return Some(shown);
                }
                let change = self.next_change(first, at)?.unwrap_or(at);
                Some(self.show(change - 1)?.max(shown))
            }
            LocalResult::Single(_) | LocalResult::None => Some(shown),
        }
    }

    /// The first instant at which it has reached `civil`: where it leaps over `civil`, the instant
    /// of the leap.
    pub(super) fn reach(self, civil: Civil) -> Option<i64> {
        match self.zone.offset_from_local_datetime(&civil.to_naive()?) {
            LocalResult::Single(offset) | LocalResult::Ambiguous(offset, _) => {
                Some(civil.0 - seconds(&offset))
            }
            LocalResult::None => {
                let (mut before, mut reached) =
                    (civil.0 - OFFSET_SECS_MAX, civil.0 + OFFSET_SECS_MAX);
                while reached - before > 1 {
                    let middle = before + (reached - before) / 2;
                    if self.show(middle)? < civil {
                        before = middle;
                    } else {
                        reached = middle;
                    }
                }
                Some(reached)
            }
        }
    }

    /// The first instant after `from`, at most `to`, whose offset is not that of `from`; the outer
    /// `None` stands for instants outside chrono's range.
    pub(super) fn next_change(self, from: i64, to: i64) -> Option<Option<i64>> {
        let offset = self.offset(from)?;
        let mut same = from;
        while same < to {
            let mut other = (same + PROBE_SECS).min(to);
            if self.offset(other)? == offset {
                same = other;
                continue;
            }
            while other - same > 1 {
                let middle = same + (other - same) / 2;
                if self.offset(middle)? == offset {
                    same = middle;
                } else {
                    other = middle;
                }
            }
            return Some(Some(other));
        }
        Some(None)
    }

    fn offset(self, at: i64) -> Option<i64> {
        let time = chrono::DateTime::from_timestamp(at, 0)?;
        Some(seconds(&self.zone.offset_from_utc_datetime(&time.naive_utc())))
    }
}

fn seconds(offset: &impl Offset) -> i64 {
    i64::from(offset.fix().local_minus_utc())
}
