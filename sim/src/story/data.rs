//! The moments of a story, packed for the page's script: [`pack`].
//!
//! One JSON object with columns rather than rows, because a run has up to 100,000 moments:
//!
//! - `hosts`, `servers`, `agents`: the names, and how many of them are servers, then agents; the
//!   rest are spare servers.
//! - `texts`: every text once; elsewhere stands its number.
//! - `k`: one letter per moment: U up, D down, S stands, F fault, E event, P process, C client,
//!   M message, X violation.
//! - `t`: microseconds since the moment before; the first since zero.
//! - `h`: the machine.
//! - `p`: what belongs to each letter, one after the other. U: boot. D, F, E: text. S: role (0
//!   leader, 1 candidate, 2 follower, 3 learner), term, leader, last, committed, applied. P: text,
//!   1 if it starts. C: text, answer (0 asked, 1 acknowledged, 2 refused, 3 unknown). M: to, label,
//!   microseconds until it arrives. X: checker, text.
//! - `f`: per fault: from, until (-1 at once, -2 never mended), label, mended by; then machine and
//!   side of each that it touches.
//!
//! -1 stands for what is not there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cronclave::consensus::Role;
use cronclave::id::LogIndex;
use cronclave::time::Mono;

use super::faults::{Fault, Until};
use super::telling::{Answer, answer, is_start, without_time};
use super::{Moment, Story, What};

/// Texts, each kept once.
#[derive(Default)]
struct Texts<'a> {
    numbers: BTreeMap<&'a str, usize>,
    texts: Vec<&'a str>,
}

impl<'a> Texts<'a> {
    /// The number of a text.
    fn number(&mut self, text: &'a str) -> Number {
        let number = *self.numbers.entry(text).or_insert_with(|| {
            self.texts.push(text);
            self.texts.len() - 1
        });
        Number::of(number)
    }
}

/// A whole number in the JSON; -1 stands for nothing.
#[derive(Clone, Copy)]
struct Number(i128);

impl Number {
    const NONE: Self = Self(-1);

    fn of(number: usize) -> Self {
        Self(number as i128)
    }

    fn long(number: u64) -> Self {
        Self(i128::from(number))
    }

    fn maybe(number: Option<usize>) -> Self {
        number.map_or(Self::NONE, Self::of)
    }

    fn index(index: Option<LogIndex>) -> Self {
        index.map_or(Self::NONE, |index| Self::long(index.0))
    }

    /// The microseconds from `earlier` to `later`; 0 if it is before.
    fn between(earlier: Mono, later: Mono) -> Self {
        Self::long(later.as_micros().saturating_sub(earlier.as_micros()))
    }
}

/// The JSON of `moments`, which are those of `story` by time, and of its faults. It holds no `<`,
/// so that it may stand inside a `script` element.
pub(super) fn pack(story: &Story, moments: &[&Moment], faults: &[Fault]) -> String {
    let mut texts = Texts::default();
    let (mut kinds, mut times, mut hosts) = (String::new(), Vec::new(), Vec::new());
    let mut parts = Vec::new();
    let mut before = Mono::ZERO;
    for moment in moments {
        kinds.push(letter(&moment.what));
        times.push(Number::between(before, moment.at));
        hosts.push(Number::maybe(moment.host));
        before = moment.at;
        add(&mut parts, &mut texts, moment);
    }
    let mut packed = Vec::new();
    for fault in faults {
        packed.push(list(&fault_parts(fault, &mut texts)));
    }
    let machines = format!(r#""servers":{},"agents":{}"#, story.servers, story.agents);
    let text = format!(
        r#"{{"hosts":{},{machines},"texts":{},"k":"{kinds}","t":{},"h":{},"p":{},"f":[{}]}}"#,
        strings(&story.hosts),
        strings(&texts.texts),
        list(&times),
        list(&hosts),
        list(&parts),
        packed.join(","),
    );
    // In JSON a `<` stands only inside strings, where it may be written so. With it neither
    // `</script>` nor `<!--` can occur.
    text.replace('<', "\\u003c")
}

fn letter(what: &What) -> char {
    match what {
        What::Up { .. } => 'U',
        What::Down { .. } => 'D',
        What::Stands { .. } => 'S',
        What::Fault(_) => 'F',
        What::Event(_) => 'E',
        What::Process(_) => 'P',
        What::Client(_) => 'C',
        What::Message { .. } => 'M',
        What::Violation { .. } => 'X',
    }
}

/// Adds what belongs to a moment's letter.
fn add<'a>(parts: &mut Vec<Number>, texts: &mut Texts<'a>, moment: &'a Moment) {
    match &moment.what {
        What::Up { boot } => parts.push(Number::long(*boot)),
        What::Down { why: text } | What::Event(text) => parts.push(texts.number(text)),
        What::Fault(line) => parts.push(texts.number(without_time(line))),
        What::Stands { role, term, leader, last, committed, applied } => {
            parts.push(Number::of(match role {
                Role::Leader => 0,
                Role::Candidate => 1,
                Role::Follower => 2,
                Role::Learner => 3,
            }));
            parts.extend([Number::long(term.0), Number::maybe(*leader)]);
            parts.extend([*last, *committed, *applied].map(Number::index));
        }
        What::Process(text) => {
            parts.extend([texts.number(text), Number::of(usize::from(is_start(text)))]);
        }
        What::Client(text) => {
            let answer = match answer(text) {
                Answer::Asked => 0,
                Answer::Acknowledged => 1,
                Answer::Refused => 2,
                Answer::Unknown => 3,
            };
            parts.extend([texts.number(text), Number::of(answer)]);
        }
        What::Message { to, label, arrives } => {
            let delay = arrives.map(|arrives| Number::between(moment.at, arrives));
            parts.extend([Number::of(*to), texts.number(label), delay.unwrap_or(Number::NONE)]);
        }
        What::Violation { checker, text } => {
            parts.extend([texts.number(checker), texts.number(text)]);
        }
    }
}

fn fault_parts<'a>(fault: &'a Fault, texts: &mut Texts<'a>) -> Vec<Number> {
    let until = match fault.until {
        Until::AtOnce => Number(-1),
        Until::Open => Number(-2),
        Until::Then(until) => Number::long(until.as_micros()),
    };
    let mended = fault.mended_by.as_deref().map_or(Number::NONE, |line| texts.number(line));
    let label = texts.number(&fault.label);
    let mut parts = vec![Number::long(fault.from.as_micros()), until, label, mended];
    for (host, side) in &fault.touched {
        parts.extend([Number::of(*host), Number::of(*side)]);
    }
    parts
}

/// A JSON list of numbers.
fn list(numbers: &[Number]) -> String {
    let mut text = String::from("[");
    for (at, Number(number)) in numbers.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(text, "{comma}{number}").expect("a text takes any text");
    }
    text.push(']');
    text
}

/// A JSON list of texts.
fn strings(texts: &[impl AsRef<str>]) -> String {
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    serde_json::to_string(&texts).expect("texts are JSON")
}

#[cfg(test)]
mod tests {
    use cronclave::id::Term;

    use super::*;
    use crate::story::faults::faults;

    #[test]
    fn what_is_packed_is_json_and_lists_every_part() {
        let at = |micros, what| Moment { at: Mono::from_micros(micros), host: Some(0), what };
        let stands = What::Stands {
            role: Role::Follower,
            term: Term(3),
            leader: Some(1),
            last: Some(LogIndex(9)),
            committed: None,
            applied: None,
        };
        let arrives = Some(Mono::from_micros(90));
        let story = Story {
            hosts: vec!["n1".into(), "n2".into()],
            servers: 2,
            agents: 0,
            options: Vec::new(),
            moments: vec![
                at(5, What::Up { boot: 7 }),
                at(7, stands),
                at(7, What::Event("a\"</script>\u{1}".into())),
                at(8, What::Message { to: 1, label: "vote".into(), arrives }),
                at(8, What::Message { to: 1, label: "vote".into(), arrives: None }),
                at(9, What::Fault("pause n1".into())),
            ],
        };
        let moments: Vec<&Moment> = story.moments.iter().collect();
        let text = pack(&story, &moments, &faults(&story));
        assert!(!text.contains('<'), "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["k"], "USEMMF");
        assert_eq!(json["texts"][0], "a\"</script>\u{1}");
        assert_eq!(json["t"], serde_json::json!([5, 2, 0, 1, 0, 1]));
        let parts = [7, 2, 3, 1, 9, -1, -1, 0, 1, 1, 82, 1, 1, -1, 2];
        assert_eq!(json["p"], serde_json::json!(parts));
        assert_eq!(json["f"], serde_json::json!([[9, -2, 2, -1, 0, 0]]));
    }
}
