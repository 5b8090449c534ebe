//! What a log amounts to without its entries: the last of each fact, and which entries there are.
//!
//! Writer and reader both keep a [`Ledger`], so that the one writes at the head of a segment what
//! the other would have read from the segments before.

use std::collections::VecDeque;

use bytes::Bytes;

use super::SegmentNumber;
use super::format::{self, PREFIX_LEN, SPAN_LEN};
use crate::codec::record::{Doubt, Record};
use crate::id::LogIndex;

/// Which entries a log has: those at `start` and above, and below `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The first entry that is kept.
    pub(super) start: u64,
    /// The index of the next entry.
    pub(super) next: u64,
    /// Entries below this one are gone because a snapshot covers them.
    pub(super) covered: u64,
}

/// An entry came whose index does not follow on the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfOrder {
    pub(super) expected: u64,
    pub(super) found: u64,
}

/// The entries after `record`, given those before it.
pub(super) fn advance(span: Option<Span>, record: &Record) -> Result<Option<Span>, OutOfOrder> {
    let after = |index: LogIndex| {
        let expected = span.map_or(0, |span| span.next);
        index.0.checked_add(1).ok_or(OutOfOrder { expected, found: index.0 })
    };
    let new = match record {
        Record::Entry { index, .. } => {
            let span = span.unwrap_or(Span { start: index.0, next: index.0, covered: 0 });
            if span.next != index.0 {
                return Err(OutOfOrder { expected: span.next, found: index.0 });
            }
            Some(Span { next: after(*index)?, ..span })
        }
        Record::Truncate { from } => {
            span.map(|span| Span { next: from.0.clamp(span.start, span.next), ..span })
        }
        Record::Purge { upto, .. } => {
            let after = after(*upto)?;
            let span = span.unwrap_or(Span { start: after, next: after, covered: after });
            let start = span.start.max(after);
            let covered = span.covered.max(after);
            Some(Span { start, next: span.next.max(start), covered })
        }
        Record::Reset { next } => Some(Span { start: next.0, next: next.0, covered: next.0 }),
        Record::Vote(_)
        | Record::Committed(_)
        | Record::Local(_)
        | Record::Checkpoint(_)
        | Record::Doubt(_)
        | Record::Settled => span,
    };
    Ok(new)
}

/// The last of each fact, and which entries there are in which segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    pub(super) purge: Option<(LogIndex, Bytes)>,
    pub(super) checkpoint: Option<Bytes>,
    pub(super) locals: Vec<Bytes>,
    /// How long the frames of `locals` are.
    locals_len: u64,
    pub(super) doubt: Option<Doubt>,
    pub(super) span: Option<Span>,
    /// Segments that hold entries, and the first entry in each; both ascend.
    homes: VecDeque<(SegmentNumber, u64)>,
}

impl Ledger {
    /// Takes in `record`, which stands in segment `home`.
    pub(super) fn apply(&mut self, record: &Record, home: SegmentNumber) -> Result<(), OutOfOrder> {
        self.span = advance(self.span, record)?;
        match record {
            Record::Vote(body) => self.vote = Some(body.clone()),
            Record::Committed(body) => self.committed = Some(body.clone()),
            Record::Purge { upto, body } => self.purge = Some((*upto, body.clone())),
            Record::Local(body) => {
                self.locals_len += (PREFIX_LEN + format::body_len(record)) as u64;
                self.locals.push(body.clone());
            }
            Record::Checkpoint(body) => {
                self.checkpoint = Some(body.clone());
                self.locals.clear();
                self.locals_len = 0;
            }
            Record::Entry { index, .. } => {
                if self.homes.back().is_none_or(|last| last.0 != home) {
                    self.homes.push_back((home, index.0));
                }
            }
            Record::Doubt(doubt) => self.doubt = Some(*doubt),
            Record::Settled => self.doubt = None,
            Record::Truncate { .. } | Record::Reset { .. } => {}
        }
        self.forget_homes();
        Ok(())
    }

    /// The records that say all this but the entries; [`Ledger::span`] has to follow them.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        self.facts().chain(self.locals.iter().cloned().map(Record::Local))
    }

    fn facts(&self) -> impl Iterator<Item = Record> {
        let purge = self.purge.clone().map(|(upto, body)| Record::Purge { upto, body });
        let vote = self.vote.clone().map(Record::Vote);
        let committed = self.committed.clone().map(Record::Committed);
        let checkpoint = self.checkpoint.clone().map(Record::Checkpoint);
        let doubt = self.doubt.map(Record::Doubt);
        [purge, vote, committed, doubt, checkpoint].into_iter().flatten()
    }

    /// How long all this is at the start of a segment.
    pub(super) fn head_len(&self) -> u64 {
        let frame_len = |record: Record| (PREFIX_LEN + format::body_len(&record)) as u64;
        let span = if self.span.is_some() { SPAN_LEN as u64 } else { 0 };
        self.facts().map(frame_len).sum::<u64>() + self.locals_len + span
    }

    /// The lowest segment that holds an entry that is still needed.
    pub(super) fn oldest_home(&self) -> Option<SegmentNumber> {
        self.homes.front().map(|home| home.0)
    }

    fn forget_homes(&mut self) {
        let Some(span) = self.span else { return };
        while self.homes.back().is_some_and(|home| home.1 >= span.next) {
            self.homes.pop_back();
        }
        while self.homes.get(1).is_some_and(|home| home.1 <= span.start) {
            self.homes.pop_front();
        }
        if span.start == span.next {
            self.homes.clear();
        }
    }
}
