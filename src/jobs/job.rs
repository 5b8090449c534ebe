//! A job and its executions, as replicated state holds them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{ExecutionId, JobName, LogIndex, NodeId, NodeName, Revision};
use crate::time::Wall;

/// What a client asks a job to be. Field names, meanings and rules are Dkron's (its `job.go`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Unique in the cluster.
    pub name: JobName,
    /// For people; may be empty.
    pub displayname: String,
    /// When it runs: 6-field cron, `@every 1h30m`, `@daily`, `@at …`, `@manually`.
    pub schedule: String,
    /// IANA name; empty means the cluster's setting.
    pub timezone: String,
    /// Who is responsible; may be empty.
    pub owner: String,
    /// Where to write to them; may be empty.
    pub owner_email: String,
    /// Disabled jobs are never due.
    pub disabled: bool,
    /// Which nodes run it: `value` or `value:count` per tag; no tags means every node.
    pub tags: BTreeMap<String, String>,
    /// For filters only.
    pub metadata: BTreeMap<String, String>,
    /// How often a failed execution is tried again on its node.
    pub retries: u32,
    /// What happens when it is due while it runs.
    pub concurrency: Concurrency,
    /// The executor's name; `shell` is the only one.
    pub executor: String,
    /// The executor's settings.
    pub executor_config: BTreeMap<String, String>,
    /// Deleted after its first success.
    pub ephemeral: bool,
    /// Not due before this instant.
    pub starts_at: Option<Wall>,
    /// Not due after this instant.
    pub expires_at: Option<Wall>,
}

impl JobSpec {
    /// Whether schedule and time zone are, letter for letter, those of `other`.
    pub fn has_schedule_of(&self, other: &Self) -> bool {
        self.schedule == other.schedule && self.timezone == other.timezone
    }

    /// Whether start and expiry are those of `other` as well.
    pub fn has_times_of(&self, other: &Self) -> bool {
        self.has_schedule_of(other)
            && (self.starts_at, self.expires_at) == (other.starts_at, other.expires_at)
    }
}

/// What happens when a job is due while an execution of it is still open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Concurrency {
    /// It runs beside the other.
    #[default]
    Allow,
    /// It is skipped, and the row says so.
    Forbid,
}

impl Concurrency {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Forbid => "forbid",
        }
    }
}

/// A job with what the cluster keeps about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What the client asked for.
    pub spec: Arc<JobSpec>,
    /// The log index at which it was created: tells it from a deleted job of the same name.
    pub created: LogIndex,
    /// The log index of the last change of `spec`. A claim names it and is void if it is not
    /// current.
    pub revision: Revision,
    /// The stamp of the entry that last changed schedule or time zone: `@every` counts from here.
    pub anchor: Wall,
    /// The last due instant that was claimed, or the anchor before the first.
    pub cursor: Wall,
    /// The next due instant, or `None` if there is none.
    pub next: Option<Wall>,
    /// Executions that succeeded.
    pub success_count: u64,
    /// Executions that did not.
    pub error_count: u64,
    /// When one last succeeded.
    pub last_success: Option<Wall>,
    /// When one last did not.
    pub last_error: Option<Wall>,
    /// The outcome of the last finished group.
    pub status: JobStatus,
    /// What `status` was worked out from, kept for a result that comes after its execution was
    /// given up as lost.
    pub last_group: Option<Group>,
}

/// The executions of one claim, counted by their end. An attempt that is tried again does not
/// count: its successor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The first execution of the claim.
    pub id: ExecutionId,
    /// Executions that have not ended.
    pub open: u32,
    /// Those that succeeded.
    pub succeeded: u32,
    /// Those that did not.
    pub failed: u32,
}

impl Group {
    /// How the group stands, by those that have ended.
    pub fn status(self) -> JobStatus {
        match (self.succeeded, self.failed) {
            (0, 0) => JobStatus::Untriggered,
            (_, 0) => JobStatus::Success,
            (0, _) => JobStatus::Failed,
            (_, _) => JobStatus::PartiallyFailed,
        }
    }
}

/// How a job's last finished group of executions ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobStatus {
    /// None has finished.
    #[default]
    Untriggered,
    /// Every node succeeded, in its last attempt.
    Success,
    /// No node did.
    Failed,
    /// Some did.
    PartiallyFailed,
}

impl JobStatus {
    /// Its name in the API's filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untriggered => "untriggered",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::PartiallyFailed => "partially_failed",
        }
    }
}

/// What made an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trigger {
    /// Its schedule.
    Schedule,
    /// A client's request to run it.
    Manual,
    /// The failure of the attempt before it.
    Retry,
}

impl Trigger {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Manual => "manual",
            Self::Retry => "retry",
        }
    }
}

/// One row of a job's history: one attempt on one node, or a due instant that ran nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// The first execution of its claim: the same for all nodes and attempts of one due instant.
    pub group: ExecutionId,
    /// Its job.
    pub job: JobName,
    /// When that job was created: a later job of the same name is another one.
    pub job_created: LogIndex,
    /// The job's revision when it was claimed.
    pub revision: Revision,
    /// When it was due.
    pub due: Wall,
    /// The stamp of its claim: executions of one claim share it (Dkron's `group`).
    pub claimed_at: Wall,
    /// What made it.
    pub trigger: Trigger,
    /// Where it runs; `None` for a due instant that ran nowhere.
    pub node: Option<Target>,
    /// From 1; a retry raises it.
    pub attempt: u32,
    /// Not to be started before this stamp (the pause before a retry).
    pub not_before: Wall,
    /// When its node started it: by the node's clock, but not before the claim or after the report
    /// by the cluster's.
    pub started_at: Option<Wall>,
    /// When it ended, by the cluster's clock.
    pub finished_at: Option<Wall>,
    /// How it stands.
    pub outcome: Outcome,
    /// Why it failed, was skipped, missed or lost; empty on success.
    pub reason: String,
    /// The process's exit code, if it ended by itself.
    pub exit_code: Option<i32>,
    /// The last [`OUTPUT_LEN_MAX`] bytes of what it wrote, as text.
    pub output: Arc<str>,
    /// Whether `output` lacks its beginning.
    pub output_truncated: bool,
}

/// The most bytes of output that are kept of one execution.
pub const OUTPUT_LEN_MAX: usize = 256_000;

/// The node that an execution was claimed for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its id, which changes with its disk.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
}

/// How an execution stands or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Claimed; its node has not reported its start.
    Claimed,
    /// Its node has started it.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly, or could not be started.
    Failed,
    /// It was due and deliberately not run.
    Skipped,
    /// It was due and could not be run in time.
    Missed,
    /// It was claimed for a node that died: it may have run, and its end is unknown.
    Lost,
}

impl Outcome {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
            Self::Lost => "lost",
        }
    }

    /// Whether the execution still needs its node.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Claimed | Self::Running)
    }
}

impl Execution {
    /// How long after its due instant it started; `None` before that.
    pub fn lateness(&self) -> Option<Duration> {
        self.started_at.map(|at| at.saturating_since(self.due))
    }
}

/// How an execution ended, as its node reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// [`Outcome::Succeeded`], [`Outcome::Failed`] or [`Outcome::Lost`].
    pub outcome: Outcome,
    /// Why it did not succeed; empty on success.
    pub reason: String,
    /// The process's exit code, if it ended by itself.
    pub exit_code: Option<i32>,
    /// The last [`OUTPUT_LEN_MAX`] bytes of what it wrote, as text (invalid UTF-8 replaced).
    pub output: String,
    /// Whether `output` lacks its beginning.
    pub output_truncated: bool,
}
