//! What may be written to the replicated state: [`Command`], and what comes of it: [`Applied`].
//!
//! Commands carry everything that needs a clock, a schedule or a choice; the leader works it out
//! before it proposes, and [`State::apply`](super::state::State::apply) only checks and books it.
//!
//! **Left out on purpose**
//! - No command removes a node from the registry: a boot that was seen must stay known.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{Boot, ClusterId, CommandId, ExecutionId, JobName, LogIndex, NodeId};
use crate::id::{NodeName, Revision};
use crate::jobs::job::{Job, JobSpec, RunResult, Target, Trigger};
use crate::time::Wall;

/// A command as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// The cluster's clock when the leader proposed it.
    pub stamp: Wall,
    /// Names the write, so that a repeated one is done once; `None` for commands of which a
    /// repetition does no harm.
    pub id: Option<CommandId>,
    /// What to do.
    pub command: Command,
}

/// One change of the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Gives the cluster its id, once.
    Found {
        /// The id.
        cluster: ClusterId,
    },
    /// Admits a node's life: its boot must be greater than any that the cluster has seen of it.
    Admit {
        /// The node's name; another id of this name is replaced.
        name: NodeName,
        /// Its id.
        id: NodeId,
        /// Which start of it.
        boot: Boot,
        /// Whether it is a server or an agent.
        role: Role,
    },
    /// Sets the time zone of jobs that name none. What is already in their `next` stays.
    Settings {
        /// An IANA name; empty means UTC.
        timezone: String,
    },
    /// Creates a job, or replaces its definition and keeps its counters, status and cursor.
    PutJob {
        /// The definition.
        spec: Arc<JobSpec>,
        /// When it is first due. Taken only if the job is new, was disabled, or is given another
        /// schedule, time zone, start or expiry; else the stored times stay. Always to be filled
        /// in: what is stored when the command is applied is not known when it is proposed.
        timing: Timing,
    },
    /// Removes a job and its history. Its open executions stay until their nodes report.
    DeleteJob {
        /// The job.
        name: JobName,
    },
    /// Flips `disabled`.
    ToggleJob {
        /// The job.
        name: JobName,
        /// The revision that the client's server saw; void if it is no longer current.
        revision: Revision,
        /// When it is next due (from its stored anchor), if this enables it; else ignored.
        next: Option<Wall>,
    },
    /// Claims everything that is due at one turn, or what a client asked to run.
    Claim(Vec<Claim>),
    /// A node has started an execution.
    Started {
        /// The execution.
        execution: ExecutionId,
        /// When, by the node's clock. Booked within the limits of the cluster's clock.
        at: Wall,
    },
    /// A node reports the end of an execution, or the leader gives it up as lost.
    Finished {
        /// The execution.
        execution: ExecutionId,
        /// How it ended.
        result: RunResult,
    },
    /// Gives the cluster another id. Only the recovery from a permanent loss of the quorum writes
    /// it, into the log of the one server that it goes on with; no leader proposes it.
    Refound {
        /// The new id.
        cluster: ClusterId,
    },
}

/// When a job is due for the first time after its schedule changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// What `@every` counts from: see [`State::anchor_for`](super::state::State::anchor_for).
    pub anchor: Wall,
    /// The first due instant after the stamp, or `None` if there is none.
    pub next: Option<Wall>,
}

/// What a node is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It votes, or will.
    Server,
    /// It only runs jobs.
    Agent,
}

/// One due instant of one job, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The job.
    pub job: JobName,
    /// Its revision when the leader looked; the claim is void if it is no longer current.
    pub revision: Revision,
    /// [`Trigger::Schedule`] or [`Trigger::Manual`]; retries are opened by apply itself.
    pub trigger: Trigger,
    /// The due instant. A manual run is due at the stamp of the request.
    pub due: Wall,
    /// The due instant after it; ignored for a manual run.
    pub next: Option<Wall>,
    /// What becomes of it.
    pub plan: Plan,
}

/// What becomes of a due instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plan {
    /// It runs on these nodes. Without any it is missed.
    Run(Vec<Target>),
    /// It is deliberately not run; the reason goes into its row.
    Skip(String),
    /// It could not be run in time; the reason goes into its row.
    Miss(String),
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// The cluster has this id.
    Founded(ClusterId),
    /// The node is in the registry.
    Admitted,
    /// The settings are in force.
    SettingsChanged,
    /// The job as stored.
    Put {
        /// The job.
        job: Arc<Job>,
        /// Whether it is new.
        created: bool,
    },
    /// The job as it was.
    Deleted(Arc<Job>),
    /// The job as it is now.
    Toggled(Arc<Job>),
    /// What came of each claim, in their order.
    Claimed(Vec<Result<Rows, Reject>>),
    /// The execution runs, or has ended before this was heard.
    Started,
    /// The end is booked (now or earlier), or its job is gone: the node may forget the result.
    Finished {
        /// The next attempt, if this opened one.
        retry: Option<ExecutionId>,
    },
    /// Nothing was changed.
    Rejected(Reject),
    /// The command was carried out before, and the job that it was about is gone since.
    Repeated,
}

/// The rows that one claim made: consecutive ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// The first.
    pub first: ExecutionId,
    /// How many, at least one.
    pub count: u32,
}

impl Rows {
    /// The ids, ascending.
    pub fn ids(self) -> impl Iterator<Item = ExecutionId> {
        let ExecutionId { claim, slot } = self.first;
        (0..self.count).map(move |n| ExecutionId { claim, slot: slot.saturating_add(n) })
    }
}

/// Why a command was not carried out. The state is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Reject {
    /// There is no such job. Give up.
    #[error("job not found")]
    JobNotFound,
    /// The job has changed since the claim or toggle was worked out. Look again and retry.
    #[error("the job has changed since: its revision is {0}")]
    StaleRevision(Revision),
    /// The job is disabled, so nothing is due.
    #[error("the job is disabled")]
    Disabled,
    /// The instant was claimed before.
    #[error("not due: everything up to {0} is claimed")]
    NotDue(Wall),
    /// The claimed instant has not come yet.
    #[error("not due before its time: it is {0}")]
    Early(Wall),
    /// Retries are opened by the end of the attempt before them, never by a claim.
    #[error("a claim cannot be a retry")]
    RetryClaimed,
    /// No entry up to here has claimed this execution: the node may forget the result.
    #[error("execution not found")]
    ExecutionNotFound,
    /// An end was reported that is none.
    #[error("the reported outcome is not an end")]
    NotAnEnd,
    /// The node has used this boot before: its disk was lost, set back or copied.
    #[error("boot {0} of this node was seen before: its disk was set back or copied")]
    RepeatedBoot(Boot),
    /// The registry holds as many nodes as it may.
    #[error("the cluster knows {0} nodes and takes no more")]
    TooManyNodes(u64),
    /// The cluster was founded with another id.
    #[error("the cluster is {0}, another one")]
    OtherCluster(ClusterId),
    /// A repeated write so old that what came of it is forgotten. It was not carried out now;
    /// whether it was before is unknown.
    #[error("the write is too old to know whether it was carried out")]
    Forgotten,
    /// The log entry was applied before.
    #[error("log entry {0} was applied before")]
    AlreadyApplied(LogIndex),
}
