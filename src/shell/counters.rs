//! What a server has done since it started, counted for `GET /debug/vars`.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Serialize, Serializer};

use crate::codec::record::Record;

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises it.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Serialize for Counter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.value())
    }
}

/// All counters of a node. Each is read by itself, so they may be a moment apart.
#[derive(Debug, Default, Serialize)]
pub struct Counters {
    /// What the node was given, and how often.
    pub node: NodeCounters,
    /// What was written to the log.
    pub log: LogCounters,
}

/// The part of [`Counters`] about the node's turns.
#[derive(Debug, Default, Serialize)]
pub struct NodeCounters {
    /// Turns, each of which works off all that is ready.
    pub turns: Counter,
    /// Inputs of all kinds.
    pub inputs: Counter,
    /// Requests of clients, among the inputs.
    pub requests: Counter,
}

/// The part of [`Counters`] about the log.
#[derive(Debug, Default, Serialize)]
pub struct LogCounters {
    /// Groups of records that were made durable together.
    pub groups: Counter,
    /// Raft entries in them.
    pub entries: Counter,
    /// Bytes written to the segments.
    pub bytes: Counter,
    /// Syncs of a segment.
    pub syncs: Counter,
}

impl LogCounters {
    /// Counts a group of `records`, if there are any.
    pub fn count_group(&self, records: &[Record]) {
        let entries = records.iter().filter(|record| matches!(record, Record::Entry { .. }));
        self.entries.add(entries.count() as u64);
        self.groups.add(u64::from(!records.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{LogIndex, Term};
    use bytes::Bytes;

    #[test]
    fn a_group_counts_once_with_each_of_its_entries() {
        let counters = Counters::default();
        let entry = |index| Record::Entry {
            index: LogIndex(index),
            term: Term(1),
            body: Bytes::from_static(b"body"),
        };
        counters.log.count_group(&[entry(1), Record::Vote(Bytes::new()), entry(2)]);
        counters.log.count_group(&[]);
        let shown = serde_json::to_value(&counters).unwrap();
        assert_eq!((&shown["log"]["groups"], &shown["log"]["entries"]), (&1.into(), &2.into()));
        assert_eq!(shown["node"]["turns"], 0);
    }
}
