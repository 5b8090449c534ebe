//! What happened outside the cluster: [`Ledger`]. No node writes it, and none reads it.

use std::collections::BTreeSet;

use cronclave::id::{ExecutionId, JobName};
use cronclave::time::{Mono, Wall};

/// The start of a simulated process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Which execution.
    pub execution: ExecutionId,
    /// Which job.
    pub job: JobName,
    /// When it was due, as its node was told.
    pub due: Wall,
    /// On which host.
    pub host: usize,
    /// When, by the simulation's clock.
    pub at: Mono,
    /// The true civil time then.
    pub wall: Wall,
}

/// What was started, and what clients were told about their writes.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Every start, in order.
    pub starts: Vec<Start>,
    /// Jobs whose creation was acknowledged.
    pub acknowledged: BTreeSet<JobName>,
    /// Jobs whose creation was refused: clients were told that the state is unchanged.
    pub refused: BTreeSet<JobName>,
    /// Jobs of whose creation nobody knows: the client was told so, or heard nothing.
    pub unknown: BTreeSet<JobName>,
}

impl Ledger {
    /// The starts at or after `since`.
    pub fn starts_since(&self, since: Mono) -> impl Iterator<Item = &Start> {
        self.starts.iter().filter(move |start| start.at >= since)
    }
}
