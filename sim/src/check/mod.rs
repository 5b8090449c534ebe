//! What has to hold, judged from outside. Each checker counts its comparisons, since one that had
//! nothing to compare has proven nothing.

mod bounds;
mod checkers;
#[cfg(test)]
mod client_tests;
mod commits;
mod completeness;
pub mod coverage;
mod durability;
mod election;
mod entries;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod front_tests;
mod halts;
mod immutable;
mod linear;
mod liveness;
mod log_matching;
mod mirror;
mod model;
mod model_rows;
mod oracle;
mod quorum;
mod runs;
mod runs_end;
#[cfg(test)]
mod runs_tests;
pub mod seen;
mod states;
mod tally;
mod watch;

pub use checkers::{Checkers, Setup};
pub use tally::Violation;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use cronclave::id::{ExecutionId, JobName, LogIndex, Term};
use cronclave::jobs::job::Outcome;
use cronclave::time::Wall;

use crate::ledger::Start;

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which checker.
    pub checker: &'static str,
    /// How much it compared.
    pub comparisons: usize,
    /// What does not hold, each as a sentence.
    pub violations: Vec<String>,
}

impl Verdict {
    fn new(checker: &'static str) -> Self {
        Self { checker, comparisons: 0, violations: Vec::new() }
    }

    fn check(&mut self, violation: Option<String>) {
        self.comparisons += 1;
        self.violations.extend(violation);
    }

    /// Whether something was compared and all of it holds.
    pub fn is_green(&self) -> bool {
        self.comparisons > 0 && self.violations.is_empty()
    }
}

/// Every verdict that is not green, one a line.
pub fn complaints(verdicts: &[Verdict]) -> Vec<String> {
    let mut lines = Vec::new();
    for verdict in verdicts.iter().filter(|verdict| !verdict.is_green()) {
        if verdict.comparisons == 0 {
            lines.push(format!("{}: had nothing to compare", verdict.checker));
        }
        let told = verdict.violations.iter();
        lines.extend(told.map(|violation| format!("{}: {violation}", verdict.checker)));
    }
    lines
}

/// A row of a job's history, as far as checkers need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which execution.
    pub execution: ExecutionId,
    /// When it was due.
    pub due: Wall,
    /// How it stands.
    pub outcome: Outcome,
}

/// What was acknowledged is there; what was refused is not.
pub fn durability(
    acknowledged: &BTreeSet<JobName>,
    refused: &BTreeSet<JobName>,
    present: &BTreeSet<JobName>,
) -> Verdict {
    let mut verdict = Verdict::new("durability");
    for name in acknowledged {
        let lost = !present.contains(name);
        verdict.check(lost.then(|| format!("{name} was acknowledged and is gone")));
    }
    for name in refused {
        let invented = present.contains(name);
        verdict.check(invented.then(|| format!("{name} was refused and is there")));
    }
    verdict
}

/// No execution starts twice, and no due instant of a job that runs on one node does.
pub fn started_once(starts: &[Start]) -> Verdict {
    let mut verdict = Verdict::new("started once");
    let (mut executions, mut instants) = (BTreeSet::new(), BTreeSet::new());
    for start in starts {
        let again = !executions.insert(start.execution);
        verdict.check(again.then(|| format!("execution {} started again", start.execution)));
        let again = !instants.insert((&start.job, start.due));
        verdict.check(again.then(|| format!("{} ran again for {}", start.job, start.due)));
    }
    verdict
}

/// Nothing starts before it is due, by the true time, but for `tolerance`.
pub fn nothing_early(starts: &[Start], tolerance: Duration) -> Verdict {
    let mut verdict = Verdict::new("nothing early");
    for start in starts {
        let early = start.wall + tolerance < start.due;
        verdict.check(early.then(|| {
            format!("{} was due at {} and started at {}", start.job, start.due, start.wall)
        }));
    }
    verdict
}

/// Everything that starts does so at most `lateness_max` after it was due.
pub fn nothing_stalls(starts: &[Start], lateness_max: Duration) -> Verdict {
    let mut verdict = Verdict::new("nothing stalls");
    for start in starts {
        let late = start.wall.saturating_since(start.due);
        verdict.check(
            (late > lateness_max).then(|| {
                format!("{} was due at {} and started {late:?} late", start.job, start.due)
            }),
        );
    }
    verdict
}

/// A job of one node that is due every `period` after `anchor` has exactly one row for each instant
/// up to and with `until`, which ran or runs, and no other row.
pub fn one_row_an_instant(rows: &[Row], anchor: Wall, period: Duration, until: Wall) -> Verdict {
    let mut verdict = Verdict::new("one row an instant");
    let mut found: BTreeMap<Wall, usize> = BTreeMap::new();
    for row in rows {
        *found.entry(row.due).or_default() += 1;
        let ran = match row.outcome {
            Outcome::Claimed | Outcome::Running | Outcome::Succeeded | Outcome::Failed => true,
            Outcome::Skipped | Outcome::Missed | Outcome::Lost => false,
        };
        verdict.check((!ran).then(|| format!("{} is {}", row.due, row.outcome.as_str())));
    }
    let mut due = anchor + period;
    while due <= until {
        let count = found.remove(&due).unwrap_or(0);
        verdict.check((count != 1).then(|| format!("{due} has {count} rows")));
        due = due + period;
    }
    for (due, count) in found {
        verdict.check(Some(format!("{count} rows for {due}, which is not due")));
    }
    verdict
}

/// A row that says that a process ran has its start outside, and a start has its row.
pub fn rows_match_starts(rows: &[Row], starts: &[Start]) -> Verdict {
    let mut verdict = Verdict::new("rows match starts");
    let started: BTreeSet<ExecutionId> = starts.iter().map(|start| start.execution).collect();
    let booked: BTreeSet<ExecutionId> = rows.iter().map(|row| row.execution).collect();
    for row in rows {
        let outcome = row.outcome.as_str();
        let has = started.contains(&row.execution);
        let wrong = match row.outcome {
            Outcome::Running | Outcome::Succeeded | Outcome::Failed => !has,
            Outcome::Skipped | Outcome::Missed => has,
            Outcome::Claimed | Outcome::Lost => false,
        };
        verdict.check(wrong.then(|| {
            let said = if has { "started" } else { "did not start" };
            format!("row {} is {outcome}, but its process {said}", row.execution)
        }));
    }
    for execution in started {
        let missing = !booked.contains(&execution);
        verdict.check(missing.then(|| format!("execution {execution} started and has no row")));
    }
    verdict
}

/// In each term at most one server leads.
pub fn one_leader_a_term(won: impl IntoIterator<Item = (Term, usize)>) -> Verdict {
    let mut verdict = Verdict::new("one leader a term");
    let mut leaders = BTreeMap::new();
    for (term, host) in won {
        let first = *leaders.entry(term).or_insert(host);
        verdict.check(
            (first != host).then(|| {
                format!("host-{} and host-{} both led in term {term}", first + 1, host + 1)
            }),
        );
    }
    verdict
}

/// Servers that have applied the same entries hold the same state. The comparison is by a pair of
/// hosts and an index.
pub fn equal_states<T: PartialEq>(samples: &[(usize, LogIndex, T)]) -> Verdict {
    equal("equal states", samples)
}

/// Servers that have applied the same entries hold the same rows of ended executions.
pub fn equal_histories<T: PartialEq>(samples: &[(usize, LogIndex, T)]) -> Verdict {
    equal("equal histories", samples)
}

fn equal<T: PartialEq>(checker: &'static str, samples: &[(usize, LogIndex, T)]) -> Verdict {
    let mut verdict = Verdict::new(checker);
    let mut first: BTreeMap<LogIndex, (usize, &T)> = BTreeMap::new();
    for (host, index, state) in samples {
        match first.get(index) {
            None => {
                first.insert(*index, (*host, state));
            }
            Some((other, seen)) => verdict.check((*seen != state).then(|| {
                format!("host-{} and host-{} differ at index {index}", other + 1, host + 1)
            })),
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use cronclave::time::Mono;

    fn name(text: &str) -> JobName {
        JobName::new(text).unwrap()
    }

    fn names(texts: &[&str]) -> BTreeSet<JobName> {
        texts.iter().map(|text| name(text)).collect()
    }

    fn id(claim: u64) -> ExecutionId {
        ExecutionId { claim: LogIndex(claim), slot: 0 }
    }

    fn start(claim: u64, due: i64, at: i64) -> Start {
        Start {
            execution: id(claim),
            job: name("tick"),
            due: Wall::from_secs(due),
            host: 3,
            at: Mono::ZERO,
            wall: Wall::from_secs(at),
        }
    }

    fn row(claim: u64, due: i64, outcome: Outcome) -> Row {
        Row { execution: id(claim), due: Wall::from_secs(due), outcome }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn instants(rows: &[Row], until: i64) -> Verdict {
        one_row_an_instant(rows, Wall::from_secs(10), SECOND, Wall::from_secs(until))
    }

    #[test]
    fn a_checker_without_comparisons_is_not_green() {
        let empty = started_once(&[]);
        assert!(!empty.is_green());
        assert_eq!(complaints(&[empty]), ["started once: had nothing to compare"]);
    }

    #[test]
    fn a_lost_or_an_invented_write_is_found() {
        let present = names(&["a", "b"]);
        assert!(durability(&names(&["a"]), &names(&["c"]), &present).is_green());
        let lost = durability(&names(&["a", "d"]), &BTreeSet::new(), &present);
        assert_eq!(lost.violations, ["d was acknowledged and is gone"]);
        let invented = durability(&BTreeSet::new(), &names(&["b"]), &present);
        assert_eq!(invented.violations, ["b was refused and is there"]);
    }

    #[test]
    fn a_second_start_is_found_by_its_execution_and_by_its_instant() {
        assert!(started_once(&[start(1, 11, 11), start(2, 12, 12)]).is_green());
        let same = started_once(&[start(1, 11, 11), start(1, 11, 11)]);
        assert_eq!(same.violations.len(), 2);
        let again = started_once(&[start(1, 11, 11), start(2, 11, 11)]);
        assert_eq!(again.violations, ["tick ran again for 1970-01-01T00:00:11Z"]);
    }

    #[test]
    fn an_early_and_a_late_start_are_found() {
        let starts = [start(1, 11, 11), start(2, 15, 12)];
        assert_eq!(nothing_early(&starts, SECOND).violations.len(), 1);
        assert!(nothing_early(&starts, SECOND * 3).is_green());
        let starts = [start(1, 11, 11), start(2, 12, 15)];
        assert_eq!(nothing_stalls(&starts, SECOND).violations.len(), 1);
        assert!(nothing_stalls(&starts, SECOND * 3).is_green());
    }

    #[test]
    fn a_missing_a_double_and_a_foreign_row_are_found() {
        let good = [row(1, 11, Outcome::Succeeded), row(2, 12, Outcome::Failed)];
        assert!(instants(&good, 12).is_green());
        assert_eq!(instants(&good, 13).violations, ["1970-01-01T00:00:13Z has 0 rows"]);
        let double = [row(1, 11, Outcome::Succeeded), row(2, 11, Outcome::Succeeded)];
        assert_eq!(instants(&double, 11).violations, ["1970-01-01T00:00:11Z has 2 rows"]);
        let foreign = [row(1, 11, Outcome::Succeeded), row(2, 99, Outcome::Succeeded)];
        assert_eq!(instants(&foreign, 11).violations.len(), 1);
        let missed = instants(&[row(1, 11, Outcome::Missed)], 11);
        assert_eq!(missed.violations, ["1970-01-01T00:00:11Z is missed"]);
    }

    #[test]
    fn a_row_without_its_start_and_a_start_without_its_row_are_found() {
        let starts = [start(1, 11, 11)];
        assert!(rows_match_starts(&[row(1, 11, Outcome::Succeeded)], &starts).is_green());
        let dreamt = rows_match_starts(&[row(1, 11, Outcome::Running)], &[]);
        assert_eq!(dreamt.violations, ["row 1-0 is running, but its process did not start"]);
        let denied = rows_match_starts(&[row(1, 11, Outcome::Missed)], &starts);
        assert_eq!(denied.violations, ["row 1-0 is missed, but its process started"]);
        let unbooked = rows_match_starts(&[], &starts);
        assert_eq!(unbooked.violations, ["execution 1-0 started and has no row"]);
    }

    #[test]
    fn two_leaders_of_a_term_are_found() {
        assert!(one_leader_a_term([(Term(1), 0), (Term(2), 1), (Term(2), 1)]).is_green());
        let two = one_leader_a_term([(Term(2), 0), (Term(2), 1)]);
        assert_eq!(two.violations, ["host-1 and host-2 both led in term 2"]);
    }

    #[test]
    fn different_states_at_one_index_are_found() {
        let (one, two) = (LogIndex(1), LogIndex(2));
        assert!(equal_states(&[(0, one, "a"), (1, one, "a"), (2, two, "b")]).is_green());
        let differ = equal_states(&[(0, one, "a"), (1, one, "b")]);
        assert_eq!(differ.violations, ["host-1 and host-2 differ at index 1"]);
    }
}
