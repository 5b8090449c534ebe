//! The log on disk: [`Record`]s ⇄ segments, as steps for whoever owns the files.
//!
//! A log is a row of numbered segments. [`LogWriter`] turns each batch of records into
//! [`Step`]s: what to append where, what to sync, which segments to begin and which to remove. A
//! batch is durable when all its steps are done. [`recover()`] reads the segments back, cuts what
//! a crash left half written, and gives the writer that goes on after it. Neither touches a file;
//! the shell does the steps on real ones, [`MemoryDisk`](super::memory_disk::MemoryDisk) in memory.
//!
//! The bytes are described in the source of the private module `format`. Each segment begins with a
//! repetition of all facts that are still true and are no entries (the vote, the node's own facts,
//! which entries there are), so an old segment can go as soon as its entries are purged. Each batch
//! begins with a mark that says how much of the segment was known synced at that time.
//!
//! **Invariants**
//! - Recovery gives what the records of a prefix of the log say, and everything that was synced is
//!   in that prefix; else it is [`LogDamage`].
//! - Damage below an offset that some later mark names as synced is never a torn tail. Above it, in
//!   the last segment, it is cut. [`LogWriter::seal`] marks everything written so far.
//! - A segment is removed only after one with the same facts is synced, name and content.
//! - A batch that is refused changes nothing.
//!
//! **Left out on purpose**
//! - Preallocated and recycled segments.
//! - Choosing who may vote after a cut: [`Recovery::cut`] tells that there was one.

mod format;
mod ledger;
mod recover;
mod survey;

use std::fmt;

use bytes::Bytes;

pub use self::recover::{Cut, DamageReason, LogDamage, Recovery, recover};
pub use self::survey::{
    LOG_FORMAT, Seen, SegmentEnd, SegmentHeader, SegmentSurvey, newer_format, survey_segment,
};

use self::format::{BODY_LEN_MAX, HEADER_LEN, Header, MARK_LEN, MarkPlace, PREFIX_LEN};
use self::ledger::{Ledger, OutOfOrder};
use super::record::Record;
use crate::id::{LogIndex, NodeId};

/// The longest body of a record, with its index and term, in bytes.
pub const RECORD_LEN_MAX: usize = BODY_LEN_MAX;

/// The length in bytes at which a segment ends and the next begins: about a second of full load.
pub const SEGMENT_LEN: u64 = 64 << 20;

/// The number of a segment: 1 for the first that a data directory ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The number after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One thing to do to the files of a log. Steps are done in order, each after the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the segment, or empty it if there is one, and write `header` to it.
    Create {
        /// Which segment.
        segment: SegmentNumber,
        /// Its first bytes: the header and the repeated facts.
        header: Bytes,
    },
    /// Write `bytes` at the end of the segment.
    Append {
        /// Which segment.
        segment: SegmentNumber,
        /// What to write.
        bytes: Bytes,
    },
    /// Shorten the segment to `len` bytes: what follows was half written when the node died.
    Cut {
        /// Which segment.
        segment: SegmentNumber,
        /// How many bytes stay.
        len: u64,
    },
    /// Wait until the content of the segment is on the disk.
    Sync {
        /// Which segment.
        segment: SegmentNumber,
    },
    /// Wait until the names of the segments are on the disk.
    SyncDir,
    /// Remove the segment. It is no error if it is gone, or comes back after a crash.
    Remove {
        /// Which segment.
        segment: SegmentNumber,
    },
}

/// Why a batch was refused. The log is unchanged, and the fault is the caller's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A record is too long.
    #[error(
        "a record of {len} bytes is too long for the log, at most {RECORD_LEN_MAX} are allowed"
    )]
    TooLong {
        /// How long it is.
        len: usize,
    },
    /// The index of an entry does not follow on the one before.
    #[error("entry {found} does not follow on the log, which goes on at {expected}")]
    OutOfOrder {
        /// The index that was due.
        expected: u64,
        /// The index that came.
        found: u64,
    },
}

/// Turns batches of records into steps. Clones may be thrown away, but only one may go on.
#[derive(Clone, Debug)]
pub struct LogWriter {
    node: NodeId,
    segment_len: u64,
    ledger: Ledger,
    /// The lowest segment that is not removed.
    oldest: SegmentNumber,
    current: Option<Current>,
}

/// The segment at the end of the log.
#[derive(Clone, Copy, Debug)]
struct Current {
    number: SegmentNumber,
    len: u64,
    /// Where the records that are not repeated begin.
    head_end: u64,
    /// How many bytes are known to be on the disk when all steps so far are done.
    synced: u64,
    /// The checksum of the last frame.
    chain: u32,
}

/// The steps of one batch, as they are gathered.
#[derive(Debug, Default)]
struct Plan {
    steps: Vec<Step>,
    /// What the current segment gets next.
    bytes: Vec<u8>,
    rolled: Rolled,
}

/// Whether a batch begins a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rolled {
    #[default]
    No,
    Yes,
}

impl LogWriter {
    /// The writer of an empty log of the node `node`.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            segment_len: SEGMENT_LEN,
            ledger: Ledger::default(),
            oldest: SegmentNumber(1),
            current: None,
        }
    }

    /// Ends segments at `len` bytes instead of [`SEGMENT_LEN`]; the repeated facts do not count.
    pub fn with_segment_len(mut self, len: u64) -> Self {
        self.segment_len = len;
        self
    }

    /// The index that the next entry has to have; `None` if it may have any.
    pub fn next_index(&self) -> Option<LogIndex> {
        self.ledger.span.map(|span| LogIndex(span.next))
    }

    /// The steps that make `batch` durable. Without a record but [`Record::Committed`], which is a
    /// hint, they sync nothing.
    ///
    /// # Errors
    /// If a record is too long or an entry is out of order; nothing is changed then.
    pub fn encode(&mut self, batch: &[Record]) -> Result<Vec<Step>, EncodeError> {
        self.check(batch)?;
        let frame_len = |record: &Record| (PREFIX_LEN + format::body_len(record)) as u64;
        let Some(first) = batch.first() else { return Ok(Vec::new()) };
        let mut plan = Plan::default();
        let mut number = self.begin_group(&mut plan, MARK_LEN as u64 + frame_len(first));
        for record in batch {
            let len = frame_len(record);
            if self.is_full(len) {
                self.sync(&mut plan);
                number = self.begin_group(&mut plan, len);
            }
            self.append(&mut plan, |bytes, chain| format::put_record(bytes, chain, record));
            self.take(record, number);
        }
        let is_hint = |record: &Record| matches!(record, Record::Committed(_));
        if plan.rolled == Rolled::No && batch.iter().all(is_hint) {
            self.flush(&mut plan);
            return Ok(plan.steps);
        }
        self.sync(&mut plan);
        if plan.rolled == Rolled::Yes {
            plan.steps.push(Step::SyncDir);
        }
        let needed = self.ledger.oldest_home().unwrap_or(number);
        while self.oldest < needed {
            plan.steps.push(Step::Remove { segment: self.oldest });
            self.oldest = self.oldest.next();
        }
        Ok(plan.steps)
    }

    /// The steps that mark everything written so far as synced, so that damage to it is never
    /// taken for a torn tail. For a log that has been idle for a moment; none if it is empty.
    pub fn seal(&mut self) -> Vec<Step> {
        let Some(current) = self.current else { return Vec::new() };
        let mut plan = Plan::default();
        if current.synced < current.len {
            self.sync(&mut plan);
        }
        self.put_mark(&mut plan);
        self.sync(&mut plan);
        plan.steps
    }

    fn check(&self, batch: &[Record]) -> Result<(), EncodeError> {
        let mut span = self.ledger.span;
        for record in batch {
            let len = format::body_len(record);
            if len > RECORD_LEN_MAX {
                return Err(EncodeError::TooLong { len });
            }
            span = ledger::advance(span, record).map_err(|error| {
                let OutOfOrder { expected, found } = error;
                EncodeError::OutOfOrder { expected, found }
            })?;
        }
        Ok(())
    }

    fn take(&mut self, record: &Record, home: SegmentNumber) {
        let taken = self.ledger.apply(record, home);
        taken.expect("the batch was checked before it was taken");
    }

    /// Starts a group with its mark, in a new segment if `len` bytes are too many for this one.
    fn begin_group(&mut self, plan: &mut Plan, len: u64) -> SegmentNumber {
        if self.current.is_none() || self.is_full(len) {
            self.roll(plan);
        }
        self.put_mark(plan);
        self.current.expect("a segment was begun if there was none").number
    }

    /// Whether `len` more bytes are too many for the current segment, which has to hold something.
    fn is_full(&self, len: u64) -> bool {
        self.current.is_some_and(|current| {
            let used = current.len - current.head_end;
            used > MARK_LEN as u64 && used.saturating_add(len) > self.segment_len
        })
    }

    /// Begins the next segment. The one before has to be synced: only the last may be torn.
    fn roll(&mut self, plan: &mut Plan) {
        let before = self.current.map(|current| (current.number, current.chain));
        if self.current.is_some_and(|current| current.synced < current.len) {
            self.sync(plan);
        }
        // Else a crash might keep the name of the new segment and not that of the one before.
        if plan.rolled == Rolled::Yes {
            plan.steps.push(Step::SyncDir);
        }
        let (number, chain) = match before {
            Some((number, chain)) => (number.next(), chain),
            None => (SegmentNumber(1), 0),
        };
        // The checksums of the head continue that of the header, which holds the head's length.
        let put_head = |out: &mut Vec<u8>, mut chain: u32| {
            for record in self.ledger.records() {
                chain = format::put_record(out, chain, &record);
            }
            if let Some(span) = self.ledger.span {
                chain = format::put_span(out, chain, span);
            }
            chain
        };
        let head_len = self.head_len();
        let header = Header { node: self.node, number, chain, head_len }.encode();
        let mut bytes = header.to_vec();
        let chain = put_head(&mut bytes, format::header_chain(&header));
        let len = bytes.len() as u64;
        assert_eq!(len, HEADER_LEN as u64 + head_len, "the head is as long as its header says");
        self.current = Some(Current { number, len, head_end: len, synced: 0, chain });
        plan.steps.push(Step::Create { segment: number, header: Bytes::from(bytes) });
        plan.rolled = Rolled::Yes;
    }

    fn head_len(&self) -> u64 {
        let records = self.ledger.records().map(|record| PREFIX_LEN + format::body_len(&record));
        let span = if self.ledger.span.is_some() { format::SPAN_LEN } else { 0 };
        (records.sum::<usize>() + span) as u64
    }

    fn put_mark(&mut self, plan: &mut Plan) {
        let Some(current) = self.current else { return };
        let place = MarkPlace { node: self.node, number: current.number, at: current.len };
        self.append(plan, |bytes, chain| format::put_mark(bytes, chain, place, current.synced));
    }

    /// Lets `put` add one frame to what the current segment gets next.
    fn append(&mut self, plan: &mut Plan, put: impl FnOnce(&mut Vec<u8>, u32) -> u32) {
        let current = self.current.as_mut().expect("a group begins before its records");
        let before = plan.bytes.len();
        current.chain = put(&mut plan.bytes, current.chain);
        current.len += (plan.bytes.len() - before) as u64;
    }

    fn flush(&self, plan: &mut Plan) {
        if let Some(current) = self.current
            && !plan.bytes.is_empty()
        {
            let bytes = Bytes::from(std::mem::take(&mut plan.bytes));
            plan.steps.push(Step::Append { segment: current.number, bytes });
        }
    }

    fn sync(&mut self, plan: &mut Plan) {
        self.flush(plan);
        if let Some(current) = &mut self.current {
            plan.steps.push(Step::Sync { segment: current.number });
            current.synced = current.len;
        }
    }
}

#[cfg(test)]
mod tests;
