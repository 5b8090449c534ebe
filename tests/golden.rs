//! Files of every version that this one must read. They are written once and never again: a change
//! that cannot read them, or that writes other bytes under the same version, fails here.
//!
//! `CRONCLAVE_GOLDEN=write cargo test --test golden` writes those that are missing.

#![expect(clippy::unwrap_used, reason = "a test fails by unwinding")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use cronclave::codec::log::{DamageReason, LogLimits, Owner, SegmentNumber, recover_loaded};
use cronclave::codec::memory_disk::MemoryDisk;
use cronclave::codec::record::{Doubt, Record, Recovered, Snapshot};
use cronclave::codec::snapshot::SnapshotFile;
use cronclave::id::{ClusterId, LogIndex, NodeId, Term};

const NODE: NodeId = NodeId(0x0123_4567_89ab_cdef);
const CLUSTER: ClusterId = ClusterId(0xfedc_ba98_7654_3210);

fn log_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/log")
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn entry(index: u64, term: u64) -> Record {
    let body = Bytes::from(format!("entry {index} of term {term}"));
    Record::Entry { index: LogIndex(index), term: Term(term), body }
}

/// What covers the entries that the log has purged.
fn snapshot() -> Snapshot {
    let file = SnapshotFile { index: LogIndex(5), len: 0, crc: 0 };
    Snapshot { file, meta: Bytes::new(), data: Bytes::new() }
}

/// A log with a record of each kind, two lives and several segments. The second life found a
/// segment without a whole head, and began it again.
fn segments() -> BTreeMap<SegmentNumber, Bytes> {
    let mut disk = MemoryDisk::new(NODE).with_segment_len(400).with_sector_len(16);
    let write = |disk: &mut MemoryDisk, batch: &[Record]| {
        disk.write(batch, None).unwrap();
        disk.finish();
    };
    write(&mut disk, &[Record::Local(bytes("pledge")), Record::Vote(bytes("vote of term 1"))]);
    disk.set_cluster(CLUSTER);
    write(&mut disk, &[entry(0, 1), Record::Reset { next: LogIndex(4) }, entry(4, 1)]);
    write(&mut disk, &[Record::Checkpoint(bytes("all facts")), Record::Local(bytes("started"))]);
    (5..9).for_each(|index| write(&mut disk, &[entry(index, 1)]));
    write(&mut disk, &[Record::Truncate { from: LogIndex(7) }, entry(7, 2), entry(8, 2)]);
    write(&mut disk, &[Record::Committed(bytes("committed 7")), Record::Vote(bytes("term 3"))]);
    write(&mut disk, &[Record::Settled]);
    write(&mut disk, &[Record::Purge { upto: LogIndex(5), body: bytes("purged 5") }]);
    disk.write(&[entry(9, 3), entry(10, 3)], None).unwrap();
    disk.run_to_sync();
    let mut sectors = 0;
    disk.crash(|len| {
        sectors += 1;
        if sectors < 6 { 0..len } else { 0..0 }
    });
    disk.set_snapshot(Some(snapshot()));
    disk.recover().unwrap();
    let next = disk.next_index().unwrap().0;
    write(&mut disk, &[entry(next, 4), Record::Local(bytes("ended"))]);
    (next + 1..13).for_each(|index| write(&mut disk, &[entry(index, 4)]));
    let numbers: Vec<_> = disk.segments().map(|(number, _)| number).collect();
    let file = |number| Bytes::copy_from_slice(disk.file(number).unwrap());
    numbers.into_iter().map(|number| (number, file(number))).collect()
}

/// What the files say, whatever version reads them.
fn expected() -> Recovered {
    let entry = |index: u64, term: u64| {
        let body = Bytes::from(format!("entry {index} of term {term}"));
        (LogIndex(index), Term(term), body)
    };
    Recovered {
        vote: Some(bytes("term 3")),
        committed: Some(bytes("committed 7")),
        purged: Some(bytes("purged 5")),
        entries: [(6, 1), (7, 2), (8, 2), (9, 4), (10, 4), (11, 4), (12, 4)]
            .map(|(index, term)| entry(index, term))
            .to_vec(),
        snapshot: Some(snapshot()),
        checkpoint: Some(bytes("all facts")),
        locals: vec![bytes("started"), bytes("ended")],
        doubt: Some(Doubt { next: LogIndex(9), segment: 0, offset: 0, len: 0 }),
    }
}

fn read(segments: &BTreeMap<SegmentNumber, Bytes>) -> Result<Recovered, DamageReason> {
    let owner = Owner { node: NODE, cluster: Some(CLUSTER) };
    let read = recover_loaded(owner, LogLimits::default(), segments, Some(snapshot()));
    read.map(|recovery| recovery.recovered).map_err(|damage| damage.reason)
}

fn golden() -> BTreeMap<SegmentNumber, Bytes> {
    if std::env::var("CRONCLAVE_GOLDEN").is_ok_and(|what| what == "write") {
        fs::create_dir_all(log_dir()).unwrap();
        for (number, file) in segments() {
            let path = log_dir().join(format!("{:020}.log", number.0));
            if !path.exists() {
                fs::write(path, file).unwrap();
            }
        }
    }
    let files = fs::read_dir(log_dir()).unwrap().map(|file| file.unwrap().path());
    let number = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    files.map(|path| (SegmentNumber(number(&path)), fs::read(path).unwrap().into())).collect()
}

#[test]
fn the_log_of_version_1_says_what_it_said() {
    let files = golden();
    assert!(files.len() > 2, "{}", files.len());
    let recovered = read(&files).unwrap();
    let doubt = recovered.doubt.unwrap();
    let blurred = Doubt { segment: 0, offset: 0, len: 0, ..doubt };
    assert_eq!(Recovered { doubt: Some(blurred), ..recovered }, expected());
    assert_eq!((doubt.segment, doubt.offset, doubt.len), (4, 0, 41));
}

#[test]
fn this_version_writes_the_log_of_version_1_byte_for_byte() {
    assert_eq!(segments(), golden());
}

#[test]
fn a_log_of_a_version_to_come_is_named_as_such() {
    for version in [2_u32, u32::MAX] {
        let mut files = golden();
        let (_, first) = files.iter_mut().next().unwrap();
        let mut newer = first.to_vec();
        newer[8..12].copy_from_slice(&version.to_le_bytes());
        let check = crc32c::crc32c(&newer[..60]).to_le_bytes();
        newer[60..64].copy_from_slice(&check);
        *first = Bytes::from(newer);
        assert_eq!(read(&files).unwrap_err(), DamageReason::NewerFormat(version));
    }
}
