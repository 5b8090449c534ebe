//! What leader and agent say to each other about executions.

use serde::{Deserialize, Serialize};

use crate::dispatch::launch::LaunchSpec;
use crate::id::{ExecutionId, Term};
use crate::jobs::job::RunResult;
use crate::time::Wall;

/// One message about executions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Leader to agent: run this. Repeated until the execution is known to have started.
    Order(Order),
    /// Agent to leader: what became of an execution. Repeated until it is acknowledged.
    Report(Report),
    /// Leader to agent: the cluster has committed the end of this execution; forget it.
    Ack(ExecutionId),
}

/// A leader's order to run an execution that is claimed in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The term in which the leader leads: an agent that has seen a higher one refuses.
    pub term: Term,
    /// What to run.
    pub spec: LaunchSpec,
}

/// What an agent knows of an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which one.
    pub execution: ExecutionId,
    /// How it stands.
    pub progress: Progress,
}

/// How an execution stands on its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// It was started at this time by the node's clock.
    Started(Wall),
    /// It ended.
    Finished(RunResult),
}
