//! When a job is due, worked out anew: [`Oracle`], for the schedules that workloads use.
//!
//! It shares nothing with the product but the time zone database and the look-up of a zone by its
//! name, and goes about it in another way: it tries second after second.
//!
//! **Left out on purpose**
//! - What a schedule with a restricted hour does where the clocks of its zone are changed. Such a
//!   schedule is judged as long as they are not, and not at all around a change.
//! - `~`, names of months and days, and the words beside `@every`, `@at` and `@manually`.

use std::time::Duration;

use cronclave::jobs::job::JobSpec;
use cronclave::schedule::parse_zone;
use cronclave::time::Wall;

/// How far ahead a match is looked for, in seconds: simulations are short.
const AHEAD_MAX: i64 = 40 * 86_400;

/// The offset of a zone changes at full quarters of an hour only.
const QUARTER: i64 = 900;

/// Around a change of the clocks a restricted hour is not judged for so long, in seconds.
const CHANGE_REACH: i64 = 86_400;

/// What an oracle knows of the next instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is this one.
    At(Wall),
    /// There is none, or none within [`AHEAD_MAX`].
    Never,
    /// It is not for this oracle to say.
    Unjudged,
}

/// When a job of one definition is due.
#[derive(Clone, Debug)]
pub(super) struct Oracle {
    rule: Rule,
    starts_at: Option<Wall>,
    expires_at: Option<Wall>,
}

#[derive(Clone, Debug)]
enum Rule {
    Every(Duration),
    At(Wall),
    Manually,
    Cron(Box<Cron>),
    Unknown,
}

#[derive(Clone, Debug)]
struct Cron {
    seconds: Vec<bool>,
    minutes: Vec<bool>,
    hours: Vec<bool>,
    days: Vec<bool>,
    months: Vec<bool>,
    weekdays: Vec<bool>,
    /// Whether day or weekday is a bare star: then both have to match, else either.
    has_star_day: bool,
    zone: Zone,
}

/// Gives the seconds by which the clocks of a zone are ahead of UTC.
#[derive(Clone, Debug)]
struct Zone {
    name: String,
}

impl Zone {
    fn offset(&self, secs: i64) -> i64 {
        if self.name.is_empty() || self.name == "UTC" {
            return 0;
        }
        let zone = parse_zone(&self.name).ok();
        let utc = Wall::from_secs(secs).to_utc();
        let shown = utc.zip(zone).map(|(utc, zone)| utc.with_timezone(&zone).naive_local());
        shown.map_or(0, |shown| shown.and_utc().timestamp() - secs)
    }
}

impl Oracle {
    /// Reads the definition; `cluster_zone` counts where it names no zone.
    pub(super) fn new(spec: &JobSpec, cluster_zone: &str) -> Self {
        let zone = if spec.timezone.is_empty() { cluster_zone } else { &spec.timezone };
        let rule = read_rule(spec.schedule.trim(), zone).unwrap_or(Rule::Unknown);
        Self { rule, starts_at: spec.starts_at, expires_at: spec.expires_at }
    }

    /// The first due instant after `after`, within the job's own bounds.
    pub(super) fn next(&self, after: Wall, anchor: Wall) -> Next {
        let start = self.starts_at.map(|at| at - Duration::from_micros(1));
        let after = start.map_or(after, |start| after.max(start));
        let next = match &self.rule {
            Rule::Every(step) => {
                let gone = after.saturating_since(anchor).as_micros();
                let steps = gone / step.as_micros() + 1;
                let ahead = u64::try_from(steps * step.as_micros()).unwrap_or(u64::MAX);
                Next::At(anchor + Duration::from_micros(ahead))
            }
            Rule::At(at) if *at > after => Next::At(*at),
            Rule::At(_) | Rule::Manually => Next::Never,
            Rule::Cron(cron) => cron.next(after),
            Rule::Unknown => Next::Unjudged,
        };
        match (next, self.expires_at) {
            (Next::At(at), Some(end)) if at > end => Next::Never,
            (next, _) => next,
        }
    }
}

fn read_rule(text: &str, zone: &str) -> Option<Rule> {
    let prefix = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ="));
    let (zone, text) = match prefix {
        Some(rest) => rest.split_once(' ')?,
        None => (zone, text),
    };
    let text = text.trim();
    if text == "@manually" {
        return Some(Rule::Manually);
    }
    if let Some(text) = text.strip_prefix("@every ") {
        return read_duration(text.trim()).map(Rule::Every);
    }
    if let Some(text) = text.strip_prefix("@at ") {
        return read_time(text.trim()).map(Rule::At);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [seconds, minutes, hours, days, months, weekdays] = fields[..] else { return None };
    let is_star = |field: &str| field == "*" || field == "?";
    Some(Rule::Cron(Box::new(Cron {
        seconds: read_field(seconds, 0, 59)?,
        minutes: read_field(minutes, 0, 59)?,
        hours: read_field(hours, 0, 23)?,
        days: read_field(days, 1, 31)?,
        months: read_field(months, 1, 12)?,
        weekdays: read_field(weekdays, 0, 6)?,
        has_star_day: is_star(days) || is_star(weekdays),
        zone: Zone { name: zone.to_owned() },
    })))
}

/// Go's notation in whole units: `90s`, `1m30s`, `1h`.
fn read_duration(text: &str) -> Option<Duration> {
    let (mut total, mut number) = (0_u64, None);
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            let more = number.unwrap_or(0_u64).checked_mul(10)?;
            number = Some(more.checked_add(u64::from(digit))?);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    (number.is_none() && total > 0).then(|| Duration::from_secs(total))
}

/// RFC 3339 with or without fractions of a second, in UTC or with an offset.
fn read_time(text: &str) -> Option<Wall> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let rest = text.get(19..)?;
    let digits = rest
        .strip_prefix('.')
        .map_or(0, |fraction| 1 + fraction.chars().take_while(char::is_ascii_digit).count());
    let (fraction, zone) = rest.split_at(digits);
    let mut micros = 0;
    for (place, digit) in fraction.chars().skip(1).take(6).enumerate() {
        let power = u32::try_from(5 - place).ok()?;
        micros += i64::from(digit.to_digit(10)?) * 10_i64.pow(power);
    }
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            sign * (hours.parse::<i64>().ok()? * 3_600 + minutes.parse::<i64>().ok()? * 60)
        }
    };
    let secs = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(Wall::from_micros((secs - offset) * 1_000_000 + micros))
}

/// The days from 1970-01-01 to a date of the Gregorian calendar.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have the leap day at their end.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// Stars, numbers, ranges, steps and lists of these.
fn read_field(text: &str, least: usize, greatest: usize) -> Option<Vec<bool>> {
    let mut matches = vec![false; greatest + 1];
    for item in text.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<usize>().ok()?)),
            None => (item, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (least, greatest),
            Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
            None => {
                let from = range.parse().ok()?;
                (from, if step.is_some() { greatest } else { from })
            }
        };
        if from < least || to > greatest || from > to {
            return None;
        }
        for number in (from..=to).step_by(step.unwrap_or(1).max(1)) {
            matches[number] = true;
        }
    }
    Some(matches)
}

impl Cron {
    fn next(&self, after: Wall) -> Next {
        let begin = after.as_secs() + 1;
        let mut secs = begin;
        while secs < begin + AHEAD_MAX {
            let quarter = (secs.div_euclid(QUARTER) + 1) * QUARTER;
            let offset = self.zone.offset(secs);
            if !self.may_match(secs + offset, quarter - secs) {
                secs = quarter;
                continue;
            }
            while secs < quarter {
                if self.is_match(secs + offset) {
                    return self.judged(begin, secs, offset);
                }
                secs += 1;
            }
        }
        Next::Never
    }

    /// A restricted hour where the clocks are changed follows other rules.
    fn judged(&self, begin: i64, found: i64, offset: i64) -> Next {
        let is_restricted = self.hours.contains(&false);
        let is_near = |secs: i64| self.zone.offset(secs) != offset;
        if is_restricted && (is_near(begin - CHANGE_REACH) || is_near(found + CHANGE_REACH)) {
            return Next::Unjudged;
        }
        Next::At(Wall::from_secs(found))
    }

    /// Whether any of the next `len` seconds may match, by the coarse fields.
    fn may_match(&self, shown: i64, len: i64) -> bool {
        let last = shown + len - 1;
        let hour = |shown: i64| usize::try_from(shown.rem_euclid(86_400) / 3_600).unwrap_or(0);
        let day = |shown: i64| self.is_day(shown.div_euclid(86_400));
        (self.hours[hour(shown)] && day(shown)) || (self.hours[hour(last)] && day(last))
    }

    fn is_match(&self, shown: i64) -> bool {
        let second = usize::try_from(shown.rem_euclid(60)).unwrap_or(0);
        if !self.seconds[second] {
            return false;
        }
        let minute = usize::try_from(shown.rem_euclid(3_600) / 60).unwrap_or(0);
        let hour = usize::try_from(shown.rem_euclid(86_400) / 3_600).unwrap_or(0);
        self.minutes[minute] && self.hours[hour] && self.is_day(shown.div_euclid(86_400))
    }

    fn is_day(&self, days: i64) -> bool {
        if self.days[1..].iter().chain(&self.months[1..]).chain(&self.weekdays).all(|it| *it) {
            return true;
        }
        let (month, day) = date_of(days);
        let weekday = usize::try_from((days + 4).rem_euclid(7)).unwrap_or(0);
        let (day, weekday) = (self.days[day], self.weekdays[weekday]);
        let is_day = if self.has_star_day { day && weekday } else { day || weekday };
        self.months[month] && is_day
    }
}

/// Month and day of a date.
fn date_of(days: i64) -> (usize, usize) {
    let mut year = 1970 + days.div_euclid(366);
    while days_since_1970(year + 1, 1, 1) <= days {
        year += 1;
    }
    let later = (2..=12).take_while(|month| days_since_1970(year, *month, 1) <= days);
    let month = later.last().unwrap_or(1);
    let day = days - days_since_1970(year, month, 1) + 1;
    (usize::try_from(month).unwrap_or(1), usize::try_from(day).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixtures::spec;

    /// 2026-11-23T02:00:00Z, a Monday.
    const BEGIN: i64 = 1_795_399_200;

    fn instants(schedule: &str, zone: &str, count: usize) -> Vec<i64> {
        let spec = JobSpec { timezone: zone.to_owned(), ..spec("a", schedule) };
        let oracle = Oracle::new(&spec, "UTC");
        let anchor = Wall::from_secs(BEGIN);
        let mut found = Vec::new();
        let mut after = anchor;
        while found.len() < count {
            let Next::At(at) = oracle.next(after, anchor) else { break };
            found.push(at.as_secs() - BEGIN);
            after = at;
        }
        found
    }

    #[test]
    fn schedules_of_the_workload_are_read() {
        assert_eq!(instants("@every 7s", "", 3), [7, 14, 21]);
        assert_eq!(instants("@every 1m30s", "", 2), [90, 180]);
        assert_eq!(instants("*/2 * * * * *", "", 3), [2, 4, 6]);
        assert_eq!(instants("0 * * * * *", "", 3), [60, 120, 180]);
        assert_eq!(instants("5,10-20/5 * * * * *", "", 4), [5, 10, 15, 20]);
        assert_eq!(instants("0 30 4 * * *", "UTC", 2), [9_000, 95_400]);
        assert_eq!(instants("0 30 4 * * *", "Europe/Berlin", 2), [5_400, 91_800]);
        assert_eq!(instants("0 0 * * * *", "Asia/Kolkata", 2), [1_800, 5_400]);
        assert_eq!(instants("TZ=Asia/Kolkata 0 0 * * * *", "", 1), [1_800]);
        assert_eq!(instants("0 0 3 * * 2", "", 1), [90_000]);
        assert_eq!(instants("@at 2026-11-23T02:00:05Z", "", 2), [5]);
        assert_eq!(instants("@at 2026-11-23T04:00:05.000+02:00", "", 2), [5]);
        assert_eq!(instants("@manually", "", 2), Vec::<i64>::new());
    }

    #[test]
    fn the_bounds_of_a_job_hold() {
        let at = |secs| Some(Wall::from_secs(BEGIN + secs));
        let spec = JobSpec { starts_at: at(20), expires_at: at(25), ..spec("a", "@every 5s") };
        let oracle = Oracle::new(&spec, "");
        let anchor = Wall::from_secs(BEGIN);
        let next = |secs| oracle.next(Wall::from_secs(BEGIN + secs), anchor);
        assert_eq!(next(0), Next::At(Wall::from_secs(BEGIN + 20)));
        assert_eq!(next(20), Next::At(Wall::from_secs(BEGIN + 25)));
        assert_eq!(next(25), Next::Never);
    }

    #[test]
    fn what_it_does_not_know_it_does_not_judge() {
        let unknown = Oracle::new(&spec("a", "~ * * * * *"), "");
        assert_eq!(unknown.next(Wall::EPOCH, Wall::EPOCH), Next::Unjudged);
        // 2026-03-29: Berlin leaps from 2 to 3 o'clock.
        let spec = JobSpec { timezone: "Europe/Berlin".to_owned(), ..spec("a", "0 30 2 * * *") };
        let eve = read_time("2026-03-28T12:00:00Z").unwrap();
        assert_eq!(Oracle::new(&spec, "").next(eve, eve), Next::Unjudged);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        assert_eq!(days_since_1970(2000, 2, 29), 11_016);
        assert_eq!(date_of(11_016), (2, 29));
        assert_eq!(date_of(0), (1, 1));
        assert_eq!(read_time("2026-11-23T02:00:00Z"), Some(Wall::from_secs(BEGIN)));
        assert_eq!(read_time("2026-11-23T02:00:00.25Z").unwrap().as_micros() % 1_000_000, 250_000);
    }

    #[test]
    fn it_agrees_with_the_product() {
        use cronclave::id::JobName;
        use cronclave::schedule::Schedule;
        let name = JobName::new("a").unwrap();
        let utc = parse_zone("UTC").unwrap();
        let schedules =
            ["*/2 * * * * *", "0 * * * * *", "15,45 */7 * * * *", "0 5 1-3 * * *", "@every 13s"];
        for (schedule, zone) in schedules.into_iter().zip(["", "Asia/Kathmandu", "", "UTC", ""]) {
            let theirs = Schedule::parse(schedule, zone, utc, &name).unwrap();
            let spec = JobSpec { timezone: zone.to_owned(), ..spec("a", schedule) };
            let ours = Oracle::new(&spec, "UTC");
            let anchor = Wall::from_micros(BEGIN * 1_000_000 + 37);
            let mut at = anchor;
            for _ in 0..300 {
                let next = theirs.next_after(at, anchor).unwrap();
                assert_eq!(ours.next(at, anchor), Next::At(next), "{schedule} after {at}");
                at = next;
            }
        }
    }
}
