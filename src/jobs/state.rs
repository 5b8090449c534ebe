//! The replicated state: what every server holds the same copy of.
//!
//! [`State`] is a pure function of the log: [`State::apply`] takes one entry after the other and
//! neither reads a clock nor evaluates a schedule. Its maps are persistent, so a clone costs next
//! to nothing and serves as a reader's view or as the source of a snapshot.
//!
//! **Invariants**
//! - The same entries give the same state, byte for byte, on every machine.
//! - `due` holds `(next, name)` of exactly the enabled jobs that have a `next`; `open_by_job` holds
//!   exactly the open executions. Both are derived, and rebuilt from a snapshot.
//! - Each group in `groups` has at least one open execution, and each open execution a group.
//! - `lost` holds the newest [`LOST_COUNT_MAX`] executions of jobs that are there which ended as
//!   lost; `lost_by_job` holds exactly these.
//!
//! **Left out on purpose**
//! - The rows of executions that have ended. [`State::apply`] says what becomes of them, and a
//!   store on disk keeps them: see [`history`](super::history).

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::id::{Boot, ClusterId, CommandId, ExecutionId, JobName, LogIndex, NodeId, NodeName};
use crate::jobs::by_job::ByJob;
use crate::jobs::carried::{Carried, ClientImage, Seen};
use crate::jobs::command::Role;
use crate::jobs::job::{Execution, Group, Job, JobSpec};
use crate::time::Wall;

/// How many executions that ended as lost are remembered, so that a real end which comes later can
/// take the place of the `lost`. The oldest go first; their rows stay as they are.
pub const LOST_COUNT_MAX: usize = 16_384;

/// All that the cluster agrees on. A clone is cheap and does not change any more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Image", into = "Image")]
pub struct State {
    pub(super) applied: Option<LogIndex>,
    pub(super) last_stamp: Wall,
    pub(super) cluster: Option<ClusterId>,
    pub(super) timezone: String,
    pub(super) nodes: OrdMap<NodeName, NodeRecord>,
    pub(super) jobs: OrdMap<JobName, Arc<Job>>,
    pub(super) open: OrdMap<ExecutionId, Arc<Execution>>,
    pub(super) groups: OrdMap<ExecutionId, Group>,
    /// As they were when they were lost, without reason and output.
    pub(super) lost: OrdMap<ExecutionId, Arc<Execution>>,
    pub(super) carried: Carried,
    pub(super) due: OrdSet<(Wall, JobName)>,
    pub(super) open_by_job: ByJob,
    pub(super) lost_by_job: ByJob,
}

/// What the cluster remembers of a node that it has admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its id, which changes with its disk.
    pub id: NodeId,
    /// Its last start that was admitted.
    pub boot: Boot,
    /// Whether it is a server or an agent.
    pub role: Role,
}

/// The state as a snapshot holds it: plain lists, because the maps' own decoders trust the lengths
/// that they are told.
#[derive(Serialize, Deserialize)]
struct Image {
    applied: Option<LogIndex>,
    last_stamp: Wall,
    cluster: Option<ClusterId>,
    timezone: String,
    nodes: Vec<(NodeName, NodeRecord)>,
    jobs: Vec<Arc<Job>>,
    open: Vec<Arc<Execution>>,
    groups: Vec<Group>,
    lost: Vec<Arc<Execution>>,
    carried: Vec<ClientImage>,
}

impl State {
    /// The last entry that was applied.
    pub fn applied(&self) -> Option<LogIndex> {
        self.applied
    }

    /// The greatest stamp of all entries: the cluster's clock as this state knows it.
    pub fn last_stamp(&self) -> Wall {
        self.last_stamp
    }

    /// The cluster's id, once it is founded.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// The time zone of jobs that name none; empty means UTC.
    pub fn timezone(&self) -> &str {
        &self.timezone
    }

    /// The nodes that were admitted, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, &NodeRecord)> {
        self.nodes.iter()
    }

    /// The node of this name.
    pub fn node(&self, name: &NodeName) -> Option<&NodeRecord> {
        self.nodes.get(name)
    }

    /// The jobs, by name.
    pub fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.values()
    }

    /// How many jobs there are.
    pub fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// The job of this name.
    pub fn job(&self, name: &JobName) -> Option<&Arc<Job>> {
        self.jobs.get(name)
    }

    /// What is due up to and with `at`, earliest first: one instant a job, its `next`.
    pub fn due_until(&self, at: Wall) -> impl Iterator<Item = (Wall, &JobName)> {
        self.due.iter().map(|(due, name)| (*due, name)).take_while(move |(due, _)| *due <= at)
    }

    /// The earliest instant at which anything is due.
    pub fn next_due(&self) -> Option<Wall> {
        self.due.get_min().map(|(due, _)| *due)
    }

    /// The earliest instant after `at` at which anything is due.
    pub fn next_due_after(&self, at: Wall) -> Option<Wall> {
        let later = Wall::from_micros(at.as_micros().saturating_add(1));
        let least = (later, JobName::least());
        self.due.range(least..).next().map(|(due, _)| *due)
    }

    /// What `@every` will count from if `spec` is put now: the stored anchor while schedule and
    /// time zone stay as they are, else `stamp`. For [`Timing`](super::command::Timing).
    pub fn anchor_for(&self, spec: &JobSpec, stamp: Wall) -> Wall {
        match self.jobs.get(&spec.name) {
            Some(job) if job.spec.has_schedule_of(spec) => job.anchor,
            Some(_) | None => stamp,
        }
    }

    /// Whether this write was carried out: to apply it again changes nothing.
    pub fn has_carried_out(&self, id: CommandId) -> bool {
        matches!(self.carried.look(id), Seen::Before(_))
    }

    /// The executions that still need their nodes, oldest claim first; also those whose job is
    /// gone.
    pub fn open(&self) -> impl Iterator<Item = &Arc<Execution>> {
        self.open.values()
    }

    /// How many executions still need their nodes.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The execution with this id, if it still needs its node.
    pub fn open_execution(&self, id: ExecutionId) -> Option<&Arc<Execution>> {
        self.open.get(&id)
    }

    /// Whether an end that is reported for this execution would change anything: it is open, or it
    /// was given up as lost and its real end can still take the place of that.
    pub fn awaits_end(&self, id: ExecutionId) -> bool {
        self.open.contains_key(&id) || self.lost.contains_key(&id)
    }

    /// The open executions of this job, and of none that had its name before, oldest first.
    pub fn open_of(&self, job: &Job) -> impl Iterator<Item = &Arc<Execution>> {
        let created = job.created;
        let rows = self.open_by_job.of(&job.spec.name).filter_map(|id| self.open.get(&id));
        rows.filter(move |row| row.job_created == created)
    }
}

impl From<State> for Image {
    fn from(state: State) -> Self {
        let nodes = state.nodes.iter().map(|(name, node)| (name.clone(), node.clone()));
        Self {
            applied: state.applied,
            last_stamp: state.last_stamp,
            cluster: state.cluster,
            nodes: nodes.collect(),
            jobs: state.jobs.values().cloned().collect(),
            open: state.open.values().cloned().collect(),
            groups: state.groups.values().copied().collect(),
            carried: state.carried.image(),
            timezone: state.timezone,
            lost: state.lost.values().cloned().collect(),
        }
    }
}

impl From<Image> for State {
    fn from(image: Image) -> Self {
        let mut state = Self {
            applied: image.applied,
            last_stamp: image.last_stamp,
            cluster: image.cluster,
            timezone: image.timezone,
            nodes: image.nodes.into_iter().collect(),
            groups: image.groups.into_iter().map(|group| (group.id, group)).collect(),
            carried: Carried::restore(image.carried),
            ..Self::default()
        };
        for job in image.jobs {
            state.store_job(job);
        }
        for row in image.open {
            state.store_open(row);
        }
        for row in image.lost {
            state.store_lost(row);
        }
        state
    }
}

impl State {
    /// Puts a job in the place of the one of its name, and its `next` into the timetable.
    pub(super) fn store_job(&mut self, job: Arc<Job>) {
        let due = |job: &Job| if job.spec.disabled { None } else { job.next };
        let (name, after) = (job.spec.name.clone(), due(&job));
        let before = self.jobs.insert(name.clone(), job).and_then(|old| due(&old));
        if before == after {
            return;
        }
        if let Some(next) = before {
            self.due.remove(&(next, name.clone()));
        }
        if let Some(next) = after {
            self.due.insert((next, name));
        }
    }

    /// Takes a job and its `next` out.
    pub(super) fn remove_job(&mut self, name: &JobName) -> Option<Arc<Job>> {
        let job = self.jobs.remove(name)?;
        if let Some(next) = job.next {
            self.due.remove(&(next, name.clone()));
        }
        Some(job)
    }

    /// Puts an open execution in the place of the one with its id.
    pub(super) fn store_open(&mut self, row: Arc<Execution>) {
        self.open_by_job.insert(&row.job, row.id);
        self.open.insert(row.id, row);
    }

    /// Takes an open execution out.
    pub(super) fn remove_open(&mut self, id: ExecutionId) -> Option<Arc<Execution>> {
        let row = self.open.remove(&id)?;
        self.open_by_job.remove(&row.job, id);
        Some(row)
    }

    /// Remembers an execution that ended as lost.
    pub(super) fn store_lost(&mut self, row: Arc<Execution>) {
        self.lost_by_job.insert(&row.job, row.id);
        self.lost.insert(row.id, row);
        if self.lost.len() > LOST_COUNT_MAX
            && let Some(oldest) = self.lost.get_min().map(|(id, _)| *id)
        {
            self.remove_lost(oldest);
        }
    }

    /// Takes an execution that ended as lost out.
    pub(super) fn remove_lost(&mut self, id: ExecutionId) -> Option<Arc<Execution>> {
        let row = self.lost.remove(&id)?;
        self.lost_by_job.remove(&row.job, id);
        Some(row)
    }

    /// Takes out what is remembered of the ended executions of a job.
    pub(super) fn forget_lost(&mut self, job: &JobName) {
        let ids: Vec<ExecutionId> = self.lost_by_job.of(job).collect();
        for id in ids {
            self.remove_lost(id);
        }
    }
}
