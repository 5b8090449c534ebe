//! What the log does to the history of executions, and what may be asked of it.
//!
//! [`State::apply`](crate::jobs::State::apply) holds no row of an execution that has ended: it says
//! what becomes of the rows, as [`Change`]s, and a store on disk carries them out in the order of
//! the log. Pages of rows are read from that store by [`Query`].

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{ExecutionId, JobName};
use crate::jobs::job::Execution;

/// One change of the history. Changes are carried out in the order of the log, each once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Adds the row of an execution that has ended, or puts it in the place of the one of its id.
    Put(Arc<Execution>),
    /// Drops all rows of the job, and of no other whose name begins like it.
    Forget(JobName),
}

/// How much history is kept. Over a bound the oldest rows go: of their job for `rows_per_job`, of
/// all for the others. Every server of a cluster is to have the same limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most rows of one job.
    pub rows_per_job: u64,
    /// The most bytes of all rows together, with their output, without the store's own overhead.
    pub bytes: u64,
    /// How long after its end a row is kept, by the cluster's clock.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows_per_job: 1_000, bytes: 1 << 30, age: Duration::from_secs(90 * 86_400) }
    }
}

/// A question about the executions of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Which job.
    pub job: JobName,
    /// Its open executions, which the store does not know; they are listed among its rows.
    pub open: Vec<Arc<Execution>>,
    /// Which of them.
    pub select: Select,
}

/// Which executions of a job are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// This one, with all of its output.
    One(ExecutionId),
    /// A part of all of them.
    Part {
        /// What they are sorted by; equal ones by id, which is the order of their claims.
        sort: Sort,
        /// Which way.
        order: Order,
        /// How many are left out at the start.
        skip: u64,
        /// The most that are wanted after these.
        limit: u64,
        /// The most bytes of output of each; its end is kept.
        output_len_max: u64,
    },
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// The order of their claims.
    Id,
    /// When they were due.
    Due,
    /// When they started.
    StartedAt,
    /// When they ended.
    FinishedAt,
    /// Which attempt they are.
    Attempt,
}

/// Which way rows are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The least first.
    Ascending,
    /// The greatest first.
    Descending,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The rows, in the order that was asked for.
    pub rows: Vec<Arc<Execution>>,
    /// How many rows of the job there are in all, open ones included.
    pub total: u64,
}
