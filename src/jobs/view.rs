//! Jobs and executions as the API shows them: the JSON shapes of Dkron, and fields of our own
//! behind them.
//!
//! Where Dkron writes Go's zero time for "none" (`next`, `started_at`, `finished_at`), so do we.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::jobs::job::{Execution, Job, JobStatus, Outcome};
use crate::time::Wall;

/// Go's zero time, as its JSON has it.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// A job. Fields without a comment mean what they mean in [`JobSpec`](super::job::JobSpec).
#[derive(Clone, Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "the fields are those of JobSpec and Job, where they are explained"
)]
pub struct JobView<'a> {
    /// The name again, for the web page's framework.
    pub id: &'a str,
    pub name: &'a str,
    pub displayname: &'a str,
    pub timezone: &'a str,
    pub schedule: &'a str,
    pub owner: &'a str,
    pub owner_email: &'a str,
    pub success_count: u64,
    pub error_count: u64,
    #[serde(serialize_with = "time_or_null")]
    pub last_success: Option<Wall>,
    #[serde(serialize_with = "time_or_null")]
    pub last_error: Option<Wall>,
    pub disabled: bool,
    pub tags: Option<&'a BTreeMap<String, String>>,
    pub metadata: Option<&'a BTreeMap<String, String>>,
    pub retries: u32,
    /// Always `null`: jobs have no children yet.
    pub dependent_jobs: Option<()>,
    /// Always empty: jobs have no parents yet.
    pub parent_job: &'static str,
    /// Always `null`: there are no processors yet.
    pub processors: Option<()>,
    pub concurrency: &'static str,
    pub executor: &'a str,
    pub executor_config: &'a BTreeMap<String, String>,
    /// Empty while no execution has finished.
    pub status: &'static str,
    #[serde(serialize_with = "time_or_zero")]
    pub next: Option<Wall>,
    pub ephemeral: bool,
    #[serde(serialize_with = "time_or_null")]
    pub starts_at: Option<Wall>,
    #[serde(serialize_with = "time_or_null")]
    pub expires_at: Option<Wall>,
}

impl<'a> From<&'a Job> for JobView<'a> {
    fn from(job: &'a Job) -> Self {
        let spec = &job.spec;
        Self {
            id: spec.name.as_str(),
            name: spec.name.as_str(),
            displayname: &spec.displayname,
            timezone: &spec.timezone,
            schedule: &spec.schedule,
            owner: &spec.owner,
            owner_email: &spec.owner_email,
            success_count: job.success_count,
            error_count: job.error_count,
            last_success: job.last_success,
            last_error: job.last_error,
            disabled: spec.disabled,
            tags: Some(&spec.tags).filter(|tags| !tags.is_empty()),
            metadata: Some(&spec.metadata).filter(|metadata| !metadata.is_empty()),
            retries: spec.retries,
            dependent_jobs: None,
            parent_job: "",
            processors: None,
            concurrency: spec.concurrency.as_str(),
            executor: &spec.executor,
            executor_config: &spec.executor_config,
            status: status(job.status),
            next: job.next,
            ephemeral: spec.ephemeral,
            starts_at: spec.starts_at,
            expires_at: spec.expires_at,
        }
    }
}

/// An execution, or a due instant that ran nowhere.
#[derive(Clone, Debug, Serialize)]
pub struct ExecutionView<'a> {
    /// Its id.
    #[serde(serialize_with = "text")]
    pub id: crate::id::ExecutionId,
    /// Its job.
    pub job_name: &'a str,
    /// When its node started it; the zero time before that.
    #[serde(serialize_with = "time_or_zero")]
    pub started_at: Option<Wall>,
    /// When it ended; the zero time before that.
    #[serde(serialize_with = "time_or_zero")]
    pub finished_at: Option<Wall>,
    /// Whether it ended well.
    pub success: bool,
    /// What it wrote, at most the last bytes of it.
    pub output: &'a str,
    /// Whether `output` lacks its beginning.
    pub output_truncated: bool,
    /// Where it runs; empty if nowhere.
    pub node_name: &'a str,
    /// The instant of its claim in nanoseconds since 1970: executions of one claim share it.
    pub group: i64,
    /// From 1; a retry raises it.
    pub attempt: u32,
    /// When it was due.
    #[serde(serialize_with = "text")]
    pub due: Wall,
    /// How it stands or ended, for example `succeeded`.
    pub outcome: &'static str,
    /// Why it did not succeed.
    pub reason: &'a str,
    /// The exit code of the process.
    pub exit_code: Option<i32>,
    /// What made it: `schedule`, `manual` or `retry`.
    pub trigger: &'static str,
    /// Seconds from its due instant to its start; `null` if it was not started.
    pub lateness: Option<f64>,
}

impl<'a> From<&'a Execution> for ExecutionView<'a> {
    fn from(row: &'a Execution) -> Self {
        Self {
            id: row.id,
            job_name: row.job.as_str(),
            started_at: row.started_at,
            finished_at: row.finished_at,
            success: row.outcome == Outcome::Succeeded,
            output: &row.output,
            output_truncated: row.output_truncated,
            node_name: row.node.as_ref().map_or("", |target| target.name.as_str()),
            group: row.claimed_at.as_micros().saturating_mul(1_000),
            attempt: row.attempt,
            due: row.due,
            outcome: row.outcome.as_str(),
            reason: &row.reason,
            exit_code: row.exit_code,
            trigger: row.trigger.as_str(),
            lateness: row.lateness().map(|late| late.as_secs_f64()),
        }
    }
}

fn status(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Untriggered => "",
        JobStatus::Success | JobStatus::Failed | JobStatus::PartiallyFailed => status.as_str(),
    }
}

fn text<T: std::fmt::Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

fn time_or_null<S: Serializer>(time: &Option<Wall>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => to.collect_str(time),
        None => to.serialize_none(),
    }
}

fn time_or_zero<S: Serializer>(time: &Option<Wall>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => to.collect_str(time),
        None => to.serialize_str(ZERO_TIME),
    }
}
