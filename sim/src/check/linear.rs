//! Linearizability. The committed log gives the total order of all changes, so there is nothing to
//! search for.
//!
//! - A read stands behind the last entry that its state had applied. It has to stand at or behind
//!   everything that a client was told before it was asked, and to show what the log says there.
//! - A write stands at its entry. It has to stand behind everything that a client was told before
//!   it was asked, and nothing may show one that nobody has asked for.
//!
//! A write of unknown outcome is in the log or is not; either is well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cronclave::id::{JobName, LogIndex, Revision};
use cronclave::jobs::State;
use cronclave::jobs::command::Applied;
use cronclave::node::request::{Consistency, Reply, Request, View};

use super::Verdict;
use super::model::{Fate, Kind, Step};
use super::seen::{Answer, OpId};
use super::tally::{Count, Judge};

/// How many jobs, of those that were changed last before a read, are looked at in it.
const LATELY: usize = 16;

#[derive(Debug)]
pub(super) struct Linear {
    count: Count,
    asked: BTreeMap<OpId, Asked>,
    /// For writes that are not in the log yet: what was known when they were asked.
    floors: BTreeMap<OpId, Option<LogIndex>>,
    /// The greatest position of all that clients were told.
    told: Option<LogIndex>,
    /// Every change of a definition.
    changes: Vec<Change>,
    /// Reads that show more than is known to be committed.
    waiting: VecDeque<(OpId, LogIndex, State)>,
    jobs: BTreeSet<JobName>,
}

#[derive(Debug)]
struct Asked {
    floor: Option<LogIndex>,
    is_fresh_read: bool,
}

#[derive(Debug)]
struct Change {
    index: LogIndex,
    job: JobName,
    revision: Option<Revision>,
    /// How many jobs there were from then on.
    jobs: usize,
}

/// Reads the token that a put carries in its `displayname`.
pub(super) fn token(displayname: &str) -> Option<OpId> {
    displayname.strip_prefix("op-")?.parse().ok().map(OpId)
}

impl Linear {
    pub(super) fn new() -> Self {
        Self {
            count: Count::new("linearizability"),
            asked: BTreeMap::new(),
            floors: BTreeMap::new(),
            told: None,
            changes: Vec::new(),
            waiting: VecDeque::new(),
            jobs: BTreeSet::new(),
        }
    }

    pub(super) fn on_asked(&mut self, op: OpId, request: &Request) {
        let is_fresh_read = matches!(request, Request::Read(Consistency::Linearizable));
        if matches!(request, Request::Write(_)) {
            self.floors.insert(op, self.told);
        }
        self.asked.insert(op, Asked { floor: self.told, is_fresh_read });
    }

    /// `upto` is the last entry that is replayed.
    pub(super) fn on_answered(
        &mut self,
        judge: &mut Judge,
        op: OpId,
        answer: &Answer,
        upto: Option<LogIndex>,
    ) {
        let Some(asked) = self.asked.remove(&op) else { return };
        match answer {
            Answer::Reply(Reply::View(view)) => self.on_view(judge, op, &asked, view, upto),
            Answer::Reply(Reply::Written(applied)) => {
                let position = position_of(applied);
                self.told = self.told.max(position);
            }
            Answer::Reply(
                Reply::Executions(_)
                | Reply::Members(_)
                | Reply::Status(_)
                | Reply::Left
                | Reply::Failed(_),
            )
            | Answer::Unheard
            | Answer::Lost
            | Answer::Silence => {}
        }
    }

    fn on_view(
        &mut self,
        judge: &mut Judge,
        op: OpId,
        asked: &Asked,
        view: &View,
        upto: Option<LogIndex>,
    ) {
        if asked.is_fresh_read {
            self.count.check(judge, view.applied >= asked.floor, || {
                format!(
                    "read {} shows the state at {:?}, and {:?} was known before it was asked",
                    op.0, view.applied, asked.floor
                )
            });
            self.told = self.told.max(view.applied);
        }
        let applied = view.state.applied();
        self.count.check(judge, applied <= view.applied, || {
            format!("read {} says {:?}, and its state is of {applied:?}", op.0, view.applied)
        });
        let Some(at) = view.applied else { return };
        if Some(at) <= upto {
            self.compare(judge, op, at, &view.state);
        } else {
            self.waiting.push_back((op, at, view.state.clone()));
        }
    }

    /// Compares what a read shows with what the log says at its position.
    fn compare(&mut self, judge: &mut Judge, op: OpId, at: LogIndex, state: &State) {
        let before = self.changes.partition_point(|change| change.index <= at);
        let changes = &self.changes[..before];
        let jobs = changes.last().map_or(0, |change| change.jobs);
        let shown = state.job_count();
        self.count.check(judge, shown == jobs, || {
            format!("read {} shows {shown} jobs at {at}, where there are {jobs}", op.0)
        });
        let mut looked: Vec<&JobName> = Vec::with_capacity(LATELY);
        for Change { job, revision, .. } in changes.iter().rev().take(LATELY) {
            if looked.contains(&job) {
                continue;
            }
            looked.push(job);
            let shown = state.job(job).map(|job| job.revision);
            self.count.check(judge, shown == *revision, || {
                format!(
                    "read {} shows {job} at {at} in revision {shown:?}, where it is {revision:?}",
                    op.0
                )
            });
        }
    }

    /// An entry was replayed.
    pub(super) fn on_steps(&mut self, judge: &mut Judge, index: LogIndex, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Defined { job, revision } => self.on_defined(index, job, *revision),
                Step::Write { kind: Kind::Put, displayname, fate: Fate::Done, .. } => {
                    if let Some(op) = token(displayname) {
                        self.on_write(judge, index, op);
                    }
                }
                Step::Write { .. }
                | Step::Timed { .. }
                | Step::Stopped { .. }
                | Step::Zoned
                | Step::Instant { .. }
                | Step::Opened(_)
                | Step::Closed { .. } => {}
            }
        }
    }

    fn on_defined(&mut self, index: LogIndex, job: &JobName, revision: Option<Revision>) {
        match revision {
            Some(_) => self.jobs.insert(job.clone()),
            None => self.jobs.remove(job),
        };
        let jobs = self.jobs.len();
        self.changes.push(Change { index, job: job.clone(), revision, jobs });
    }

    fn on_write(&mut self, judge: &mut Judge, index: LogIndex, op: OpId) {
        let floor = self.floors.remove(&op);
        self.count.check(judge, floor.is_some(), || {
            format!("entry {index} is write {}, which nobody has asked for", op.0)
        });
        let floor = floor.flatten();
        self.count.check(judge, Some(index) > floor, || {
            format!("write {} is entry {index}, and {floor:?} was known before", op.0)
        });
    }

    /// Everything up to `upto` is replayed.
    pub(super) fn on_replayed(&mut self, judge: &mut Judge, upto: LogIndex) {
        while let Some((op, at, state)) = self.waiting.pop_front_if(|(_, at, _)| *at <= upto) {
            self.compare(judge, op, at, &state);
        }
    }

    /// All is over: nobody can have seen what nobody has committed.
    pub(super) fn on_end(&mut self, judge: &mut Judge) {
        for (op, at, _) in std::mem::take(&mut self.waiting) {
            self.count.check(judge, false, || {
                format!("read {} shows the state at {at}, which nobody has committed", op.0)
            });
        }
    }

    pub(super) fn verdict(&self, judge: &Judge) -> Verdict {
        self.count.verdict(judge)
    }
}

/// An entry that has to be in the log for this answer, at or behind the write that it answers if
/// that was carried out before.
fn position_of(applied: &Applied) -> Option<LogIndex> {
    match applied {
        Applied::Put { job, .. } | Applied::Toggled(job) => Some(LogIndex(job.revision.0)),
        // It stands behind the last change of what it took away.
        Applied::Deleted(job) => Some(LogIndex(job.revision.0 + 1)),
        Applied::Claimed(claims) => claims.iter().flatten().map(|rows| rows.first.claim).max(),
        Applied::Founded(_)
        | Applied::Admitted
        | Applied::SettingsChanged
        | Applied::Started
        | Applied::Finished { .. }
        | Applied::Rejected(_)
        | Applied::Repeated => None,
    }
}
