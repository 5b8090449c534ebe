//! What the archive's thread does: [`Worker`].

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use super::ArchiveEvent;
use super::queue::{Blocks, Command, Next, Pause, Queue, READS_MAX};
use super::space::{Room, Space};
use crate::id::{LogIndex, RequestId};
use crate::jobs::history::change::{Change, Query};
use crate::jobs::history::store::{HistoryError, ROW_OVERHEAD, Store, View};

/// How long nothing has to come until what was carried out is made durable.
const COMMIT_AFTER: Duration = Duration::from_secs(1);

/// After about this many bytes of changes they are made durable at once, so that little of the log
/// has to be carried out again, and the database can use its space again.
const COMMIT_LEN: u64 = 16 << 20;

/// How long to wait until a full disk is asked again.
const FULL_PAUSE: Duration = Duration::from_millis(200);

/// How many bytes the database writes at most for a byte of a change, and for any group of them:
/// the pages above each row are written anew.
const WRITTEN_PER_BYTE: u64 = 4;
const WRITTEN_PER_GROUP: u64 = 1 << 20;

/// Whether the thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    End,
}

/// What the thread owns.
pub(super) struct Worker {
    store: Store,
    space: Space,
    queue: Arc<Queue>,
    report: Box<dyn Fn(ArchiveEvent) + Send>,
    /// About how many bytes of changes are not durable.
    uncommitted: u64,
}

impl Worker {
    pub(super) fn new(
        store: Store,
        space: Space,
        queue: Arc<Queue>,
        report: Box<dyn Fn(ArchiveEvent) + Send>,
    ) -> Self {
        Self { store, space, queue, report, uncommitted: 0 }
    }

    pub(super) fn run(mut self) {
        match self.work() {
            // Who waits for what is left in the queue learns that it will not be done.
            Ok(()) => self.queue.stop(),
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn work(&mut self) -> Result<(), HistoryError> {
        loop {
            let patience = (self.store.durable() != self.store.upto()).then_some(COMMIT_AFTER);
            match self.queue.next(patience) {
                Next::Command(Command::Apply { upto, changes }) => {
                    if self.wait_for_room(len_of(&changes))? == Flow::End {
                        return Ok(());
                    }
                    self.apply(upto, &changes)?;
                }
                Next::Command(Command::Read { id, query }) => self.read(id, &query)?,
                Next::Command(Command::Refuse { id }) => {
                    self.refuse(id, format!("more than {READS_MAX} reads of executions wait"));
                }
                Next::Command(Command::View { upto, reply }) => {
                    if self.wait_for_room(0)? == Flow::End {
                        return Ok(());
                    }
                    // Who has stopped waiting has no use for it.
                    let _ = reply.send(Ok(self.view(upto)?));
                }
                Next::Command(Command::Replace { upto, blocks, len, reply }) => {
                    let done = self.replace(upto, blocks, len);
                    let failed = done.as_ref().err().filter(|error| ends(error));
                    let failed = failed.map(ToString::to_string);
                    // Who has stopped waiting has no use for it.
                    let _ = reply.send(done);
                    if let Some(reason) = failed {
                        return Err(HistoryError::Stopped(reason));
                    }
                }
                Next::Idle => self.commit()?,
                Next::Closed => {
                    self.commit()?;
                    return Ok(());
                }
            }
        }
    }

    fn apply(
        &mut self,
        upto: LogIndex,
        changes: &[(LogIndex, Change)],
    ) -> Result<(), HistoryError> {
        self.store.apply(upto, changes)?;
        (self.report)(ArchiveEvent::Kept { upto });
        self.uncommitted += len_of(changes);
        if self.uncommitted >= COMMIT_LEN { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), HistoryError> {
        self.store.commit()?;
        self.uncommitted = 0;
        Ok(())
    }

    /// Reads rows. What fails here fails for good, so the caller hears it as well.
    fn read(&self, id: RequestId, query: &Query) -> Result<(), HistoryError> {
        match self.store.page(query) {
            Ok(page) => {
                (self.report)(ArchiveEvent::Read { id, page: Ok(page) });
                Ok(())
            }
            Err(error) => {
                self.refuse(id, error.to_string());
                Err(error)
            }
        }
    }

    /// All changes up to `upto` were handed over before.
    fn view(&mut self, upto: LogIndex) -> Result<View, HistoryError> {
        self.store.apply(upto, &[])?;
        self.commit()?;
        self.store.view()
    }

    fn replace(&mut self, upto: LogIndex, blocks: Blocks, len: u64) -> Result<(), HistoryError> {
        let needed = len.saturating_mul(WRITTEN_PER_BYTE).saturating_add(WRITTEN_PER_GROUP);
        if let Room::Short(reason) = self.space.room(needed).map_err(HistoryError::Io)? {
            return Err(HistoryError::Io(io::Error::new(ErrorKind::StorageFull, reason)));
        }
        self.store.replace(upto, blocks.0)?;
        self.uncommitted = 0;
        Ok(())
    }

    fn refuse(&self, id: RequestId, reason: String) {
        (self.report)(ArchiveEvent::Read { id, page: Err(reason) });
    }

    /// Returns when `len` bytes of changes fit on the disk, or when no more will come: what is held
    /// then stays in the log. Until then reads are answered with the reason, since their pages
    /// could not show what is held.
    fn wait_for_room(&mut self, len: u64) -> Result<Flow, HistoryError> {
        let needed = len.saturating_mul(WRITTEN_PER_BYTE).saturating_add(WRITTEN_PER_GROUP);
        let mut told = false;
        loop {
            let reason = match self.space.room(needed).map_err(HistoryError::Io)? {
                Room::Enough => {
                    if told {
                        tracing::info!("the disk has room for the history of executions again");
                    }
                    return Ok(Flow::On);
                }
                Room::Short(reason) => reason,
            };
            if !told {
                tracing::warn!("the disk has no room for the history of executions: {reason}");
                told = true;
            }
            for id in self.queue.take_reads() {
                self.refuse(id, format!("the disk is full: {reason}"));
            }
            if self.queue.pause(FULL_PAUSE) == Pause::Closed {
                return Ok(Flow::End);
            }
        }
    }

    fn fail(&self, reason: String) {
        self.queue.stop();
        (self.report)(ArchiveEvent::Failed { reason });
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Whoever waits for an answer hears that there will be none.
        self.queue.stop();
        // The database unwinds on some damage.
        if std::thread::panicking() {
            self.fail("the thread that keeps the history of executions has unwound".into());
        }
    }
}

/// Whether the archive cannot go on after this error of a history that was to be put in its place.
fn ends(error: &HistoryError) -> bool {
    match error {
        HistoryError::Block(_) | HistoryError::NewerFormat { .. } => false,
        HistoryError::Io(error) => error.kind() != ErrorKind::StorageFull,
        HistoryError::Damaged(_) | HistoryError::Stopped(_) => true,
    }
}

/// About how many bytes the changes come to.
fn len_of(changes: &[(LogIndex, Change)]) -> u64 {
    let len = |change: &Change| match change {
        Change::Put(row) => ROW_OVERHEAD + (row.output.len() + row.reason.len()) as u64,
        Change::Forget(_) => ROW_OVERHEAD,
    };
    changes.iter().map(|(_, change)| len(change)).sum()
}
