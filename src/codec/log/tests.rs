use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::codec::memory_disk::MemoryDisk;
use crate::codec::record::{Recovered, Snapshot};
use crate::codec::snapshot::SnapshotFile;
use crate::id::Term;

const NODE: NodeId = NodeId(7);

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

#[test]
fn a_batch_costs_one_write_and_one_sync() {
    let mut writer = LogWriter::new(NODE);
    let steps = writer.encode(&[entry(0), entry(1)]).unwrap();
    let segment = SegmentNumber(1);
    assert!(matches!(steps[0], Step::Create { .. }));
    assert!(matches!(steps[1], Step::Append { .. }));
    assert_eq!(steps[2..], [Step::Sync { segment }, Step::SyncDir]);
    let steps = writer.encode(&[entry(2), entry(3), Record::Vote(body("v"))]).unwrap();
    assert!(matches!(steps[0], Step::Append { .. }));
    assert_eq!(steps[1..], [Step::Sync { segment }]);
}

#[test]
fn a_hint_alone_is_not_synced() {
    let mut writer = LogWriter::new(NODE);
    writer.encode(&[entry(0)]).unwrap();
    let steps = writer.encode(&[Record::Committed(body("c"))]).unwrap();
    assert!(matches!(steps[..], [Step::Append { .. }]));
}

#[test]
fn a_record_that_is_too_long_is_refused_and_changes_nothing() {
    let mut disk = small_disk();
    write(&mut disk, &[entry(0)]);
    let long = Record::Local(Bytes::from(vec![0; RECORD_LEN_MAX]));
    let error = disk.write(&[entry(1), long], None).unwrap_err();
    assert_eq!(error, EncodeError::TooLong { len: RECORD_LEN_MAX + 1 });
    let error = disk.write(&[entry(1), entry(3)], None).unwrap_err();
    assert_eq!(error, EncodeError::OutOfOrder { expected: 2, found: 3 });
    write(&mut disk, &[entry(1)]);
    assert_eq!(indexes(&disk.recover().unwrap()), [0, 1]);
}

#[test]
fn every_cut_of_an_unsynced_batch_leaves_a_prefix() {
    let mut disk = MemoryDisk::new(NODE);
    write(&mut disk, &[entry(0), Record::Vote(body("old"))]);
    disk.write(&[entry(1), Record::Vote(body("new")), entry(2)], None).unwrap();
    disk.run_to_sync();
    let mut seen = BTreeMap::new();
    for kept in 0..200 {
        let mut disk = disk.clone();
        disk.crash(|_| kept);
        let recovered = disk.recover().unwrap();
        let vote = recovered.vote.clone().unwrap();
        seen.insert(kept, (indexes(&recovered), vote));
        write(&mut disk, &[entry(recovered.entries.len() as u64)]);
        let again = disk.recover().unwrap();
        assert_eq!(again.entries.len(), recovered.entries.len() + 1);
    }
    let mut seen: Vec<_> = seen.into_values().collect();
    seen.dedup();
    let wanted = [
        (vec![0], body("old")),
        (vec![0, 1], body("old")),
        (vec![0, 1], body("new")),
        (vec![0, 1, 2], body("new")),
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn every_flipped_bit_below_the_last_group_is_damage() {
    let mut disk = small_disk();
    for index in 0..12 {
        write(&mut disk, &[entry(index)]);
    }
    let segments: Vec<_> = disk.segments().collect();
    assert!(segments.len() > 2);
    let (last, last_len) = *segments.last().unwrap();
    let group_len = MARK_LEN + PREFIX_LEN + format::body_len(&entry(0));
    for (segment, len) in segments {
        for bit in 0..len * 8 {
            let mut copy = disk.clone();
            copy.rot(segment, bit / 8, 1 << (bit % 8));
            let in_last_group = segment == last && bit / 8 >= last_len - group_len;
            match copy.read() {
                Ok(recovery) => {
                    assert!(in_last_group, "segment {segment} bit {bit}");
                    assert_eq!(recovery.recovered.entries.len(), 11);
                    assert!(recovery.cut.is_some());
                }
                Err(damage) => {
                    assert!(!in_last_group, "{damage}");
                    assert_eq!(damage.segment.0.abs_diff(segment.0) / 2, 0);
                }
            }
        }
    }
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
fn a_segment_that_never_got_its_header_is_dropped() {
    let mut disk = small_disk();
    for index in 0..4 {
        write(&mut disk, &[entry(index)]);
    }
    let before = disk.segments().count();
    let mut index = 4;
    while disk.segments().count() == before {
        disk.crash(|_| 0);
        disk.recover().unwrap();
        disk.write(&[entry(index)], None).unwrap();
        disk.run_to_sync();
        if disk.segments().count() == before {
            disk.finish();
            index += 1;
        }
    }
    for kept in 0..150 {
        let mut disk = disk.clone();
        disk.crash(|_| kept);
        let found = indexes(&disk.recover().unwrap());
        assert!(found.len() as u64 >= index, "kept {kept}: {found:?}");
        write(&mut disk, &[entry(found.len() as u64)]);
        assert_eq!(disk.recover().unwrap().entries.len(), found.len() + 1);
    }
}

#[test]
fn a_batch_over_several_segments_syncs_each_name_before_the_next() {
    let mut writer = LogWriter::new(NODE).with_segment_len(80);
    let batch: Vec<_> = (0..4).map(entry).collect();
    let steps = writer.encode(&batch).unwrap();
    let kinds: String = steps
        .iter()
        .map(|step| match step {
            Step::Create { .. } => 'c',
            Step::Append { .. } => 'a',
            Step::Cut { .. } => 'x',
            Step::Sync { .. } => 's',
            Step::SyncDir => 'd',
            Step::Remove { .. } => 'r',
        })
        .collect();
    assert_eq!(kinds, "casd".repeat(4));
}

#[test]
fn a_log_of_another_node_or_of_a_newer_version_is_refused() {
    let mut writer = LogWriter::new(NODE);
    let steps = writer.encode(&[entry(0)]).unwrap();
    let Step::Create { segment, header } = &steps[0] else { panic!("{steps:?}") };
    let read = |node: u64, number: u64, bytes: Bytes| {
        let segments = BTreeMap::from([(SegmentNumber(number), bytes)]);
        recover(NodeId(node), &segments, None).map(|_| ()).map_err(|damage| damage.reason)
    };
    assert_eq!(read(7, 1, header.clone()), Ok(()));
    assert_eq!(read(8, 1, header.clone()), Err(DamageReason::WrongNode(NODE)));
    assert_eq!(read(7, 2, header.clone()), Err(DamageReason::WrongNumber(*segment)));
    let mut newer = header.to_vec();
    newer[8] = 2;
    let check = crc32c::crc32c(&newer[..60]).to_le_bytes();
    newer[60..64].copy_from_slice(&check);
    assert_eq!(read(7, 1, Bytes::from(newer)), Err(DamageReason::NewerFormat(2)));
}

#[test]
fn a_segment_in_the_middle_that_is_gone_or_too_short_is_damage() {
    let mut segments = BTreeMap::new();
    let mut writer = LogWriter::new(NODE).with_segment_len(100);
    for index in 0..6 {
        for step in writer.encode(&[entry(index)]).unwrap() {
            match step {
                Step::Create { segment, header } => {
                    segments.insert(segment, header.to_vec());
                }
                Step::Append { segment, bytes } => {
                    segments.get_mut(&segment).unwrap().extend_from_slice(&bytes);
                }
                Step::Cut { .. } | Step::Sync { .. } | Step::SyncDir | Step::Remove { .. } => {}
            }
        }
    }
    let mut segments: BTreeMap<_, _> =
        segments.into_iter().map(|(number, bytes)| (number, Bytes::from(bytes))).collect();
    assert!(segments.len() > 3);
    assert!(recover(NODE, &segments, None).is_ok());

    let mut shortened = segments.clone();
    let second = &segments[&SegmentNumber(2)];
    let frame_len = PREFIX_LEN + format::body_len(&entry(0));
    shortened.insert(SegmentNumber(2), second.slice(..second.len() - frame_len));
    let damage = recover(NODE, &shortened, None).unwrap_err();
    assert_eq!((damage.segment, damage.reason), (SegmentNumber(3), DamageReason::Unchained));

    segments.remove(&SegmentNumber(2));
    let damage = recover(NODE, &segments, None).unwrap_err();
    let DamageReason::EntriesMissing { from: 0, upto } = damage.reason else { panic!("{damage}") };
    assert_eq!(damage.segment, SegmentNumber(3));
    assert!(upto >= 1);
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
        let header = Header { node: NODE, number, chain: 0, head_len }.encode();
        let mut bytes = header.to_vec();
        let mut chain = format::header_chain(&header);
        for body in &bodies {
            chain = format::put_frame(&mut bytes, chain, |out| out.extend_from_slice(body));
        }
        let segments = BTreeMap::from([(number, Bytes::from(bytes))]);
        if let Ok(mut recovery) = recover(NODE, &segments, Some(snapshot(2))) {
            let next = recovery.writer.next_index().unwrap_or_default();
            let last = Record::Entry { index: next, term: Term(1), body: Bytes::new() };
            prop_assert!(next.0 == u64::MAX || recovery.writer.encode(&[last]).is_ok());
        }
    }
}
