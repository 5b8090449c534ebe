//! The run ledger, when all is over: every instant has its rows, and every end its outcome.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cronclave::id::{ExecutionId, JobName, LogIndex};
use cronclave::jobs::job::{Execution, Outcome};
use cronclave::time::Mono;

use super::Setup;
use super::model::Model;
use super::model_rows::Row;
use super::oracle::Next;
use super::runs::{End, Runs};
use super::seen::Ending;
use super::tally::Judge;

/// So long a node may take to make the end of a process durable, on a slow or full disk.
const JOURNALED_MAX: Duration = Duration::from_secs(60);

/// So long it may take until a claimed execution starts, or until one whose end nobody heard is
/// given up.
const SETTLED_MAX: Duration = Duration::from_secs(180);

impl Runs {
    /// All is over, and `model` is what the committed log says.
    pub(super) fn on_ending(
        &mut self,
        judge: &mut Judge,
        setup: &Setup,
        model: &Model,
        ending: &Ending,
    ) {
        self.check_plans(judge, setup, model);
        self.check_starts(judge, model);
        self.check_ends(judge, model, ending);
        self.check_rows(judge, model, ending);
        for (host, (upto, rows)) in &ending.histories {
            self.check_history(judge, setup, model, *host, (*upto, rows));
        }
    }

    fn check_plans(&mut self, judge: &mut Judge, setup: &Setup, model: &Model) {
        let by = model.last_stamp - setup.claim_lag;
        let late: Vec<_> = self
            .plans()
            .filter(|(_, plan)| plan.next != Next::Unjudged)
            .map(|(name, plan)| (name.clone(), plan.next))
            .collect();
        for (name, next) in late {
            let is_late = matches!(next, Next::At(due) if due <= by);
            self.count.check(judge, !is_late, || {
                format!("{name} was due at {next:?}, the cluster's clock shows {by}, and no row")
            });
        }
    }

    /// What started is no row that says that it did not.
    fn check_starts(&mut self, judge: &mut Judge, model: &Model) {
        for id in self.starts.keys() {
            let row = model.rows.get(*id);
            let denied = row.is_none_or(|row| match row.outcome {
                Outcome::Skipped | Outcome::Missed => true,
                Outcome::Claimed
                | Outcome::Running
                | Outcome::Succeeded
                | Outcome::Failed
                | Outcome::Lost => false,
            });
            self.count.check(judge, !denied, || format!("{id} has started, and is {row:?}"));
        }
    }

    /// No result is lost.
    fn check_ends(&mut self, judge: &mut Judge, model: &Model, ending: &Ending) {
        for (id, end) in &self.ends {
            let End { host, at, outcome, is_heard } = *end;
            let within = |times: &BTreeMap<usize, Vec<Mono>>, until: Mono| {
                let times = times.get(&host);
                times.is_some_and(|times| times.iter().any(|time| *time >= at && *time <= until))
            };
            if !is_heard || within(&self.wipes, ending.at) || at + SETTLED_MAX > ending.at {
                continue;
            }
            let Some(row) = model.rows.get(*id).filter(|row| row.is_of(&model.jobs)) else {
                continue;
            };
            let was_forgotten =
                row.outcome == Outcome::Lost && within(&self.downs, at + JOURNALED_MAX);
            let kept = row.outcome == outcome || was_forgotten;
            self.count.check(judge, kept, || {
                format!("{id} ended on host-{} as {}, and is {row:?}", host + 1, outcome.as_str())
            });
        }
    }

    /// Nothing is made up, and nothing stays open for ever.
    fn check_rows(&mut self, judge: &mut Judge, model: &Model, ending: &Ending) {
        let is_old = |at: Option<&Mono>| at.is_some_and(|at| *at + SETTLED_MAX < ending.at);
        for row in model.rows.all() {
            let (start, end) = (self.starts.get(&row.id), self.ends.get(&row.id));
            let holds = match row.outcome {
                Outcome::Succeeded => {
                    start.is_some() && end.is_some_and(|end| end.outcome == Outcome::Succeeded)
                }
                Outcome::Running => {
                    start.is_some() && !end.is_some_and(|end| is_old(Some(&end.at)))
                }
                Outcome::Claimed => match end {
                    Some(end) => !is_old(Some(&end.at)),
                    None => start.is_some() || !is_old(self.opened.get(&row.id)),
                },
                Outcome::Failed | Outcome::Lost | Outcome::Skipped | Outcome::Missed => true,
            };
            self.count.check(judge, holds, || {
                format!("{row:?} started {start:?} and ended {end:?}, and all is over")
            });
        }
    }

    /// The history of a server holds the rows that the log has made, the newest of each job.
    fn check_history(
        &mut self,
        judge: &mut Judge,
        setup: &Setup,
        model: &Model,
        host: usize,
        (upto, rows): (Option<LogIndex>, &[Arc<Execution>]),
    ) {
        let mut shown: BTreeMap<ExecutionId, &Execution> = BTreeMap::new();
        for row in rows {
            let again = shown.insert(row.id, row);
            self.count.check(judge, again.is_none(), || {
                format!("host-{} has two rows of {}", host + 1, row.id)
            });
            self.check_reason(judge, host, row);
        }
        let mut jobs: BTreeMap<&JobName, Vec<&Row>> = BTreeMap::new();
        let is_due = |row: &&Row| row.has_row && row.closed_by <= upto && row.is_of(&model.jobs);
        for row in model.rows.all().filter(is_due) {
            jobs.entry(&row.job).or_default().push(row);
        }
        for rows in jobs.values() {
            let mut spare = rows.len().saturating_sub(setup.rows_per_job);
            for row in rows {
                let found = shown.remove(&row.id);
                let fits = match found {
                    Some(found) => is_same(row, found),
                    None => spare > 0,
                };
                spare = spare.saturating_sub(usize::from(found.is_none()));
                self.count.check(judge, fits, || {
                    format!("host-{} shows {found:?}, and the log says {row:?}", host + 1)
                });
            }
        }
        // Those that were changed since, or whose job was, are in nobody's way.
        for (id, found) in shown {
            let known = model.rows.get(id);
            let later = known.is_some_and(|row| row.closed_by > upto || !row.is_of(&model.jobs));
            self.count.check(judge, later, || {
                format!("host-{} shows {found:?}, and the log says {known:?}", host + 1)
            });
        }
    }

    fn check_reason(&mut self, judge: &mut Judge, host: usize, row: &Execution) {
        let needs = matches!(row.outcome, Outcome::Skipped | Outcome::Missed | Outcome::Lost);
        self.count.check(judge, !needs || !row.reason.is_empty(), || {
            format!("host-{}: {} is {} for no reason", host + 1, row.id, row.outcome.as_str())
        });
    }
}

fn is_same(row: &Row, found: &Execution) -> bool {
    row.job == found.job
        && row.due == found.due
        && row.trigger == found.trigger
        && row.group == found.group
        && row.attempt == found.attempt
        && row.outcome == found.outcome
        && row.node == found.node.as_ref().map(|target| target.id)
}
