//! What the thread of the snapshots does on real files.

use std::fs;
use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::codec::log::DamageReason;
use crate::codec::record::{Record, Snapshot};
use crate::codec::snapshot::SnapshotFile;
use crate::consensus::{Restore, SnapshotDone, SnapshotSource, SnapshotTask, TaskId};
use crate::id::{ClusterId, LogIndex, NodeName};

const META: Bytes = Bytes::from_static(b"meta");

/// Blocks of history that the test makes up.
#[derive(Debug, Default)]
struct Rows {
    blocks: Mutex<Vec<Bytes>>,
    upto: Mutex<Option<LogIndex>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Rows {
    fn set(&self, count: u8) {
        let block = |n: u8| Bytes::from(vec![n; 300_000]);
        *held(&self.blocks) = (0..count).map(block).collect();
    }
}

impl History for Rows {
    fn export(&self, index: LogIndex, put: PutBlock<'_>) -> io::Result<Option<LogIndex>> {
        let blocks = held(&self.blocks).clone();
        blocks.into_iter().try_for_each(put)?;
        Ok(Some(LogIndex(index.0 + 1)))
    }

    fn replace(&self, blocks: Blocks) -> io::Result<()> {
        *held(&self.upto) = blocks.upto();
        *held(&self.blocks) = blocks.collect::<io::Result<_>>()?;
        Ok(())
    }
}

/// The thread of a directory, and what it reports.
pub(super) struct Fixture {
    snapshots: Snapshots,
    rows: Arc<Rows>,
    events: Receiver<SnapshotEvent>,
}

impl Fixture {
    pub(super) fn start(dir: &DataDir) -> Self {
        let (sender, events) = channel();
        let report = Arc::new(move |event| drop(sender.send(event)));
        let rows = Arc::new(Rows::default());
        let history = Arc::clone(&rows) as Arc<dyn History>;
        let snapshots = Snapshots::start(dir.snapshots(), history, report).unwrap();
        Self { snapshots, rows, events }
    }

    pub(super) fn build(&self, index: u64) -> SnapshotFile {
        let state = move || Bytes::from(format!("state {index}"));
        let source = SnapshotSource::new(META, LogIndex(index), state);
        let done = self.perform(SnapshotTask::Build(source));
        let SnapshotDone::Built(file) = done else { panic!("{done:?}") };
        file
    }

    fn perform(&self, task: SnapshotTask) -> SnapshotDone {
        self.snapshots.submit(TaskId(7), task).unwrap();
        let event = self.events.recv().unwrap();
        let SnapshotEvent::Done { id: TaskId(7), done } = event else { panic!("{event:?}") };
        done
    }

    fn read(&self, file: SnapshotFile, offset: u64) -> Option<Bytes> {
        let done = self.perform(SnapshotTask::Read { file, offset, len: 1 << 18 });
        let SnapshotDone::Read(data) = done else { panic!("{done:?}") };
        data
    }

    fn receive(&self, file: SnapshotFile, offset: u64, data: Bytes) -> Result<(), String> {
        let done = self.perform(SnapshotTask::Receive { file, offset, data });
        let SnapshotDone::Received(result) = done else { panic!("{done:?}") };
        result
    }

    /// Hands all of `file` over to `to`.
    fn copy(&self, file: SnapshotFile, to: &Self) {
        let mut offset = 0;
        while offset < file.len {
            let data = self.read(file, offset).unwrap();
            let len = data.len() as u64;
            to.receive(file, offset, data).unwrap();
            offset += len;
        }
    }

    /// The state that came in, if it can be used.
    fn verify(&self, file: SnapshotFile, meta: Bytes) -> Result<Vec<u8>, String> {
        let (restore, slot) = Restore::new(|data: &[u8]| Ok(data.to_vec()));
        let done = self.perform(SnapshotTask::Verify { file, meta, restore });
        let SnapshotDone::Verified(result) = done else { panic!("{done:?}") };
        result.map(|()| slot.take().unwrap())
    }
}

fn open(parent: &TempDir, name: &str) -> DataDir {
    DataDir::open(&parent.path().join(name), &NodeName::new(name).unwrap()).unwrap()
}

fn files(dir: &DataDir) -> Vec<String> {
    let files = fs::read_dir(dir.path().join("snapshots")).unwrap();
    let mut names: Vec<_> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn recovered(dir: &DataDir) -> Option<Snapshot> {
    dir.recover().unwrap().0.snapshot
}

#[test]
fn a_snapshot_is_built_with_its_history_and_takes_the_place_of_the_one_before() {
    let parent = TempDir::new().unwrap();
    let dir = open(&parent, "alpha");
    let fixture = Fixture::start(&dir);
    fixture.rows.set(3);
    fixture.build(4);
    let file = fixture.build(9);
    assert_eq!(files(&dir), ["00000000000000000009.snap"]);
    let snapshot = recovered(&dir).unwrap();
    assert_eq!((snapshot.file, &snapshot.meta), (file, &META));
    assert_eq!(snapshot.data, "state 9");
    assert!(file.len > 900_000, "{file:?}");
    let blocks = dir.snapshots().place().history(file).unwrap();
    let blocks: Vec<Bytes> = blocks.map(Result::unwrap).collect();
    assert_eq!(blocks, *fixture.rows.blocks.lock().unwrap());
    fixture.snapshots.stop(|| ());
}

#[test]
fn a_snapshot_that_came_in_is_installed_with_its_history() {
    let parent = TempDir::new().unwrap();
    let (alpha, beta) = (open(&parent, "alpha"), open(&parent, "beta"));
    let (from, to) = (Fixture::start(&alpha), Fixture::start(&beta));
    from.rows.set(4);
    to.build(2);
    let file = from.build(9);
    from.copy(file, &to);
    assert_eq!(to.verify(file, META).unwrap(), b"state 9");
    assert_eq!(recovered(&beta).unwrap().file.index, LogIndex(2), "it is not installed yet");
    assert_eq!(to.perform(SnapshotTask::Install { file }), SnapshotDone::Installed);
    assert_eq!(files(&beta), ["00000000000000000009.snap"]);
    assert_eq!(recovered(&beta), recovered(&alpha));
    assert_eq!(*to.rows.blocks.lock().unwrap(), *from.rows.blocks.lock().unwrap());
    assert_eq!(*to.rows.upto.lock().unwrap(), Some(LogIndex(10)));
}

#[test]
fn a_file_that_is_being_sent_can_be_read_when_a_newer_one_is_there() {
    let parent = TempDir::new().unwrap();
    let dir = open(&parent, "alpha");
    let fixture = Fixture::start(&dir);
    fixture.rows.set(2);
    let old = fixture.build(4);
    let begun = fixture.read(old, 0).unwrap();
    fixture.build(5);
    assert_eq!(files(&dir), ["00000000000000000005.snap"]);
    assert_eq!(fixture.read(old, 0).unwrap(), begun);
    let end = fixture.read(old, old.len - 10).unwrap();
    assert_eq!(end.len(), 10);
    fixture.snapshots.submit(TaskId(1), SnapshotTask::Close { file: old }).unwrap();
    assert_eq!(fixture.read(old, 0), None);
}

#[test]
fn what_is_damaged_on_the_way_is_dropped() {
    let parent = TempDir::new().unwrap();
    let (alpha, beta) = (open(&parent, "alpha"), open(&parent, "beta"));
    let (from, to) = (Fixture::start(&alpha), Fixture::start(&beta));
    from.rows.set(1);
    let file = from.build(9);
    from.copy(file, &to);
    let incoming = beta.path().join("snapshots/incoming.tmp");
    let mut bytes = fs::read(&incoming).unwrap();
    bytes[200_000] ^= 1;
    fs::write(&incoming, &bytes).unwrap();
    to.verify(file, META).unwrap_err();
    assert_eq!(files(&beta), [""; 0]);
    from.copy(file, &to);
    to.verify(file, Bytes::from_static(b"other")).unwrap_err();
    from.copy(file, &to);
    to.verify(file, META).unwrap();
}

#[test]
fn parts_that_do_not_follow_are_refused_and_a_new_beginning_is_taken() {
    let parent = TempDir::new().unwrap();
    let dir = open(&parent, "alpha");
    let fixture = Fixture::start(&dir);
    let file = SnapshotFile { index: LogIndex(3), len: 1_000, crc: 7 };
    fixture.receive(file, 100, Bytes::from_static(b"x")).unwrap_err();
    fixture.receive(file, 0, Bytes::from(vec![1; 100])).unwrap();
    fixture.receive(file, 300, Bytes::from_static(b"x")).unwrap_err();
    fixture.receive(file, 100, Bytes::from_static(b"x")).unwrap();
    let other = SnapshotFile { crc: 8, ..file };
    fixture.receive(other, 0, Bytes::from_static(b"y")).unwrap();
    fixture.receive(file, 101, Bytes::from_static(b"x")).unwrap_err();
    fixture.verify(file, META).unwrap_err();
    fixture.verify(other, META).unwrap_err();
    assert_eq!(files(&dir), [""; 0]);
}

#[test]
fn an_error_of_the_disk_is_final() {
    let parent = TempDir::new().unwrap();
    let dir = open(&parent, "alpha");
    let fixture = Fixture::start(&dir);
    fs::remove_dir(dir.path().join("snapshots")).unwrap();
    let file = SnapshotFile { index: LogIndex(3), len: 1_000, crc: 7 };
    let task = SnapshotTask::Receive { file, offset: 0, data: META };
    fixture.snapshots.submit(TaskId(7), task).unwrap();
    assert!(matches!(fixture.events.recv().unwrap(), SnapshotEvent::Failed { .. }));
    assert!(fixture.events.recv().is_err(), "the thread has ended");
    assert_eq!(fixture.snapshots.set_cluster(ClusterId(1)), Err(SnapshotsStopped));
}

#[test]
fn a_damaged_snapshot_is_left_aside_and_missed_where_the_log_needs_it() {
    let parent = TempDir::new().unwrap();
    let dir = open(&parent, "alpha");
    let fixture = Fixture::start(&dir);
    fixture.build(9);
    let path = dir.path().join("snapshots/00000000000000000009.snap");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(recovered(&dir), None);
    let (sender, done) = channel();
    let (_, files) = dir.recover().unwrap();
    let disk = Disk::start(files, Box::new(move |done| sender.send(done).unwrap())).unwrap();
    let purge = Record::Purge { upto: LogIndex(9), body: Bytes::new() };
    let reset = Record::Reset { next: LogIndex(10) };
    disk.submit(crate::id::WriteId(1), vec![purge, reset]).unwrap();
    let DiskEvent::Written(written) = done.recv().unwrap() else { panic!("there is space") };
    written.result.unwrap();
    disk.stop();
    let error = dir.recover().unwrap_err();
    let DataDirError::Log { damage, .. } = error else { panic!("{error}") };
    assert!(matches!(damage.reason, DamageReason::SnapshotMissing(_)), "{damage}");
}

#[test]
fn a_snapshot_of_a_newer_format_is_refused_and_stays() {
    let parent = TempDir::new().unwrap();
    let dir = open(&parent, "alpha");
    let fixture = Fixture::start(&dir);
    fixture.build(9);
    let path = dir.path().join("snapshots/00000000000000000009.snap");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let check = crc32c::crc32c(&bytes[..76]).to_le_bytes();
    bytes[76..80].copy_from_slice(&check);
    fs::write(&path, &bytes).unwrap();
    let error = dir.recover().unwrap_err();
    assert!(matches!(error, DataDirError::NewerFormat { found: 9, .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
