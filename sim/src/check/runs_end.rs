//! The run ledger, when all is over: every instant has its rows, and every end its outcome.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cronclave::id::{ExecutionId, JobName, LogIndex};
use cronclave::jobs::job::{Execution, Outcome};
use cronclave::time::{Mono, Wall};

use super::Setup;
use super::model::Model;
use super::model_rows::Row;
use super::oracle::Next;
use super::runs::{End, Runs};
use super::seen::Ending;
use super::tally::Judge;

/// So long a node may take to make the end of a process durable, on a slow or full disk.
const JOURNALED_MAX: Duration = Duration::from_secs(60);

/// When all is well the end of a process is booked within so long, and what is claimed starts: a
/// leader repeats an order every 5 s, and an agent its reports.
const BOOKED_MAX: Duration = Duration::from_secs(12);

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

    /// What the cluster has not come to know of an execution, or has not begun, though it has had
    /// its time. Nothing, once all has been well for long enough.
    pub(super) fn overdue(&self, model: &Model, now: (Mono, Wall)) -> Option<String> {
        self.ends
            .keys()
            .chain(self.opened.keys())
            .filter_map(|id| model.rows.get(*id))
            .find_map(|row| Some(format!("{}, and is {row:?}", self.is_overdue(model, row, now)?)))
    }

    fn is_overdue(&self, model: &Model, row: &Row, (now, wall): (Mono, Wall)) -> Option<String> {
        let is_open = matches!(row.outcome, Outcome::Claimed | Outcome::Running);
        if !is_open || !row.is_of(&model.jobs) {
            return None;
        }
        let is_old = |at: Mono| at + BOOKED_MAX < now;
        let id = row.id;
        // Of one that does not run the leader waits a while, and then gives up what it had.
        let booted = self.up.values().find(|(node, _)| row.node == Some(*node)).map(|(_, at)| *at);
        match self.ends.get(&id) {
            Some(end) => {
                let is_late = is_old(end.at) && booted.is_some_and(is_old);
                let heard = if end.is_heard { "its node" } else { "nobody" };
                is_late.then(|| format!("{id} has ended at {}, which {heard} heard", end.at))
            }
            None if self.starts.contains_key(&id) => None,
            None => {
                let opened = *self.opened.get(&id)?;
                let is_due = row.not_before + BOOKED_MAX < wall;
                let is_late = is_due && is_old(opened) && booted.is_some_and(is_old);
                is_late.then(|| format!("{id} was claimed at {opened}, and has not started"))
            }
        }
    }

    fn was_wiped(&self, end: &End) -> bool {
        let wipes = self.wipes.get(&end.host);
        wipes.is_some_and(|wipes| wipes.iter().any(|at| *at >= end.at))
    }

    /// No result is lost.
    fn check_ends(&mut self, judge: &mut Judge, model: &Model, ending: &Ending) {
        for (id, end) in &self.ends {
            let End { host, at, outcome, is_heard } = *end;
            if !is_heard || self.was_wiped(end) || at + BOOKED_MAX > ending.at {
                continue;
            }
            let Some(row) = model.rows.get(*id).filter(|row| row.is_of(&model.jobs)) else {
                continue;
            };
            let fell = self.downs.get(&host).is_some_and(|downs| {
                downs.iter().any(|time| *time >= at && *time <= at + JOURNALED_MAX)
            });
            let was_forgotten = row.outcome == Outcome::Lost && fell;
            let kept = row.outcome == outcome || was_forgotten;
            self.count.check(judge, kept, || {
                format!("{id} ended on n{} as {}, and is {row:?}", host + 1, outcome.as_str())
            });
        }
    }

    /// Nothing is made up, and nothing stays open for ever.
    fn check_rows(&mut self, judge: &mut Judge, model: &Model, ending: &Ending) {
        for row in model.rows.all() {
            let (start, end) = (self.starts.get(&row.id), self.ends.get(&row.id));
            let holds = match row.outcome {
                Outcome::Succeeded => {
                    start.is_some() && end.is_some_and(|end| end.outcome == Outcome::Succeeded)
                }
                Outcome::Running => start.is_some(),
                Outcome::Claimed
                | Outcome::Failed
                | Outcome::Lost
                | Outcome::Skipped
                | Outcome::Missed => true,
            };
            self.count.check(judge, holds, || {
                format!("{row:?} started {start:?} and ended {end:?}, and all is over")
            });
            let overdue = self.is_overdue(model, row, (ending.at, ending.wall));
            self.count.check(judge, overdue.is_none(), || {
                format!("{}, and is {row:?}", overdue.unwrap_or_default())
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
                format!("n{} has two rows of {}", host + 1, row.id)
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
                    format!("n{} shows {found:?}, and the log says {row:?}", host + 1)
                });
            }
        }
        // Those that were changed since, or whose job was, are in nobody's way.
        for (id, found) in shown {
            let known = model.rows.get(id);
            let later = known.is_some_and(|row| row.closed_by > upto || !row.is_of(&model.jobs));
            self.count.check(judge, later, || {
                format!("n{} shows {found:?}, and the log says {known:?}", host + 1)
            });
        }
    }

    fn check_reason(&mut self, judge: &mut Judge, host: usize, row: &Execution) {
        let needs = matches!(row.outcome, Outcome::Skipped | Outcome::Missed | Outcome::Lost);
        self.count.check(judge, !needs || !row.reason.is_empty(), || {
            format!("n{}: {} is {} for no reason", host + 1, row.id, row.outcome.as_str())
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
