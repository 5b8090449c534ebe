//! The executions that the committed log knows: [`Rows`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cronclave::id::{ExecutionId, JobName, LogIndex, NodeId};
use cronclave::jobs::job::{Outcome, RunResult, Trigger};
use cronclave::time::Wall;

use super::model::Job;

/// The pause before the second attempt, which doubles with each further one, and the longest.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// An execution, or a due instant that ran nowhere.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: ExecutionId,
    pub(super) group: ExecutionId,
    pub(super) job: JobName,
    pub(super) job_created: LogIndex,
    pub(super) due: Wall,
    pub(super) trigger: Trigger,
    pub(super) node: Option<NodeId>,
    pub(super) attempt: u32,
    pub(super) not_before: Wall,
    pub(super) outcome: Outcome,
    /// The entry that closed it or last corrected it.
    pub(super) closed_by: Option<LogIndex>,
    /// Whether its end went into the history; it does not if its job was gone.
    pub(super) has_row: bool,
}

/// The executions of one claim, by their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) open: u32,
    pub(super) succeeded: u32,
    pub(super) failed: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rows {
    all: BTreeMap<ExecutionId, Row>,
    open: BTreeMap<JobName, BTreeSet<ExecutionId>>,
    groups: BTreeMap<ExecutionId, Group>,
}

impl Rows {
    pub(super) fn get(&self, id: ExecutionId) -> Option<&Row> {
        self.all.get(&id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Row> {
        self.all.values()
    }

    /// How many executions of this job are open, those of an earlier job of its name excepted.
    pub(super) fn open_of(&self, job: &Job) -> usize {
        let ids = self.open.get(&job.spec.name).into_iter().flatten();
        let rows = ids.filter_map(|id| self.all.get(id));
        rows.filter(|row| row.job_created == job.created).count()
    }

    /// How many executions are open under this name.
    pub(super) fn open_named(&self, job: &JobName) -> usize {
        self.open.get(job).map_or(0, BTreeSet::len)
    }

    /// How many executions are open.
    pub(super) fn open_count(&self) -> usize {
        self.open.values().map(BTreeSet::len).sum()
    }

    pub(super) fn not_run(
        &mut self,
        id: ExecutionId,
        job: &Job,
        why: (Trigger, Wall),
        outcome: Outcome,
        index: LogIndex,
    ) {
        let mut row = new_row(id, id, job, why);
        row.outcome = outcome;
        row.closed_by = Some(index);
        row.has_row = true;
        self.all.insert(id, row);
    }

    pub(super) fn open(
        &mut self,
        job: &Job,
        why: (Trigger, Wall),
        stamp: Wall,
        targets: impl Iterator<Item = (ExecutionId, NodeId)>,
    ) {
        let mut group = None;
        for (id, node) in targets {
            let first = *group.get_or_insert(id);
            let row = Row { node: Some(node), not_before: stamp, ..new_row(id, first, job, why) };
            self.insert_open(row);
            self.groups.entry(first).or_default().open += 1;
        }
    }

    /// Opens the attempt after `before`.
    pub(super) fn retry(&mut self, id: ExecutionId, before: &Row, stamp: Wall) {
        let doublings = before.attempt.saturating_sub(1).min(16);
        let pause = PAUSE.saturating_mul(1 << doublings).min(PAUSE_MAX);
        self.insert_open(Row {
            id,
            trigger: Trigger::Retry,
            attempt: before.attempt + 1,
            not_before: stamp + pause,
            outcome: Outcome::Claimed,
            closed_by: None,
            has_row: false,
            ..before.clone()
        });
    }

    fn insert_open(&mut self, row: Row) {
        self.open.entry(row.job.clone()).or_default().insert(row.id);
        self.all.insert(row.id, row);
    }

    pub(super) fn start(&mut self, id: ExecutionId) {
        if let Some(row) = self.all.get_mut(&id)
            && row.outcome == Outcome::Claimed
        {
            row.outcome = Outcome::Running;
        }
    }

    pub(super) fn close(&mut self, row: &Row, result: &RunResult, index: LogIndex, has_row: bool) {
        if let Some(open) = self.open.get_mut(&row.job) {
            open.remove(&row.id);
        }
        if let Some(row) = self.all.get_mut(&row.id) {
            row.outcome = result.outcome;
            row.closed_by = Some(index);
            row.has_row = has_row;
        }
    }

    /// Counts an end in its group; the group, if that was the last one.
    pub(super) fn leave_group(&mut self, id: ExecutionId, outcome: Outcome) -> Option<Group> {
        let group = self.groups.get_mut(&id)?;
        group.open = group.open.saturating_sub(1);
        match outcome {
            Outcome::Succeeded => group.succeeded += 1,
            Outcome::Failed
            | Outcome::Lost
            | Outcome::Claimed
            | Outcome::Running
            | Outcome::Skipped
            | Outcome::Missed => group.failed += 1,
        }
        if group.open > 0 { None } else { self.groups.remove(&id) }
    }

    /// A lost execution had a real end: counts it so in `last`, or in its group that is not over.
    pub(super) fn correct_group(
        &mut self,
        id: ExecutionId,
        last: Option<&mut Group>,
        result: &RunResult,
    ) {
        let group = last.or_else(|| self.groups.get_mut(&id));
        if let (Outcome::Succeeded, Some(group)) = (result.outcome, group) {
            group.failed = group.failed.saturating_sub(1);
            group.succeeded += 1;
        }
    }
}

fn new_row(id: ExecutionId, group: ExecutionId, job: &Job, why: (Trigger, Wall)) -> Row {
    Row {
        id,
        group,
        job: job.spec.name.clone(),
        job_created: job.created,
        due: why.1,
        trigger: why.0,
        node: None,
        attempt: 1,
        not_before: Wall::EPOCH,
        outcome: Outcome::Claimed,
        closed_by: None,
        has_row: false,
    }
}
