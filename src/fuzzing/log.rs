//! The log on disk against a model of it: [`fuzz_log_recover`].

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use crate::codec::log::{LogLimits, Owner, SegmentNumber, recover_loaded};
use crate::codec::memory_disk::MemoryDisk;
use crate::codec::record::{Doubt, Record, Recovered, Snapshot};
use crate::codec::snapshot::{self, SnapshotFile};
use crate::id::{ClusterId, LogIndex, NodeId, Term};

/// Short, so that a few records fill many segments.
const SEGMENT_LEN: u64 = 160;

/// How long the sectors of a disk may be, in bytes: from one byte to several segments.
const SECTOR_LENS: [usize; 4] = [1, 16, 64, 512];

/// The most operations of one run: the model keeps a state for each record.
const OPERATIONS_MAX: usize = 200;

const NODE: NodeId = NodeId(7);

/// Reads arbitrary bytes as a log if the first byte is even; else takes them as orders to write,
/// to crash, to recover and to damage a log, and compares with a model.
///
/// # Panics
/// If recovery gives anything that was not written, or less than what was synced.
pub fn fuzz_log_recover(bytes: &[u8]) {
    match bytes.split_first() {
        Some((first, rest)) if first % 2 == 0 => read_arbitrary_bytes(rest),
        Some((_, rest)) => write_crash_and_recover(rest),
        None => {}
    }
}

/// Takes `bytes` for up to four segments and a snapshot. Nothing may unwind.
fn read_arbitrary_bytes(bytes: &[u8]) {
    let mut orders = Orders(bytes);
    let first = u64::from(orders.byte());
    let cuts: Vec<usize> = (0..4).map(|_| usize::from(orders.byte())).collect();
    let mut rest = orders.0;
    let mut segments = BTreeMap::new();
    for (number, cut) in (first..).zip(cuts) {
        let (segment, after) = rest.split_at(cut.min(rest.len()));
        segments.insert(SegmentNumber(number), Bytes::copy_from_slice(segment));
        rest = after;
    }
    let owner = Owner { node: NodeId(segments.len() as u64), cluster: None };
    // Either answer is right: only what it does on the way matters.
    let snapshot = snapshot::decode(rest).ok();
    let _either = recover_loaded(owner, LogLimits::default(), &segments, snapshot).is_ok();
}

/// Carries out orders on a disk and on a model of it.
fn write_crash_and_recover(bytes: &[u8]) {
    let mut orders = Orders(bytes);
    let mut run = Run::new(SECTOR_LENS[orders.number_below(SECTOR_LENS.len())]);
    for _ in 0..OPERATIONS_MAX {
        if orders.0.is_empty() {
            break;
        }
        match orders.byte() % 16 {
            0..=8 => run.write(&mut orders),
            9 | 10 => run.seal(),
            11..=13 => run.crash(&mut orders),
            14 => run.rot_a_copy(&mut orders),
            15.. => run.disk.set_cluster(ClusterId(5)),
        }
    }
    run.check_the_end();
}

/// Bytes as a source of choices; zeros when they are used up.
struct Orders<'a>(&'a [u8]);

impl Orders<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn number_below(&mut self, limit: usize) -> usize {
        let number = usize::from(self.byte()) << 8 | usize::from(self.byte());
        if limit == 0 { 0 } else { number % limit }
    }

    /// Which of `len` bytes that are not synced a crash leaves: none, all, or some at an end.
    fn kept(&mut self, len: usize) -> Range<usize> {
        match self.byte() % 4 {
            0 => 0..0,
            1 => 0..len,
            2 => 0..self.number_below(len + 1),
            3.. => self.number_below(len + 1)..len,
        }
    }

    fn body(&mut self) -> Bytes {
        let (byte, len) = (self.byte(), usize::from(self.byte() % 48));
        Bytes::from(vec![byte; len])
    }
}

/// A disk, and the state after each record that was written to it.
struct Run {
    disk: MemoryDisk,
    /// The state before the first record, and after each.
    states: Vec<Model>,
    /// How many records are known to be synced.
    synced: usize,
}

impl Run {
    fn new(sector_len: usize) -> Self {
        let disk = MemoryDisk::new(NODE).with_segment_len(SEGMENT_LEN);
        let disk = disk.with_sector_len(sector_len);
        Self { disk, states: vec![Model::default()], synced: 0 }
    }

    fn written(&self) -> usize {
        self.states.len() - 1
    }

    fn write(&mut self, orders: &mut Orders<'_>) {
        let choice = orders.byte();
        let mut batch = Vec::new();
        let mut covered = None;
        for _ in 0..=choice % 4 {
            let model = self.states.last().expect("there is a state before the first record");
            let record = model.next_record(orders);
            covered = covered.max(covers(&record));
            self.states.push(model.after(&record));
            batch.push(record);
        }
        let snapshot = covered.map(|index| {
            let data = Bytes::from_static(b"state");
            let file = SnapshotFile { index, len: 0, crc: 0 };
            Snapshot { file, meta: Bytes::from_static(b"meta"), data }
        });
        let taken = self.disk.write(&batch, snapshot.as_ref());
        taken.expect("the model gives only records that fit");
        if choice < 192 {
            self.disk.finish();
            self.note_synced(&batch);
        } else {
            (0..choice % 16).for_each(|_| {
                self.disk.step();
            });
        }
    }

    /// A batch of hints alone is not synced, and neither is what is not finished.
    fn note_synced(&mut self, batch: &[Record]) {
        if batch.iter().any(|record| !matches!(record, Record::Committed(_))) {
            self.synced = self.written();
        }
    }

    fn seal(&mut self) {
        self.disk.seal();
        self.disk.finish();
        if self.disk.segments().next().is_some() {
            self.synced = self.written();
        }
    }

    fn crash(&mut self, orders: &mut Orders<'_>) {
        self.disk.crash(|len| orders.kept(len));
        // What a recovery that was broken off had to say nobody has heard. Part of it may be there.
        let mut unheard = Vec::new();
        for _ in 0..(orders.byte() % 8).saturating_sub(4) {
            let (recovered, _) = self.recover_unrepaired(&unheard);
            unheard.extend(recovered.doubt);
            (0..orders.byte() % 8).for_each(|_| {
                self.disk.step();
            });
            self.disk.crash(|len| orders.kept(len));
        }
        self.recover(&unheard);
    }

    /// Starts again. From here on what was found is all there is.
    fn recover(&mut self, unheard: &[Doubt]) {
        let (recovered, at) = self.recover_unrepaired(unheard);
        self.disk.finish();
        self.states.truncate(at + 1);
        self.states[at].recovered.doubt = recovered.doubt;
        self.synced = at;
    }

    /// Starts again, but for the repairs, and checks what is there: a prefix, and whether it is in
    /// doubt. Gives after how many records it is.
    fn recover_unrepaired(&mut self, unheard: &[Doubt]) -> (Recovered, usize) {
        let cut = self.disk.read().expect("a crash is no damage").cut;
        let recovered = self.disk.recover_unrepaired().expect("a crash is no damage");
        // Some records change nothing but which entry is next, or whether there is doubt.
        let next = self.disk.next_index().map_or(0, |next| next.0);
        let is_it = |at: &usize| {
            let state = &self.states[*at];
            let is_doubt = match (cut, recovered.doubt) {
                (Some(_), Some(doubt)) => {
                    let before = state.recovered.doubt.into_iter().chain(unheard.iter().copied());
                    doubt.next.0 <= next && before.into_iter().all(|it| doubt.next <= it.next)
                }
                (Some(_), None) => false,
                (None, doubt) => {
                    doubt == state.recovered.doubt || doubt.is_some_and(|it| unheard.contains(&it))
                }
            };
            state.next == next && is_doubt && self.is(&recovered, *at)
        };
        let found = (self.synced..self.states.len()).rev().find(is_it);
        let at = found.unwrap_or_else(|| {
            let due = &self.states[self.synced];
            panic!("{cut:?}, next {next}: {recovered:?} where at least {due:?} is due")
        });
        (recovered, at)
    }

    fn is(&self, recovered: &Recovered, at: usize) -> bool {
        let doubt = self.states[at].recovered.doubt;
        let without = Recovered { snapshot: None, doubt, ..recovered.clone() };
        self.states[at].recovered == without
    }

    /// Flips a bit of a copy of the disk, on which everything is sealed.
    fn rot_a_copy(&mut self, orders: &mut Orders<'_>) {
        self.disk.finish();
        self.seal();
        let Some((last, end)) = self.disk.end() else { return };
        let end = usize::try_from(end).expect("a short segment");
        let mut copy = self.disk.clone();
        let segments: Vec<_> = copy.segments().collect();
        let (segment, len) = segments[orders.number_below(segments.len())];
        let offset = orders.number_below(len);
        copy.rot(segment, offset, 1 << (orders.byte() % 8));
        let is_sealed = segment == last && offset < end - SEAL_LEN;
        let is_seal = segment == last && !is_sealed && offset < end + END_LEN;
        match copy.read() {
            Ok(recovery) => {
                assert!(!is_sealed, "rot in segment {segment} at {offset} is seen");
                assert!(self.is(&recovery.recovered, self.written()), "only the seal is cut");
                assert_eq!(recovery.cut.is_some(), is_seal, "segment {segment} at {offset}");
            }
            Err(damage) => {
                assert!(is_sealed || segment != last, "rot at {offset} does no harm: {damage}");
                assert_eq!(damage.segment.0.abs_diff(segment.0) / 2, 0, "{damage}");
            }
        }
    }

    fn check_the_end(mut self) {
        self.disk.finish();
        let recovered = self.disk.read().expect("nothing is damaged").recovered;
        assert!(self.is(&recovered, self.written()), "all that was written is there");
        self.disk.crash(|_| 0..0);
        self.recover(&[]);
        let kept = self.disk.segments().count();
        assert!(kept <= self.written() + 2, "segments are removed");
    }
}

/// How long a seal is: a frame with a mark.
const SEAL_LEN: usize = 8 + 33;

/// How long the end behind it is.
const END_LEN: usize = 8;

/// The last entry that a snapshot has to cover for `record` to be written.
fn covers(record: &Record) -> Option<LogIndex> {
    match record {
        Record::Purge { upto, .. } => Some(*upto),
        Record::Reset { next } => next.0.checked_sub(1).map(LogIndex),
        Record::Vote(_)
        | Record::Entry { .. }
        | Record::Truncate { .. }
        | Record::Committed(_)
        | Record::Local(_)
        | Record::Checkpoint(_)
        | Record::Doubt(_)
        | Record::Settled => None,
    }
}

/// What a log says, kept the plainest way.
#[derive(Clone, Debug, Default)]
struct Model {
    recovered: Recovered,
    start: u64,
    next: u64,
}

impl Model {
    /// A record that may follow.
    fn next_record(&self, orders: &mut Orders<'_>) -> Record {
        let choice = orders.byte();
        let some_index = |orders: &mut Orders<'_>, from: u64, upto: u64| {
            from + u64::from(orders.byte()) % (upto - from + 1)
        };
        match choice % 16 {
            0 => Record::Vote(orders.body()),
            1 => Record::Committed(orders.body()),
            2 => Record::Local(orders.body()),
            3 => Record::Checkpoint(orders.body()),
            4 => Record::Truncate { from: LogIndex(some_index(orders, self.start, self.next)) },
            5 | 6 => {
                let upto = LogIndex(some_index(orders, self.start, self.next));
                Record::Purge { upto, body: orders.body() }
            }
            7 => Record::Reset { next: LogIndex(some_index(orders, self.next, self.next + 5)) },
            8 => Record::Settled,
            9.. => {
                let (index, term) = (LogIndex(self.next), Term(u64::from(choice)));
                Record::Entry { index, term, body: orders.body() }
            }
        }
    }

    fn after(&self, record: &Record) -> Self {
        let mut new = self.clone();
        let Recovered { vote, committed, purged, entries, checkpoint, locals, doubt, snapshot: _ } =
            &mut new.recovered;
        match record {
            Record::Vote(body) => *vote = Some(body.clone()),
            Record::Committed(body) => *committed = Some(body.clone()),
            Record::Local(body) => locals.push(body.clone()),
            Record::Doubt(new) => *doubt = Some(*new),
            Record::Settled => *doubt = None,
            Record::Checkpoint(body) => {
                *checkpoint = Some(body.clone());
                locals.clear();
            }
            Record::Entry { index, term, body } => {
                entries.push((*index, *term, body.clone()));
                new.next = index.0 + 1;
            }
            Record::Truncate { from } => {
                entries.retain(|entry| entry.0 < *from);
                new.next = from.0;
            }
            Record::Purge { upto, body } => {
                *purged = Some(body.clone());
                entries.retain(|entry| entry.0 > *upto);
                new.start = upto.0 + 1;
                new.next = new.next.max(new.start);
            }
            Record::Reset { next } => {
                entries.clear();
                (new.start, new.next) = (next.0, next.0);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_log_gives_back_what_was_synced_and_a_prefix_of_the_rest(
            orders in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            write_crash_and_recover(&orders);
        }

        #[test]
        fn arbitrary_bytes_do_not_unwind(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            read_arbitrary_bytes(&bytes);
        }
    }
}
