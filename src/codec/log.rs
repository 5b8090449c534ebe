//! The log on disk: [`Record`]s ⇄ segments, as steps for whoever owns the files.
//!
//! A log is a row of numbered segments. [`LogWriter`] turns each batch of records into
//! [`Step`]s: what to write where, what to sync, which segments to begin and which to remove. A
//! batch is durable when all its steps are done. [`recover()`] reads the segments back, leaves out
//! what a crash left half written, and gives the writer that goes on after it. Neither touches a
//! file; the shell does the steps on real ones,
//! [`MemoryDisk`](super::memory_disk::MemoryDisk) in memory.
//!
//! The bytes are described in `docs/log-format.md`. Each segment begins with a repetition of all
//! facts that are still true and are no entries (the vote, the node's own facts, which entries
//! there are), so an old segment can go as soon as its entries are purged. Each batch is a group:
//! a mark that says how much of the segment was known synced at that time, the records, and an end
//! that the next group overwrites. A file may hold anything behind that end: it was made as long
//! as it will get, or was another segment before.
//!
//! **Invariants**
//! - Recovery gives what the records of a prefix of the log say, and everything that was synced is
//!   in that prefix; else it is [`LogDamage`].
//! - Damage below an offset that some later mark names as synced is never a torn tail. Above it, in
//!   the last segment, it is cut, and [`Recovered::doubt`](super::record::Recovered::doubt) says so
//!   until the node says [`Record::Settled`].
//! - A vote is sealed before it counts as durable: a mark behind it names it as synced. A vote that
//!   is cut could be given twice in one term, and elect two leaders; an entry that is cut is
//!   fetched again.
//! - Steps may be done again from any on that failed: each gives the same file when done twice.
//! - A segment is removed only after one with the same facts is synced, name and content.
//! - A batch that is refused changes nothing.
//!
//! **Left out on purpose**
//! - Making files longer ahead of time and using removed ones again: whoever owns them may.
//! - Choosing who may vote after a cut.

mod format;
mod ledger;
mod recover;
mod survey;

use std::fmt;

use bytes::Bytes;

pub use self::recover::{
    Cut, DamageReason, LogDamage, RecoverError, Recovery, recover, recover_loaded,
};
pub use self::survey::{
    LOG_FORMAT, Seen, SegmentEnd, SegmentHeader, SegmentSurvey, newer_format, survey_segment,
};

use self::format::{
    BODY_LEN_MAX, HEAD_LEN_MAX, HEADER_LEN, Header, Life, MARK_LEN, MarkPlace, PREFIX_LEN,
};
use self::ledger::{Ledger, OutOfOrder};
use super::record::{Doubt, Record};
use crate::id::{ClusterId, LogIndex, NodeId};

/// How large the parts of a log get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// The length in bytes at which a segment ends and the next begins; repeated facts do not
    /// count. Longer segments go later, shorter ones repeat the facts more often. A segment holds
    /// at least one record, however long.
    pub segment_len: u64,
    /// The longest body of a record, with its index and term, in bytes; at most
    /// [`RECORD_LEN_MAX`]. Longer ones that are in the log already are read all the same.
    pub record_len_max: usize,
    /// How many removed segments are kept to become new ones.
    pub spare_segments: usize,
}

/// The longest body of a record that any limit allows, with its index and term, in bytes.
pub const RECORD_LEN_MAX: usize = BODY_LEN_MAX;

/// The default of [`LogLimits::segment_len`]: about a second of full load.
pub const SEGMENT_LEN: u64 = 64 << 20;

impl Default for LogLimits {
    fn default() -> Self {
        Self { segment_len: SEGMENT_LEN, record_len_max: 16 << 20, spare_segments: 2 }
    }
}

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The node that writes it.
    pub node: NodeId,
    /// The cluster of that node, once it is known. It never becomes another one.
    pub cluster: Option<ClusterId>,
}

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
    /// Write `header` at the start of the segment. If there is no such segment it is made, of a
    /// new file or of one that was a segment before; what follows the header may be anything.
    Create {
        /// Which segment.
        segment: SegmentNumber,
        /// How long it will get, as far as is known, in bytes.
        len: u64,
        /// Its first bytes: the header and the repeated facts.
        header: Bytes,
    },
    /// Write `bytes` into the segment, over what is there.
    Write {
        /// Which segment.
        segment: SegmentNumber,
        /// At which offset, in bytes from its start.
        at: u64,
        /// What to write.
        bytes: Bytes,
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
    #[error("a record of {len} bytes is too long for the log, at most {max} are allowed")]
    TooLong {
        /// How long it is.
        len: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// The facts that are no entries are too long to be repeated at the start of a segment.
    #[error("facts of {len} bytes are too long for the log, at most {HEAD_LEN_MAX} are allowed")]
    TooManyFacts {
        /// How long they are together, in bytes.
        len: u64,
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
    owner: Owner,
    limits: LogLimits,
    life: Life,
    ledger: Ledger,
    /// The lowest segment that is not removed.
    oldest: SegmentNumber,
    current: Option<Current>,
}

/// The segment at the end of the log.
#[derive(Clone, Copy, Debug)]
struct Current {
    number: SegmentNumber,
    /// Where the log ends and the next group begins.
    len: u64,
    /// Where the records that are not repeated begin.
    head_end: u64,
    /// How many bytes are known to be on the disk when all steps so far are done.
    synced: u64,
    /// Up to where a mark that is itself on the disk then names all as synced, that mark included.
    sealed: u64,
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

/// Whether a segment was begun whose name is not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rolled {
    #[default]
    No,
    Yes,
}

impl LogWriter {
    /// The writer of an empty log.
    pub fn new(owner: Owner, limits: LogLimits) -> Self {
        Self {
            owner,
            limits,
            life: Life(1),
            ledger: Ledger::default(),
            oldest: SegmentNumber(1),
            current: None,
        }
    }

    /// The node is a member of `cluster`, which the segments that begin from here on say.
    pub fn set_cluster(&mut self, cluster: ClusterId) {
        self.owner.cluster = Some(cluster);
    }

    /// How large the parts of the log get.
    pub fn limits(&self) -> LogLimits {
        self.limits
    }

    /// The index that the next entry has to have; `None` if it may have any.
    pub fn next_index(&self) -> Option<LogIndex> {
        self.ledger.span.map(|span| LogIndex(span.next))
    }

    /// The segment that is written and the offset in it where the next group begins, when all
    /// steps so far are done; `None` while there is no segment.
    pub fn end(&self) -> Option<(SegmentNumber, u64)> {
        self.current.map(|current| (current.number, current.len))
    }

    /// Whether damage to anything that was written is found when all steps so far are done; if
    /// not, [`LogWriter::seal`] makes it so.
    pub fn is_sealed(&self) -> bool {
        self.current.is_none_or(|current| current.sealed == current.len)
    }

    /// The steps that make `batch` durable. Without a record but [`Record::Committed`], which is a
    /// hint, they sync nothing.
    ///
    /// # Errors
    /// If a record is too long or an entry is out of order; nothing is changed then.
    pub fn encode(&mut self, batch: &[Record]) -> Result<Vec<Step>, EncodeError> {
        self.check(batch)?;
        let Some(first) = batch.first() else { return Ok(Vec::new()) };
        let mut plan = Plan::default();
        let mut number = self.begin_group(&mut plan, MARK_LEN as u64 + frame_len(first));
        for record in batch {
            if self.is_full(frame_len(record)) {
                self.sync(&mut plan);
                number = self.begin_group(&mut plan, frame_len(record));
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
        self.sync_names(&mut plan);
        let is_sealed = |record: &Record| matches!(record, Record::Vote(_) | Record::Doubt(_));
        if batch.iter().any(is_sealed) {
            self.put_seal(&mut plan);
        }
        let needed = self.ledger.oldest_home().unwrap_or(number);
        while self.oldest < needed {
            plan.steps.push(Step::Remove { segment: self.oldest });
            self.oldest = self.oldest.next();
        }
        Ok(plan.steps)
    }

    /// The steps that mark everything written so far as synced, so that damage to it is never
    /// taken for a torn tail. For a log that has been idle for a moment; none if it is sealed.
    pub fn seal(&mut self) -> Vec<Step> {
        let Some(current) = self.current else { return Vec::new() };
        let mut plan = Plan::default();
        if current.synced < current.len {
            self.sync(&mut plan);
        }
        if !self.is_sealed() {
            self.put_seal(&mut plan);
        }
        plan.steps
    }

    /// The steps with which a log goes on after recovery has read it up to its end: a mark of the
    /// next life, which nothing that an earlier life left behind the end can follow on, and the
    /// doubt, if there is a new one. With `anew`, the segment of that number has no whole head, and
    /// is begun again.
    fn begin_life(&mut self, doubt: Option<Doubt>, anew: Option<SegmentNumber>) -> Vec<Step> {
        self.life = Life(self.life.0.saturating_add(1));
        let mut plan = Plan::default();
        match anew {
            Some(number) => {
                self.roll(&mut plan);
                let begun = self.current.map(|current| current.number);
                assert_eq!(begun, Some(number), "the last segment follows on the one before");
            }
            // What was read may not be on the disk yet, and the mark will say that it is.
            None => self.sync(&mut plan),
        }
        if doubt.is_some() || anew.is_some() {
            self.put_mark(&mut plan);
        }
        // Not in the head of a segment that is begun again: who has read the segments before knows
        // better than a head.
        if let Some(doubt) = doubt.map(Record::Doubt) {
            self.append(&mut plan, |bytes, chain| format::put_record(bytes, chain, &doubt));
            self.take(&doubt, self.oldest);
        }
        if doubt.is_some() || anew.is_some() {
            self.sync(&mut plan);
        }
        plan.steps.push(Step::SyncDir);
        plan.rolled = Rolled::No;
        self.put_seal(&mut plan);
        plan.steps
    }

    fn check(&self, batch: &[Record]) -> Result<(), EncodeError> {
        let mut span = self.ledger.span;
        let mut facts = self.ledger.head_len();
        for record in batch {
            let (len, max) = (format::body_len(record), self.limits.record_len_max);
            if len > max.min(RECORD_LEN_MAX) {
                return Err(EncodeError::TooLong { len, max });
            }
            if !matches!(record, Record::Entry { .. }) {
                facts += frame_len(record);
            }
            span = ledger::advance(span, record).map_err(|error| {
                let OutOfOrder { expected, found } = error;
                EncodeError::OutOfOrder { expected, found }
            })?;
        }
        match facts > HEAD_LEN_MAX - format::SPAN_LEN as u64 {
            true => Err(EncodeError::TooManyFacts { len: facts }),
            false => Ok(()),
        }
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
            used > MARK_LEN as u64 && used.saturating_add(len) > self.limits.segment_len
        })
    }

    /// Begins the next segment. The one before has to be synced: only the last may be torn.
    fn roll(&mut self, plan: &mut Plan) {
        let before = self.current.map(|current| (current.number, current.chain));
        if self.current.is_some_and(|current| current.synced < current.len) {
            self.sync(plan);
        }
        // Else a crash might keep the name of the new segment and not that of the one before.
        self.sync_names(plan);
        let (number, chain) = match before {
            Some((number, chain)) => (number.next(), chain),
            None => (SegmentNumber(1), 0),
        };
        let (owner, life) = (self.owner, self.life);
        let first = self.ledger.span.map_or(0, |span| span.next);
        let head_len = self.ledger.head_len();
        let header = Header { owner, number, chain, first, life, head_len }.encode();
        let mut bytes = header.to_vec();
        // The checksums of the head continue that of the header, which holds the head's length.
        let mut chain = format::header_chain(&header);
        for record in self.ledger.records() {
            chain = format::put_record(&mut bytes, chain, &record);
        }
        if let Some(span) = self.ledger.span {
            chain = format::put_span(&mut bytes, chain, span);
        }
        let len = bytes.len() as u64;
        assert_eq!(len, HEADER_LEN as u64 + head_len, "the head is as long as its header says");
        self.current = Some(Current { number, len, head_end: len, synced: 0, sealed: 0, chain });
        let whole_len = len.saturating_add(self.limits.segment_len).saturating_add(SLACK);
        plan.steps.push(Step::Create {
            segment: number,
            len: whole_len / SLACK * SLACK,
            header: Bytes::from(bytes),
        });
        plan.rolled = Rolled::Yes;
    }

    fn put_mark(&mut self, plan: &mut Plan) {
        let Some(current) = self.current else { return };
        let (node, number, at) = (self.owner.node, current.number, current.len);
        let (place, life) = (MarkPlace { node, number, at }, self.life);
        self.append(plan, |bytes, chain| {
            format::put_mark(bytes, chain, place, current.synced, life)
        });
    }

    /// Marks everything before as synced, durably.
    fn put_seal(&mut self, plan: &mut Plan) {
        self.put_mark(plan);
        self.sync(plan);
        if let Some(current) = &mut self.current {
            current.sealed = current.len;
        }
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
            let mut bytes = std::mem::take(&mut plan.bytes);
            let at = current.len - bytes.len() as u64;
            format::put_end(&mut bytes, current.chain);
            let bytes = Bytes::from(bytes);
            plan.steps.push(Step::Write { segment: current.number, at, bytes });
        }
    }

    fn sync(&mut self, plan: &mut Plan) {
        self.flush(plan);
        if let Some(current) = &mut self.current {
            plan.steps.push(Step::Sync { segment: current.number });
            current.synced = current.len;
        }
    }

    fn sync_names(&self, plan: &mut Plan) {
        if plan.rolled == Rolled::Yes {
            plan.steps.push(Step::SyncDir);
            plan.rolled = Rolled::No;
        }
    }
}

/// Room behind the end of a full segment, for the marks and the end that follow. Files are a
/// multiple of it long.
const SLACK: u64 = 4_096;

fn frame_len(record: &Record) -> u64 {
    (PREFIX_LEN + format::body_len(record)) as u64
}

#[cfg(test)]
mod tests;
