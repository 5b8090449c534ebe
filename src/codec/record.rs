//! What the log on disk holds: [`Record`], and what is read back from it at start, [`Recovered`].
//!
//! One log serves everything that a node must remember: Raft's vote and entries, and the node's own
//! facts (its pledge, its cluster, the journal of started executions, the outbox of results). So
//! one sync covers all that a turn of the node has to make durable.
//!
//! The log knows index and term of an entry and nothing else of the bodies, which belong to the
//! module that writes them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::snapshot::SnapshotFile;
use crate::id::{LogIndex, Term};

/// One thing that the log remembers, in the order in which it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Raft's vote; the last one counts. Written by `consensus`.
    Vote(Bytes),
    /// A Raft entry. Its index follows on that of the entry before it, or starts the log, or (after
    /// [`Record::Reset`]) is the one named there.
    Entry {
        /// Its position.
        index: LogIndex,
        /// The term in which it was proposed.
        term: Term,
        /// The entry, written by `consensus`.
        body: Bytes,
    },
    /// All entries at `from` and above are void: they conflicted with the leader's.
    Truncate {
        /// The first entry that is void.
        from: LogIndex,
    },
    /// All entries up to and with `upto` are covered by a snapshot and need not be kept.
    Purge {
        /// The last entry that may go.
        upto: LogIndex,
        /// Its log id, written by `consensus`.
        body: Bytes,
    },
    /// The log continues at `next`, behind a snapshot that is ahead of it; what was before is void.
    Reset {
        /// The index of the next entry.
        next: LogIndex,
    },
    /// A hint of what was committed, written by `consensus`; never a reason to sync.
    Committed(Bytes),
    /// A fact of the node's own, to be replayed in order on top of the last [`Record::Checkpoint`].
    Local(Bytes),
    /// All of the node's own facts; earlier [`Record::Local`]s need not be kept.
    Checkpoint(Bytes),
    /// Recovery cut something that may have been synced and acknowledged. It stays true through
    /// restarts until [`Record::Settled`]. Written by recovery alone.
    Doubt(Doubt),
    /// The last [`Record::Doubt`] is over: what was lost, if anything, is in the log again, or
    /// nobody has it.
    Settled,
}

/// The end of a log that was cut at a start. Whether it was half written when the node died, or
/// was whole and rotted before anything after it said that it was synced, nobody can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// Entries from here on may have been lost. How many, nobody knows: at most what fits into
    /// `len` bytes.
    pub next: LogIndex,
    /// The number of the segment that was cut last.
    pub segment: u64,
    /// The offset of the first byte that was cut, in bytes from the start of the segment.
    pub offset: u64,
    /// How many bytes were cut.
    pub len: u64,
}

/// A snapshot of the replicated state: its file, and what of that is held in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The file, which holds the history too.
    pub file: SnapshotFile,
    /// What it covers, written by `consensus`.
    pub meta: Bytes,
    /// The state, written by the state machine.
    pub data: Bytes,
}

impl Snapshot {
    /// The last entry that it covers.
    pub fn index(&self) -> LogIndex {
        self.file.index
    }
}

/// What a data directory held at start, after torn tails were cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last [`Record::Vote`].
    pub vote: Option<Bytes>,
    /// The last [`Record::Committed`].
    pub committed: Option<Bytes>,
    /// The body of the last [`Record::Purge`].
    pub purged: Option<Bytes>,
    /// The entries above the purged ones: index, term and body, consecutive and ascending.
    pub entries: Vec<(LogIndex, Term, Bytes)>,
    /// The newest snapshot that is whole.
    pub snapshot: Option<Snapshot>,
    /// The last [`Record::Checkpoint`].
    pub checkpoint: Option<Bytes>,
    /// Every [`Record::Local`] after that checkpoint, in order.
    pub locals: Vec<Bytes>,
    /// What was cut at this start or an earlier one, and is not [`Record::Settled`].
    pub doubt: Option<Doubt>,
}
