//! The rows of executions that have ended, within bounds, and the index over rows by job.
//!
//! Rows are ordered by their id, which is the order of their claims. Over a bound the oldest go:
//! of the job if it has more than [`ROWS_PER_JOB_MAX`], of all if all together weigh more than
//! [`BYTES_MAX`]. Weights are counted by a fixed formula and not by what the machine allocates, so
//! that every server drops the same rows.
//!
//! **Invariants**
//! - `bytes` is the sum of the weights of the rows that are held.
//! - The index holds exactly the rows, each under its job.

pub mod change;
pub mod memory_backend;
pub mod store;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::id::{ExecutionId, JobName};
use crate::jobs::job::Execution;

/// The most rows that are kept of one job.
pub const ROWS_PER_JOB_MAX: usize = 1_000;

/// The most bytes that all rows together may weigh.
pub const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What a row weighs beside its texts: its fields and its places in the maps, rounded up.
pub const ROW_OVERHEAD: u64 = 512;

/// The rows that are kept. A clone is cheap and does not change any more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Arc<Execution>>", into = "Vec<Arc<Execution>>")]
pub struct History {
    rows: OrdMap<ExecutionId, Arc<Execution>>,
    by_job: ByJob,
    bytes: u64,
}

impl History {
    /// Adds a row, or puts it in the place of the one with its id, and drops what is too much.
    pub fn push(&mut self, row: Arc<Execution>) {
        let (id, job) = (row.id, row.job.clone());
        self.remove(id);
        self.bytes += weight(&row);
        self.by_job.insert(&job, id);
        self.rows.insert(id, row);
        let excess = self.by_job.len_of(&job).saturating_sub(ROWS_PER_JOB_MAX);
        let oldest: Vec<ExecutionId> = self.by_job.of(&job).take(excess).collect();
        for id in oldest {
            self.remove(id);
        }
        while self.bytes > BYTES_MAX
            && let Some(&(oldest, _)) = self.rows.get_min()
        {
            self.remove(oldest);
        }
    }

    /// The row with this id.
    pub fn get(&self, id: ExecutionId) -> Option<&Arc<Execution>> {
        self.rows.get(&id)
    }

    /// The rows of a job, newest first.
    pub fn of(&self, job: &JobName) -> impl Iterator<Item = &Arc<Execution>> {
        self.by_job.of(job).rev().filter_map(|id| self.rows.get(&id))
    }

    /// Drops all rows of a job, and of no other whose name begins like it.
    pub fn forget(&mut self, job: &JobName) {
        let ids: Vec<ExecutionId> = self.by_job.of(job).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// All rows, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Execution>> {
        self.rows.values()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What all rows together weigh.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn remove(&mut self, id: ExecutionId) {
        if let Some(row) = self.rows.remove(&id) {
            self.bytes -= weight(&row);
            self.by_job.remove(&row.job, id);
        }
    }
}

impl From<Vec<Arc<Execution>>> for History {
    fn from(rows: Vec<Arc<Execution>>) -> Self {
        let mut history = Self::default();
        for row in rows {
            history.push(row);
        }
        history
    }
}

impl From<History> for Vec<Arc<Execution>> {
    fn from(history: History) -> Self {
        history.rows.values().cloned().collect()
    }
}

fn weight(row: &Execution) -> u64 {
    let node = row.node.as_ref().map_or(0, |target| target.name.as_str().len());
    let texts = row.output.len() + row.reason.len() + row.job.as_str().len() + node;
    ROW_OVERHEAD + texts as u64
}

/// Which executions belong to which job.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ByJob(OrdMap<JobName, OrdSet<ExecutionId>>);

impl ByJob {
    pub(super) fn insert(&mut self, job: &JobName, id: ExecutionId) {
        self.0.entry(job.clone()).or_default().insert(id);
    }

    pub(super) fn remove(&mut self, job: &JobName, id: ExecutionId) {
        if let Some(ids) = self.0.get_mut(job) {
            ids.remove(&id);
            if ids.is_empty() {
                self.0.remove(job);
            }
        }
    }

    /// Ascending.
    pub(super) fn of(&self, job: &JobName) -> impl DoubleEndedIterator<Item = ExecutionId> {
        self.0.get(job).into_iter().flat_map(|ids| ids.iter().copied())
    }

    pub(super) fn len_of(&self, job: &JobName) -> usize {
        self.0.get(job).map_or(0, OrdSet::len)
    }
}
