//! What the committed log makes of jobs, worked out anew: [`Model`].
//!
//! It replays the commands by the rules that the design states and shares no code with the
//! product's state machine; [`states`](super::states) compares the two after every entry. What a
//! command did is given as [`Step`]s to the checkers that judge it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cronclave::id::{CommandId, ExecutionId, JobName, LogIndex, NodeId, Revision};
use cronclave::jobs::command::{Claim, Command, Plan, Stamped, Timing};
use cronclave::jobs::job::{Concurrency, JobSpec, Outcome, RunResult, Trigger};
use cronclave::time::Wall;

use super::model_rows::{Group, Row, Rows};

/// How many writes of one client are told from new ones (the design's window).
const WINDOW: usize = 4_096;

/// The most open executions of a job; beyond them instants are skipped.
const OPEN_MAX: usize = 10_000;

/// What kind of write a client has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Put,
    Toggle,
    Delete,
    Run,
}

/// What came of a write in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    /// It had been carried out before.
    Repeated,
    Rejected,
}

/// One thing that an entry has done.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A write of a client.
    Write { kind: Kind, job: JobName, displayname: String, id: Option<CommandId>, fate: Fate },
    /// A job has another definition, or is gone.
    Defined { job: JobName, revision: Option<Revision> },
    /// The times of a job begin anew: what is due after `from` is to be claimed.
    Timed { spec: Arc<JobSpec>, anchor: Wall, from: Wall },
    /// The times of a job have ended. What fell due up to `until` and was not claimed is void, and
    /// leaves a row, unless the job is gone; `missed` is the row that it left.
    Stopped { job: JobName, until: Wall, missed: Option<Wall>, is_deleted: bool },
    /// The zone of jobs that name none has changed.
    Zoned,
    /// A due instant was claimed.
    Instant { job: JobName, due: Wall, has_reason: bool, outcome: Outcome },
    /// An execution stands open.
    Opened(ExecutionId),
    /// An execution has ended, or its end was corrected. Its job may be gone.
    Closed { id: ExecutionId, has_row: bool, is_corrected: bool },
}

/// A job, as far as the log says.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) spec: Arc<JobSpec>,
    pub(super) created: LogIndex,
    pub(super) revision: Revision,
    pub(super) anchor: Wall,
    pub(super) cursor: Wall,
    pub(super) next: Option<Wall>,
    last_group: Option<(ExecutionId, Group)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) jobs: BTreeMap<JobName, Job>,
    pub(super) rows: Rows,
    pub(super) zone: String,
    pub(super) last_stamp: Wall,
    clients: BTreeMap<NodeId, Client>,
}

#[derive(Debug, Default)]
struct Client {
    boot: u64,
    done: BTreeSet<u64>,
    forgotten: u64,
}

/// The entry that is being replayed.
struct Turn<'a> {
    index: LogIndex,
    stamp: Wall,
    slot: u32,
    steps: &'a mut Vec<Step>,
}

impl Turn<'_> {
    fn draw(&mut self) -> ExecutionId {
        self.slot += 1;
        ExecutionId { claim: self.index, slot: self.slot - 1 }
    }
}

impl Model {
    /// Replays the command at `index`, and appends what it did to `steps`.
    pub(super) fn apply(&mut self, index: LogIndex, entry: &Stamped, steps: &mut Vec<Step>) {
        self.last_stamp = self.last_stamp.max(entry.stamp);
        let known = entry.id.map_or(Fate::Done, |id| self.look(id));
        let mut turn = Turn { index, stamp: self.last_stamp, slot: 0, steps };
        let is_done = match known {
            Fate::Done => self.carry_out(&mut turn, &entry.command),
            Fate::Repeated | Fate::Rejected => false,
        };
        // A rejection is an answer too: a copy that comes later is not carried out after all.
        if let (Fate::Done, Some(id)) = (known, entry.id) {
            self.remember(id);
        }
        let fate = match (known, is_done) {
            (Fate::Repeated, _) => Fate::Repeated,
            (_, true) => Fate::Done,
            (_, false) => Fate::Rejected,
        };
        steps.extend(write_of(entry, fate));
    }

    fn look(&self, id: CommandId) -> Fate {
        let Some(client) = self.clients.get(&id.node) else { return Fate::Done };
        match id.boot.0.cmp(&client.boot) {
            std::cmp::Ordering::Greater => Fate::Done,
            std::cmp::Ordering::Less => Fate::Rejected,
            std::cmp::Ordering::Equal if client.done.contains(&id.seq) => Fate::Repeated,
            std::cmp::Ordering::Equal if id.seq <= client.forgotten => Fate::Rejected,
            std::cmp::Ordering::Equal => Fate::Done,
        }
    }

    fn remember(&mut self, id: CommandId) {
        let client = self.clients.entry(id.node).or_default();
        if client.boot != id.boot.0 {
            *client = Client { boot: id.boot.0, ..Client::default() };
        }
        client.done.insert(id.seq);
        if client.done.len() > WINDOW
            && let Some(oldest) = client.done.pop_first()
        {
            client.forgotten = client.forgotten.max(oldest);
        }
    }

    /// Says whether anything was done that a repetition must not do again.
    fn carry_out(&mut self, turn: &mut Turn<'_>, command: &Command) -> bool {
        match command {
            Command::PutJob { spec, timing } => self.put(turn, spec, *timing),
            Command::DeleteJob { name } => self.delete(turn, name),
            Command::ToggleJob { name, revision, next } => {
                self.toggle(turn, name, *revision, *next)
            }
            Command::Claim(claims) => {
                claims.iter().filter(|claim| self.claim(turn, claim)).count() > 0
            }
            Command::Finished { execution, result } => {
                self.finish(turn, *execution, result);
                true
            }
            Command::Started { execution, .. } => {
                self.rows.start(*execution);
                true
            }
            Command::Settings { timezone } => {
                self.zone.clone_from(timezone);
                turn.steps.push(Step::Zoned);
                true
            }
            Command::Found { .. } | Command::Refound { .. } | Command::Admit { .. } => true,
        }
    }

    fn put(&mut self, turn: &mut Turn<'_>, spec: &Arc<JobSpec>, timing: Timing) -> bool {
        let revision = Revision(turn.index.0);
        let old = self.jobs.get(&spec.name);
        if old.is_some_and(|old| old.spec == *spec) {
            return true;
        }
        let keeps = old
            .is_some_and(|old| old.spec.has_times_of(spec) && !old.spec.disabled && !spec.disabled);
        let fresh = Job {
            spec: Arc::clone(spec),
            created: turn.index,
            revision,
            anchor: timing.anchor,
            cursor: turn.stamp,
            next: None,
            last_group: None,
        };
        let mut job = old.cloned().unwrap_or(fresh);
        if !job.spec.has_schedule_of(spec) {
            job.anchor = timing.anchor;
        }
        if !keeps {
            self.stop(turn, &spec.name);
        }
        job.spec = Arc::clone(spec);
        job.revision = revision;
        if !keeps {
            retime(turn, &mut job, timing);
        }
        self.define(turn, job);
        true
    }

    fn toggle(
        &mut self,
        turn: &mut Turn<'_>,
        name: &JobName,
        revision: Revision,
        next: Option<Wall>,
    ) -> bool {
        let current = self.jobs.get(name).filter(|job| job.revision == revision);
        let Some(mut job) = current.cloned() else { return false };
        self.stop(turn, name);
        let spec = Arc::make_mut(&mut job.spec);
        spec.disabled = !spec.disabled;
        job.revision = Revision(turn.index.0);
        let timing = Timing { anchor: job.anchor, next };
        retime(turn, &mut job, timing);
        self.define(turn, job);
        true
    }

    fn define(&mut self, turn: &mut Turn<'_>, job: Job) {
        let (name, revision) = (job.spec.name.clone(), Some(job.revision));
        turn.steps.push(Step::Defined { job: name.clone(), revision });
        self.jobs.insert(name, job);
    }

    /// The times that a job had are over.
    fn stop(&mut self, turn: &mut Turn<'_>, name: &JobName) {
        let Some(job) = self.jobs.get(name).filter(|job| !job.spec.disabled) else { return };
        let missed = job.next.filter(|next| *next > job.cursor && *next <= turn.stamp);
        if let Some(due) = missed {
            let id = turn.draw();
            self.rows.not_run(id, job, (Trigger::Schedule, due), Outcome::Missed, turn.index);
        }
        let (job, until) = (name.clone(), turn.stamp);
        turn.steps.push(Step::Stopped { job, until, missed, is_deleted: false });
    }

    fn delete(&mut self, turn: &mut Turn<'_>, name: &JobName) -> bool {
        let Some(job) = self.jobs.remove(name) else { return false };
        if !job.spec.disabled {
            let (job, until) = (name.clone(), turn.stamp);
            turn.steps.push(Step::Stopped { job, until, missed: None, is_deleted: true });
        }
        turn.steps.push(Step::Defined { job: name.clone(), revision: None });
        true
    }

    fn claim(&mut self, turn: &mut Turn<'_>, claim: &Claim) -> bool {
        let Some(job) = self.jobs.get_mut(&claim.job) else { return false };
        if job.revision != claim.revision {
            return false;
        }
        match claim.trigger {
            Trigger::Retry => return false,
            Trigger::Manual => {}
            Trigger::Schedule => {
                if claim.due > turn.stamp || job.spec.disabled {
                    return false;
                }
                let is_due = claim.due > job.cursor;
                if is_due || job.next == Some(claim.due) {
                    job.cursor = job.cursor.max(claim.due);
                    job.next = claim.next;
                }
                if !is_due {
                    return false;
                }
            }
        }
        let job = &*job;
        let open = self.rows.open_of(job);
        let (outcome, has_reason) = match &claim.plan {
            Plan::Skip(reason) => (Outcome::Skipped, !reason.is_empty()),
            Plan::Miss(reason) => (Outcome::Missed, !reason.is_empty()),
            Plan::Run(_) if job.spec.concurrency == Concurrency::Forbid && open > 0 => {
                (Outcome::Skipped, true)
            }
            Plan::Run(targets) if self.rows.open_named(&claim.job) + targets.len() > OPEN_MAX => {
                (Outcome::Skipped, true)
            }
            Plan::Run(targets) if targets.is_empty() => (Outcome::Missed, true),
            Plan::Run(_) => (Outcome::Claimed, true),
        };
        let why = (claim.trigger, claim.due);
        match (&claim.plan, outcome) {
            (Plan::Run(targets), Outcome::Claimed) => {
                let ids: Vec<ExecutionId> = targets.iter().map(|_| turn.draw()).collect();
                let targets = ids.iter().zip(targets).map(|(id, target)| (*id, target.id));
                self.rows.open(job, why, turn.stamp, targets);
                turn.steps.extend(ids.into_iter().map(Step::Opened));
            }
            (_, outcome) => {
                let id = turn.draw();
                self.rows.not_run(id, job, why, outcome, turn.index);
            }
        }
        if claim.trigger == Trigger::Schedule {
            let (job, due) = (claim.job.clone(), claim.due);
            turn.steps.push(Step::Instant { job, due, has_reason, outcome });
        }
        true
    }

    fn finish(&mut self, turn: &mut Turn<'_>, id: ExecutionId, result: &RunResult) {
        let is_end = matches!(result.outcome, Outcome::Succeeded | Outcome::Failed | Outcome::Lost);
        if !is_end || id.claim >= turn.index {
            return;
        }
        let Some(row) = self.rows.get(id).cloned() else { return };
        let job = self.jobs.get_mut(&row.job).filter(|job| job.created == row.job_created);
        let is_correction = row.outcome == Outcome::Lost && result.outcome != Outcome::Lost;
        let is_lost_of_job = is_correction && row.has_row && job.is_some();
        if !row.outcome.is_open() && !is_lost_of_job {
            return;
        }
        let Some(job) = job else {
            self.rows.close(&row, result, turn.index, false);
            turn.steps.push(Step::Closed { id, has_row: false, is_corrected: false });
            return;
        };
        self.rows.close(&row, result, turn.index, true);
        turn.steps.push(Step::Closed { id, has_row: true, is_corrected: is_correction });
        let is_over = if is_correction {
            let last = job.last_group.as_mut().filter(|last| last.0 == row.group);
            let is_last = last.is_some();
            self.rows.correct_group(row.group, last.map(|last| &mut last.1), result);
            is_last
        } else if result.outcome == Outcome::Failed && row.attempt <= job.spec.retries {
            let retry = turn.draw();
            self.rows.retry(retry, &row, turn.stamp);
            turn.steps.push(Step::Opened(retry));
            false
        } else {
            let over = self.rows.leave_group(row.group, result.outcome);
            job.last_group = over.map(|group| (row.group, group)).or(job.last_group);
            job.last_group.is_some_and(|last| last.0 == row.group)
        };
        let well =
            job.last_group.is_some_and(|(_, group)| group.succeeded > 0 && group.failed == 0);
        if job.spec.ephemeral && is_over && well {
            let name = row.job.clone();
            self.delete(turn, &name);
        }
    }
}

/// Starts the times of a job anew: what fell due up to now is not run.
fn retime(turn: &mut Turn<'_>, job: &mut Job, timing: Timing) {
    job.cursor = job.cursor.max(turn.stamp);
    if job.spec.disabled {
        job.next = None;
        return;
    }
    job.anchor = timing.anchor;
    job.next = timing.next;
    let (spec, anchor, from) = (Arc::clone(&job.spec), job.anchor, job.cursor);
    turn.steps.push(Step::Timed { spec, anchor, from });
}

/// The write that an entry stands for, if a client has asked for it.
fn write_of(entry: &Stamped, fate: Fate) -> Option<Step> {
    let (kind, job, displayname) = match &entry.command {
        Command::PutJob { spec, .. } => (Kind::Put, spec.name.clone(), spec.displayname.clone()),
        Command::DeleteJob { name } => (Kind::Delete, name.clone(), String::new()),
        Command::ToggleJob { name, .. } => (Kind::Toggle, name.clone(), String::new()),
        Command::Claim(claims) => {
            let manual = claims.iter().find(|claim| claim.trigger == Trigger::Manual)?;
            (Kind::Run, manual.job.clone(), String::new())
        }
        Command::Found { .. }
        | Command::Admit { .. }
        | Command::Settings { .. }
        | Command::Started { .. }
        | Command::Finished { .. }
        | Command::Refound { .. } => return None,
    };
    Some(Step::Write { kind, job, displayname, id: entry.id, fate })
}

impl Row {
    /// Whether this row stands in the history of a job that is there.
    pub(super) fn is_of(&self, jobs: &BTreeMap<JobName, Job>) -> bool {
        jobs.get(&self.job).is_some_and(|job| job.created == self.job_created)
    }
}
