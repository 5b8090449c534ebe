//! The six fields of a cron expression, read into one set of numbers each.
//!
//! The syntax is that of robfig/cron v3, which Dkron uses: a comma list of `*`, `?`, `a`, `a-b`,
//! each with an optional `/step`, where `a/step` means `a-max/step`. On top of it stands `~`, a
//! number that depends on the job's name, so that jobs do not all start in the same second.
//!
//! **Invariants**
//! - A set is never empty and holds only numbers of its field's range.
//! - Two texts that mean the same instants in every zone give equal [`Fields`], but for the rare
//!   pair whose day sets differ and yet agree.
//! - `Display` gives the shortest text of this syntax, and it reads back to equal [`Fields`].

use std::fmt;

use crate::id::JobName;

use super::ScheduleError;

/// One field's place: its name, range, names for numbers, and how many values `~` spreads over.
#[derive(Debug)]
pub(super) struct Unit {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
    /// Dkron spreads days over 28, so that `~` names a day that every month has.
    spread: u32,
    hint: &'static str,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const SECOND: Unit = Unit { name: "second", min: 0, max: 59, names: &[], spread: 60, hint: "0-59" };
const MINUTE: Unit = Unit { name: "minute", min: 0, max: 59, names: &[], spread: 60, hint: "0-59" };
const HOUR: Unit = Unit { name: "hour", min: 0, max: 23, names: &[], spread: 24, hint: "0-23" };
const DAY: Unit =
    Unit { name: "day of month", min: 1, max: 31, names: &[], spread: 28, hint: "1-31" };
const MONTH: Unit =
    Unit { name: "month", min: 1, max: 12, names: &MONTHS, spread: 12, hint: "1-12 or jan-dec" };
const WEEKDAY: Unit = Unit {
    name: "day of week",
    min: 0,
    max: 6,
    names: &WEEKDAYS,
    spread: 7,
    hint: "0-6 or sun-sat, Sunday is 0",
};

/// How many fields an expression has.
const FIELD_COUNT: usize = 6;

/// What is wrong with a field. The wording is robfig/cron's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldProblem {
    /// Nothing between the commas.
    #[error("empty list")]
    Empty,
    /// More than one `-`.
    #[error("too many hyphens")]
    TooManyHyphens,
    /// More than one `/`.
    #[error("too many slashes")]
    TooManySlashes,
    /// Neither a number nor one of the field's names.
    #[error("failed to parse int from {0}")]
    NotANumber(String),
    /// The first number is too small.
    #[error("beginning of range ({start}) below minimum ({min})")]
    BelowMinimum {
        /// The number.
        start: u32,
        /// The least one allowed.
        min: u32,
    },
    /// The last number is too great.
    #[error("end of range ({end}) above maximum ({max})")]
    AboveMaximum {
        /// The number.
        end: u32,
        /// The greatest one allowed.
        max: u32,
    },
    /// The range runs backwards; ranges do not wrap around.
    #[error("beginning of range ({start}) beyond end of range ({end})")]
    Reversed {
        /// Its first number.
        start: u32,
        /// Its last number.
        end: u32,
    },
    /// A step of 0.
    #[error("step of range should be a positive number")]
    ZeroStep,
}

/// How the two day fields go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Days {
    /// One of them is `*` or `?`: a day has to be in both sets.
    Both,
    /// Both are restricted: a day has to be in one of them. `*/2` is a restriction, as in robfig.
    Either,
}

/// A set of small numbers, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    /// The numbers in ascending order.
    pub(super) fn iter(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |&value| self.0 >> value & 1 == 1)
    }

    /// How many numbers are in it.
    pub(super) fn count(self) -> u32 {
        self.0.count_ones()
    }

    fn full(unit: &Unit) -> Self {
        Self::stepped(unit.min, unit.max, 1)
    }

    /// `start`, `start + step`, ... up to `end`, which is below 64.
    fn stepped(start: u32, end: u32, step: u32) -> Self {
        assert!(end < u64::BITS, "field values are below 64");
        assert!(step > 0, "steps are positive");
        let stride = usize::try_from(step).unwrap_or(usize::MAX);
        Self((start..=end).step_by(stride).fold(0, |bits, value| bits | 1 << value))
    }
}

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) seconds: Set,
    pub(super) minutes: Set,
    pub(super) hours: Set,
    pub(super) days: Set,
    pub(super) months: Set,
    /// From 0, which is Sunday.
    pub(super) weekdays: Set,
    pub(super) day_rule: Days,
}

impl Fields {
    /// Reads six fields; `name` settles each `~`.
    pub(super) fn parse(text: &str, name: &JobName) -> Result<Self, ScheduleError> {
        let parts = text.split_whitespace().collect::<Vec<_>>();
        let &[second, minute, hour, day, month, weekday] = parts.as_slice() else {
            return Err(ScheduleError::field_count(&parts));
        };
        let hash = Hash::of(name);
        let read = |unit: &Unit, text: &str| {
            parse_list(unit, text, hash).map_err(|(item, problem)| ScheduleError::Field {
                field: unit.name,
                item,
                problem,
                expected: unit.hint,
            })
        };
        let days = read(&DAY, day)?;
        let weekdays = read(&WEEKDAY, weekday)?;
        let star = days.star == Star::Yes || weekdays.star == Star::Yes;
        Ok(Self {
            seconds: read(&SECOND, second)?.set,
            minutes: read(&MINUTE, minute)?.set,
            hours: read(&HOUR, hour)?.set,
            days: days.set,
            months: read(&MONTH, month)?.set,
            weekdays: weekdays.set,
            day_rule: if star { Days::Both } else { Days::Either },
        })
    }

    /// Whether every hour of the day is in the set, so that real time counts and not the clock's.
    pub(super) fn is_every_hour(&self) -> bool {
        self.hours == Set::full(&HOUR)
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |unit: &Unit, set: Set| {
            if set == Set::full(unit) { "*".to_owned() } else { list_text(unit, set) }
        };
        // Where both are restricted, a full set written `*` would change the rule.
        let day = |unit: &Unit, set: Set| match self.day_rule {
            Days::Both => plain(unit, set),
            Days::Either => list_text(unit, set),
        };
        let texts: [String; FIELD_COUNT] = [
            plain(&SECOND, self.seconds),
            plain(&MINUTE, self.minutes),
            plain(&HOUR, self.hours),
            day(&DAY, self.days),
            plain(&MONTH, self.months),
            day(&WEEKDAY, self.weekdays),
        ];
        f.write_str(&texts.join(" "))
    }
}

/// What `~` is derived from: the sum of the name's code points, as in Dkron.
#[derive(Clone, Copy)]
struct Hash(u32);

impl Hash {
    fn of(name: &JobName) -> Self {
        Self(name.as_str().chars().fold(0, |sum, c| sum.wrapping_add(u32::from(c))))
    }
}

/// Whether a list has `*` in it, which makes a day field no restriction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Star {
    Yes,
    No,
}

struct Field {
    set: Set,
    star: Star,
}

type Problem = (String, FieldProblem);

fn parse_list(unit: &Unit, text: &str, hash: Hash) -> Result<Field, Problem> {
    let mut field = Field { set: Set(0), star: Star::No };
    // robfig skips empty items, so a trailing comma is no error.
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let part = parse_item(unit, item, hash).map_err(|problem| (item.to_owned(), problem))?;
        field.set.0 |= part.set.0;
        if part.star == Star::Yes {
            field.star = Star::Yes;
        }
    }
    if field.set.0 == 0 {
        return Err((text.to_owned(), FieldProblem::Empty));
    }
    Ok(field)
}

fn parse_item(unit: &Unit, item: &str, hash: Hash) -> Result<Field, FieldProblem> {
    let (range, step_text) = split_pair(item, '/').ok_or(FieldProblem::TooManySlashes)?;
    let step = step_text.map(parse_number).transpose()?;
    if step == Some(0) {
        return Err(FieldProblem::ZeroStep);
    }
    let stride = step.unwrap_or(1);
    if range == "*" || range == "?" {
        let star = if stride == 1 { Star::Yes } else { Star::No };
        return Ok(Field { set: Set::stepped(unit.min, unit.max, stride), star });
    }
    let (low, high) = split_pair(range, '-').ok_or(FieldProblem::TooManyHyphens)?;
    let (start, end) = match (low, high, step) {
        // Dkron takes the number that `~` alone gives, so `~/15` becomes `47/15`: once an hour.
        // The text asks for every 15, and the name settles only where they begin.
        ("~", None, Some(step)) => (unit.min + hash.0 % step.min(unit.spread), unit.max),
        (low, None, Some(_)) => (parse_value(unit, low, hash)?, unit.max),
        (low, None, None) => {
            let value = parse_value(unit, low, hash)?;
            (value, value)
        }
        (low, Some(high), _) => (parse_value(unit, low, hash)?, parse_value(unit, high, hash)?),
    };
    check_range(unit, start, end)?;
    Ok(Field { set: Set::stepped(start, end, stride), star: Star::No })
}

fn check_range(unit: &Unit, start: u32, end: u32) -> Result<(), FieldProblem> {
    if start < unit.min {
        return Err(FieldProblem::BelowMinimum { start, min: unit.min });
    }
    if end > unit.max {
        return Err(FieldProblem::AboveMaximum { end, max: unit.max });
    }
    if end < start {
        return Err(FieldProblem::Reversed { start, end });
    }
    Ok(())
}

/// Cuts `text` at its one `separator`, if there is one; `None` if there are more.
fn split_pair(text: &str, separator: char) -> Option<(&str, Option<&str>)> {
    let mut parts = text.split(separator);
    let first = parts.next()?;
    let second = parts.next();
    if parts.next().is_some() { None } else { Some((first, second)) }
}

fn parse_value(unit: &Unit, text: &str, hash: Hash) -> Result<u32, FieldProblem> {
    if text == "~" {
        return Ok(unit.min + hash.0 % unit.spread);
    }
    match unit.names.iter().zip(unit.min..).find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        Some((_, value)) => Ok(value),
        None => parse_number(text),
    }
}

fn parse_number(text: &str) -> Result<u32, FieldProblem> {
    // `u32::from_str` would take a plus sign too.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.ok_or_else(|| FieldProblem::NotANumber(text.to_owned()))
}

/// The shortest list of this syntax that gives `set`, without the star.
fn list_text(unit: &Unit, set: Set) -> String {
    let values = set.iter().collect::<Vec<_>>();
    if let Some(text) = progression_text(unit, &values) {
        return text;
    }
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &value in &values {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == value => *last = value,
            Some(_) | None => runs.push((value, value)),
        }
    }
    let text = |&(first, last): &(u32, u32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        2.. => format!("{first}-{last}"),
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

/// `*/s`, `a/s` or `a-b/s`, if `values` are three or more numbers at one distance above 1.
fn progression_text(unit: &Unit, values: &[u32]) -> Option<String> {
    let &[first, second, _, ..] = values else {
        return None;
    };
    let last = *values.last()?;
    let step = second - first;
    if step < 2 || values.windows(2).any(|pair| pair[1] - pair[0] != step) {
        return None;
    }
    Some(if last + step <= unit.max {
        format!("{first}-{last}/{step}")
    } else if first == unit.min {
        format!("*/{step}")
    } else {
        format!("{first}/{step}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code points sum to 97 + 98 + 99 = 294: 54 modulo 60, 6 of 24, 14 of 28, 6 of 12, 0 of 7.
    fn name() -> JobName {
        JobName::new("abc").unwrap()
    }

    fn parse(text: &str) -> Result<Fields, ScheduleError> {
        Fields::parse(text, &name())
    }

    fn check(text: &str, canonical: &str) {
        let fields = parse(text).unwrap();
        assert_eq!(fields.to_string(), canonical, "{text}");
        assert_eq!(parse(canonical).unwrap(), fields, "{text}");
    }

    #[test]
    fn expressions_have_one_canonical_text() {
        check("0 30 2 * * *", "0 30 2 * * *");
        check("? ? ? ? ? ?", "* * * * * *");
        check("0-59 00 0-23 1-31 1-12 *", "* 0 * * * *");
        check("*/15 5,10,15 8-18/2 1-7 JAN,Feb-apr mon-FRI", "*/15 5-15/5 8-18/2 1-7 1-4 1-5");
        check("0 0 0 1,2,5-9, * *", "0 0 0 1,2,5-9 * *");
        check("50/5 0 12/100 * dec 5/2", "50,55 0 12 * 12 5");
        check("0 0 0 * * */1", "0 0 0 * * *");
    }

    #[test]
    fn a_step_on_a_star_is_a_restriction_and_a_full_range_is_one_too() {
        check("0 0 0 */2 * 1", "0 0 0 */2 * 1");
        assert_eq!(parse("0 0 0 */2 * 1").unwrap().day_rule, Days::Either);
        check("0 0 0 1-31 * 1", "0 0 0 1-31 * 1");
        assert_eq!(parse("0 0 0 1-31 * 1").unwrap().day_rule, Days::Either);
        check("0 0 0 1,* * 1", "0 0 0 * * 1");
        assert_eq!(parse("0 0 0 ? * 1").unwrap().day_rule, Days::Both);
    }

    #[test]
    fn the_tilde_takes_its_number_from_the_name() {
        check("~ ~ ~ ~ ~ ~", "54 54 6 15 7 0");
        check("0 ~/15 * * * *", "0 9/15 * * * *");
        check("0 0 ~/5 * * *", "0 0 4/5 * * *");
        check("0 0 0 ~/10 * *", "0 0 0 5/10 * *");
        check("0 ~/100 ~-8 * * *", "0 54 6-8 * * *");
        check("0 0 0 * * ~/1", "0 0 0 * * *");
    }

    #[test]
    fn errors_name_the_field_the_value_and_what_would_be_right() {
        let cases = [
            ("60 * * * * *", "second: end of range (60) above maximum (59): 60; expected 0-59"),
            ("* 5-70 * * * *", "minute: end of range (70) above maximum (59): 5-70; expected 0-59"),
            ("* * x * * *", "hour: failed to parse int from x: x; expected 0-23"),
            (
                "* * * 0 * *",
                "day of month: beginning of range (0) below minimum (1): 0; \
                expected 1-31",
            ),
            (
                "* * * * 5-2 *",
                "month: beginning of range (5) beyond end of range (2): 5-2; \
                expected 1-12 or jan-dec",
            ),
            (
                "* * * * * 7",
                "day of week: end of range (7) above maximum (6): 7; \
                expected 0-6 or sun-sat, Sunday is 0",
            ),
            (
                "* */0 * * * *",
                "minute: step of range should be a positive number: */0; \
                expected 0-59",
            ),
            ("* 1/2/3 * * * *", "minute: too many slashes: 1/2/3; expected 0-59"),
            ("* 1-2-3 * * * *", "minute: too many hyphens: 1-2-3; expected 0-59"),
            (", * * * * *", "second: empty list: ,; expected 0-59"),
            (
                "0 0 2 * *",
                "expected exactly 6 fields, found 5: [0 0 2 * *]; \
                seconds come first: 0 0 0 2 * *",
            ),
            ("0 0 0 0 2 * *", "expected exactly 6 fields, found 7: [0 0 0 0 2 * *]"),
        ];
        for (text, message) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn what_other_crons_add_is_refused() {
        for field in ["L", "15W", "1#2", "H", "+5", "-5", "5-", "fri-mon", "*-5", "1/", "tuesday"] {
            for place in 0..FIELD_COUNT {
                let mut parts = ["*"; FIELD_COUNT];
                parts[place] = field;
                assert!(parse(&parts.join(" ")).is_err(), "{field} in place {place}");
            }
        }
    }
}
