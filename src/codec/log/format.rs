//! The bytes of a segment: its header, and the frames that follow.
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
//! | 32..40 | how many bytes after the header repeat facts of earlier segments |
//! | 40..60 | zero |
//! | 60..64 | CRC-32C of the 60 bytes before |
//!
//! A frame is `length u32, checksum u32, body`. The checksum is the CRC-32C of length and body,
//! continued from that of the frame before (of the header, in the first), so a stale frame of an
//! earlier life of the same place does not pass. The first byte of a body is its kind:
//!
//! | kind | body after the kind |
//! |---|---|
//! | 1 vote, 6 committed, 7 local, 8 checkpoint | the bytes given |
//! | 2 entry | index u64, term u64, the bytes given |
//! | 3 truncate, 5 reset | index u64 |
//! | 4 purge | index u64, the bytes given |
//! | 9 span | start u64, next u64, covered u64 (only among the repeated facts) |
//! | 11 doubt | next index u64, segment u64, offset u64, length u64 |
//! | 12 settled | nothing |
//! | 10 mark | `CRONSYNC`, synced u64, own offset u64, CRC-32C of these, node and segment |

use bytes::Bytes;

use super::SegmentNumber;
use super::ledger::Span;
use crate::codec::record::{Doubt, Record};
use crate::id::{LogIndex, NodeId, Term};

/// The version of this format. A change of the bytes above raises it, and that of `node.json`.
pub(super) const FORMAT: u32 = 1;

/// How long a segment's header is.
pub(super) const HEADER_LEN: usize = 64;

/// How long the length and the checksum before each body are.
pub(super) const PREFIX_LEN: usize = 8;

/// How long a mark is, with its prefix.
pub(super) const MARK_LEN: usize = PREFIX_LEN + MARK_BODY_LEN;

/// The longest body of a frame: twice the largest batch that Raft sends, and far above it.
pub(super) const BODY_LEN_MAX: usize = 16 << 20;

/// How long a span is, with its prefix.
pub(super) const SPAN_LEN: usize = PREFIX_LEN + 1 + 24;

const MAGIC: [u8; 8] = *b"CRONCLOG";
const MARK_MAGIC: [u8; 8] = *b"CRONSYNC";
const MARK_BODY_LEN: usize = 1 + 8 + 8 + 8 + 4;

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

/// The facts at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) node: NodeId,
    pub(super) number: SegmentNumber,
    /// The checksum of the last frame before this segment.
    pub(super) chain: u32,
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
    /// It is too short, or its checksum is wrong.
    Torn,
    /// It is whole, and of a version that this program does not know.
    Newer(u32),
}

impl Header {
    /// The bytes of the header.
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.chain.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.node.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.number.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.head_len.to_le_bytes());
        let check = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads the header at the start of `bytes`, and the checksum that the first frame continues.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, u32), HeaderFault> {
        let header = bytes.get(..HEADER_LEN).ok_or(HeaderFault::Torn)?;
        let check = crc32c::crc32c(&header[..60]);
        if header[..8] != MAGIC || u32_at(header, 60) != Some(check) {
            return Err(HeaderFault::Torn);
        }
        let version = u32_at(header, 8).ok_or(HeaderFault::Torn)?;
        if version != FORMAT {
            return Err(HeaderFault::Newer(version));
        }
        let number = |at| u64_at(header, at).ok_or(HeaderFault::Torn);
        let facts = Self {
            chain: u32_at(header, 12).ok_or(HeaderFault::Torn)?,
            node: NodeId(number(16)?),
            number: SegmentNumber(number(24)?),
            head_len: number(32)?,
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
    /// The start of a group: everything below `synced` was on the disk when it was written.
    Mark { synced: u64 },
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

/// Appends a mark that will stand at the offset `at` of its segment; gives the new chain.
pub(super) fn put_mark(out: &mut Vec<u8>, chain: u32, place: MarkPlace, synced: u64) -> u32 {
    put_frame(out, chain, |out| {
        out.push(MARK);
        out.extend_from_slice(&MARK_MAGIC);
        out.extend_from_slice(&synced.to_le_bytes());
        out.extend_from_slice(&place.at.to_le_bytes());
        out.extend_from_slice(&place.check(synced).to_le_bytes());
    })
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
    fn check(self, synced: u64) -> u32 {
        let numbers = [self.node.0, self.number.0, synced, self.at];
        numbers.iter().fold(0, |check, number| crc32c::crc32c_append(check, &number.to_le_bytes()))
    }
}

/// Reads the frame at `offset` of a segment: its body, the new chain, and where the next one is.
/// `None` if there is no whole frame that continues `chain`.
pub(super) fn next_frame(bytes: &Bytes, offset: usize, chain: u32) -> Option<(Bytes, u32, usize)> {
    let rest = bytes.get(offset..)?;
    let len = usize::try_from(u32_at(rest, 0)?).ok()?;
    let check = u32_at(rest, 4)?;
    if len == 0 || len > BODY_LEN_MAX {
        return None;
    }
    let body = rest.get(PREFIX_LEN..PREFIX_LEN + len)?;
    if check != frame_check(chain, len, body) {
        return None;
    }
    let start = offset + PREFIX_LEN;
    Some((bytes.slice(start..start + len), check, start + len))
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
        MARK if body.len() == MARK_BODY_LEN => Frame::Mark { synced: u64_at(rest, 8)? },
        _ => return None,
    };
    Some(frame)
}

/// The greatest offset known synced that any mark at or after `from` names.
///
/// It looks at every offset, since after damage nobody knows where the next frame begins.
pub(super) fn synced_after(node: NodeId, number: SegmentNumber, bytes: &[u8], from: usize) -> u64 {
    let last = bytes.len().saturating_sub(MARK_LEN);
    (from..=last)
        .filter_map(|at| {
            let body = bytes.get(at + PREFIX_LEN..at + MARK_LEN)?;
            if body[0] != MARK || body[1..9] != MARK_MAGIC {
                return None;
            }
            let synced = u64_at(body, 9)?;
            let place = MarkPlace { node, number, at: u64::try_from(at).ok()? };
            let genuine =
                u64_at(body, 17) == Some(place.at) && u32_at(body, 25) == Some(place.check(synced));
            genuine.then_some(synced)
        })
        .max()
        .unwrap_or(0)
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
