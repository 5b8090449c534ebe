use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::channel;

use openraft::EntryPayload;
use tempfile::TempDir;

use super::*;
use crate::codec::encode;
use crate::consensus::types::Membership;
use crate::consensus::{Entry, LogId, Peer, Vote};
use crate::id::{Boot, Term, WriteId};
use crate::jobs::history::change::Limits;
use crate::shell::archive;
use crate::shell::disk::{DataDir, Disk, DiskEvent, ExitClass, Inspection};

const OLD: ClusterId = ClusterId(0xabc);

fn alpha() -> NodeName {
    NodeName::new("alpha").unwrap()
}

fn open(path: &Path) -> DataDir {
    DataDir::open(path, &alpha()).unwrap()
}

/// Writes `batch` as a node would.
fn write(dir: &DataDir, batch: Vec<Record>) {
    let (_, files) = dir.recover().unwrap();
    let (sender, receiver) = channel();
    let done = Box::new(move |event| sender.send(event).unwrap());
    let disk = Disk::start(files, done).unwrap();
    disk.submit(WriteId(1), batch).unwrap();
    let DiskEvent::Written(written) = receiver.recv().unwrap() else { panic!("there is space") };
    written.result.unwrap();
    disk.stop();
}

fn entry(index: u64, payload: EntryPayload<crate::consensus::Payload, NodeId, Peer>) -> Record {
    let entry = Entry { log_id: LogId::new_term_index(1, index), payload };
    Record::Entry { index: LogIndex(index), term: Term(1), body: encode(&entry) }
}

/// The directory of a voter of three, whose log ends with entry 5; entry 3 is known committed.
fn member() -> TempDir {
    let parent = TempDir::new().unwrap();
    let mut dir = open(parent.path());
    let voters = BTreeSet::from([dir.id(), NodeId(1), NodeId(2)]);
    let peer = |id: &NodeId| (*id, Peer { name: format!("n{id}"), addr: "a:1".to_owned() });
    let members: BTreeMap<NodeId, Peer> = voters.iter().map(peer).collect();
    let membership = Membership::new(vec![voters], members).unwrap();
    let mut batch = rescue::rehome(&Recovered::default(), OLD);
    batch.push(Record::Vote(encode(&Vote::new_committed(1, NodeId(1)))));
    batch.push(entry(0, EntryPayload::Membership(membership)));
    batch.extend((1..=5).map(|index| entry(index, EntryPayload::Blank)));
    batch.push(Record::Committed(encode(&LogId::new_term_index(1, 3))));
    write(&dir, batch);
    dir.set_cluster(OLD).unwrap();
    parent
}

/// Every file with its content.
fn content(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(content(&path)),
            false => drop(files.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    files
}

fn segment(path: &Path) -> PathBuf {
    path.join("log/00000000000000000001.log")
}

fn damage(path: &Path, offset: usize) {
    let mut bytes = fs::read(segment(path)).unwrap();
    bytes[offset] ^= 1;
    fs::write(segment(path), bytes).unwrap();
}

fn inspect(path: &Path) -> Inspection {
    Inspection::read(path, Depth::Whole, |_| ()).unwrap()
}

#[test]
fn looking_changes_nothing_and_tells_what_is_there() {
    let dir = member();
    let path = dir.path();
    let before = content(path);
    let mut kinds = 0;
    let seen = Inspection::read(path, Depth::Summary, |_| kinds += 1).unwrap();
    assert_eq!(content(path), before);
    assert!(kinds >= 10, "{kinds}");
    let raft = seen.raft.as_ref().unwrap();
    let last = raft.last.unwrap();
    assert_eq!((raft.first, last.index, last.term), (Some(0), 5, 1));
    assert_eq!(raft.committed.unwrap().index, 3);
    assert_eq!(raft.voters.len(), 3);
    let [segment] = &seen.segments[..] else { panic!("{:?}", seen.segments) };
    assert_eq!((segment.first, segment.last, segment.entries), (Some(0), Some(5), 6));
    assert_eq!((segment.votes, segment.end), (1, "clean"));
    assert!(segment.sealed > 0 && segment.used <= segment.len, "{segment:?}");
    assert_eq!((seen.damage.len(), seen.repair, seen.used_by), (0, None, None));
    assert_eq!(seen.node.unwrap().cluster, Some(OLD.to_string()));
    let by_log = inspect(&path.join("log"));
    assert_eq!(by_log.path, path.display().to_string());
}

#[test]
fn a_directory_in_use_can_be_looked_at_and_not_changed() {
    let dir = member();
    let node = open(dir.path());
    let seen = inspect(dir.path());
    assert_eq!(seen.used_by, Some(std::process::id().to_string()));
    let error = Offline::open(dir.path()).unwrap_err();
    assert!(matches!(error, DataDirError::Locked { .. }), "{error}");
    drop(node);
    Offline::open(dir.path()).unwrap();
}

#[test]
fn no_directory_is_made_by_looking_for_one() {
    let parent = TempDir::new().unwrap();
    for path in [parent.path().join("none"), parent.path().to_owned()] {
        let error = Offline::open(&path).unwrap_err();
        assert!(error.to_string().contains("is no data directory"), "{error}");
        assert!(Inspection::read(&path, Depth::Summary, |_| ()).is_err());
    }
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn a_torn_end_is_no_damage_and_a_rotten_middle_is() {
    let dir = member();
    let path = dir.path();
    let used = usize::try_from(inspect(path).segments[0].used).unwrap();
    let whole = fs::read(segment(path)).unwrap();
    let mut torn = whole[..used].to_vec();
    torn.extend_from_slice(b"half a re");
    fs::write(segment(path), torn).unwrap();
    let seen = inspect(path);
    assert_eq!((seen.damage.len(), seen.torn.unwrap().offset), (0, Some(used as u64)));

    fs::write(segment(path), whole).unwrap();
    damage(path, 100);
    let seen = inspect(path);
    let [place] = &seen.damage[..] else { panic!("{:?}", seen.damage) };
    assert_eq!(place.segment, Some(1));
    assert!(place.offset.unwrap() <= 100);
    assert_eq!(seen.repair, Some(format!("cronclave log repair {}", path.display())));
    assert!(seen.raft.is_none());
}

#[test]
fn a_damaged_server_comes_back_as_a_new_one_of_its_cluster() {
    let dir = member();
    let path = dir.path();
    let old = open(path).id();
    damage(path, 100);
    let before = content(path);
    let error = open(path).recover().unwrap_err();
    let command = format!("`cronclave log repair {}`", path.display());
    assert!(error.to_string().contains(&command), "{error}");

    let offline = Offline::open(path).unwrap();
    let plan = RepairPlan::new(&offline, None).unwrap();
    assert_eq!((&plan.name, plan.cluster, plan.damage.len()), (&Some(alpha()), Some(OLD), 1));
    assert!(!plan.keeps_identity());
    let aside = plan.perform(offline, &alpha()).unwrap();
    assert_eq!(aside, path.join("damaged-1"));
    assert_eq!(
        fs::read(aside.join("log/00000000000000000001.log")).unwrap(),
        before[&segment(path)]
    );
    assert!(aside.join("node.json").is_file() && aside.join("snapshots").is_dir());

    let node = open(path);
    assert_ne!(node.id(), old);
    assert_eq!((node.boot(), node.cluster(), node.joins()), (Boot(1), None, Some(OLD)));
    let (recovered, files) = node.recover().unwrap();
    drop((files, node));
    assert_eq!(recovered, Recovered::default());
    let left: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name == "stage.tmp" || name == "moves.json"), "{left:?}");
}

#[test]
fn what_is_not_damaged_is_not_repaired_but_may_move_to_another_cluster() {
    let dir = member();
    let path = dir.path();
    let before = content(path);
    let offline = Offline::open(path).unwrap();
    for cluster in [None, Some(OLD)] {
        let error = RepairPlan::new(&offline, cluster).err().unwrap();
        assert!(matches!(error, ToolError::Refused(_)), "{error}");
    }
    drop(offline);
    let mut after = content(path);
    after.insert(path.join("lock"), before[&path.join("lock")].clone());
    assert_eq!(after, before);

    let offline = Offline::open(path).unwrap();
    let plan = RepairPlan::new(&offline, Some(ClusterId(9))).unwrap();
    assert_eq!((plan.old_cluster, plan.cluster), (Some(OLD), Some(ClusterId(9))));
    plan.perform(offline, &alpha()).unwrap();
    assert_eq!(open(path).joins(), Some(ClusterId(9)));
}

#[test]
fn a_node_without_raft_keeps_its_facts_when_it_moves() {
    let parent = TempDir::new().unwrap();
    let path = parent.path();
    let mut dir = open(path);
    let mut facts = rescue::rehome(&Recovered::default(), OLD);
    facts.extend(rescue::rehome(&Recovered::default(), OLD));
    write(&dir, facts);
    dir.set_cluster(OLD).unwrap();
    let (id, boot) = (dir.id(), dir.boot());
    drop(dir);
    let offline = Offline::open(path).unwrap();
    let plan = RepairPlan::new(&offline, Some(ClusterId(9))).unwrap();
    assert!(plan.keeps_identity());
    assert_eq!(plan.perform(offline, &alpha()).unwrap(), path.join("before-move-1"));
    let dir = open(path);
    assert_eq!((dir.id(), dir.boot()), (id, Boot(boot.0 + 1)));
    let (recovered, _files) = dir.recover().unwrap();
    assert_eq!(recovered.locals.len(), 3);
    assert_eq!(rescue::survey(&recovered).unwrap().cluster, Some(ClusterId(9)));
}

#[test]
fn a_lost_log_and_a_lost_name_are_damage() {
    let dir = member();
    let path = dir.path();
    fs::remove_dir_all(path.join("log")).unwrap();
    let error = open(path).recover().unwrap_err();
    assert_eq!(error.exit_class(), ExitClass::Damaged);
    assert!(error.to_string().contains("the log is empty"), "{error}");
    assert_eq!(inspect(path).damage.len(), 1);
    let offline = Offline::open(path).unwrap();
    RepairPlan::new(&offline, None).unwrap().perform(offline, &alpha()).unwrap();
    assert_eq!(open(path).joins(), Some(OLD));

    let dir = member();
    let path = dir.path();
    fs::write(path.join("node.json"), "{").unwrap();
    let offline = Offline::open(path).unwrap();
    let plan = RepairPlan::new(&offline, Some(OLD)).unwrap();
    assert_eq!((&plan.name, plan.damage.len()), (&None, 1));
    plan.perform(offline, &alpha()).unwrap();
    let node = open(path);
    assert_eq!((node.boot(), node.joins()), (Boot(1), Some(OLD)));
}

#[test]
fn a_recovery_keeps_the_log_and_changes_the_cluster() {
    let dir = member();
    let path = dir.path();
    let before = content(path);
    let offline = Offline::open(path).unwrap();
    let plan = RecoverPlan::new(&offline).unwrap();
    let cluster = plan.cluster;
    assert_eq!((plan.certain(), plan.last()), (Some(LogIndex(3)), Some(LogIndex(5))));
    assert_eq!((plan.old_cluster, &plan.name), (Some(OLD), &alpha()));
    // What an interrupted one has left beside is in nobody's way.
    fs::create_dir_all(path.join("stage.tmp/log")).unwrap();
    fs::write(path.join("stage.tmp/log/00000000000000000009.log"), "half").unwrap();
    let aside = plan.perform(offline).unwrap();
    let kept = fs::read(aside.join("log/00000000000000000001.log")).unwrap();
    assert_eq!(kept, before[&segment(path)]);

    let node = open(path);
    assert_eq!((node.boot(), node.cluster()), (Boot(2), Some(cluster)));
    let (recovered, files) = node.recover().unwrap();
    let id = node.id();
    drop((files, node));
    let survey = rescue::survey(&recovered).unwrap();
    assert_eq!((survey.cluster, survey.raft.voters), (Some(cluster), BTreeSet::from([id])));
    assert_eq!(recovered.entries.len(), 8);
    assert_eq!(survey.raft.committed, survey.raft.last);
    let again = RecoverPlan::new(&Offline::open(path).unwrap()).err().unwrap();
    assert!(again.to_string().contains("only voter"), "{again}");
}

#[test]
fn a_history_ahead_of_the_log_is_made_anew() {
    for (upto, is_kept) in [(5, true), (6, false)] {
        let dir = member();
        let path = dir.path();
        let (mut store, _) = archive::open(path, Limits::default()).unwrap();
        store.apply(LogIndex(upto), &[]).unwrap();
        store.commit().unwrap();
        drop(store);
        assert_eq!(inspect(path).history.unwrap().upto, Some(upto));
        let offline = Offline::open(path).unwrap();
        let aside = RecoverPlan::new(&offline).unwrap().perform(offline).unwrap();
        assert_eq!(path.join("history").exists(), is_kept, "{upto}");
        assert_eq!(aside.join("history").exists(), !is_kept, "{upto}");
    }
}

#[test]
fn a_recovery_needs_a_whole_log_of_a_member() {
    let dir = member();
    damage(dir.path(), 100);
    let error = RecoverPlan::new(&Offline::open(dir.path()).unwrap()).err().unwrap();
    assert!(matches!(error, ToolError::Damaged(_)), "{error}");

    let parent = TempDir::new().unwrap();
    drop(open(parent.path()));
    let error = RecoverPlan::new(&Offline::open(parent.path()).unwrap()).err().unwrap();
    assert!(matches!(error, ToolError::Rescue { .. }), "{error}");
}

#[test]
fn a_peers_file_lists_this_server_and_no_other() {
    let voter = |id: &str| format!(r#"{{"id":"{id}","address":"a:6868"}}"#);
    let learner = r#"{"id":"beta","address":"b:6868","non_voter":true}"#;
    let parse = |text: &str| PeersFile::parse(text.as_bytes(), &alpha());
    let right = Ok(PeersFile { address: "a:6868".to_owned() });
    assert_eq!(parse(&format!("[{}]", voter("alpha"))), right);
    assert_eq!(parse(&format!("[{learner},{}]", voter("alpha"))), right);
    for (text, said) in [
        ("{}".to_owned(), "expected"),
        ("[]".to_owned(), "no voter"),
        (format!("[{learner}]"), "no voter"),
        (format!("[{}]", voter("beta")), "lists the voter \"beta\""),
        (format!("[{},{}]", voter("alpha"), voter("beta")), "2 voters"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn a_newer_file_of_any_kind_is_refused_before_anything_is_changed() {
    let newer = |magic: &[u8], len: usize| {
        let mut bytes = vec![0; len];
        bytes[..8].copy_from_slice(magic);
        bytes[8] = 2;
        let check = crc32c::crc32c(&bytes[..len - 4]).to_le_bytes();
        bytes[len - 4..].copy_from_slice(&check);
        bytes
    };
    let log = newer(b"CRONCLOG", 64);
    let snapshot = newer(b"CRONSNAP", crate::codec::snapshot::HEADER_LEN);
    for (file, bytes) in [
        ("node.json", &b"{\"format\":2}"[..]),
        ("moves.json", &b"{\"format\":2}"[..]),
        ("log/00000000000000000001.log", &log[..]),
        ("snapshots/00000000000000000007.snap", &snapshot[..]),
    ] {
        let dir = member();
        let path = dir.path();
        fs::write(path.join(file), bytes).unwrap();
        let before = content(path);
        let by_node = DataDir::open(path, &alpha()).unwrap_err();
        let by_tool = Offline::open(path).unwrap_err();
        let by_look = Inspection::read(path, Depth::Whole, |_| ()).unwrap_err();
        for error in [by_node, by_tool, by_look] {
            let text = error.to_string();
            assert!(matches!(error, DataDirError::NewerFormat { found: 2, .. }), "{text}");
            assert_eq!(error.exit_class(), ExitClass::Environment);
            assert!(text.contains(file) && text.contains("format 2"), "{text}");
            assert!(text.contains("knows only 1"), "{text}");
        }
        assert_eq!(content(path), before, "{file}");
    }
}
