//! The archive's thread on real files.

#![expect(clippy::unwrap_in_result, reason = "a test fails by unwinding")]

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::id::{ExecutionId, JobName, Revision};
use crate::jobs::history::change::{Order, Select, Sort};
use crate::jobs::job::{Execution, Outcome, Trigger};
use crate::time::Wall;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn name() -> JobName {
    JobName::new("a").unwrap()
}

fn put(claim: u64) -> (LogIndex, Change) {
    let id = ExecutionId { claim: LogIndex(claim), slot: 0 };
    let at = Wall::from_secs(i64::try_from(claim).unwrap());
    let row = Execution {
        id,
        group: id,
        job: name(),
        job_created: LogIndex(0),
        revision: Revision(0),
        due: at,
        claimed_at: at,
        trigger: Trigger::Manual,
        node: None,
        attempt: 1,
        not_before: at,
        started_at: None,
        finished_at: Some(at),
        outcome: Outcome::Skipped,
        reason: String::new(),
        exit_code: None,
        output: Arc::from("text"),
        output_truncated: false,
    };
    (LogIndex(claim), Change::Put(Arc::new(row)))
}

fn newest_first() -> Query {
    let (sort, order) = (Sort::Id, Order::Descending);
    let select = Select::Part { sort, order, skip: 0, limit: 100, output_len_max: 100 };
    Query { job: name(), open: Vec::new(), select }
}

fn start(store: Store, space: Space) -> (Archive, Receiver<ArchiveEvent>) {
    let (sender, events) = channel();
    // A test that is over does not listen.
    let report = Box::new(move |event| drop(sender.send(event)));
    (Archive::start(store, space, report).unwrap(), events)
}

fn opened(dir: &TempDir) -> (Store, Space) {
    open(dir.path(), Limits::default()).unwrap()
}

/// The page that is reported next, after reports of changes that are carried out.
fn page(events: &Receiver<ArchiveEvent>) -> Result<Page, String> {
    loop {
        match events.recv_timeout(PATIENCE).unwrap() {
            ArchiveEvent::Kept { .. } => {}
            ArchiveEvent::Read { page, .. } => return page,
            ArchiveEvent::Failed { reason } => panic!("{reason}"),
        }
    }
}

fn claims(page: &Page) -> Vec<u64> {
    page.rows.iter().map(|row| row.id.claim.0).collect()
}

#[test]
fn a_page_shows_what_was_handed_over_before() {
    let dir = TempDir::new().unwrap();
    let (store, space) = opened(&dir);
    let (archive, events) = start(store, space);
    for round in 1..50 {
        archive.apply(LogIndex(round), vec![put(round)]).unwrap();
        archive.read(RequestId(round), newest_first()).unwrap();
    }
    for round in 1..50 {
        let page = page(&events).unwrap();
        assert!(page.total >= round, "{page:?}");
        assert_eq!(page.rows[0].id.claim, LogIndex(page.total));
    }
    archive.stop();
}

#[test]
fn what_was_handed_over_is_durable_after_a_stop() {
    let dir = TempDir::new().unwrap();
    let (store, space) = opened(&dir);
    let (archive, events) = start(store, space);
    for claim in 1..=10 {
        archive.apply(LogIndex(claim), vec![put(claim)]).unwrap();
    }
    archive.stop();
    let kept = events.iter().last().unwrap();
    assert_eq!(kept, ArchiveEvent::Kept { upto: LogIndex(10) });
    let (store, _) = opened(&dir);
    assert_eq!((store.durable(), store.rows()), (Some(LogIndex(10)), 10));
}

#[test]
fn an_idle_archive_makes_its_changes_durable() {
    let dir = TempDir::new().unwrap();
    let (store, space) = opened(&dir);
    let (archive, events) = start(store, space);
    archive.apply(LogIndex(1), vec![put(1)]).unwrap();
    events.recv_timeout(PATIENCE).unwrap();
    // What another process would find after a power cut.
    let path = dir.path().join(HISTORY_DIR).join(HISTORY_FILE);
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let copy = TempDir::new().unwrap();
        std::fs::create_dir(copy.path().join(HISTORY_DIR)).unwrap();
        std::fs::copy(&path, copy.path().join(HISTORY_DIR).join(HISTORY_FILE)).unwrap();
        if open(copy.path(), Limits::default()).is_ok_and(|(store, _)| store.rows() == 1) {
            break;
        }
        assert!(std::time::Instant::now() < end, "it is not durable");
        std::thread::yield_now();
    }
    archive.stop();
}

#[test]
fn a_full_disk_holds_changes_and_refuses_reads_until_there_is_room() {
    let dir = TempDir::new().unwrap();
    let (store, _) = opened(&dir);
    let full = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&full);
    let space = Space::new(move |_| {
        let full = asked.load(Ordering::SeqCst);
        Ok(if full { Room::Short("3 bytes are free".into()) } else { Room::Enough })
    });
    let (archive, events) = start(store, space);
    archive.apply(LogIndex(1), vec![put(1)]).unwrap();
    archive.read(RequestId(1), newest_first()).unwrap();
    assert_eq!(page(&events), Err("the disk is full: 3 bytes are free".into()));
    full.store(false, Ordering::SeqCst);
    assert_eq!(events.recv_timeout(PATIENCE), Ok(ArchiveEvent::Kept { upto: LogIndex(1) }));
    archive.read(RequestId(2), newest_first()).unwrap();
    assert_eq!(claims(&page(&events).unwrap()), [1]);
    archive.stop();
}

#[test]
fn a_full_disk_does_not_hinder_a_stop() {
    let dir = TempDir::new().unwrap();
    let (store, _) = opened(&dir);
    let space = Space::new(|_| Ok(Room::Short("0 bytes are free".into())));
    let (archive, events) = start(store, space);
    archive.apply(LogIndex(1), vec![put(1)]).unwrap();
    archive.stop();
    assert_eq!(events.iter().count(), 0);
    assert_eq!(opened(&dir).0.upto(), None, "the log has it");
}

#[test]
fn an_error_of_the_disk_is_reported_once_and_is_the_end() {
    let dir = TempDir::new().unwrap();
    let (store, _) = opened(&dir);
    let space = Space::new(|_| Err(io::Error::other("the disk is gone")));
    let (archive, events) = start(store, space);
    archive.apply(LogIndex(1), vec![put(1)]).unwrap();
    let failed = events.recv_timeout(PATIENCE).unwrap();
    let reason = "the disk failed: the disk is gone".to_owned();
    assert_eq!(failed, ArchiveEvent::Failed { reason });
    assert_eq!(archive.apply(LogIndex(2), Vec::new()), Err(ArchiveStopped));
    archive.stop();
    assert_eq!(events.iter().count(), 0);
}

#[test]
fn reads_that_are_too_many_are_refused() {
    let queue = Queue::default();
    for id in 0..=READS_MAX as u64 {
        queue.push(Command::Read { id: RequestId(id), query: newest_first() }).unwrap();
    }
    for _ in 0..READS_MAX {
        let next = queue.next(None);
        assert!(matches!(next, queue::Next::Command(Command::Read { .. })), "{next:?}");
    }
    let next = queue.next(None);
    assert!(matches!(next, queue::Next::Command(Command::Refuse { .. })), "{next:?}");
}

#[test]
fn changes_that_wait_become_one_command() {
    let queue = Queue::default();
    for claim in 1..=100 {
        queue.push(Command::Apply { upto: LogIndex(claim), changes: vec![put(claim)] }).unwrap();
    }
    let queue::Next::Command(Command::Apply { upto, changes }) = queue.next(None) else {
        panic!("the changes come first");
    };
    assert_eq!((upto, changes.len()), (LogIndex(100), 100));
    queue.close();
    assert!(matches!(queue.next(None), queue::Next::Closed));
}

#[test]
fn the_history_is_for_its_owner_alone() {
    let dir = TempDir::new().unwrap();
    drop(opened(&dir));
    let history = dir.path().join(HISTORY_DIR);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&history), mode(&history.join(HISTORY_FILE))), (0o700, 0o600));
}

#[test]
fn a_damaged_file_is_named_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    drop(opened(&dir));
    let path = dir.path().join(HISTORY_DIR).join(HISTORY_FILE);
    std::fs::write(&path, [7; 100_000]).unwrap();
    let error = open(dir.path(), Limits::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("{} is damaged: ", path.display())), "{text}");
    assert!(text.ends_with(REPAIR), "{text}");
}

#[test]
fn a_history_goes_from_one_archive_to_another() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (store, space) = opened(&dir);
    let (archive, _events) = start(store, space);
    for claim in 1..=20 {
        archive.apply(LogIndex(claim), vec![put(claim)]).unwrap();
    }
    // The entries after the last change had none.
    let view = archive.snapshots().view(LogIndex(25)).unwrap();
    archive.apply(LogIndex(26), vec![put(26)]).unwrap();
    let view = view.wait().unwrap();
    let mut blocks = Vec::new();
    view.export(&mut |block| {
        blocks.push(Ok(block));
        Ok(())
    })
    .unwrap();

    let (store, space) = opened(&other);
    let (target, events) = start(store, space);
    target.apply(LogIndex(3), vec![put(3)]).unwrap();
    let cut = vec![Ok(blocks[0].as_ref().unwrap().clone())];
    let error = target.snapshots().replace(LogIndex(25), 9, cut.into_iter()).unwrap_err();
    assert!(matches!(error, HistoryError::Block(_)), "{error}");
    target.read(RequestId(1), newest_first()).unwrap();
    assert_eq!(claims(&page(&events).unwrap()), [3], "it works on, as it was");
    target.snapshots().replace(LogIndex(25), 9, blocks.into_iter()).unwrap();
    target.read(RequestId(2), newest_first()).unwrap();
    assert_eq!(page(&events).unwrap().total, 20);
    archive.stop();
    let snapshots = target.snapshots();
    target.stop();
    assert!(snapshots.view(LogIndex(30)).is_err());
    assert_eq!(opened(&other).0.durable(), Some(LogIndex(25)));
}
