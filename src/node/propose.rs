//! Clients' writes, as a leader works them out and proposes them.
//!
//! **Invariants**
//! - Before a change that ends a job's times, everything that was due by then is in the log: as a
//!   run, or as missed if it still waited for a node.

use std::collections::BTreeMap;

use super::Node;
use super::lead::{Fresh, Leading, Own};
use super::message::Refusal;
use super::request::{RequestError, Write};
use crate::codec::encode;
use crate::dispatch::timing;
use crate::id::{CommandId, JobName, Revision};
use crate::jobs::State;
use crate::jobs::command::{Claim, Command, Plan, Stamped, Timing};
use crate::jobs::job::{Job, JobSpec, Trigger};
use crate::schedule::parse_zone;
use crate::time::{Now, Wall};

/// The changes of jobs' times that this leader has proposed and not applied yet, with the first
/// instant of the new times.
#[derive(Debug, Default)]
pub(super) struct Retimed {
    jobs: BTreeMap<CommandId, JobName>,
    firsts: BTreeMap<(JobName, CommandId), Wall>,
}

impl Retimed {
    fn on_proposed(&mut self, id: CommandId, command: &Command) {
        let (name, first) = match command {
            Command::PutJob { spec, timing } => (&spec.name, timing.next),
            Command::ToggleJob { name, next, .. } => (name, *next),
            Command::DeleteJob { .. }
            | Command::Claim(_)
            | Command::Started { .. }
            | Command::Finished { .. }
            | Command::Settings { .. }
            | Command::Found { .. }
            | Command::Refound { .. }
            | Command::Admit { .. } => return,
        };
        if let Some(first) = first {
            self.jobs.insert(id, name.clone());
            self.firsts.insert((name.clone(), id), first);
        }
    }

    /// It is applied, or was refused by the log.
    pub(super) fn on_settled(&mut self, id: CommandId) {
        if let Some(name) = self.jobs.remove(&id) {
            self.firsts.remove(&(name, id));
        }
    }

    /// Whether a job has times under way by which it is due by `at`: nobody can claim that yet.
    fn is_due(&self, job: &JobName, at: Wall) -> bool {
        let of_job = self.firsts.range((job.clone(), CommandId::default())..);
        of_job.take_while(|((name, _), _)| name == job).any(|(_, first)| *first <= at)
    }
}

impl Node {
    /// Works out a client's write and proposes it, after what has to be in the log before.
    ///
    /// # Errors
    /// If it is not valid as the state stands, the disk is full, or it is not its turn yet.
    pub(super) fn propose_write(&mut self, id: CommandId, write: &Write) -> Result<(), Refusal> {
        if matches!(write, Write::RunJob(_)) {
            self.check_history()?;
        }
        let no_leader = || RequestError::NoLeader("this node no longer leads".into());
        let state = self.state().ok_or(RequestError::NotServer)?;
        if let Some(refusal) = self.refusal_of_full_disk() {
            return Err(refusal.into());
        }
        let now = self.cluster_now().ok_or_else(no_leader)?;
        let stamp = now.max(state.last_stamp());
        let command = self.prepare(&state, stamp, write).map_err(RequestError::Invalid)?;
        self.claim_overdue(&state, stamp, id, write)?;
        let engine = self.engine.as_mut().ok_or(RequestError::NotServer)?;
        if let Some(leading) = &mut self.leading {
            leading.retimed.on_proposed(id, &command);
        }
        engine.propose(id, encode(&Stamped { stamp, id: Some(id), command }));
        Ok(())
    }

    fn check_history(&self) -> Result<(), RequestError> {
        if self.unkept.is_behind() {
            let text = "the disk is behind with it, and nothing new is run until it has caught up";
            return Err(RequestError::HistoryUnavailable(text.into()));
        }
        Ok(())
    }

    /// Proposes the claims of what is due of the job whose times `write` ends, if it does.
    fn claim_overdue(
        &mut self,
        state: &State,
        stamp: Wall,
        id: CommandId,
        write: &Write,
    ) -> Result<(), Refusal> {
        let Some(name) = retimed_by(write).filter(|_| !state.has_carried_out(id)) else {
            return Ok(());
        };
        let at = Now { mono: self.now.mono, wall: stamp };
        let nodes = self.nodes();
        let Some(Leading { stage: Fresh::Yes(leader), claims: may_claim, retimed, .. }) =
            &mut self.leading
        else {
            return Err(Refusal::NotLeader);
        };
        if retimed.is_due(name, stamp) {
            return Err(Refusal::NotYet);
        }
        let Some(job) = state.job(name).filter(|job| ends_times(job, write)) else {
            return Ok(());
        };
        let may_claim = *may_claim;
        let claims = leader.claim_before_change(at, state, job, &nodes);
        match claims {
            Some(claims) if claims.is_empty() => Ok(()),
            Some(claims) if may_claim => {
                self.propose_own(stamp, Command::Claim(claims), Own::Overdue);
                Ok(())
            }
            Some(_) | None => {
                self.check_history()?;
                Err(Refusal::NotYet)
            }
        }
    }

    fn prepare(&mut self, state: &State, stamp: Wall, write: &Write) -> Result<Command, String> {
        match write {
            Write::PutJob(spec) => {
                let anchor = state.anchor_for(spec, stamp);
                let next = match known_next(state, spec, stamp) {
                    Some(next) => Some(next),
                    None => next_of(state, spec, stamp, anchor)?,
                };
                Ok(Command::PutJob { spec: spec.clone(), timing: Timing { anchor, next } })
            }
            Write::DeleteJob(name) => Ok(Command::DeleteJob { name: name.clone() }),
            Write::ToggleJob(name) => {
                let job = state.job(name);
                let revision = job.map_or(Revision(0), |job| job.revision);
                let next = match job {
                    Some(job) => next_of(state, &job.spec, stamp, job.anchor)?,
                    None => None,
                };
                Ok(Command::ToggleJob { name: name.clone(), revision, next })
            }
            Write::RunJob(name) => {
                let nodes = self.nodes();
                let leading = self.leading.as_mut();
                let Some(Leading { stage: Fresh::Yes(leader), .. }) = leading else {
                    return Err("this node no longer leads".into());
                };
                let claim = match state.job(name) {
                    Some(job) => leader.claim_manual(stamp, job, &nodes)?,
                    // The log says that there is none, and not this state, which may be older.
                    None => Claim {
                        job: name.clone(),
                        revision: Revision(0),
                        trigger: Trigger::Manual,
                        due: stamp,
                        next: None,
                        plan: Plan::Run(Vec::new()),
                    },
                };
                Ok(Command::Claim(vec![claim]))
            }
            Write::SetTimezone(timezone) => {
                parse_zone(timezone).map_err(|error| error.to_string())?;
                Ok(Command::Settings { timezone: timezone.clone() })
            }
        }
    }
}

/// The job whose times a write may end. The rows of one that is deleted are forgotten with it.
fn retimed_by(write: &Write) -> Option<&JobName> {
    match write {
        Write::PutJob(spec) => Some(&spec.name),
        Write::ToggleJob(name) => Some(name),
        Write::DeleteJob(_) | Write::RunJob(_) | Write::SetTimezone(_) => None,
    }
}

/// Whether the instants of `job` that are not claimed by then are void after `write`.
fn ends_times(job: &Job, write: &Write) -> bool {
    let goes_on =
        |spec: &JobSpec| *job.spec == *spec || (job.spec.has_times_of(spec) && !spec.disabled);
    !job.spec.disabled
        && match write {
            Write::PutJob(spec) => !goes_on(spec),
            Write::ToggleJob(_) => true,
            Write::DeleteJob(_) | Write::RunJob(_) | Write::SetTimezone(_) => false,
        }
}

/// The next instant of a stored job that is put again with the times that it has: what was worked
/// out for them holds until it is due.
fn known_next(state: &State, spec: &JobSpec, stamp: Wall) -> Option<Wall> {
    let job = state.job(&spec.name)?;
    let is_same = job.spec.has_times_of(spec) && !job.spec.disabled && !spec.disabled;
    job.next.filter(|next| is_same && *next > stamp)
}

fn next_of(
    state: &State,
    spec: &JobSpec,
    stamp: Wall,
    anchor: Wall,
) -> Result<Option<Wall>, String> {
    let schedule = timing::parse(spec, state.timezone())
        .map_err(|error| format!("can't parse job schedule: {error}"))?;
    Ok(timing::next_after(&schedule, spec, stamp, anchor))
}
