//! Reading a log back: [`recover()`].

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;

use bytes::Bytes;

use super::format::{
    self, ENTRY_BODY_AT, Frame, HEAD_LEN_MAX, HEADER_LEN, Header, HeaderFault, Life, MarkPlace,
    Next,
};
use super::ledger::{Ledger, Span};
use super::{Current, LogLimits, LogWriter, Owner, SegmentNumber, Step};
use crate::codec::record::{Doubt, Record, Recovered, Snapshot};
use crate::id::{ClusterId, LogIndex, NodeId, Term};

/// What [`recover()`] found.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// What the log and the snapshots say.
    pub recovered: Recovered,
    /// The writer that goes on after it.
    pub writer: LogWriter,
    /// What to do to the files before the writer goes on and before anyone believes `recovered`:
    /// it syncs what may not be on the disk yet, and marks the end, so that nothing that was half
    /// written there is ever read.
    pub repairs: Vec<Step>,
    /// What was cut at this start, if anything was.
    pub cut: Option<Cut>,
}

/// The end of a log that was half written when the node died, or that has rotted since. It is left
/// in its file and is not read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which segment.
    pub segment: SegmentNumber,
    /// The offset of the first byte that was cut.
    pub offset: u64,
    /// How many bytes were cut: up to the last one of the file that is not zero.
    pub len: u64,
}

/// Why a log could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError<E> {
    /// A segment could not be loaded.
    #[error(transparent)]
    Load(E),
    /// It is damaged.
    #[error(transparent)]
    Damage(#[from] LogDamage),
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
    /// The segment is that of another cluster.
    #[error("it belongs to cluster {0}")]
    WrongCluster(ClusterId),
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

/// How many bytes of a segment that hold nothing may be kept in memory with its entries.
const IDLE_LEN_MAX: usize = 1 << 20;

/// Reads the log of `owner` from its segments, one at a time and in order. `snapshot`
/// is the newest that is whole.
///
/// # Errors
/// If a segment cannot be loaded, or the log is damaged elsewhere than at its very end; see
/// [`DamageReason`].
pub fn recover<E>(
    owner: Owner,
    limits: LogLimits,
    segments: &[SegmentNumber],
    mut load: impl FnMut(SegmentNumber) -> Result<Bytes, E>,
    snapshot: Option<Snapshot>,
) -> Result<Recovery, RecoverError<E>> {
    let mut segments = segments.to_vec();
    segments.sort_unstable();
    let row = segments.split_off(first_of_last_row(&segments));
    let first = row.first().copied();
    let mut reader = Reader::new(owner);
    let (mut cut, mut anew) = (None, None);
    for &number in &row {
        let bytes = load(number).map_err(RecoverError::Load)?;
        let read = reader.read_segment(number, &bytes);
        reader.let_go(number, &bytes);
        let is_last = Some(&number) == row.last();
        if let Some(end) = reader.judge_end(number, &bytes, read, is_last)? {
            cut = end.cut;
            anew = end.is_headless.then_some(number);
        }
    }
    let doubt = cut.map(|cut| reader.doubt_after(cut));
    let (mut recovered, mut writer) = reader.finish(limits, first, snapshot)?;
    let mut repairs = match first {
        Some(_) => writer.begin_life(doubt, anew),
        None => Vec::new(),
    };
    repairs.extend(segments.into_iter().map(|segment| Step::Remove { segment }));
    recovered.doubt = writer.ledger.doubt;
    Ok(Recovery { recovered, writer, repairs, cut })
}

/// As [`recover()`], of segments that are in memory already.
///
/// # Errors
/// If the log is damaged elsewhere than at its very end.
pub fn recover_loaded(
    owner: Owner,
    limits: LogLimits,
    segments: &BTreeMap<SegmentNumber, Bytes>,
    snapshot: Option<Snapshot>,
) -> Result<Recovery, LogDamage> {
    let numbers: Vec<SegmentNumber> = segments.keys().copied().collect();
    let load = |number| Ok::<_, Infallible>(segments[&number].clone());
    recover(owner, limits, &numbers, load, snapshot).map_err(|error| match error {
        RecoverError::Load(never) => match never {},
        RecoverError::Damage(damage) => damage,
    })
}

/// Where in `segments` the last row without a gap begins. Those before a gap should be gone: the
/// disk forgot that they were removed.
fn first_of_last_row(segments: &[SegmentNumber]) -> usize {
    let follows = |pair: &[SegmentNumber]| pair[0].next() == pair[1];
    let gap = segments.windows(2).rposition(|pair| !follows(pair));
    gap.map_or(0, |gap| gap + 1)
}

/// What has been read so far.
struct Reader {
    owner: Owner,
    life: Life,
    ledger: Ledger,
    /// Entries from `base` on, consecutive.
    entries: VecDeque<Entry>,
    base: u64,
    first: Option<SegmentNumber>,
    current: Option<Current>,
}

/// An entry, and where its body stands.
struct Entry {
    index: LogIndex,
    term: Term,
    body: Bytes,
    home: SegmentNumber,
    at: usize,
}

/// Something that is not as it was written.
#[derive(Clone, Copy, Debug)]
struct Fault {
    offset: usize,
    reason: DamageReason,
    kind: FaultKind,
}

/// What a fault may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultKind {
    /// The segment has a name, and its first write did not reach the disk.
    NeverBegun,
    /// A write that was cut short.
    Torn,
    /// Nothing that a crash can do.
    Wrong,
}

/// How the last segment ends, if it is not whole.
struct BadEnd {
    cut: Option<Cut>,
    is_headless: bool,
}

impl Fault {
    fn torn(offset: usize, reason: DamageReason) -> Self {
        Self { offset, reason, kind: FaultKind::Torn }
    }

    fn wrong(offset: usize, reason: DamageReason) -> Self {
        Self { offset, reason, kind: FaultKind::Wrong }
    }
}

/// Offsets are lengths of bytes in memory.
fn offset_of(offset: usize) -> u64 {
    u64::try_from(offset).unwrap_or(u64::MAX)
}

impl Reader {
    fn new(owner: Owner) -> Self {
        Self {
            owner,
            life: Life(1),
            ledger: Ledger::default(),
            entries: VecDeque::new(),
            base: 0,
            first: None,
            current: None,
        }
    }

    /// Takes in a segment, up to its end. After a fault, `current` is what was whole before it, or
    /// still the segment before if not even the head was whole.
    fn read_segment(&mut self, number: SegmentNumber, bytes: &Bytes) -> Result<(), Fault> {
        let (header, mut chain) = self.read_header(number, bytes)?;
        let head_len = usize::try_from(header.head_len).unwrap_or(usize::MAX);
        let head_end = HEADER_LEN.saturating_add(head_len);
        let is_first = self.first.is_none();
        let mut offset = HEADER_LEN;
        let mut head = Vec::new();
        while offset < head_end {
            let Some((frame, next)) = self.read_frame(bytes, offset, number, &mut chain)? else {
                return Err(Fault::wrong(offset, DamageReason::Unreadable));
            };
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
        if header.first != self.ledger.span.map_or(0, |span| span.next) {
            return Err(Fault::wrong(40, DamageReason::Unreadable));
        }
        self.first = self.first.or(Some(number));
        self.owner.cluster = self.owner.cluster.or(header.owner.cluster);
        let head_end = offset_of(head_end);
        loop {
            let len = offset_of(offset);
            self.current = Some(Current { number, len, head_end, synced: len, sealed: 0, chain });
            let Some((frame, next)) = self.read_frame(bytes, offset, number, &mut chain)? else {
                return Ok(());
            };
            match frame {
                Frame::Record(record) => self.take(&record, number, offset)?,
                Frame::Mark(mark) => self.life = self.life.max(mark.life),
                Frame::Span(_) => return Err(Fault::wrong(offset, DamageReason::Unreadable)),
            }
            offset = next;
        }
    }

    fn read_header(&mut self, number: SegmentNumber, bytes: &[u8]) -> Result<(Header, u32), Fault> {
        let (header, chain) = Header::decode(bytes).map_err(|fault| match fault {
            HeaderFault::Blank => {
                Fault { kind: FaultKind::NeverBegun, ..Fault::torn(0, DamageReason::Header) }
            }
            HeaderFault::Torn => Fault::torn(0, DamageReason::Header),
            HeaderFault::Newer(version) => Fault::wrong(8, DamageReason::NewerFormat(version)),
        })?;
        if header.number != number {
            // The file was an earlier segment, and has not become this one.
            let kind = match header.number < number {
                true => FaultKind::NeverBegun,
                false => FaultKind::Wrong,
            };
            let reason = DamageReason::WrongNumber(header.number);
            return Err(Fault { offset: 24, reason, kind });
        }
        if header.owner.node != self.owner.node {
            return Err(Fault::wrong(16, DamageReason::WrongNode(header.owner.node)));
        }
        if let (Some(ours), Some(its)) = (self.owner.cluster, header.owner.cluster)
            && ours != its
        {
            return Err(Fault::wrong(32, DamageReason::WrongCluster(its)));
        }
        if self.current.is_some_and(|before| before.chain != header.chain) {
            // An earlier life began this segment in this file, and its name was lost.
            let kind = match header.life < self.life {
                true => FaultKind::NeverBegun,
                false => FaultKind::Wrong,
            };
            return Err(Fault { offset: 12, reason: DamageReason::Unchained, kind });
        }
        if header.head_len > HEAD_LEN_MAX {
            return Err(Fault::wrong(52, DamageReason::Unreadable));
        }
        self.life = self.life.max(header.life);
        Ok((header, chain))
    }

    /// Reads a frame and gives where the next one is; `None` at the end of the log.
    fn read_frame(
        &self,
        bytes: &Bytes,
        offset: usize,
        number: SegmentNumber,
        chain: &mut u32,
    ) -> Result<Option<(Frame, usize)>, Fault> {
        let unreadable = || Fault::wrong(offset, DamageReason::Unreadable);
        match format::next_frame(bytes, offset, *chain) {
            Next::End => Ok(None),
            Next::Torn => Err(Fault::torn(offset, DamageReason::Checksum)),
            Next::Frame { body, chain: new, next } => {
                let frame = format::decode_body(&body).ok_or_else(unreadable)?;
                let place = MarkPlace { node: self.owner.node, number, at: offset_of(offset) };
                if matches!(&frame, Frame::Mark(mark) if !place.has(mark)) {
                    return Err(unreadable());
                }
                *chain = new;
                Ok(Some((frame, next)))
            }
        }
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
            let (index, term, body) = (*index, *term, body.clone());
            let at = offset + ENTRY_BODY_AT;
            self.entries.push_back(Entry { index, term, body, home: number, at });
        }
        let kept = usize::try_from(next.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.entries.truncate(kept);
        let gone = usize::try_from(start.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.entries.drain(..gone.min(self.entries.len()));
        self.base = self.entries.front().map_or(next, |entry| entry.index.0);
        Ok(())
    }

    /// Lets go of the part of a segment that holds nothing, if it is much: entries share the
    /// memory of their segment.
    fn let_go(&mut self, number: SegmentNumber, bytes: &Bytes) {
        let current = self.current.filter(|current| current.number == number);
        let end = current.and_then(|current| usize::try_from(current.len).ok()).unwrap_or(0);
        if bytes.len().saturating_sub(end) < IDLE_LEN_MAX {
            return;
        }
        let used = Bytes::copy_from_slice(&bytes[..end]);
        let here = self.entries.iter_mut().rev().take_while(|entry| entry.home == number);
        for entry in here {
            entry.body = used.slice(entry.at..entry.at + entry.body.len());
        }
    }

    /// Tells a torn end from damage: gives what is wrong with the end of the last segment if that
    /// may come from a crash; nothing if all is well.
    fn judge_end(
        &self,
        number: SegmentNumber,
        bytes: &[u8],
        read: Result<(), Fault>,
        is_last: bool,
    ) -> Result<Option<BadEnd>, LogDamage> {
        let damage = |fault: Fault| {
            let (offset, reason) = (offset_of(fault.offset), fault.reason);
            Err(LogDamage { segment: number, offset, reason })
        };
        let end = self.current.filter(|current| current.number == number);
        let (fault, from) = match read {
            // What follows on an end that has a segment behind it cannot be missing: the chain of
            // that segment goes on from here.
            Ok(()) if !is_last => return Ok(None),
            Ok(()) => {
                let end = end.and_then(|end| usize::try_from(end.len).ok()).unwrap_or(0);
                (None, end)
            }
            Err(fault) => (Some(fault), fault.offset),
        };
        let lost = fault.unwrap_or(Fault::torn(from, DamageReason::Checksum));
        if lost.kind == FaultKind::Wrong || !is_last {
            return damage(lost);
        }
        let known = format::synced_after(self.owner.node, number, bytes, from);
        if known > Some(offset_of(from)) {
            return damage(lost);
        }
        let Some(fault) = fault else { return Ok(None) };
        // Without segments before, the facts of the head stand nowhere else, unless it is the very
        // first, whose head is empty.
        let is_headless = end.is_none();
        if is_headless && self.current.is_none() && number != SegmentNumber(1) {
            return damage(fault);
        }
        // Nothing of a segment counts as durable before its header is synced.
        let is_cut = fault.kind == FaultKind::Torn;
        let offset = if is_headless { 0 } else { fault.offset };
        let rest = &bytes[offset.min(bytes.len())..];
        let len = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let (offset, len) = (offset_of(offset), offset_of(len));
        let cut = is_cut.then_some(Cut { segment: number, offset, len });
        Ok(Some(BadEnd { cut, is_headless }))
    }

    /// What may be lost by `cut`, or has been since the last time that something was cut.
    fn doubt_after(&self, cut: Cut) -> Doubt {
        let Cut { segment, offset, len } = cut;
        let next = LogIndex(self.ledger.span.map_or(0, |span| span.next));
        let next = self.ledger.doubt.map_or(next, |before| next.min(before.next));
        Doubt { next, segment: segment.0, offset, len }
    }

    fn finish(
        self,
        limits: LogLimits,
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
            entries: self.entries.into_iter().map(|e| (e.index, e.term, e.body)).collect(),
            snapshot,
            checkpoint: self.ledger.checkpoint.clone(),
            locals: self.ledger.locals.clone(),
            doubt: self.ledger.doubt,
        };
        let writer = LogWriter {
            owner: self.owner,
            limits,
            life: self.life,
            ledger: self.ledger,
            oldest: first,
            current: self.current,
        };
        Ok((recovered, writer))
    }
}
