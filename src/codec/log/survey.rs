//! Reading a log to show it: [`survey_segment`] says what each segment holds, also of a log that
//! [`recover()`](super::recover()) refuses.
//!
//! Every segment begins with a header of its own, so the ones behind damage are read as well. What
//! is found here decides nothing: whether a log is damaged, [`recover()`](super::recover()) says.

use bytes::Bytes;

use super::format::{self, Frame, HEADER_LEN, Header, HeaderFault, MarkPlace, Next};
use super::{DamageReason, SegmentNumber};
use crate::codec::record::Record;
use crate::id::{ClusterId, LogIndex, NodeId, Term};

/// The version of the log's format that this program writes.
pub const LOG_FORMAT: u32 = format::FORMAT;

/// The format of a segment that begins with `start`, if it is one that this program does not know.
pub fn newer_format(start: &[u8]) -> Option<u32> {
    match Header::decode(start) {
        Err(HeaderFault::Newer(version)) => Some(version),
        Err(HeaderFault::Blank | HeaderFault::Torn) | Ok(_) => None,
    }
}

/// What one segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSurvey {
    /// Its number, as its name says.
    pub number: SegmentNumber,
    /// How long its file is, in bytes.
    pub len: u64,
    /// What its header says; `None` if it has none that can be read.
    pub header: Option<SegmentHeader>,
    /// Where the last whole group ends, in bytes from the start.
    pub used: u64,
    /// How it ends.
    pub end: SegmentEnd,
    /// The first entry that stands in it.
    pub first: Option<LogIndex>,
    /// The last entry that stands in it; later records may have made it void.
    pub last: Option<LogIndex>,
    /// The terms of the first and of the last of its entries.
    pub terms: Option<(Term, Term)>,
    /// How many entries stand in it.
    pub entries: u64,
    /// How many votes stand in it, with the one that it repeats.
    pub votes: u64,
    /// Everything below this offset was known to be on the disk, by a mark in it.
    pub sealed: u64,
    /// The last life of the log that wrote to it; 0 if none did.
    pub life: u32,
    /// The index of the next entry when it began; `None` if there was none yet.
    pub begins: Option<LogIndex>,
    /// Whether it continues the segment before; `None` if there is none to compare with.
    pub is_chained: Option<bool>,
    /// The checksum with which the next segment has to go on.
    pub chain: u32,
}

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The node that wrote it.
    pub node: NodeId,
    /// The cluster of that node, if it was known then.
    pub cluster: Option<ClusterId>,
    /// Its number. A file with another name was not begun again, or is misplaced.
    pub number: SegmentNumber,
    /// The life of the log in which it began.
    pub life: u32,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentEnd {
    /// With an end of the log.
    Clean,
    /// It has a name and was never written, or was an earlier segment and was not begun again.
    NeverBegun,
    /// With something that is no frame; the last segment may end so after a crash.
    Broken {
        /// Where, in bytes from the start.
        offset: u64,
        /// What is wrong there.
        reason: DamageReason,
    },
}

/// One thing that stands in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A record; those at the start of a segment repeat what is true.
    Record(Record),
    /// Which entries there were when the segment began: those at `start` and above, below `next`.
    Span {
        /// The first entry that was kept.
        start: LogIndex,
        /// The index of the next entry.
        next: LogIndex,
    },
    /// The start of a group.
    Mark {
        /// Everything below this offset was on the disk when it was written.
        synced: u64,
        /// The life of the log that wrote it.
        life: u32,
    },
}

/// Reads one segment. `before` is [`SegmentSurvey::chain`] of the segment before, if there is one.
/// `visit` is told of everything that stands in it, with its offset and its length in bytes.
pub fn survey_segment(
    number: SegmentNumber,
    bytes: &Bytes,
    before: Option<u32>,
    mut visit: impl FnMut(u64, u64, &Seen),
) -> SegmentSurvey {
    let mut survey = SegmentSurvey {
        number,
        len: offset_of(bytes.len()),
        header: None,
        used: 0,
        end: SegmentEnd::Clean,
        first: None,
        last: None,
        terms: None,
        entries: 0,
        votes: 0,
        sealed: 0,
        life: 0,
        begins: None,
        is_chained: None,
        chain: 0,
    };
    let broken = |offset, reason| SegmentEnd::Broken { offset, reason };
    let (header, mut chain) = match Header::decode(bytes) {
        Ok(read) => read,
        Err(fault) => {
            survey.end = match fault {
                HeaderFault::Blank => SegmentEnd::NeverBegun,
                HeaderFault::Torn => broken(0, DamageReason::Header),
                HeaderFault::Newer(version) => broken(8, DamageReason::NewerFormat(version)),
            };
            return survey;
        }
    };
    survey.header = Some(SegmentHeader {
        node: header.owner.node,
        cluster: header.owner.cluster,
        number: header.number,
        life: header.life.0,
    });
    if header.number != number {
        survey.end = match header.number < number {
            true => SegmentEnd::NeverBegun,
            false => broken(24, DamageReason::WrongNumber(header.number)),
        };
        return survey;
    }
    survey.is_chained = before.map(|before| before == header.chain);
    let mut offset = HEADER_LEN;
    loop {
        (survey.used, survey.chain) = (offset_of(offset), chain);
        let (body, next) = match format::next_frame(bytes, offset, chain) {
            Next::Frame { body, chain: new, next } => {
                chain = new;
                (body, next)
            }
            Next::End => return survey,
            Next::Torn => {
                survey.end = broken(offset_of(offset), DamageReason::Checksum);
                return survey;
            }
        };
        let place = MarkPlace { node: header.owner.node, number, at: offset_of(offset) };
        let seen = format::decode_body(&body).and_then(|frame| seen(frame, place));
        let Some(seen) = seen else {
            survey.end = broken(offset_of(offset), DamageReason::Unreadable);
            return survey;
        };
        survey.count(&seen);
        visit(offset_of(offset), offset_of(next - offset), &seen);
        offset = next;
    }
}

impl SegmentSurvey {
    /// Whether it may not be so after any crash: something else than the last segment's end.
    pub fn is_broken(&self) -> bool {
        matches!(self.end, SegmentEnd::Broken { .. })
    }

    fn count(&mut self, seen: &Seen) {
        match seen {
            Seen::Record(Record::Entry { index, term, .. }) => {
                self.entries += 1;
                self.first = self.first.or(Some(*index));
                self.last = Some(*index);
                let first = self.terms.map_or(*term, |terms| terms.0);
                self.terms = Some((first, *term));
            }
            Seen::Record(Record::Vote(_)) => self.votes += 1,
            Seen::Record(
                Record::Truncate { .. }
                | Record::Purge { .. }
                | Record::Reset { .. }
                | Record::Committed(_)
                | Record::Local(_)
                | Record::Checkpoint(_)
                | Record::Doubt(_)
                | Record::Settled,
            ) => {}
            Seen::Span { next, .. } => self.begins = Some(*next),
            Seen::Mark { synced, life } => {
                self.sealed = self.sealed.max(*synced);
                self.life = self.life.max(*life);
            }
        }
    }
}

/// What a frame says; `None` for a mark that was written for another place.
fn seen(frame: Frame, place: MarkPlace) -> Option<Seen> {
    match frame {
        Frame::Record(record) => Some(Seen::Record(record)),
        Frame::Span(span) => {
            Some(Seen::Span { start: LogIndex(span.start), next: LogIndex(span.next) })
        }
        Frame::Mark(mark) => {
            let (synced, life) = (mark.synced, mark.life.0);
            place.has(&mark).then_some(Seen::Mark { synced, life })
        }
    }
}

/// Offsets are lengths of bytes in memory.
fn offset_of(offset: usize) -> u64 {
    u64::try_from(offset).unwrap_or(u64::MAX)
}
