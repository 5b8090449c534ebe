//! What waits for the disk: one group is being synced, the next one gathers.

use crate::codec::record::Record;
use crate::dispatch::agent;
use crate::id::{ClusterId, WriteId};
use crate::node::io::Output;

/// A group of records that nobody waits for is written once it has this many.
const LAZY_LEN_MAX: usize = 256;

/// After this many facts of the node's own, all of them are written again as one checkpoint.
const CHECKPOINT_EVERY: usize = 4_096;

/// What follows when a record is durable.
#[derive(Clone, Debug)]
pub(super) enum After {
    /// Tell the engine that its write is durable.
    Engine(WriteId),
    /// Tell the agent.
    Agent(agent::Fact),
    /// The pledge is durable.
    Pledge,
    /// The node belongs to this cluster.
    Cluster(ClusterId),
    /// Nothing: it need only be durable soon.
    Nothing,
}

#[derive(Debug, Default)]
struct Group {
    records: Vec<Record>,
    after: Vec<After>,
}

/// The node's side of the disk.
#[derive(Debug, Default)]
pub(super) struct DiskQueue {
    last: u64,
    in_flight: Option<(WriteId, Vec<After>)>,
    waiting: Group,
    locals: usize,
}

impl DiskQueue {
    /// Has `records` written with the next group.
    pub(super) fn push_engine(&mut self, write: WriteId, records: Vec<Record>) {
        self.waiting.records.extend(records);
        self.waiting.after.push(After::Engine(write));
    }

    /// Has a fact of the node's own written, and `after` done when it is durable. Without `after`
    /// nobody waits for it, and it goes with whatever is written next.
    pub(super) fn push_local(&mut self, fact: bytes::Bytes, after: Option<After>) {
        self.waiting.records.push(Record::Local(fact));
        self.waiting.after.extend(after);
        self.locals += 1;
    }

    /// Whether it is time to write all facts of the node's own as one checkpoint.
    pub(super) fn wants_checkpoint(&self) -> bool {
        self.locals >= CHECKPOINT_EVERY
    }

    /// Writes them. They include every fact that was pushed before.
    pub(super) fn push_checkpoint(&mut self, checkpoint: bytes::Bytes) {
        self.waiting.records.push(Record::Checkpoint(checkpoint));
        self.locals = 0;
    }

    /// The group to be written now, if the disk is free and somebody waits.
    pub(super) fn flush(&mut self) -> Option<Output> {
        let group = &self.waiting;
        let urgent = !group.after.is_empty() || group.records.len() >= LAZY_LEN_MAX;
        if self.in_flight.is_some() || !urgent {
            return None;
        }
        self.last += 1;
        let write = WriteId(self.last);
        let Group { records, after } = std::mem::take(&mut self.waiting);
        self.in_flight = Some((write, after));
        Some(Output::Persist { write, records })
    }

    /// A group is durable: what follows, in order. Empty if it is not the one that was under way.
    pub(super) fn on_persisted(&mut self, write: WriteId) -> Vec<After> {
        match self.in_flight.take() {
            Some((id, after)) if id == write => after,
            other => {
                self.in_flight = other;
                Vec::new()
            }
        }
    }

    /// Whether nothing is under way and nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.waiting.after.is_empty()
    }
}
