use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use tempfile::TempDir;

use super::snapshot_tests::Fixture;
use super::*;
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
    let done = Box::new(move |completion| sender.send(completion).unwrap());
    (recovered, Disk::start(files, done).unwrap(), receiver)
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

#[test]
fn a_torn_end_is_cut_and_rot_before_it_is_refused() {
    let parent = TempDir::new().unwrap();
    let dir = DataDir::open(parent.path(), &name("alpha")).unwrap();
    let (_, disk, done) = start(&dir);
    write(&disk, &done, 1, vec![entry(0)]);
    write(&disk, &done, 2, vec![entry(1)]);
    disk.stop();
    let segment = files_below(&parent.path().join("log")).remove(0);
    let whole = fs::read(&segment).unwrap();
    fs::write(&segment, [&whole[..], b"half a rec"].concat()).unwrap();
    let (recovered, files) = dir.recover().unwrap();
    assert_eq!(recovered.entries.len(), 2);
    drop(files);
    assert_eq!(fs::read(&segment).unwrap(), whole);

    let mut rotten = whole;
    let middle = rotten.len() / 2;
    rotten[middle] ^= 1;
    fs::write(&segment, rotten).unwrap();
    let error = dir.recover().unwrap_err();
    assert_eq!(error.exit_class(), ExitClass::Damaged);
    assert!(error.to_string().contains("log segment 1 is damaged at byte"), "{error}");
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
