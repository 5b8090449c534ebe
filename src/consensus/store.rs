//! openraft's log store: entries in memory since the last purge, and records on their way to disk.
//!
//! A write changes memory at once and puts a record in the open group. [`LogStore::flush`] hands
//! the group out when none is under way; [`LogStore::on_persisted`] completes what waited for it.
//! What Raft may tell others only after a sync waits on those completions, so nothing else has to
//! hold messages back.
//!
//! **Invariants**
//! - Entries are consecutive and follow the purged one.
//! - At most one group is under way, and groups complete in the order of their ids.
//! - The committed hint never causes a write; it goes along with the next one.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex};

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, rt};

use super::channels::{lock, oneshot};
use super::footing::Footing;
use super::runtime::Instant;
use super::types::{Entry, LogId, TypeConfig, Vote, index_of, term_of};
use crate::codec::record::{Doubt, Record, Recovered};
use crate::codec::{DecodeError, decode, encode};
use crate::id::{LogIndex, Term, WriteId};
use crate::time::Mono;

/// The log store of one engine. Clones are the same store.
#[derive(Clone)]
pub(crate) struct LogStore {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    vote: Option<Vote>,
    committed: Option<LogId>,
    committed_is_new: bool,
    purged: Option<LogId>,
    entries: VecDeque<Stored>,
    bytes: u64,
    batch_bytes: u64,
    open: Group,
    under_way: Option<(WriteId, Group)>,
    next_write: u64,
    sync: Sync,
    doubt: Option<Doubt>,
    /// How far vote and log go on the disk.
    footing: Footing,
}

struct Stored {
    entry: Entry,
    bytes: u64,
    /// The bytes of all entries up to and with this one, counted from some point below.
    end: u64,
}

/// When writes count as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// When the disk says so.
    OnCompletion,
    /// At once: for openraft's own suite, which has no disk.
    #[cfg(test)]
    Immediate,
}

#[derive(Default)]
struct Group {
    records: Vec<Record>,
    waiting: Vec<IOFlushed<TypeConfig>>,
    since: Instant,
    has_vote: bool,
    settles: bool,
    /// How far vote and log go once it is durable.
    footing: Footing,
}

/// Why what was found on disk cannot be a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogError {
    /// A record cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The entries have a hole.
    #[error("log entry {found} follows where {expected} should")]
    Hole {
        /// The index that should follow.
        expected: u64,
        /// The index that does.
        found: u64,
    },
    /// An entry's frame and its body disagree.
    #[error("log entry {0} says in its body that it is another")]
    Mislabelled(u64),
}

impl LogStore {
    /// The store as the disk holds it. Batches read for followers stay under `batch_bytes`.
    pub(crate) fn recover(
        recovered: &Recovered,
        batch_bytes: u64,
        sync: Sync,
    ) -> Result<Self, LogError> {
        let vote = recovered.vote.as_deref();
        let committed = recovered.committed.as_deref();
        let purged = recovered.purged.as_deref();
        let purged: Option<LogId> = purged.map(|bytes| decode("purged id", bytes)).transpose()?;
        let mut inner = Inner {
            vote: vote.map(|bytes| decode("vote", bytes)).transpose()?,
            committed: committed.map(|bytes| decode("committed id", bytes)).transpose()?,
            committed_is_new: false,
            purged,
            entries: VecDeque::with_capacity(recovered.entries.len()),
            bytes: 0,
            batch_bytes,
            open: Group::default(),
            under_way: None,
            next_write: 1,
            sync,
            doubt: recovered.doubt,
            footing: Footing { was_cut: recovered.doubt.is_some(), ..Footing::default() },
        };
        let first = inner.first_index();
        for (index, term, body) in &recovered.entries {
            if index.0 < first {
                continue;
            }
            let expected = inner.next_index();
            if index.0 != expected {
                return Err(LogError::Hole { expected, found: index.0 });
            }
            let entry: Entry = decode("log entry", body)?;
            if index_of(&entry.log_id) != *index || term_of(&entry.log_id) != *term {
                return Err(LogError::Mislabelled(index.0));
            }
            inner.push(entry, body.len() as u64);
        }
        inner.footing = inner.stands();
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    /// The term of the entry at `index`, if that is in the log.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        lock(&self.inner).get(index.0).map(|stored| term_of(&stored.entry.log_id))
    }

    /// Hands out the open group if it holds anything and none is under way.
    pub(crate) fn flush(&self) -> Option<(WriteId, Vec<Record>)> {
        let mut inner = lock(&self.inner);
        if inner.under_way.is_some() || inner.open.records.is_empty() {
            return None;
        }
        if std::mem::take(&mut inner.committed_is_new)
            && let Some(committed) = inner.committed
        {
            inner.open.records.push(Record::Committed(encode(&committed)));
        }
        let mut group = std::mem::take(&mut inner.open);
        let records = std::mem::take(&mut group.records);
        group.footing = inner.stands();
        let write = inner.draw_write();
        inner.under_way = Some((write, group));
        Some((write, records))
    }

    /// Completes the group `write`; says whether it was the one under way.
    pub(crate) fn on_persisted(&self, write: WriteId) -> bool {
        let waiting = {
            let mut inner = lock(&self.inner);
            match inner.under_way.take() {
                Some((id, group)) if id == write => {
                    inner.footing = group.footing;
                    if group.settles {
                        inner.doubt = None;
                    }
                    group.waiting
                }
                other => {
                    inner.under_way = other;
                    return false;
                }
            }
        };
        for done in waiting {
            done.io_completed(Ok(()));
        }
        true
    }

    /// What a cut has put in doubt, until the end of that is durable.
    pub(crate) fn doubt(&self) -> Option<Doubt> {
        lock(&self.inner).doubt
    }

    /// Has it noted that the doubt is over.
    pub(crate) fn settle(&self) {
        let mut inner = lock(&self.inner);
        inner.record(Record::Settled);
        inner.open.settles = true;
    }

    /// Since when the oldest write has not been durable.
    pub(crate) fn oldest_unsynced(&self) -> Option<Mono> {
        let inner = lock(&self.inner);
        let under_way = inner.under_way.as_ref().map(|(_, group)| group.since);
        let open = (!inner.open.records.is_empty()).then_some(inner.open.since);
        under_way.or(open).map(Instant::round_down)
    }

    /// Whether every write is durable.
    pub(crate) fn is_synced(&self) -> bool {
        let inner = lock(&self.inner);
        inner.under_way.is_none() && inner.open.records.is_empty()
    }

    /// Whether a vote is not durable yet. openraft's core waits for that, and works nothing off.
    pub(crate) fn is_vote_pending(&self) -> bool {
        let inner = lock(&self.inner);
        inner.open.has_vote || inner.under_way.as_ref().is_some_and(|(_, group)| group.has_vote)
    }

    /// Whether nothing was ever written.
    pub(crate) fn is_fresh(&self) -> bool {
        let inner = lock(&self.inner);
        inner.vote.is_none() && inner.purged.is_none() && inner.entries.is_empty()
    }

    /// Whether entries were purged, so that a snapshot must stand for them.
    pub(crate) fn has_purged(&self) -> bool {
        lock(&self.inner).purged.is_some()
    }

    /// The vote that Raft has accepted, durable or not.
    pub(crate) fn vote(&self) -> Option<Vote> {
        lock(&self.inner).vote
    }

    /// The last entry, kept or purged.
    pub(crate) fn last(&self) -> Option<LogId> {
        lock(&self.inner).last()
    }

    /// How far vote and log go on the disk.
    pub(crate) fn footing(&self) -> Footing {
        lock(&self.inner).footing
    }

    /// The bytes of the entries that are kept.
    pub(crate) fn bytes(&self) -> u64 {
        lock(&self.inner).bytes
    }

    /// How many entries are kept.
    pub(crate) fn len(&self) -> u64 {
        lock(&self.inner).entries.len() as u64
    }

    /// The bytes of the entries above `index`, or of all.
    pub(crate) fn bytes_above(&self, index: Option<LogIndex>) -> u64 {
        let inner = lock(&self.inner);
        let end = inner.entries.back().map_or(0, |stored| stored.end);
        let Some(LogIndex(index)) = index else { return inner.bytes };
        match inner.get(index) {
            Some(stored) => end - stored.end,
            None if index < inner.first_index() => inner.bytes,
            None => 0,
        }
    }

    /// What the log says about position `index`.
    pub(crate) fn at(&self, index: u64) -> Known {
        let inner = lock(&self.inner);
        if let Some(purged) = inner.purged
            && index <= purged.index
        {
            return if index == purged.index { Known::Is(purged) } else { Known::Purged };
        }
        match inner.get(index) {
            Some(stored) => Known::Is(stored.entry.log_id),
            None => Known::Absent,
        }
    }

    /// The last entry that may be purged so that at least `bytes` and at least `entries` are not
    /// kept for nothing: everything before what either bound still allows, up to `upto`.
    pub(crate) fn purgeable(&self, upto: LogIndex, bytes: u64, entries: u64) -> Option<u64> {
        let inner = lock(&self.inner);
        let mut kept_bytes = inner.bytes;
        let mut kept = inner.entries.len() as u64;
        let mut last = None;
        for stored in &inner.entries {
            if stored.entry.log_id.index > upto.0 || (kept_bytes <= bytes && kept <= entries) {
                break;
            }
            kept_bytes -= stored.bytes;
            kept -= 1;
            last = Some(stored.entry.log_id.index);
        }
        last
    }
}

/// What a log says about a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// This entry is there.
    Is(LogId),
    /// A committed entry was there and is purged.
    Purged,
    /// Nothing is there yet.
    Absent,
}

impl Inner {
    /// The index of the first entry kept, or of the next one if none is.
    fn first_index(&self) -> u64 {
        match self.entries.front() {
            Some(first) => first.entry.log_id.index,
            None => self.purged.map_or(0, |purged| purged.index + 1),
        }
    }

    fn next_index(&self) -> u64 {
        self.first_index() + self.entries.len() as u64
    }

    fn get(&self, index: u64) -> Option<&Stored> {
        let offset = index.checked_sub(self.first_index())?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    fn push(&mut self, entry: Entry, bytes: u64) {
        self.bytes += bytes;
        let end = self.entries.back().map_or(0, |last| last.end) + bytes;
        self.entries.push_back(Stored { entry, bytes, end });
    }

    fn last(&self) -> Option<LogId> {
        self.entries.back().map(|stored| stored.entry.log_id).or(self.purged)
    }

    /// How far vote and log go, with what is not durable yet.
    fn stands(&self) -> Footing {
        Footing::new(self.vote, self.last(), self.footing.was_cut)
    }

    fn draw_write(&mut self) -> WriteId {
        let id = WriteId(self.next_write);
        self.next_write += 1;
        id
    }

    fn record(&mut self, record: Record) {
        if self.open.records.is_empty() {
            self.open.since = <Instant as rt::Instant>::now();
        }
        match self.sync {
            Sync::OnCompletion => self.open.records.push(record),
            #[cfg(test)]
            Sync::Immediate => {}
        }
    }

    /// Keeps `done` until the open group is durable; gives it back if that is now.
    fn defer(&mut self, done: IOFlushed<TypeConfig>) -> Option<IOFlushed<TypeConfig>> {
        match self.sync {
            Sync::OnCompletion if !self.open.records.is_empty() => {
                self.open.waiting.push(done);
                None
            }
            Sync::OnCompletion => Some(done),
            #[cfg(test)]
            Sync::Immediate => Some(done),
        }
    }

    /// The positions in `entries` that an index range covers.
    fn slice<R: RangeBounds<u64>>(&self, range: &R) -> (usize, usize) {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        let first = self.first_index();
        let len = self.entries.len() as u64;
        let start = start.saturating_sub(first).min(len);
        let end = end.saturating_sub(first).clamp(start, len);
        // Both are at most the length of a deque in memory.
        (usize::try_from(start).unwrap_or(0), usize::try_from(end).unwrap_or(0))
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let inner = lock(&self.inner);
        let (start, end) = inner.slice(&range);
        Ok(inner.entries.range(start..end).map(|stored| stored.entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(lock(&self.inner).vote)
    }

    /// At least one entry, and no more than a batch may hold.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let inner = lock(&self.inner);
        let (start, end) = inner.slice(&(start..end));
        let mut bytes = 0;
        let mut entries = Vec::new();
        for stored in inner.entries.range(start..end) {
            bytes += stored.bytes;
            if bytes > inner.batch_bytes && !entries.is_empty() {
                break;
            }
            entries.push(stored.entry.clone());
        }
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let inner = lock(&self.inner);
        let last = inner.entries.back().map(|stored| stored.entry.log_id);
        Ok(LogState { last_purged_log_id: inner.purged, last_log_id: last.or(inner.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    /// Returns when the vote is durable.
    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (tx, rx) = oneshot::channel();
        let now = {
            let mut inner = lock(&self.inner);
            inner.vote = Some(*vote);
            inner.record(Record::Vote(encode(vote)));
            inner.open.has_vote = inner.sync == Sync::OnCompletion;
            inner.defer(IOFlushed::signal(tx))
        };
        if let Some(now) = now {
            now.io_completed(Ok(()));
        }
        rx.await.unwrap_or_else(|dropped| Err(io::Error::other(dropped)))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut inner = lock(&self.inner);
        inner.committed_is_new |= inner.committed != committed && committed.is_some();
        inner.committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(lock(&self.inner).committed)
    }

    /// Entries can be read at once; `callback` is called when they are durable.
    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let now = {
            let mut inner = lock(&self.inner);
            for entry in entries {
                let expected = inner.next_index();
                if entry.log_id.index != expected && !inner.entries.is_empty() {
                    let found = entry.log_id.index;
                    return Err(io::Error::other(LogError::Hole { expected, found }));
                }
                let body = encode(&entry);
                let bytes = body.len() as u64;
                let (index, term) = (index_of(&entry.log_id), term_of(&entry.log_id));
                inner.record(Record::Entry { index, term, body });
                inner.push(entry, bytes);
            }
            inner.defer(callback)
        };
        if let Some(now) = now {
            now.io_completed(Ok(()));
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let mut inner = lock(&self.inner);
        let from = last_log_id.map_or(0, |last| last.index + 1);
        if from >= inner.next_index() {
            return Ok(());
        }
        let keep = inner.slice(&(0..from)).1;
        for stored in inner.entries.split_off(keep) {
            inner.bytes -= stored.bytes;
        }
        inner.record(Record::Truncate { from: LogIndex(from) });
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let mut inner = lock(&self.inner);
        if inner.purged.is_some_and(|purged| log_id <= purged) {
            return Ok(());
        }
        let next = inner.next_index();
        let gone = inner.slice(&(0..=log_id.index)).1;
        for stored in inner.entries.drain(..gone).collect::<Vec<_>>() {
            inner.bytes -= stored.bytes;
        }
        inner.purged = Some(log_id);
        inner.record(Record::Purge { upto: index_of(&log_id), body: encode(&log_id) });
        if log_id.index >= next {
            inner.record(Record::Reset { next: LogIndex(log_id.index + 1) });
        }
        Ok(())
    }
}
