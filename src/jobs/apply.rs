//! How an entry changes the state: [`State::apply`].
//!
//! Everything here is total: whatever a command says, the answer is an [`Applied`], and arithmetic
//! saturates. Time is the stamp of the entry, never a clock.
//!
//! **Invariants**
//! - An instant at or before a job's cursor is never claimed again; the cursor never goes back.
//! - An execution's id is the index of the entry that opened it and its number in that entry.
//! - A due instant that a change of its job makes void leaves a row (`missed`).
//! - Every execution of a job that is there gets a row when it ends, and only then; what was booked
//!   once is changed by nothing but the real end of one that was given up as lost.

use std::sync::Arc;
use std::time::Duration;

use crate::id::{ExecutionId, JobName, LogIndex, NodeName, Revision};
use crate::jobs::carried::{Answer, Seen};
use crate::jobs::command::{Applied, Claim, Command, Plan, Reject, Rows, Stamped, Timing};
use crate::jobs::history::change::Change;
use crate::jobs::job::{
    Concurrency, Execution, Group, Job, JobSpec, JobStatus, OUTPUT_LEN_MAX, Outcome, RunResult,
    Target, Trigger,
};
use crate::jobs::state::{NodeRecord, State};
use crate::time::Wall;

/// The pause before the second attempt; it doubles with each further one.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause between two attempts.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// The most open executions of one job. At it, due instants are skipped until some have ended.
const OPEN_PER_JOB_MAX: usize = 10_000;

/// The most nodes that the registry takes: ten times the agents that one cluster is built for.
const NODE_COUNT_MAX: usize = 65_536;

/// The most bytes of a reason that are kept.
const REASON_LEN_MAX: usize = 4_096;

/// Where and when a command is applied, the ids that it may give out, and what becomes of the
/// history by it.
struct Turn {
    index: LogIndex,
    stamp: Wall,
    slot: u32,
    changes: Vec<Change>,
}

impl Turn {
    fn draw_id(&mut self) -> ExecutionId {
        let id = ExecutionId { claim: self.index, slot: self.slot };
        self.slot = self.slot.saturating_add(1);
        id
    }

    fn revision(&self) -> Revision {
        Revision(self.index.0)
    }

    /// An execution that this entry or a later one would have to open is none.
    fn check_claimed(&self, id: ExecutionId) -> Result<(), Reject> {
        if id.claim < self.index { Ok(()) } else { Err(Reject::ExecutionNotFound) }
    }

    fn put_row(&mut self, row: Execution) {
        self.changes.push(Change::Put(Arc::new(row)));
    }
}

impl State {
    /// Carries out the entry at `index`, and says what becomes of the history by it. Total: a
    /// command that cannot be carried out is answered with the reason, and changes nothing.
    pub fn apply(&mut self, index: LogIndex, entry: &Stamped) -> (Applied, Vec<Change>) {
        if self.applied.is_some_and(|last| index <= last) {
            return (Applied::Rejected(Reject::AlreadyApplied(index)), Vec::new());
        }
        self.applied = Some(index);
        self.last_stamp = self.last_stamp.max(entry.stamp);
        let mut turn = Turn { index, stamp: self.last_stamp, slot: 0, changes: Vec::new() };
        let applied = match entry.id {
            None => self.carry_out(&mut turn, &entry.command),
            Some(id) => match self.carried.look(id) {
                Seen::Before(answer) => self.repeat(&entry.command, answer),
                Seen::Forgotten => Applied::Rejected(Reject::Forgotten),
                Seen::Never => {
                    let applied = self.carry_out(&mut turn, &entry.command);
                    if let Some(answer) = Answer::of(&applied) {
                        self.carried.remember(id, index, answer);
                    }
                    applied
                }
            },
        };
        (applied, turn.changes)
    }

    fn carry_out(&mut self, turn: &mut Turn, command: &Command) -> Applied {
        let done = match command {
            Command::Found { cluster } => match *self.cluster.get_or_insert(*cluster) {
                known if known == *cluster => Ok(Applied::Founded(known)),
                known => Err(Reject::OtherCluster(known)),
            },
            Command::Admit { name, id, boot, role } => {
                self.admit(name, NodeRecord { id: *id, boot: *boot, role: *role })
            }
            Command::Settings { timezone } => {
                self.timezone.clone_from(timezone);
                Ok(Applied::SettingsChanged)
            }
            Command::PutJob { spec, timing } => Ok(self.put_job(turn, spec, *timing)),
            Command::DeleteJob { name } => self.delete_job(turn, name),
            Command::ToggleJob { name, revision, next } => {
                self.toggle_job(turn, name, *revision, *next)
            }
            Command::Claim(claims) => Ok(self.claim_all(turn, claims)),
            Command::Started { execution, at } => self.started(turn, *execution, *at),
            Command::Finished { execution, result } => self.finished(turn, *execution, result),
            Command::Refound { cluster } => {
                self.cluster = Some(*cluster);
                Ok(Applied::Founded(*cluster))
            }
        };
        done.unwrap_or_else(Applied::Rejected)
    }

    /// Answers a write that was carried out before, with the job as it is now.
    fn repeat(&self, command: &Command, answer: Answer) -> Applied {
        let name = match command {
            Command::PutJob { spec, .. } => Some(&spec.name),
            Command::ToggleJob { name, .. } => Some(name),
            Command::Found { .. }
            | Command::Admit { .. }
            | Command::Settings { .. }
            | Command::DeleteJob { .. }
            | Command::Claim(_)
            | Command::Started { .. }
            | Command::Finished { .. }
            | Command::Refound { .. } => None,
        };
        let job = name.and_then(|name| self.jobs.get(name)).cloned();
        match (answer, job) {
            (Answer::Put { created }, Some(job)) => Applied::Put { job, created },
            (Answer::Toggled, Some(job)) => Applied::Toggled(job),
            (Answer::Claimed(claims), _) => Applied::Claimed(claims),
            (Answer::Rejected(reject), _) => Applied::Rejected(reject),
            (Answer::Put { .. } | Answer::Toggled, None) => Applied::Repeated,
            (Answer::Deleted | Answer::Other, _) => Applied::Repeated,
        }
    }

    fn admit(&mut self, name: &NodeName, node: NodeRecord) -> Result<Applied, Reject> {
        match self.nodes.get(name) {
            Some(known) if known.id == node.id && node.boot <= known.boot => {
                return Err(Reject::RepeatedBoot(node.boot));
            }
            None if self.nodes.len() >= NODE_COUNT_MAX => {
                return Err(Reject::TooManyNodes(self.nodes.len() as u64));
            }
            Some(_) | None => {}
        }
        self.nodes.insert(name.clone(), node);
        Ok(Applied::Admitted)
    }
}

/// Definitions.
impl State {
    fn put_job(&mut self, turn: &mut Turn, spec: &Arc<JobSpec>, timing: Timing) -> Applied {
        let Some(old) = self.jobs.get(&spec.name).cloned() else {
            let job = Arc::new(new_job(turn, spec, timing));
            self.store_job(Arc::clone(&job));
            return Applied::Put { job, created: true };
        };
        if old.spec == *spec {
            return Applied::Put { job: old, created: false };
        }
        let same_schedule = old.spec.has_schedule_of(spec);
        let keeps_next = old.spec.has_times_of(spec) && !old.spec.disabled && !spec.disabled;
        let mut job = Job { spec: Arc::clone(spec), revision: turn.revision(), ..(*old).clone() };
        if !same_schedule {
            job.anchor = timing.anchor;
        }
        if !keeps_next {
            miss_overdue(turn, &old);
            retime(&mut job, turn, timing);
        }
        let job = Arc::new(job);
        self.store_job(Arc::clone(&job));
        Applied::Put { job, created: false }
    }

    fn delete_job(&mut self, turn: &mut Turn, name: &JobName) -> Result<Applied, Reject> {
        let job = self.remove_job(name).ok_or(Reject::JobNotFound)?;
        self.forget_ended(turn, name);
        Ok(Applied::Deleted(job))
    }

    fn toggle_job(
        &mut self,
        turn: &mut Turn,
        name: &JobName,
        revision: Revision,
        next: Option<Wall>,
    ) -> Result<Applied, Reject> {
        let old = self.jobs.get(name).cloned().ok_or(Reject::JobNotFound)?;
        if old.revision != revision {
            return Err(Reject::StaleRevision(old.revision));
        }
        let spec = JobSpec { disabled: !old.spec.disabled, ..(*old.spec).clone() };
        let mut job = Job { spec: Arc::new(spec), revision: turn.revision(), ..(*old).clone() };
        miss_overdue(turn, &old);
        retime(&mut job, turn, Timing { anchor: old.anchor, next });
        let job = Arc::new(job);
        self.store_job(Arc::clone(&job));
        Ok(Applied::Toggled(job))
    }

    /// A job is gone: so is its history.
    fn forget_ended(&mut self, turn: &mut Turn, name: &JobName) {
        self.forget_lost(name);
        turn.changes.push(Change::Forget(name.clone()));
    }
}

/// Claims.
impl State {
    fn claim_all(&mut self, turn: &mut Turn, claims: &[Claim]) -> Applied {
        Applied::Claimed(claims.iter().map(|claim| self.claim(turn, claim)).collect())
    }

    fn claim(&mut self, turn: &mut Turn, claim: &Claim) -> Result<Rows, Reject> {
        let job = self.jobs.get(&claim.job).cloned().ok_or(Reject::JobNotFound)?;
        if job.revision != claim.revision {
            return Err(Reject::StaleRevision(job.revision));
        }
        match claim.trigger {
            Trigger::Schedule if claim.due > turn.stamp => return Err(Reject::Early(turn.stamp)),
            Trigger::Schedule => self.advance(&job, claim)?,
            Trigger::Manual => {}
            Trigger::Retry => return Err(Reject::RetryClaimed),
        }
        match &claim.plan {
            Plan::Run(targets) => Ok(self.open_all(turn, &job, claim, targets)),
            Plan::Skip(reason) => Ok(not_run(turn, &job, claim, Outcome::Skipped, reason)),
            Plan::Miss(reason) => Ok(not_run(turn, &job, claim, Outcome::Missed, reason)),
        }
    }

    /// Moves cursor and `next` of a job over the claimed instant.
    fn advance(&mut self, job: &Arc<Job>, claim: &Claim) -> Result<(), Reject> {
        if job.spec.disabled {
            return Err(Reject::Disabled);
        }
        let is_due = claim.due > job.cursor;
        // An instant that is both claimed and next could never be left otherwise.
        if is_due || job.next == Some(claim.due) {
            let cursor = job.cursor.max(claim.due);
            self.store_job(Arc::new(Job { cursor, next: claim.next, ..(**job).clone() }));
        }
        if is_due { Ok(()) } else { Err(Reject::NotDue(job.cursor)) }
    }

    fn open_all(&mut self, turn: &mut Turn, job: &Job, claim: &Claim, targets: &[Target]) -> Rows {
        let first = self.open_of(job).next().map(|row| row.id);
        if let (Concurrency::Forbid, Some(first)) = (job.spec.concurrency, first) {
            let reason = format!("concurrency forbid: execution {first} is still open");
            return not_run(turn, job, claim, Outcome::Skipped, &reason);
        }
        let open = self.open_by_job.len_of(&job.spec.name);
        if open.saturating_add(targets.len()) > OPEN_PER_JOB_MAX {
            let reason = format!(
                "{open} executions are still open, with {} more there would be over \
                 {OPEN_PER_JOB_MAX}",
                targets.len()
            );
            return not_run(turn, job, claim, Outcome::Skipped, &reason);
        }
        let Ok(count @ 1..) = u32::try_from(targets.len()) else {
            return not_run(turn, job, claim, Outcome::Missed, "no node to run it on");
        };
        let ids: Vec<ExecutionId> = targets.iter().map(|_| turn.draw_id()).collect();
        let first = ids[0];
        for (id, target) in ids.into_iter().zip(targets) {
            let mut row = new_row(turn, job, id, claim.trigger, claim.due);
            row.group = first;
            row.node = Some(target.clone());
            row.outcome = Outcome::Claimed;
            row.finished_at = None;
            self.store_open(Arc::new(row));
        }
        self.groups.insert(first, Group { id: first, open: count, succeeded: 0, failed: 0 });
        Rows { first, count }
    }
}

/// Runs.
impl State {
    /// An execution that is not open has ended before this was heard, or is none that was claimed:
    /// which of these makes no difference to its node.
    fn started(&mut self, turn: &Turn, id: ExecutionId, at: Wall) -> Result<Applied, Reject> {
        turn.check_claimed(id)?;
        let Some(row) = self.open.get_mut(&id) else { return Ok(Applied::Started) };
        if row.outcome == Outcome::Claimed {
            let row = Arc::make_mut(row);
            row.outcome = Outcome::Running;
            row.started_at = Some(at.max(row.not_before).min(turn.stamp));
        }
        Ok(Applied::Started)
    }

    /// An execution that is neither open nor lost has its end: the first that was booked stands.
    fn finished(
        &mut self,
        turn: &mut Turn,
        id: ExecutionId,
        result: &RunResult,
    ) -> Result<Applied, Reject> {
        match result.outcome {
            Outcome::Succeeded | Outcome::Failed | Outcome::Lost => {}
            Outcome::Claimed | Outcome::Running | Outcome::Skipped | Outcome::Missed => {
                return Err(Reject::NotAnEnd);
            }
        }
        turn.check_claimed(id)?;
        let mut retry = None;
        if let Some(row) = self.remove_open(id) {
            retry = self.close(turn, row, result);
        } else if result.outcome != Outcome::Lost
            && let Some(row) = self.remove_lost(id)
        {
            self.correct(turn, row, result);
        }
        Ok(Applied::Finished { retry })
    }

    /// Books the end of an open execution, which was taken out of `open`.
    fn close(
        &mut self,
        turn: &mut Turn,
        row: Arc<Execution>,
        result: &RunResult,
    ) -> Option<ExecutionId> {
        let row = book(row, result, turn.stamp);
        let job = self.jobs.get(&row.job).filter(|job| job.created == row.job_created).cloned();
        let Some(job) = job else {
            self.leave_group(&row);
            return None;
        };
        let mut job = (*job).clone();
        count(&mut job, row.outcome, turn.stamp);
        let again = row.outcome == Outcome::Failed && row.attempt <= job.spec.retries;
        let retry = again.then(|| self.open_retry(turn, &job, &row));
        if retry.is_none()
            && let Some(group) = self.leave_group(&row)
        {
            job.status = group.status();
            job.last_group = Some(group);
        }
        let over = job.last_group.is_some_and(|group| group.id == row.group);
        if row.outcome == Outcome::Lost {
            let (reason, output) = (String::new(), Arc::from(""));
            self.store_lost(Arc::new(Execution { reason, output, ..row.clone() }));
        }
        turn.put_row(row);
        self.settle(turn, job, over);
        retry
    }

    /// Puts the real end in the place of a `lost`. There is no retry any more: its due instant was
    /// given up long ago.
    fn correct(&mut self, turn: &mut Turn, row: Arc<Execution>, result: &RunResult) {
        let row = book(row, result, turn.stamp);
        let Some(job) = self.jobs.get(&row.job).cloned() else { return };
        let mut job = (*job).clone();
        job.error_count = job.error_count.saturating_sub(1);
        count(&mut job, row.outcome, turn.stamp);
        let last = job.last_group.as_mut().filter(|group| group.id == row.group);
        let over = last.is_some();
        if row.outcome == Outcome::Succeeded
            && let Some(group) = last.or_else(|| self.groups.get_mut(&row.group))
        {
            group.failed = group.failed.saturating_sub(1);
            group.succeeded = group.succeeded.saturating_add(1);
        }
        if let (true, Some(group)) = (over, job.last_group) {
            job.status = group.status();
        }
        turn.put_row(row);
        self.settle(turn, job, over);
    }

    /// Stores a job after one of its executions has ended; an ephemeral one goes with the success
    /// of its group.
    fn settle(&mut self, turn: &mut Turn, job: Job, group_is_over: bool) {
        if job.spec.ephemeral && group_is_over && job.status == JobStatus::Success {
            self.remove_job(&job.spec.name);
            self.forget_ended(turn, &job.spec.name);
        } else {
            self.store_job(Arc::new(job));
        }
    }

    fn open_retry(&mut self, turn: &mut Turn, job: &Job, before: &Execution) -> ExecutionId {
        let id = turn.draw_id();
        let mut row = new_row(turn, job, id, Trigger::Retry, before.due);
        row.group = before.group;
        row.claimed_at = before.claimed_at;
        row.node = before.node.clone();
        row.attempt = before.attempt.saturating_add(1);
        row.not_before = turn.stamp + pause_after(before.attempt);
        row.outcome = Outcome::Claimed;
        row.finished_at = None;
        self.store_open(Arc::new(row));
        id
    }

    /// Counts an end in its group; the group, if that was the last one.
    fn leave_group(&mut self, row: &Execution) -> Option<Group> {
        let group = self.groups.get_mut(&row.group)?;
        group.open = group.open.saturating_sub(1);
        let end = match row.outcome {
            Outcome::Succeeded => &mut group.succeeded,
            Outcome::Failed | Outcome::Lost => &mut group.failed,
            Outcome::Claimed | Outcome::Running | Outcome::Skipped | Outcome::Missed => {
                return None;
            }
        };
        *end = end.saturating_add(1);
        let group = *group;
        if group.open > 0 {
            return None;
        }
        self.groups.remove(&row.group)
    }
}

fn new_job(turn: &Turn, spec: &Arc<JobSpec>, timing: Timing) -> Job {
    let mut job = Job {
        spec: Arc::clone(spec),
        created: turn.index,
        revision: turn.revision(),
        anchor: timing.anchor,
        cursor: turn.stamp,
        next: None,
        success_count: 0,
        error_count: 0,
        last_success: None,
        last_error: None,
        status: JobStatus::Untriggered,
        last_group: None,
    };
    retime(&mut job, turn, timing);
    job
}

/// Starts a job's times anew: what fell due up to now is not run.
fn retime(job: &mut Job, turn: &Turn, timing: Timing) {
    if job.spec.disabled {
        job.next = None;
    } else {
        job.anchor = timing.anchor;
        job.next = timing.next;
    }
    job.cursor = job.cursor.max(turn.stamp);
}

/// Leaves a row for the instant that was due and not yet claimed when its job was changed.
fn miss_overdue(turn: &mut Turn, old: &Job) {
    let overdue = old.next.filter(|next| *next > old.cursor && *next <= turn.stamp);
    if let (false, Some(due)) = (old.spec.disabled, overdue) {
        let id = turn.draw_id();
        let mut row = new_row(turn, old, id, Trigger::Schedule, due);
        row.reason = "the job was changed before it could run".to_owned();
        turn.put_row(row);
    }
}

/// Leaves a row for a due instant that runs nowhere.
fn not_run(turn: &mut Turn, job: &Job, claim: &Claim, outcome: Outcome, reason: &str) -> Rows {
    let first = turn.draw_id();
    let mut row = new_row(turn, job, first, claim.trigger, claim.due);
    row.outcome = outcome;
    row.reason = head(reason, REASON_LEN_MAX).to_owned();
    turn.put_row(row);
    Rows { first, count: 1 }
}

/// The row of a due instant that runs nowhere; what opens an execution changes the rest.
fn new_row(turn: &Turn, job: &Job, id: ExecutionId, trigger: Trigger, due: Wall) -> Execution {
    Execution {
        id,
        group: id,
        job: job.spec.name.clone(),
        job_created: job.created,
        revision: job.revision,
        due,
        claimed_at: turn.stamp,
        trigger,
        node: None,
        attempt: 1,
        not_before: turn.stamp,
        started_at: None,
        finished_at: Some(turn.stamp),
        outcome: Outcome::Missed,
        reason: String::new(),
        exit_code: None,
        output: Arc::from(""),
        output_truncated: false,
    }
}

/// The row with its end.
fn book(row: Arc<Execution>, result: &RunResult, stamp: Wall) -> Execution {
    let output = tail(&result.output, OUTPUT_LEN_MAX);
    let mut row = Arc::unwrap_or_clone(row);
    // Its start was not reported before its end: it is known to have been started by now.
    if result.outcome == Outcome::Succeeded && row.started_at.is_none() {
        row.started_at = Some(stamp);
    }
    row.finished_at = Some(stamp);
    row.outcome = result.outcome;
    row.reason = head(&result.reason, REASON_LEN_MAX).to_owned();
    row.exit_code = result.exit_code;
    row.output = Arc::from(output);
    row.output_truncated = result.output_truncated || output.len() < result.output.len();
    row
}

fn count(job: &mut Job, outcome: Outcome, stamp: Wall) {
    match outcome {
        Outcome::Succeeded => {
            job.success_count = job.success_count.saturating_add(1);
            job.last_success = Some(stamp);
        }
        Outcome::Failed | Outcome::Lost => {
            job.error_count = job.error_count.saturating_add(1);
            job.last_error = Some(stamp);
        }
        Outcome::Claimed | Outcome::Running | Outcome::Skipped | Outcome::Missed => {}
    }
}

fn pause_after(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    RETRY_PAUSE.saturating_mul(1 << doublings).min(RETRY_PAUSE_MAX)
}

/// The longest beginning of `text` that has at most `max` bytes and whole characters.
fn head(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// The longest end of `text` that has at most `max` bytes and whole characters.
pub(super) fn tail(text: &str, max: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(max))..]
}
