//! The bytes of a segment: its header, and the frames that follow. `docs/log-format.md` tells it at
//! length.
//!
//! All numbers are little-endian.
//!
//! | header | what |
//! |---|---|
//! | 0..8 | `CRONCLOG` |
//! | 8..12 | the format version |
//! | 12..16 | the chain: the checksum of the last frame of the segment before, 0 in the first |
//! | 16..24 | the node's id |
//! | 24..32 | the segment's number |
//! | 32..40 | the cluster's id, 0 while the node has none |
//! | 40..48 | the index of the next entry when the segment began, 0 if there was none yet |
//! | 48..52 | the life of the log in which the segment began |
//! | 52..56 | how many bytes after the header repeat facts of earlier segments |
//! | 56..60 | zero |
//! | 60..64 | CRC-32C of the 60 bytes before |
//!
//! A frame is `length u32, checksum u32, body`. The checksum is the CRC-32C of length and body,
//! continued from that of the frame before (of the header, in the first), so a stale frame of an
//! earlier life of the same place does not pass. A frame of length 0 is the end of the log; the
//! next group overwrites it. The first byte of a body is its kind:
//!
//! | kind | body after the kind |
//! |---|---|
//! | 1 vote, 6 committed, 7 local, 8 checkpoint | the bytes given |
//! | 2 entry | index u64, term u64, the bytes given |
//! | 3 truncate, 5 reset | index u64 |
//! | 4 purge | index u64, the bytes given |
//! | 9 span | start u64, next u64, covered u64 (only among the repeated facts) |
//! | 10 mark | `F5` and `CRONSYN`, synced u64, own offset u64, life u32, check u32 |
//! | 11 doubt | next index u64, segment u64, offset u64, length u64 |
//! | 12 settled | nothing |

use bytes::Bytes;

use super::ledger::Span;
use super::{Owner, SegmentNumber};
use crate::codec::record::{Doubt, Record};
use crate::id::{ClusterId, LogIndex, NodeId, Term};

/// The version of this format. A change of the bytes above raises it, and that of `node.json`.
pub(super) const FORMAT: u32 = 1;

/// How long a segment's header is.
pub(super) const HEADER_LEN: usize = 64;

/// How long the length and the checksum before each body are.
pub(super) const PREFIX_LEN: usize = 8;

/// How long a mark is, with its prefix.
pub(super) const MARK_LEN: usize = PREFIX_LEN + MARK_BODY_LEN;

/// The longest body of a frame: eight times the largest batch that Raft sends, and far above it.
pub(super) const BODY_LEN_MAX: usize = 64 << 20;

/// The longest repetition of facts at the start of a segment.
pub(super) const HEAD_LEN_MAX: u64 = 1 << 30;

/// How long a span is, with its prefix.
pub(super) const SPAN_LEN: usize = PREFIX_LEN + 1 + 24;

/// Where in an entry's frame the bytes given begin.
pub(super) const ENTRY_BODY_AT: usize = PREFIX_LEN + 1 + 16;

const MAGIC: [u8; 8] = *b"CRONCLOG";
/// Its first byte is in no text, so a search for it seldom stops.
const MARK_MAGIC: [u8; 8] = *b"\xf5CRONSYN";
const MARK_BODY_LEN: usize = 1 + 8 + 8 + 8 + 4 + 4;

const VOTE: u8 = 1;
const ENTRY: u8 = 2;
const TRUNCATE: u8 = 3;
const PURGE: u8 = 4;
const RESET: u8 = 5;
const COMMITTED: u8 = 6;
const LOCAL: u8 = 7;
const CHECKPOINT: u8 = 8;
const SPAN: u8 = 9;
const MARK: u8 = 10;
const DOUBT: u8 = 11;
const SETTLED: u8 = 12;

/// Which life of a log wrote something: 1 until the first recovery, and one more after each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Life(pub(super) u32);

/// The facts at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) owner: Owner,
    pub(super) number: SegmentNumber,
    /// The checksum of the last frame before this segment.
    pub(super) chain: u32,
    /// The index of the next entry, 0 if there was none yet.
    pub(super) first: u64,
    pub(super) life: Life,
    /// How many bytes after the header repeat facts of earlier segments.
    pub(super) head_len: u64,
}

/// The checksum that the first frame after `header` continues.
pub(super) fn header_chain(header: &[u8; HEADER_LEN]) -> u32 {
    crc32c::crc32c(&header[..60])
}

/// Why the start of a segment is not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// There is nothing at all, or nothing but zeros.
    Blank,
    /// It is too short, or its checksum is wrong.
    Torn,
    /// It is whole, and of a version that this program does not know.
    Newer(u32),
}

impl Header {
    /// The bytes of the header.
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let head_len = u32::try_from(self.head_len).expect("heads are at most HEAD_LEN_MAX long");
        let cluster = self.owner.cluster.map_or(0, |cluster| cluster.0);
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.chain.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.owner.node.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.number.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&cluster.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.life.0.to_le_bytes());
        bytes[52..56].copy_from_slice(&head_len.to_le_bytes());
        let check = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads the header at the start of `bytes`, and the checksum that the first frame continues.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, u32), HeaderFault> {
        let header = &bytes[..bytes.len().min(HEADER_LEN)];
        if header.iter().all(|byte| *byte == 0) {
            return Err(HeaderFault::Blank);
        }
        let check = header.get(..60).map(crc32c::crc32c).ok_or(HeaderFault::Torn)?;
        if header[..8] != MAGIC || u32_at(header, 60) != Some(check) {
            return Err(HeaderFault::Torn);
        }
        let half = |at| u32_at(header, at).ok_or(HeaderFault::Torn);
        let number = |at| u64_at(header, at).ok_or(HeaderFault::Torn);
        let version = half(8)?;
        if version != FORMAT {
            return Err(HeaderFault::Newer(version));
        }
        let cluster = Some(ClusterId(number(32)?)).filter(|cluster| cluster.0 != 0);
        let facts = Self {
            owner: Owner { node: NodeId(number(16)?), cluster },
            number: SegmentNumber(number(24)?),
            chain: half(12)?,
            first: number(40)?,
            life: Life(half(48)?),
            head_len: half(52)?.into(),
        };
        Ok((facts, check))
    }
}

/// What one frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A record of the log's user.
    Record(Record),
    /// Which entries there were when the segment began.
    Span(Span),
    /// The start of a group.
    Mark(Mark),
}

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Everything below was on the disk when the mark was written.
    pub(super) synced: u64,
    pub(super) life: Life,
    at: u64,
    check: u32,
}

/// What stands where a frame is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A frame: its body, the new chain, and where the next one is.
    Frame { body: Bytes, chain: u32, next: usize },
    /// The end of the log.
    End,
    /// Nothing that continues the chain.
    Torn,
}

/// How long the body of `record` is.
pub(super) fn body_len(record: &Record) -> usize {
    match record {
        Record::Vote(body)
        | Record::Committed(body)
        | Record::Local(body)
        | Record::Checkpoint(body) => 1 + body.len(),
        Record::Entry { body, .. } => 1 + 16 + body.len(),
        Record::Truncate { .. } | Record::Reset { .. } => 1 + 8,
        Record::Purge { body, .. } => 1 + 8 + body.len(),
        Record::Doubt(_) => 1 + 32,
        Record::Settled => 1,
    }
}

/// Appends the frame of `record` to `out`, continuing `chain`; gives the new chain.
pub(super) fn put_record(out: &mut Vec<u8>, chain: u32, record: &Record) -> u32 {
    put_frame(out, chain, |out| match record {
        Record::Vote(body) => put_body(out, VOTE, &[], body),
        Record::Entry { index, term, body } => put_body(out, ENTRY, &[index.0, term.0], body),
        Record::Truncate { from } => put_body(out, TRUNCATE, &[from.0], &[]),
        Record::Purge { upto, body } => put_body(out, PURGE, &[upto.0], body),
        Record::Reset { next } => put_body(out, RESET, &[next.0], &[]),
        Record::Committed(body) => put_body(out, COMMITTED, &[], body),
        Record::Local(body) => put_body(out, LOCAL, &[], body),
        Record::Checkpoint(body) => put_body(out, CHECKPOINT, &[], body),
        Record::Doubt(doubt) => {
            let numbers = [doubt.next.0, doubt.segment, doubt.offset, doubt.len];
            put_body(out, DOUBT, &numbers, &[]);
        }
        Record::Settled => put_body(out, SETTLED, &[], &[]),
    })
}

/// Appends the frame of `span` to `out`, continuing `chain`; gives the new chain.
pub(super) fn put_span(out: &mut Vec<u8>, chain: u32, span: Span) -> u32 {
    let numbers = [span.start, span.next, span.covered];
    put_frame(out, chain, |out| put_body(out, SPAN, &numbers, &[]))
}

/// Appends a mark that will stand at `place`; gives the new chain.
pub(super) fn put_mark(
    out: &mut Vec<u8>,
    chain: u32,
    place: MarkPlace,
    synced: u64,
    life: Life,
) -> u32 {
    put_frame(out, chain, |out| {
        put_body(out, MARK, &[], &MARK_MAGIC);
        out.extend_from_slice(&synced.to_le_bytes());
        out.extend_from_slice(&place.at.to_le_bytes());
        out.extend_from_slice(&life.0.to_le_bytes());
        out.extend_from_slice(&place.check(synced, life).to_le_bytes());
    })
}

/// Appends the end of the log, which the next group overwrites: the chain does not go on from it.
pub(super) fn put_end(out: &mut Vec<u8>, chain: u32) {
    out.extend_from_slice(&len_bytes(0));
    out.extend_from_slice(&frame_check(chain, 0, &[]).to_le_bytes());
}

/// Where a mark stands, so that a copy of it elsewhere is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct MarkPlace {
    pub(super) node: NodeId,
    pub(super) number: SegmentNumber,
    /// The offset of its frame in the segment.
    pub(super) at: u64,
}

impl MarkPlace {
    /// Whether `mark` was written for this place.
    pub(super) fn has(self, mark: &Mark) -> bool {
        mark.at == self.at && mark.check == self.check(mark.synced, mark.life)
    }

    /// A mark ends with this. The checksum of bytes that end with their own checksum is the same
    /// whatever the bytes are, and then two lives that part at a mark would go on with the same
    /// chain; the multiplication keeps the one from cancelling out the other.
    fn check(self, synced: u64, life: Life) -> u32 {
        let numbers = [self.node.0, self.number.0, synced, self.at, u64::from(life.0)];
        let check = numbers
            .iter()
            .fold(0, |check, number| crc32c::crc32c_append(check, &number.to_le_bytes()));
        check.wrapping_mul(0x9e37_79b1)
    }
}

/// Reads what stands at `offset` of a segment, after the frames that gave `chain`.
pub(super) fn next_frame(bytes: &Bytes, offset: usize, chain: u32) -> Next {
    let frame = || {
        let rest = bytes.get(offset..)?;
        let len = usize::try_from(u32_at(rest, 0)?).ok()?;
        let check = u32_at(rest, 4)?;
        if len > BODY_LEN_MAX {
            return None;
        }
        let body = rest.get(PREFIX_LEN..PREFIX_LEN + len)?;
        (check == frame_check(chain, len, body)).then_some((len, check))
    };
    match frame() {
        Some((0, _)) => Next::End,
        Some((len, check)) => {
            let start = offset + PREFIX_LEN;
            let next = start + len;
            Next::Frame { body: bytes.slice(start..next), chain: check, next }
        }
        None => Next::Torn,
    }
}

/// What the body of a frame says; `None` if this version writes no such body.
pub(super) fn decode_body(body: &Bytes) -> Option<Frame> {
    let (&kind, rest) = body.split_first()?;
    let index = |at| u64_at(rest, at).map(LogIndex);
    let copy = |from: usize| rest.get(from..).map(Bytes::copy_from_slice);
    let frame = match kind {
        VOTE => Frame::Record(Record::Vote(copy(0)?)),
        // An entry shares the memory of its segment: recovery would need twice the memory else.
        ENTRY => Frame::Record(Record::Entry {
            index: index(0)?,
            term: Term(u64_at(rest, 8)?),
            body: body.slice(17..),
        }),
        TRUNCATE if rest.len() == 8 => Frame::Record(Record::Truncate { from: index(0)? }),
        PURGE => Frame::Record(Record::Purge { upto: index(0)?, body: copy(8)? }),
        RESET if rest.len() == 8 => Frame::Record(Record::Reset { next: index(0)? }),
        COMMITTED => Frame::Record(Record::Committed(copy(0)?)),
        LOCAL => Frame::Record(Record::Local(copy(0)?)),
        CHECKPOINT => Frame::Record(Record::Checkpoint(copy(0)?)),
        DOUBT if rest.len() == 32 => Frame::Record(Record::Doubt(Doubt {
            next: index(0)?,
            segment: u64_at(rest, 8)?,
            offset: u64_at(rest, 16)?,
            len: u64_at(rest, 24)?,
        })),
        SETTLED if rest.is_empty() => Frame::Record(Record::Settled),
        SPAN if rest.len() == 24 => Frame::Span(Span {
            start: u64_at(rest, 0)?,
            next: u64_at(rest, 8)?,
            covered: u64_at(rest, 16)?,
        }),
        MARK => Frame::Mark(decode_mark(body)?),
        _ => return None,
    };
    Some(frame)
}

fn decode_mark(body: &[u8]) -> Option<Mark> {
    let is_mark = body.len() == MARK_BODY_LEN && body[0] == MARK && body[1..9] == MARK_MAGIC;
    if !is_mark {
        return None;
    }
    let life = Life(u32_at(body, 25)?);
    Some(Mark { synced: u64_at(body, 9)?, at: u64_at(body, 17)?, life, check: u32_at(body, 29)? })
}

/// The greatest offset known synced that any mark at or after `from` names; `None` without a mark.
///
/// It looks at every offset, since after damage nobody knows where the next frame begins, and at
/// none that does not hold the first byte of a mark's magic.
pub(super) fn synced_after(
    node: NodeId,
    number: SegmentNumber,
    bytes: &[u8],
    from: usize,
) -> Option<u64> {
    const STEP: usize = 256;
    let rest = bytes.get(from..)?;
    let mut found = None;
    for (step, chunk) in rest.chunks(STEP).enumerate() {
        if !chunk.contains(&MARK_MAGIC[0]) {
            continue;
        }
        let hits = chunk.iter().enumerate().filter(|(_, byte)| **byte == MARK_MAGIC[0]);
        let synced = hits.filter_map(|(hit, _)| {
            let start = (from + step * STEP + hit).checked_sub(PREFIX_LEN + 1)?;
            let mark = decode_mark(bytes.get(start + PREFIX_LEN..start + MARK_LEN)?)?;
            let place = MarkPlace { node, number, at: u64::try_from(start).ok()? };
            (start >= from && place.has(&mark)).then_some(mark.synced)
        });
        found = found.max(synced.max());
    }
    found
}

/// Appends a frame around what `body` writes, continuing `chain`; gives the new chain.
pub(super) fn put_frame(out: &mut Vec<u8>, chain: u32, body: impl FnOnce(&mut Vec<u8>)) -> u32 {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_LEN]);
    body(out);
    let len = out.len() - start - PREFIX_LEN;
    let check = frame_check(chain, len, &out[start + PREFIX_LEN..]);
    out[start..start + 4].copy_from_slice(&len_bytes(len));
    out[start + 4..start + 8].copy_from_slice(&check.to_le_bytes());
    check
}

fn put_body(out: &mut Vec<u8>, kind: u8, numbers: &[u64], bytes: &[u8]) {
    out.push(kind);
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(bytes);
}

fn frame_check(chain: u32, len: usize, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(chain, &len_bytes(len)), body)
}

fn len_bytes(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("bodies are at most BODY_LEN_MAX long").to_le_bytes()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    bytes.try_into().ok().map(u64::from_le_bytes)
}
