//! Durability: what was acknowledged is in the committed log, once; what was refused is not.
//!
//! A put is known by the token in its `displayname`. Toggles, deletions and runs carry none: of
//! these as many are in the log as were acknowledged, and no more than that and those of unknown
//! outcome. That the states of servers are what the log says is for [`states`](super::states),
//! and that reads are, for [`linear`](super::linear).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cronclave::id::{CommandId, JobName, LogIndex};
use cronclave::jobs::State;
use cronclave::jobs::command::Applied;
use cronclave::node::request::{Reply, Request, RequestError, Write};

use super::Verdict;
use super::linear::token;
use super::model::{Fate, Kind, Model, Step};
use super::seen::{Answer, OpId};
use super::tally::{Count, Judge};

#[derive(Debug)]
pub(super) struct Durability {
    count: Count,
    writes: BTreeMap<OpId, Asked>,
    /// Where each put stands, and as whose write.
    tokens: BTreeMap<OpId, (LogIndex, Option<CommandId>)>,
    tallies: BTreeMap<(JobName, Kind), Tally>,
    /// Which entry changed which job.
    defined: BTreeMap<LogIndex, JobName>,
    /// Answers that name a change which is not replayed yet.
    waiting: VecDeque<(OpId, JobName, LogIndex)>,
    /// All puts that were asked.
    puts: BTreeSet<OpId>,
    /// The last entry that an acknowledgement names.
    acknowledged: Option<LogIndex>,
}

#[derive(Debug)]
struct Asked {
    kind: Kind,
    job: JobName,
    standing: Standing,
}

/// What the client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Acknowledged,
    Refused,
    Unknown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    acknowledged: usize,
    unknown: usize,
    done: usize,
}

impl Durability {
    pub(super) fn new() -> Self {
        Self {
            count: Count::new("durability"),
            writes: BTreeMap::new(),
            tokens: BTreeMap::new(),
            tallies: BTreeMap::new(),
            defined: BTreeMap::new(),
            waiting: VecDeque::new(),
            puts: BTreeSet::new(),
            acknowledged: None,
        }
    }

    pub(super) fn on_asked(&mut self, op: OpId, request: &Request) {
        let Request::Write(write) = request else { return };
        let (kind, job) = match write {
            Write::PutJob(spec) => (Kind::Put, &spec.name),
            Write::DeleteJob(name) => (Kind::Delete, name),
            Write::ToggleJob(name) => (Kind::Toggle, name),
            Write::RunJob(name) => (Kind::Run, name),
            Write::SetTimezone(_) => return,
        };
        let (job, standing) = (job.clone(), Standing::Unknown);
        if kind == Kind::Put {
            self.puts.insert(op);
        }
        self.writes.insert(op, Asked { kind, job, standing });
    }

    /// `upto` is the last entry that is replayed.
    pub(super) fn on_answered(
        &mut self,
        judge: &mut Judge,
        op: OpId,
        answer: &Answer,
        upto: Option<LogIndex>,
    ) {
        let standing = match answer {
            Answer::Reply(Reply::Written(applied)) => standing_of(applied),
            Answer::Reply(Reply::Failed(
                RequestError::Unknown | RequestError::UnknownDiskFull(_),
            ))
            | Answer::Lost
            | Answer::Silence => Standing::Unknown,
            // Each of these promises that the state is unchanged.
            Answer::Reply(Reply::Failed(_)) | Answer::Unheard => Standing::Refused,
            Answer::Reply(
                Reply::View(_)
                | Reply::Executions(_)
                | Reply::Members(_)
                | Reply::Status(_)
                | Reply::Left,
            ) => return,
        };
        let Some(asked) = self.writes.get_mut(&op) else { return };
        asked.standing = standing;
        if let (Standing::Refused, Some((index, _))) = (standing, self.tokens.get(&op)) {
            self.count.check(judge, false, || refused_is_there(op, *index));
        }
        if let Answer::Reply(Reply::Written(applied)) = answer
            && let Applied::Put { job, .. } | Applied::Toggled(job) = &**applied
        {
            let (name, index) = (job.spec.name.clone(), LogIndex(job.revision.0));
            self.acknowledged = self.acknowledged.max(Some(index));
            if Some(index) <= upto {
                self.name(judge, op, &name, index);
            } else {
                self.waiting.push_back((op, name, index));
            }
        }
    }

    /// An answer says that the entry at `index` has changed this job.
    fn name(&mut self, judge: &mut Judge, op: OpId, job: &JobName, index: LogIndex) {
        let found = self.defined.get(&index);
        self.count.check(judge, found == Some(job), || {
            format!("write {} was told that entry {index} has changed {job}, not {found:?}", op.0)
        });
    }

    /// An entry was replayed.
    pub(super) fn on_steps(&mut self, judge: &mut Judge, index: LogIndex, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Defined { job, .. } => {
                    self.defined.insert(index, job.clone());
                }
                Step::Write { kind: Kind::Put, displayname, id, fate: Fate::Done, .. } => {
                    if let Some(op) = token(displayname) {
                        self.on_put(judge, index, op, *id);
                    }
                }
                Step::Write { kind, job, fate: Fate::Done, .. } => {
                    self.tallies.entry((job.clone(), *kind)).or_default().done += 1;
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

    fn on_put(&mut self, judge: &mut Judge, index: LogIndex, op: OpId, id: Option<CommandId>) {
        let first = *self.tokens.entry(op).or_insert((index, id));
        self.count.check(judge, first.0 == index, || {
            format!("write {} is done by entry {} and again by entry {index}", op.0, first.0)
        });
        let standing = self.writes.get(&op).map(|asked| asked.standing);
        self.count
            .check(judge, standing != Some(Standing::Refused), || refused_is_there(op, index));
    }

    /// Everything up to `upto` is replayed.
    pub(super) fn on_replayed(&mut self, judge: &mut Judge, upto: LogIndex) {
        while let Some((op, job, index)) = self.waiting.pop_front_if(|it| it.2 <= upto) {
            self.name(judge, op, &job, index);
        }
    }

    /// All is over.
    pub(super) fn on_end(
        &mut self,
        judge: &mut Judge,
        model: &Model,
        states: &BTreeMap<usize, State>,
    ) {
        for (op, job, index) in std::mem::take(&mut self.waiting) {
            self.name(judge, op, &job, index);
        }
        let mut tallies = std::mem::take(&mut self.tallies);
        for (op, Asked { kind, job, standing }) in std::mem::take(&mut self.writes) {
            if kind == Kind::Put {
                let lost = standing == Standing::Acknowledged && !self.tokens.contains_key(&op);
                self.count.check(judge, !lost, || {
                    format!("write {} of {job} was acknowledged and is gone", op.0)
                });
                continue;
            }
            let tally = tallies.entry((job, kind)).or_default();
            match standing {
                Standing::Acknowledged => tally.acknowledged += 1,
                Standing::Unknown => tally.unknown += 1,
                Standing::Refused => {}
            }
        }
        for ((job, kind), tally) in tallies {
            let Tally { acknowledged, unknown, done } = tally;
            let fits = acknowledged <= done && done <= acknowledged + unknown;
            self.count.check(judge, fits, || format!("{kind:?} of {job}: {tally:?}"));
        }
        for (host, state) in states {
            let behind = self.acknowledged.filter(|index| Some(*index) > state.applied());
            self.count.check(judge, behind.is_none(), || {
                format!("n{} lacks entry {behind:?}, which was acknowledged", host + 1)
            });
        }
        for (name, job) in &model.jobs {
            let gone = states.iter().find(|(_, state)| state.job(name).is_none());
            self.count.check(judge, gone.is_none(), || {
                let host = gone.map(|(host, _)| host + 1);
                format!("{name} of entry {} is gone from host {host:?}", job.revision)
            });
        }
    }

    /// Whether a put is in the log; `None` if the write was no put.
    pub(super) fn is_in_log(&self, op: OpId) -> Option<bool> {
        self.puts.contains(&op).then(|| self.tokens.contains_key(&op))
    }

    pub(super) fn verdict(&self, judge: &Judge) -> Verdict {
        self.count.verdict(judge)
    }
}

fn refused_is_there(op: OpId, index: LogIndex) -> String {
    format!("write {} was refused, and is entry {index}", op.0)
}

/// What an answer from the log says of the write.
fn standing_of(applied: &Applied) -> Standing {
    match applied {
        Applied::Put { .. }
        | Applied::Deleted(_)
        | Applied::Toggled(_)
        | Applied::Repeated
        | Applied::SettingsChanged
        | Applied::Founded(_)
        | Applied::Admitted
        | Applied::Started
        | Applied::Finished { .. } => Standing::Acknowledged,
        Applied::Claimed(claims) if claims.iter().any(Result::is_ok) => Standing::Acknowledged,
        Applied::Claimed(_) => Standing::Refused,
        // It may have been carried out before, which nobody knows any more.
        Applied::Rejected(cronclave::jobs::command::Reject::Forgotten) => Standing::Unknown,
        Applied::Rejected(_) => Standing::Refused,
    }
}
