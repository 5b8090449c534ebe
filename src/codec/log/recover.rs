//! Reading a log back: [`recover()`].

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::format::{self, Frame, HEADER_LEN, Header, HeaderFault};
use super::ledger::{Ledger, Span};
use super::{Current, LogWriter, SEGMENT_LEN, SegmentNumber, Step};
use crate::codec::record::{Record, Recovered, Snapshot};
use crate::id::{LogIndex, NodeId, Term};

/// What [`recover()`] found.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// What the log and the snapshots say.
    pub recovered: Recovered,
    /// The writer that goes on after it.
    pub writer: LogWriter,
    /// What to do to the files before the writer goes on and before anyone believes `recovered`:
    /// it cuts what is half written, and syncs what may not be on the disk yet.
    pub repairs: Vec<Step>,
    /// What was cut, if anything was.
    pub cut: Option<Cut>,
}

/// The end of a log that was half written when the node died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which segment.
    pub segment: SegmentNumber,
    /// The offset of the first byte that was cut.
    pub offset: u64,
    /// How many bytes were cut.
    pub len: u64,
}

/// The log is not what was written: the node must not go on with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log segment {segment} is damaged at byte {offset}: {reason}")]
pub struct LogDamage {
    /// Which segment.
    pub segment: SegmentNumber,
    /// Where in it, in bytes from its start.
    pub offset: u64,
    /// What is wrong there.
    pub reason: DamageReason,
}

/// What is wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageReason {
    /// A checksum is wrong, or a part is missing, where everything had been synced.
    #[error("a record that was synced does not have its checksum")]
    Checksum,
    /// The header of a segment is not one.
    #[error("the header does not have its checksum")]
    Header,
    /// The segment was written by a newer version. It is whole, and nothing was changed.
    #[error("it has format {0}, this version knows only format {known}", known = format::FORMAT)]
    NewerFormat(u32),
    /// The segment is that of another node.
    #[error("it was written by node {0}")]
    WrongNode(NodeId),
    /// The segment has another number in its header than in its name.
    #[error("its header says that it is segment {0}")]
    WrongNumber(SegmentNumber),
    /// The segment does not continue the one before, which ends too early or is not the same.
    #[error("it does not continue the segment before")]
    Unchained,
    /// A record is whole and makes no sense.
    #[error("a record is whole but makes no sense")]
    Unreadable,
    /// An entry does not follow on the one before.
    #[error("entry {found} stands where {expected} was due")]
    OutOfOrder {
        /// The index that was due.
        expected: u64,
        /// The index that stands there.
        found: u64,
    },
    /// Entries are missing at the start.
    #[error("entries {from} to {upto} are missing")]
    EntriesMissing {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        upto: u64,
    },
    /// The log begins behind a snapshot that is not there or not whole.
    #[error("the log begins at entry {0}, and there is no whole snapshot that covers those before")]
    SnapshotMissing(u64),
}

/// Reads the log of `node` from its segments; `snapshot` is the newest that is whole.
///
/// # Errors
/// If it is damaged elsewhere than at its very end; see [`DamageReason`].
pub fn recover(
    node: NodeId,
    segments: &BTreeMap<SegmentNumber, Bytes>,
    snapshot: Option<Snapshot>,
) -> Result<Recovery, LogDamage> {
    let mut reader = Reader::new(node);
    let first = first_of_last_row(segments);
    let stale = segments.keys().take_while(|number| Some(**number) < first);
    let mut repairs: Vec<Step> = stale.map(|&segment| Step::Remove { segment }).collect();
    let last = segments.keys().next_back().copied();
    let mut cut = None;
    for (&number, bytes) in segments.iter().skip(repairs.len()) {
        let Err(fault) = reader.read_segment(number, bytes) else { continue };
        let torn = fault.is_torn && Some(number) == last;
        let offset = u64::try_from(fault.offset).unwrap_or(u64::MAX);
        if !torn || format::synced_after(node, number, bytes, fault.offset) > offset {
            return Err(LogDamage { segment: number, offset, reason: fault.reason });
        }
        cut = Some(reader.cut(number, bytes, fault, &mut repairs)?);
    }
    if let Some(current) = reader.current {
        repairs.push(Step::Sync { segment: current.number });
    }
    if last.is_some() {
        repairs.push(Step::SyncDir);
    }
    let (recovered, writer) = reader.finish(first, snapshot)?;
    Ok(Recovery { recovered, writer, repairs, cut })
}

/// The first segment of the last row without a gap. Those before a gap should be gone: the disk
/// forgot that they were removed.
fn first_of_last_row(segments: &BTreeMap<SegmentNumber, Bytes>) -> Option<SegmentNumber> {
    let mut first = *segments.keys().next_back()?;
    for &number in segments.keys().rev().skip(1) {
        if number.next() != first {
            break;
        }
        first = number;
    }
    Some(first)
}

/// What has been read so far.
struct Reader {
    node: NodeId,
    ledger: Ledger,
    /// Entries from `base` on, consecutive.
    entries: VecDeque<(LogIndex, Term, Bytes)>,
    base: u64,
    first: Option<SegmentNumber>,
    current: Option<Current>,
}

/// Something that is not as it was written.
struct Fault {
    offset: usize,
    reason: DamageReason,
    /// Whether it may come from a write that was cut short.
    is_torn: bool,
}

impl Fault {
    fn torn(offset: usize, reason: DamageReason) -> Self {
        Self { offset, reason, is_torn: true }
    }

    fn wrong(offset: usize, reason: DamageReason) -> Self {
        Self { offset, reason, is_torn: false }
    }
}

impl Reader {
    fn new(node: NodeId) -> Self {
        let ledger = Ledger::default();
        Self { node, ledger, entries: VecDeque::new(), base: 0, first: None, current: None }
    }

    /// Takes in a segment. After a fault, `current` is what was whole before it, or still the
    /// segment before if not even the head was whole.
    fn read_segment(&mut self, number: SegmentNumber, bytes: &Bytes) -> Result<(), Fault> {
        let (header, mut chain) = self.read_header(number, bytes)?;
        let head_len = usize::try_from(header.head_len).unwrap_or(usize::MAX);
        let head_end = HEADER_LEN.saturating_add(head_len);
        let is_first = self.first.is_none();
        let mut offset = HEADER_LEN;
        let mut head = Vec::new();
        while offset < head_end {
            let (frame, next) = read_frame(bytes, offset, &mut chain)?;
            if next > head_end {
                return Err(Fault::wrong(offset, DamageReason::Unreadable));
            }
            head.push(frame);
            offset = next;
        }
        // The facts of the head are known if the segments before were read.
        for frame in head.into_iter().filter(|_| is_first) {
            self.take_head(frame, number)?;
        }
        self.first = self.first.or(Some(number));
        let head_end = u64::try_from(head_end).unwrap_or(u64::MAX);
        loop {
            let len = u64::try_from(offset).unwrap_or(u64::MAX);
            self.current = Some(Current { number, len, head_end, synced: len, chain });
            if offset == bytes.len() {
                return Ok(());
            }
            let (frame, next) = read_frame(bytes, offset, &mut chain)?;
            match frame {
                Frame::Record(record) => self.take(&record, number, offset)?,
                Frame::Mark { .. } => {}
                Frame::Span(_) => return Err(Fault::wrong(offset, DamageReason::Unreadable)),
            }
            offset = next;
        }
    }

    fn read_header(&self, number: SegmentNumber, bytes: &[u8]) -> Result<(Header, u32), Fault> {
        let (header, chain) = Header::decode(bytes).map_err(|fault| match fault {
            HeaderFault::Torn => Fault::torn(0, DamageReason::Header),
            HeaderFault::Newer(version) => Fault::wrong(8, DamageReason::NewerFormat(version)),
        })?;
        if header.node != self.node {
            return Err(Fault::wrong(16, DamageReason::WrongNode(header.node)));
        }
        if header.number != number {
            return Err(Fault::wrong(24, DamageReason::WrongNumber(header.number)));
        }
        if self.current.is_some_and(|before| before.chain != header.chain) {
            return Err(Fault::wrong(12, DamageReason::Unchained));
        }
        Ok((header, chain))
    }

    fn take_head(&mut self, frame: Frame, number: SegmentNumber) -> Result<(), Fault> {
        match frame {
            Frame::Record(record) => self.take(&record, number, HEADER_LEN),
            Frame::Span(span) if span.start <= span.next => {
                self.ledger.span = Some(span);
                self.base = span.next;
                Ok(())
            }
            Frame::Span(_) | Frame::Mark { .. } => {
                Err(Fault::wrong(HEADER_LEN, DamageReason::Unreadable))
            }
        }
    }

    fn take(&mut self, record: &Record, number: SegmentNumber, offset: usize) -> Result<(), Fault> {
        self.ledger.apply(record, number).map_err(|error| {
            let (expected, found) = (error.expected, error.found);
            Fault::wrong(offset, DamageReason::OutOfOrder { expected, found })
        })?;
        let Some(Span { start, next, .. }) = self.ledger.span else { return Ok(()) };
        if let Record::Entry { index, term, body } = record {
            if self.entries.is_empty() {
                self.base = index.0;
            }
            self.entries.push_back((*index, *term, body.clone()));
        }
        let kept = usize::try_from(next.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.entries.truncate(kept);
        let gone = usize::try_from(start.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.entries.drain(..gone.min(self.entries.len()));
        self.base = self.entries.front().map_or(next, |entry| entry.0.0);
        Ok(())
    }

    /// Plans to cut the last segment at `fault`, or to remove it if it never got a whole head.
    fn cut(
        &self,
        segment: SegmentNumber,
        bytes: &[u8],
        fault: Fault,
        repairs: &mut Vec<Step>,
    ) -> Result<Cut, LogDamage> {
        let len_of = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let (offset, len) = (len_of(fault.offset), len_of(bytes.len()));
        if self.current.is_some_and(|current| current.number == segment) {
            repairs.push(Step::Cut { segment, len: offset });
            return Ok(Cut { segment, offset, len: len - offset });
        }
        // Without segments before, the facts of the head stand nowhere else, unless it is the very
        // first, whose head is empty.
        if self.current.is_none() && segment != SegmentNumber(1) {
            return Err(LogDamage { segment, offset, reason: fault.reason });
        }
        repairs.push(Step::Remove { segment });
        Ok(Cut { segment, offset: 0, len })
    }

    fn finish(
        self,
        first: Option<SegmentNumber>,
        snapshot: Option<Snapshot>,
    ) -> Result<(Recovered, LogWriter), LogDamage> {
        let span = self.ledger.span.unwrap_or(Span { start: 0, next: 0, covered: 0 });
        let first = first.unwrap_or(SegmentNumber(1));
        let damage = |reason| LogDamage { segment: first, offset: 0, reason };
        if self.base > span.start {
            let (from, upto) = (span.start, self.base - 1);
            return Err(damage(DamageReason::EntriesMissing { from, upto }));
        }
        let covered = snapshot.as_ref().map_or(0, |snapshot| snapshot.index().0.saturating_add(1));
        if span.covered > covered {
            return Err(damage(DamageReason::SnapshotMissing(span.start)));
        }
        let recovered = Recovered {
            vote: self.ledger.vote.clone(),
            committed: self.ledger.committed.clone(),
            purged: self.ledger.purge.clone().map(|(_, body)| body),
            entries: self.entries.into(),
            snapshot,
            checkpoint: self.ledger.checkpoint.clone(),
            locals: self.ledger.locals.clone(),
            doubt: self.ledger.doubt,
        };
        let writer = LogWriter {
            node: self.node,
            segment_len: SEGMENT_LEN,
            ledger: self.ledger,
            oldest: first,
            current: self.current,
        };
        Ok((recovered, writer))
    }
}

fn read_frame(bytes: &Bytes, offset: usize, chain: &mut u32) -> Result<(Frame, usize), Fault> {
    let (body, check, next) = format::next_frame(bytes, offset, *chain)
        .ok_or_else(|| Fault::torn(offset, DamageReason::Checksum))?;
    let frame =
        format::decode_body(&body).ok_or_else(|| Fault::wrong(offset, DamageReason::Unreadable))?;
    *chain = check;
    Ok((frame, next))
}
