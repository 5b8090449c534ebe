//! From when until when each fault of a plan holds, and on which machines, read from its lines.
//!
//! A line is `[t=SECONDS] KIND WORDS...`, as plans have it. How it is read:
//!
//! - A kind that is, or is put together with `-` from, a word of [`LASTING`] holds until it is
//!   mended or the run ends: `partition n1 n2 | n3`, `slow-disk n2`. Any other is over at once:
//!   `crash n3 torn`.
//! - `for=SECONDS` (or `for=200ms`, `for=2.5s`) and `until=SECONDS` say how long, for any kind.
//! - `end KIND ...`, `KIND ... ends`, `KIND ... over` and `KIND ... off` mend the open faults of
//!   that kind that touch a machine that the line touches. So does a word of [`MENDERS`] to the
//!   kinds beside it: `heal` ends partitions and whatever else befalls links, `resume` a pause.
//! - A fault touches its machine and those that its line names; the side of a machine is the
//!   number of `|` before its name. One that touches none befalls the whole cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use cronclave::time::Mono;

use super::telling::{name, without_time};
use super::{Moment, Story, What};

/// Kinds that hold until they are mended.
const LASTING: [&str; 31] = [
    "bridge",
    "chain",
    "clog",
    "cut",
    "delay",
    "disk",
    "drift",
    "drop",
    "duplicate",
    "fail",
    "failing",
    "full",
    "hang",
    "hung",
    "isolate",
    "jitter",
    "latency",
    "leader",
    "loss",
    "lose",
    "minority",
    "mixed",
    "oneway",
    "partition",
    "pause",
    "reorder",
    "skew",
    "slow",
    "star",
    "swizzle",
    "throttle",
];

/// Kinds that a word of [`LASTING`] does not make lasting: they change a disk, and are done.
const AT_ONCE: [&str; 9] =
    ["crash", "kill", "restart", "wipe", "rot", "jump", "old", "transfer", "torn"];

/// What befalls links, unless a word of [`STORAGE`] stands beside it.
const LINKS: [&str; 22] = [
    "bridge",
    "chain",
    "clog",
    "cut",
    "delay",
    "drop",
    "duplicate",
    "hang",
    "isolate",
    "jitter",
    "latency",
    "leader",
    "link",
    "loss",
    "lose",
    "minority",
    "oneway",
    "partition",
    "reorder",
    "slow",
    "star",
    "swizzle",
];

/// What has nothing to do with links.
const STORAGE: [&str; 5] = ["disk", "sync", "fsync", "read", "write"];

/// Words that mend, and the kinds that they mend.
const MENDERS: [(&str, &[&str]); 8] = [
    ("heal", &LINKS),
    ("mend", &LINKS),
    ("reconnect", &LINKS),
    ("restore", &LINKS),
    ("unclog", &["clog"]),
    ("resume", &["pause"]),
    ("continue", &["pause"]),
    ("free", &["full"]),
];

/// A line of the plan that befell something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The line, without its time and with its machine.
    pub(super) label: String,
    /// Since when.
    pub(super) from: Mono,
    /// Until when it holds.
    pub(super) until: Until,
    /// The machines that it touches, each with its side; empty for the whole cluster.
    pub(super) touched: BTreeMap<usize, usize>,
    /// The line that mended it.
    pub(super) mended_by: Option<String>,
}

/// Until when a fault holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// It was over at once.
    AtOnce,
    /// Until then.
    Then(Mono),
    /// It was never mended.
    Open,
}

impl Fault {
    /// Whether it holds at `at`.
    pub(super) fn holds(&self, at: Mono) -> bool {
        let over = match self.until {
            Until::AtOnce => true,
            Until::Then(until) => at >= until,
            Until::Open => false,
        };
        self.from <= at && !over
    }
}

/// All faults of a story, in order.
pub(super) fn faults(story: &Story) -> Vec<Fault> {
    let mut faults: Vec<(String, Fault)> = Vec::new();
    for moment in &story.moments {
        let What::Fault(line) = &moment.what else { continue };
        let line = without_time(line);
        let touched = touched(&story.hosts, moment.host, line);
        let mended = mend(&mut faults, moment.at, line, &touched);
        if !mended {
            faults.push(begin(story, moment, line, touched));
        }
    }
    faults.into_iter().map(|(_, fault)| fault).collect()
}

/// Whether a line names a machine.
pub(super) fn names(hosts: &[String], line: &str, host: usize) -> bool {
    machines(hosts, line).any(|(named, _)| named == host)
}

/// A fault that begins, with its kind.
fn begin(
    story: &Story,
    moment: &Moment,
    line: &str,
    touched: BTreeMap<usize, usize>,
) -> (String, Fault) {
    let kind = line.split_whitespace().next().unwrap_or_default().to_owned();
    let label = match moment.host {
        Some(host) if !names(&story.hosts, line, host) => {
            format!("{}: {line}", name(&story.hosts, host))
        }
        Some(_) | None => line.to_owned(),
    };
    let until = match (stated_end(moment.at, line), is_lasting(&kind)) {
        (Some(until), _) => Until::Then(until),
        (None, true) => Until::Open,
        (None, false) => Until::AtOnce,
    };
    (kind, Fault { label, from: moment.at, until, touched, mended_by: None })
}

/// Ends the faults that `line` mends. Says whether there were any.
fn mend(
    faults: &mut [(String, Fault)],
    at: Mono,
    line: &str,
    touched: &BTreeMap<usize, usize>,
) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return false };
    let ended = match (*first, *last) {
        ("end", _) => words.get(1).copied(),
        (kind, "ends" | "over" | "off" | "ended") => Some(kind),
        _ => None,
    };
    let (mut any, mut once) = (false, false);
    for (kind, fault) in faults.iter_mut().rev() {
        let is_open = match fault.until {
            Until::Open => true,
            Until::Then(until) => until > at,
            // Of those that seemed to be over at once an end makes the latest a span.
            Until::AtOnce => ended.is_some() && !once,
        };
        let meets = touched.is_empty()
            || fault.touched.is_empty()
            || touched.keys().any(|host| fault.touched.contains_key(host));
        let named = ended.map_or_else(|| mends(first, kind), |ended| ended == kind);
        if is_open && meets && named {
            once |= fault.until == Until::AtOnce;
            fault.until = Until::Then(at);
            fault.mended_by = Some(line.to_owned());
            any = true;
        }
    }
    any
}

/// Whether a word mends faults of a kind.
fn mends(word: &str, kind: &str) -> bool {
    let Some((_, kinds)) = MENDERS.iter().find(|(mender, _)| *mender == word) else {
        return false;
    };
    let is_storage = *kinds == LINKS && parts(kind).any(|part| STORAGE.contains(&part));
    !is_storage && parts(kind).any(|part| kinds.contains(&part))
}

fn is_lasting(kind: &str) -> bool {
    let any = |listed: &[&str]| parts(kind).any(|part| listed.contains(&part));
    any(&LASTING) && !any(&AT_ONCE)
}

/// The words that a kind is put together from.
fn parts(kind: &str) -> impl Iterator<Item = &str> {
    kind.split(['-', '_']).chain([kind])
}

/// When a line says that it is over.
fn stated_end(at: Mono, line: &str) -> Option<Mono> {
    line.split_whitespace().find_map(|word| match word.split_once('=')? {
        ("for", length) => duration(length).map(|length| at + length),
        ("until", end) => duration(end).map(|end| Mono::ZERO + end),
        _ => None,
    })
}

/// Seconds, or what its unit says: `2.5`, `2.5s`, `200ms`, `90us`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1_000.0)
    } else if let Some(number) = text.strip_suffix("us") {
        (number, 1_000_000.0)
    } else {
        (text.strip_suffix('s').unwrap_or(text), 1.0)
    };
    let number: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(number / unit).ok()
}

/// The machines that a line touches, each with its side.
fn touched(hosts: &[String], host: Option<usize>, line: &str) -> BTreeMap<usize, usize> {
    let mut touched: BTreeMap<usize, usize> = machines(hosts, line).collect();
    if let Some(host) = host {
        touched.entry(host).or_default();
    }
    touched
}

/// The machines that a line names, each with the number of `|` before it.
fn machines<'a>(hosts: &'a [String], line: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
    line.split('|').enumerate().flat_map(move |(side, part)| {
        let inside = |c: char| c.is_alphanumeric() || ['-', '_', '.'].contains(&c);
        let words = part.split(move |c| !inside(c));
        words.filter_map(move |word| {
            let word = word.trim_matches('-');
            Some((hosts.iter().position(|host| host == word)?, side))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[(u64, Option<usize>, &str)]) -> Vec<Fault> {
        let moment = |(secs, host, line): &(u64, Option<usize>, &str)| Moment {
            at: Mono::from_micros(secs * 1_000_000),
            host: *host,
            what: What::Fault((*line).to_owned()),
        };
        let hosts = ["n1", "n2", "n3", "a1"].map(str::to_owned).to_vec();
        let moments = lines.iter().map(moment).collect();
        faults(&Story { hosts, servers: 3, options: Vec::new(), moments })
    }

    fn then(secs: u64) -> Until {
        Until::Then(Mono::from_micros(secs * 1_000_000))
    }

    #[test]
    fn a_partition_holds_until_it_is_healed_and_has_sides() {
        let faults = read(&[(1, None, "t=1.000 partition n1,n2|n3"), (4, None, "heal")]);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].label, "partition n1,n2|n3");
        assert_eq!(faults[0].until, then(4));
        assert_eq!(faults[0].touched, BTreeMap::from([(0, 0), (1, 0), (2, 1)]));
        assert_eq!(faults[0].mended_by.as_deref(), Some("heal"));
        assert!(!faults[0].holds(Mono::ZERO));
        assert!(faults[0].holds(Mono::from_micros(1_000_000)));
        assert!(!faults[0].holds(Mono::from_micros(4_000_000)));
    }

    #[test]
    fn an_end_mends_its_kind_on_its_machine_only() {
        let faults = read(&[
            (1, Some(0), "pause"),
            (1, Some(1), "pause"),
            (2, Some(2), "slow-disk 80ms"),
            (3, Some(0), "resume"),
            (4, None, "end slow-disk n3"),
        ]);
        let until: Vec<Until> = faults.iter().map(|fault| fault.until).collect();
        assert_eq!(until, [then(3), Until::Open, then(4)]);
        assert_eq!(faults[0].label, "n1: pause");
    }

    #[test]
    fn a_heal_leaves_disks_and_pauses_alone() {
        let faults = read(&[
            (1, Some(0), "full-disk"),
            (1, Some(1), "pause n2"),
            (1, None, "loss 0.1"),
            (1, None, "cut n1->n3"),
            (1, None, "slow-disk n1"),
            (3, None, "heal"),
        ]);
        let until: Vec<Until> = faults.iter().map(|fault| fault.until).collect();
        assert_eq!(until, [Until::Open, Until::Open, then(3), then(3), Until::Open]);
        assert!(faults[2].touched.is_empty());
        assert_eq!(faults[3].touched.keys().copied().collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_length_is_taken_from_the_line() {
        let faults = read(&[
            (1, Some(0), "pause for=2s"),
            (1, Some(1), "blink for=3000ms"),
            (1, Some(2), "skew +400ms until=9"),
            (1, Some(2), "crash keep-unsynced=2 torn"),
        ]);
        let until: Vec<Until> = faults.iter().map(|fault| fault.until).collect();
        assert_eq!(until, [then(3), then(4), then(9), Until::AtOnce]);
    }

    #[test]
    fn an_unknown_kind_becomes_a_span_by_its_end() {
        let faults = read(&[(1, None, "gremlins n1"), (2, None, "gremlins n1 over")]);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].until, then(2));
        let alone = read(&[(1, None, "heal")]);
        assert_eq!((alone.len(), alone[0].until), (1, Until::AtOnce));
    }
}
