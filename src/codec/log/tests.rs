mod crashes;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::codec::memory_disk::MemoryDisk;
use crate::codec::record::{Recovered, Snapshot};
use crate::codec::snapshot::SnapshotFile;
use crate::id::Term;

const NODE: NodeId = NodeId(7);

const OWNER: Owner = Owner { node: NODE, cluster: None };

fn writer(segment_len: u64) -> LogWriter {
    LogWriter::new(OWNER, LogLimits { segment_len, ..LogLimits::default() })
}

fn recover_all(segments: &BTreeMap<SegmentNumber, Bytes>) -> Result<Recovery, LogDamage> {
    recover_loaded(OWNER, LogLimits::default(), segments, None)
}

fn entry(index: u64) -> Record {
    Record::Entry { index: LogIndex(index), term: Term(1), body: body("0123456789") }
}

fn body(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn purge(upto: u64) -> Record {
    Record::Purge { upto: LogIndex(upto), body: body("purged") }
}

fn snapshot(index: u64) -> Snapshot {
    let file = SnapshotFile { index: LogIndex(index), len: 0, crc: 0 };
    Snapshot { file, meta: body("meta"), data: body("state") }
}

fn write(disk: &mut MemoryDisk, batch: &[Record]) {
    disk.write(batch, None).unwrap();
    disk.finish();
}

fn small_disk() -> MemoryDisk {
    MemoryDisk::new(NODE).with_segment_len(200)
}

fn indexes(recovered: &Recovered) -> Vec<u64> {
    recovered.entries.iter().map(|entry| entry.0.0).collect()
}

/// What the steps are, a letter each.
fn kinds(steps: &[Step]) -> String {
    let kind = |step: &Step| match step {
        Step::Create { .. } => 'c',
        Step::Write { .. } => 'w',
        Step::Sync { .. } => 's',
        Step::SyncDir => 'd',
        Step::Remove { .. } => 'r',
    };
    steps.iter().map(kind).collect()
}

#[test]
fn a_batch_costs_one_write_and_one_sync() {
    let mut writer = writer(SEGMENT_LEN);
    assert_eq!(kinds(&writer.encode(&[entry(0), entry(1)]).unwrap()), "cwsd");
    assert_eq!(kinds(&writer.encode(&[entry(2), entry(3), entry(4)]).unwrap()), "ws");
}

#[test]
fn a_vote_is_sealed_before_it_is_durable_and_nothing_else_is() {
    let mut writer = writer(SEGMENT_LEN);
    assert_eq!(kinds(&writer.encode(&[Record::Vote(body("v")), entry(0)]).unwrap()), "cwsdws");
    assert!(writer.is_sealed());
    assert_eq!(kinds(&writer.seal()), "");
    assert_eq!(kinds(&writer.encode(&[entry(1), Record::Local(body("l"))]).unwrap()), "ws");
    assert!(!writer.is_sealed());
    assert_eq!(kinds(&writer.seal()), "ws");
    assert!(writer.is_sealed());
}

#[test]
fn a_group_is_written_over_the_end_of_the_one_before() {
    let mut writer = writer(SEGMENT_LEN);
    let mut due = None;
    for index in 0..4 {
        for step in writer.encode(&[entry(index)]).unwrap() {
            let Step::Write { at, bytes, .. } = step else { continue };
            assert!(due.is_none_or(|due| due == at));
            due = Some(at + (bytes.len() - PREFIX_LEN) as u64);
        }
        assert_eq!(writer.end(), due.map(|due| (SegmentNumber(1), due)));
    }
}

#[test]
fn a_hint_alone_is_not_synced() {
    let mut writer = writer(SEGMENT_LEN);
    writer.encode(&[entry(0)]).unwrap();
    assert_eq!(kinds(&writer.encode(&[Record::Committed(body("c"))]).unwrap()), "w");
    assert_eq!(kinds(&writer.seal()), "sws");
}

#[test]
fn a_record_that_is_too_long_is_refused_and_changes_nothing() {
    let mut disk = small_disk();
    write(&mut disk, &[entry(0)]);
    let max = LogLimits::default().record_len_max;
    let long = Record::Local(Bytes::from(vec![0; max]));
    let error = disk.write(&[entry(1), long], None).unwrap_err();
    assert_eq!(error, EncodeError::TooLong { len: max + 1, max });
    let error = disk.write(&[entry(1), entry(3)], None).unwrap_err();
    assert_eq!(error, EncodeError::OutOfOrder { expected: 2, found: 3 });
    write(&mut disk, &[entry(1)]);
    assert_eq!(indexes(&disk.recover().unwrap()), [0, 1]);
}

#[test]
fn a_purge_lets_old_segments_go_and_keeps_all_facts() {
    let mut disk = small_disk();
    write(&mut disk, &[Record::Vote(body("vote")), Record::Checkpoint(body("all"))]);
    write(&mut disk, &[Record::Local(body("one")), Record::Local(body("two"))]);
    for index in 0..40 {
        write(&mut disk, &[entry(index)]);
    }
    let before = disk.segments().count();
    disk.write(&[purge(35)], Some(&snapshot(35))).unwrap();
    disk.finish();
    assert!(disk.segments().count() < 4, "{} of {before} are left", disk.segments().count());
    let recovered = disk.recover().unwrap();
    assert_eq!(indexes(&recovered), [36, 37, 38, 39]);
    assert_eq!(recovered.vote, Some(body("vote")));
    assert_eq!(recovered.checkpoint, Some(body("all")));
    assert_eq!(recovered.locals, [body("one"), body("two")]);
    assert_eq!(recovered.purged, Some(body("purged")));
    assert_eq!(recovered.snapshot, Some(snapshot(35)));
}

#[test]
fn a_log_without_the_snapshot_that_it_stands_on_is_damage() {
    let mut disk = small_disk();
    write(&mut disk, &[entry(0), entry(1), purge(0)]);
    let damage = disk.recover().unwrap_err();
    assert_eq!(damage.reason, DamageReason::SnapshotMissing(1));
    let mut disk = small_disk();
    disk.write(&[Record::Reset { next: LogIndex(9) }], Some(&snapshot(7))).unwrap();
    disk.finish();
    assert_eq!(disk.recover().unwrap_err().reason, DamageReason::SnapshotMissing(9));
}

#[test]
fn a_reset_continues_behind_its_snapshot() {
    let mut disk = small_disk();
    write(&mut disk, &[entry(0), entry(1)]);
    disk.write(&[Record::Reset { next: LogIndex(9) }, entry(9)], Some(&snapshot(8))).unwrap();
    disk.finish();
    assert_eq!(indexes(&disk.recover().unwrap()), [9]);
}

#[test]
fn a_batch_over_several_segments_syncs_each_name_before_the_next() {
    let batch: Vec<_> = (0..4).map(entry).collect();
    assert_eq!(kinds(&writer(80).encode(&batch).unwrap()), "cwsd".repeat(4));
}

#[test]
fn facts_that_do_not_fit_in_a_head_are_refused() {
    let mut writer = writer(SEGMENT_LEN);
    let big = Record::Local(Bytes::from(vec![0; 16 << 20 >> 1]));
    let most = vec![big.clone(); 127];
    writer.check(&most).unwrap();
    let error = writer.encode(&vec![big; 128]).unwrap_err();
    let EncodeError::TooManyFacts { len } = error else { panic!("{error}") };
    assert!(len > HEAD_LEN_MAX);
}

#[test]
fn marks_that_differ_lead_to_different_chains() {
    let mark = |at: u64, synced: u64, life: u32| {
        let (node, number) = (NODE, SegmentNumber(3));
        let place = MarkPlace { node, number, at };
        format::put_mark(&mut Vec::new(), 17, place, synced, Life(life))
    };
    let mut chains = std::collections::BTreeSet::new();
    let mut count = 0;
    for at in [64, 4_096, 1 << 33] {
        for synced in 0..20 {
            for life in 1..20 {
                chains.insert(mark(at, synced, life));
                count += 1;
            }
        }
    }
    assert_eq!(chains.len(), count);
}

/// The segments of a log as they are written, in files that are no longer than they must be.
fn files_of(writer: &mut LogWriter, batches: &[Vec<Record>]) -> BTreeMap<SegmentNumber, Bytes> {
    let mut files: BTreeMap<SegmentNumber, Vec<u8>> = BTreeMap::new();
    for batch in batches {
        for step in writer.encode(batch).unwrap() {
            match step {
                Step::Create { segment, header, .. } => {
                    files.insert(segment, header.to_vec());
                }
                Step::Write { segment, at, bytes } => {
                    let file = files.get_mut(&segment).unwrap();
                    file.truncate(usize::try_from(at).unwrap());
                    file.extend_from_slice(&bytes);
                }
                Step::Sync { .. } | Step::SyncDir | Step::Remove { .. } => {}
            }
        }
    }
    files.into_iter().map(|(number, bytes)| (number, Bytes::from(bytes))).collect()
}

fn entries(count: u64) -> Vec<Vec<Record>> {
    (0..count).map(|index| vec![entry(index)]).collect()
}

/// The header of a segment with other bytes at `at`, and the right checksum.
fn forged(segment: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut forged = segment.to_vec();
    forged[at..at + bytes.len()].copy_from_slice(bytes);
    let check = crc32c::crc32c(&forged[..60]).to_le_bytes();
    forged[60..64].copy_from_slice(&check);
    Bytes::from(forged)
}

#[test]
fn a_log_of_another_node_or_cluster_or_of_a_newer_version_is_refused() {
    let mut writer = writer(SEGMENT_LEN);
    writer.set_cluster(ClusterId(5));
    let segment = files_of(&mut writer, &entries(1)).remove(&SegmentNumber(1)).unwrap();
    let read = |node: u64, cluster: Option<u64>, number: u64, bytes: &Bytes| {
        let segments = BTreeMap::from([(SegmentNumber(number), bytes.clone())]);
        let owner = Owner { node: NodeId(node), cluster: cluster.map(ClusterId) };
        let read = recover_loaded(owner, LogLimits::default(), &segments, None);
        read.map(|_| ()).map_err(|damage| damage.reason)
    };
    assert_eq!(read(7, None, 1, &segment), Ok(()));
    assert_eq!(read(7, Some(5), 1, &segment), Ok(()));
    assert_eq!(read(8, None, 1, &segment), Err(DamageReason::WrongNode(NODE)));
    assert_eq!(read(7, Some(6), 1, &segment), Err(DamageReason::WrongCluster(ClusterId(5))));
    let number = SegmentNumber(1);
    assert_eq!(read(7, None, 2, &segment), Err(DamageReason::WrongNumber(number)));
    let newer = forged(&segment, 8, &[2]);
    assert_eq!(read(7, None, 1, &newer), Err(DamageReason::NewerFormat(2)));
    let longer = forged(&segment, 52, &u32::MAX.to_le_bytes());
    assert_eq!(read(7, None, 1, &longer), Err(DamageReason::Unreadable));
    let later = forged(&segment, 24, &[9]);
    let number = SegmentNumber(9);
    assert_eq!(read(7, None, 1, &later), Err(DamageReason::WrongNumber(number)));
}

#[test]
fn a_log_that_learns_its_cluster_says_so_in_the_next_segment() {
    let mut disk = small_disk();
    write(&mut disk, &[entry(0)]);
    disk.set_cluster(ClusterId(5));
    (1..9).for_each(|index| write(&mut disk, &[entry(index)]));
    assert_eq!(disk.recover().unwrap().entries.len(), 9);
    let (last, _) = disk.end().unwrap();
    let clusters = (1..=last.0).map(|number| disk.file(SegmentNumber(number)).unwrap()[32]);
    assert_eq!(clusters.collect::<Vec<_>>()[..3], [0, 5, 5]);
}

#[test]
fn a_segment_in_the_middle_that_is_gone_or_too_short_is_damage() {
    let mut segments = files_of(&mut writer(100), &entries(6));
    assert!(segments.len() > 3);
    assert!(recover_all(&segments).is_ok());
    let second = segments[&SegmentNumber(2)].clone();

    let mut without_end = segments.clone();
    without_end.insert(SegmentNumber(2), second.slice(..second.len() - 1));
    let damage = recover_all(&without_end).unwrap_err();
    assert_eq!((damage.segment, damage.reason), (SegmentNumber(2), DamageReason::Checksum));

    let mut of_other_log = segments.clone();
    let mut other = writer(100);
    other.encode(&[Record::Committed(body("other"))]).unwrap();
    let other = files_of(&mut other, &entries(6)).remove(&SegmentNumber(2)).unwrap();
    of_other_log.insert(SegmentNumber(2), other);
    let damage = recover_all(&of_other_log).unwrap_err();
    assert_eq!((damage.segment, damage.reason), (SegmentNumber(2), DamageReason::Unchained));

    segments.remove(&SegmentNumber(2));
    let damage = recover_all(&segments).unwrap_err();
    let DamageReason::EntriesMissing { from: 0, upto } = damage.reason else { panic!("{damage}") };
    assert_eq!(damage.segment, SegmentNumber(3));
    assert!(upto >= 1);
}

#[test]
fn a_segment_that_cannot_be_loaded_is_no_damage() {
    let load = |_| Err("the disk is on fire");
    let numbers = [SegmentNumber(1)];
    let error = recover(OWNER, LogLimits::default(), &numbers, load, None).unwrap_err();
    assert_eq!(error, RecoverError::Load("the disk is on fire"));
}

#[test]
fn entries_do_not_hold_the_idle_part_of_their_segment_in_memory() {
    let mut segments = files_of(&mut writer(SEGMENT_LEN), &entries(3));
    let whole = segments.get_mut(&SegmentNumber(1)).unwrap();
    *whole = Bytes::from([&whole[..], &vec![0; 4 << 20]].concat());
    let file = whole.clone();
    let Recovery { recovered, .. } = recover_all(&segments).unwrap();
    assert_eq!(indexes(&recovered), [0, 1, 2]);
    drop(segments);
    assert_eq!(recovered.entries[2].2, body("0123456789"));
    assert!(file.is_unique(), "no entry shares the memory of the file");
}

/// Numbers as a log has them, and the ends of their range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..4_u64, Just(u64::MAX - 1), Just(u64::MAX)]
}

/// A body that may be one of a frame: a kind, numbers, and what follows.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let numbers = proptest::collection::vec(number(), 0..4);
    let rest = proptest::collection::vec(any::<u8>(), 0..4);
    (0..12_u8, numbers, rest).prop_map(|(kind, numbers, rest)| {
        let numbers = numbers.into_iter().flat_map(u64::to_le_bytes);
        [kind].into_iter().chain(numbers).chain(rest).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn whole_frames_that_no_writer_wrote_do_not_unwind(
        bodies in proptest::collection::vec(any_body(), 0..12),
        head_frames in 0..3_usize,
        first in prop_oneof![Just(1_u64), Just(u64::MAX)],
    ) {
        let number = SegmentNumber(first);
        let frame_len = |body: &Vec<u8>| PREFIX_LEN + body.len();
        let head_len = bodies.iter().take(head_frames).map(frame_len).sum::<usize>() as u64;
        let (owner, life) = (OWNER, Life(1));
        let header = Header { owner, number, chain: 0, first: 0, life, head_len }.encode();
        let mut bytes = header.to_vec();
        let mut chain = format::header_chain(&header);
        for body in &bodies {
            chain = format::put_frame(&mut bytes, chain, |out| out.extend_from_slice(body));
        }
        format::put_end(&mut bytes, chain);
        let segments = BTreeMap::from([(number, Bytes::from(bytes))]);
        let limits = LogLimits::default();
        if let Ok(mut recovery) = recover_loaded(OWNER, limits, &segments, Some(snapshot(2))) {
            let next = recovery.writer.next_index().unwrap_or_default();
            let last = Record::Entry { index: next, term: Term(1), body: Bytes::new() };
            prop_assert!(next.0 == u64::MAX || recovery.writer.encode(&[last]).is_ok());
        }
    }
}
