use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use tempfile::TempDir;

use super::snapshot_tests::Fixture;
use super::*;
use crate::codec::log::LogLimits;
use crate::codec::record::{Record, Recovered};
use crate::id::{Boot, ClusterId, LogIndex, NodeName, Term, WriteId};

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn entry(index: u64) -> Record {
    let body = Bytes::from(format!("entry {index}"));
    Record::Entry { index: LogIndex(index), term: Term(1), body }
}

fn start(dir: &DataDir) -> (Recovered, Disk, Receiver<Completion>) {
    let (recovered, files) = dir.recover().unwrap();
    let (sender, receiver) = channel();
    let tell = Box::new(move |event| match event {
        DiskEvent::Written(completion) => sender.send(completion).unwrap(),
        DiskEvent::Full { .. } | DiskEvent::Free => panic!("there is space: {event:?}"),
    });
    (recovered, Disk::start(files, tell).unwrap(), receiver)
}

fn write(disk: &Disk, done: &Receiver<Completion>, write: u64, batch: Vec<Record>) {
    disk.submit(WriteId(write), batch).unwrap();
    let completion = done.recv().unwrap();
    assert_eq!(completion.write, WriteId(write));
    completion.result.unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn a_directory_keeps_who_the_node_is_and_counts_its_boots() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("deep/data");
    let mut dir = DataDir::open(&path, &name("alpha")).unwrap();
    let (id, incarnation) = (dir.id(), dir.incarnation());
    assert_eq!((dir.boot(), dir.cluster()), (Boot(1), None));
    dir.set_cluster(ClusterId(5)).unwrap();
    dir.set_cluster(ClusterId(5)).unwrap();
    let other = dir.set_cluster(ClusterId(6)).unwrap_err();
    assert!(matches!(other, DataDirError::OtherCluster { .. }), "{other}");
    drop(dir);
    let dir = DataDir::open(&path, &name("alpha")).unwrap();
    assert_eq!((dir.id(), dir.incarnation()), (id, incarnation));
    assert_eq!((dir.boot(), dir.cluster()), (Boot(2), Some(ClusterId(5))));
}

#[test]
fn only_the_owner_can_read_what_is_in_it() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("data");
    let dir = DataDir::open(&path, &name("alpha")).unwrap();
    let (_, disk, done) = start(&dir);
    write(&disk, &done, 1, vec![entry(0)]);
    let snapshots = Fixture::start(&dir);
    snapshots.build(0);
    let files = files_below(&path);
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    for dir in [path.clone(), path.join("log"), path.join("snapshots")] {
        assert_eq!(mode(&dir), 0o700, "{}", dir.display());
    }
}

#[test]
fn a_second_user_is_refused_and_told_the_process() {
    let parent = TempDir::new().unwrap();
    let dir = DataDir::open(parent.path(), &name("alpha")).unwrap();
    let error = DataDir::open(parent.path(), &name("alpha")).unwrap_err();
    assert_eq!(error.exit_class(), ExitClass::Environment);
    let text = error.to_string();
    assert!(text.ends_with(&format!("in use by process {}", std::process::id())), "{text}");
    let (_, files) = dir.recover().unwrap();
    drop(dir);
    assert!(DataDir::open(parent.path(), &name("alpha")).is_err(), "the files hold the lock too");
    drop(files);
    DataDir::open(parent.path(), &name("alpha")).unwrap();
}

#[test]
fn a_node_keeps_its_name() {
    let parent = TempDir::new().unwrap();
    drop(DataDir::open(parent.path(), &name("alpha")).unwrap());
    let error = DataDir::open(parent.path(), &name("beta")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("belongs to node alpha, and node-name is beta"), "{text}");
    assert_eq!(DataDir::open(parent.path(), &name("alpha")).unwrap().boot(), Boot(2));
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let parent = TempDir::new().unwrap();
    let node = parent.path().join("node.json");
    fs::write(&node, r#"{"format": 2, "what": ["this", "version", "cannot", "know"]}"#).unwrap();
    let error = DataDir::open(parent.path(), &name("alpha")).unwrap_err();
    assert!(matches!(error, DataDirError::NewerFormat { found: 2, .. }), "{error}");
    assert_eq!(error.exit_class(), ExitClass::Environment);
    assert_eq!(files_below(parent.path()), [node]);
}

#[test]
fn a_damaged_or_missing_node_file_is_named() {
    let parent = TempDir::new().unwrap();
    let dir = DataDir::open(parent.path(), &name("alpha")).unwrap();
    let (_, disk, done) = start(&dir);
    write(&disk, &done, 1, vec![entry(0)]);
    disk.stop();
    drop(dir);
    let node = parent.path().join("node.json");
    for text in ["", "{", r#"{"format": 1}"#] {
        fs::write(&node, text).unwrap();
        let error = DataDir::open(parent.path(), &name("alpha")).unwrap_err();
        assert_eq!(error.exit_class(), ExitClass::Damaged, "{error}");
        assert!(error.to_string().contains("node.json"), "{error}");
    }
    fs::remove_file(&node).unwrap();
    let error = DataDir::open(parent.path(), &name("alpha")).unwrap_err();
    assert_eq!(error.exit_class(), ExitClass::Damaged, "{error}");
}

#[test]
fn what_the_system_refuses_is_named_by_path_and_cause() {
    let parent = TempDir::new().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let error = DataDir::open(&file.join("data"), &name("alpha")).unwrap_err();
    assert_eq!(error.exit_class(), ExitClass::Environment);
    let text = error.to_string();
    assert!(text.contains("file") && text.contains("Not a directory"), "{text}");
}

#[test]
fn what_was_completed_is_there_after_the_next_start() {
    let parent = TempDir::new().unwrap();
    let mut next = 0;
    for _ in 0..5 {
        let dir = DataDir::open(parent.path(), &name("alpha")).unwrap();
        let (recovered, disk, done) = start(&dir);
        assert_eq!(recovered.entries.len() as u64, next);
        assert!(next == 0 || recovered.vote == Some(Bytes::from_static(b"vote")));
        for _ in 0..10 {
            let batch = vec![entry(next), Record::Vote(Bytes::from_static(b"vote"))];
            write(&disk, &done, next, batch);
            next += 1;
        }
        disk.stop();
    }
}

#[test]
fn groups_that_wait_are_completed_in_order() {
    let parent = TempDir::new().unwrap();
    let dir = DataDir::open(parent.path(), &name("alpha")).unwrap();
    let (_, disk, done) = start(&dir);
    for write in 0..30 {
        disk.submit(WriteId(write), vec![entry(write)]).unwrap();
    }
    for write in 0..30 {
        let completion = done.recv().unwrap();
        assert_eq!(completion.write, WriteId(write));
        completion.result.unwrap();
    }
    disk.stop();
    let (recovered, _files) = dir.recover().unwrap();
    assert_eq!(recovered.entries.len(), 30);
}

/// The segments in a data directory, and where the data of the last one ends.
fn last_segment(dir: &DataDir) -> (PathBuf, usize) {
    let files = files_below(&dir.path().join("log"));
    let path = files.into_iter().rfind(|path| path.extension().unwrap() == "log").unwrap();
    let bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (path, end)
}

/// Writes into a file, over what is there.
fn overwrite(path: &Path, at: usize, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at as u64).unwrap();
}

#[test]
fn a_torn_end_is_cut_and_rot_before_it_is_refused() {
    let parent = TempDir::new().unwrap();
    let dir = DataDir::open(parent.path(), &name("alpha")).unwrap();
    let (_, disk, done) = start(&dir);
    write(&disk, &done, 1, vec![entry(0)]);
    write(&disk, &done, 2, vec![entry(1)]);
    disk.stop();
    let (segment, end) = last_segment(&dir);
    overwrite(&segment, end - 8, b"half a rec");
    let (recovered, files) = dir.recover().unwrap();
    assert_eq!(recovered.entries.len(), 2);
    assert_eq!(recovered.doubt.unwrap().next, LogIndex(2));
    drop(files);
    let (recovered, files) = dir.recover().unwrap();
    assert_eq!((recovered.entries.len(), recovered.doubt.unwrap().len), (2, 10));
    drop(files);

    let whole = fs::read(&segment).unwrap();
    overwrite(&segment, end / 2, &[whole[end / 2] ^ 1]);
    let error = dir.recover().unwrap_err();
    assert_eq!(error.exit_class(), ExitClass::Damaged);
    assert!(error.to_string().contains("log segment 1 is damaged at byte"), "{error}");
}

fn count(dir: &DataDir, extension: &str) -> usize {
    let files = files_below(&dir.path().join("log")).into_iter();
    files.filter(|path| path.extension().unwrap() == extension).count()
}

#[test]
fn segments_are_made_ahead_of_time_and_used_again() {
    let parent = TempDir::new().unwrap();
    let dir = DataDir::open(parent.path(), &name("alpha")).unwrap();
    let limits = LogLimits { segment_len: 4_096, ..LogLimits::default() };
    let dir = dir.with_log_limits(limits);
    let (_, mut files) = dir.recover().unwrap();
    let mut most = 0;
    for index in 0..2_000 {
        files.write(&[entry(index)]).unwrap();
        if index % 100 == 99 {
            let upto = LogIndex(index - 10);
            files.write(&[Record::Purge { upto, body: Bytes::new() }]).unwrap();
        }
        files.prepare();
        most = most.max(count(&dir, "spare"));
        let (segment, end) = last_segment(&dir);
        assert!(fs::metadata(segment).unwrap().len() >= end as u64);
    }
    assert_eq!(most, 2);
    assert!(count(&dir, "log") < 6);
    drop(files);
    let snapshots = Fixture::start(&dir);
    snapshots.build(1_990);
    let dir = dir.with_log_limits(LogLimits { spare_segments: 1, ..limits });
    let (recovered, _files) = dir.recover().unwrap();
    assert_eq!(recovered.entries.last().unwrap().0, LogIndex(1_999));
    assert_eq!(count(&dir, "spare"), 1);
}

#[test]
fn a_segment_is_as_long_as_it_will_get_from_the_start() {
    let parent = TempDir::new().unwrap();
    let dir = DataDir::open(parent.path(), &name("alpha")).unwrap();
    let (_, mut files) = dir.recover().unwrap();
    files.write(&[entry(0)]).unwrap();
    let (segment, _) = last_segment(&dir);
    let before = fs::metadata(&segment).unwrap().len();
    (1..100).for_each(|index| files.write(&[entry(index)]).unwrap());
    assert_eq!(fs::metadata(&segment).unwrap().len(), before);
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let parent = TempDir::new().unwrap();
    drop(DataDir::open(parent.path(), &name("alpha")).unwrap());
    let left = ["node.json.tmp", "snapshots/00000000000000000009.snap.tmp"];
    for file in left {
        fs::write(parent.path().join(file), "half").unwrap();
    }
    let foreign = parent.path().join("notes.tmp");
    fs::write(&foreign, "not ours").unwrap();
    drop(DataDir::open(parent.path(), &name("alpha")).unwrap());
    assert!(foreign.exists());
    assert!(left.iter().all(|file| !parent.path().join(file).exists()));
}

#[test]
fn an_error_of_the_disk_is_reported_once_and_is_final() {
    let parent = TempDir::new().unwrap();
    let dir = DataDir::open(parent.path(), &name("alpha")).unwrap();
    let (_, disk, done) = start(&dir);
    fs::remove_dir(parent.path().join("log")).unwrap();
    disk.submit(WriteId(1), vec![entry(0)]).unwrap();
    let error = done.recv().unwrap().result.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("log"), "{error}");
    assert!(done.recv().is_err(), "the thread has ended");
    assert_eq!(disk.submit(WriteId(2), vec![entry(0)]), Err(DiskStopped));
}
