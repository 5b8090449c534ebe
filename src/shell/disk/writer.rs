//! The thread that writes: [`Disk`].

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use bytes::Bytes;

use super::files::LogFiles;
use crate::codec::record::{Record, Snapshot};
use crate::id::{LogIndex, WriteId};

/// The most groups that may wait. A node has one in flight, so more is a fault of the caller.
const WAITING_MAX: usize = 64;

/// How long a log is idle before it is sealed, so that damage after it is never taken for a crash.
const SEAL_AFTER: Duration = Duration::from_millis(100);

/// A snapshot that is yet to be encoded, on the disk's thread, since that may take long.
pub struct SnapshotSource {
    /// What it covers.
    pub meta: Bytes,
    /// The last entry that it covers.
    pub index: LogIndex,
    /// Gives the state as bytes.
    pub encode: Box<dyn FnOnce() -> Bytes + Send>,
}

impl fmt::Debug for SnapshotSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotSource").field("index", &self.index).finish_non_exhaustive()
    }
}

/// A write is done, or never will be.
#[derive(Debug)]
pub struct Completion {
    /// Which write.
    pub write: WriteId,
    /// The bytes of its snapshot, if it had one; or why nothing can be written any more.
    pub result: io::Result<Option<Bytes>>,
}

/// The disk does not take the write: its thread has stopped after an error that it reported, or
/// too many writes wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disk takes no more writes")]
pub struct DiskStopped;

/// The thread that owns the files of the log. It ends when this is dropped and what waits is done.
#[derive(Debug)]
pub struct Disk {
    sender: SyncSender<Group>,
    thread: JoinHandle<()>,
}

/// What is made durable as one.
#[derive(Debug)]
struct Group {
    write: WriteId,
    batch: Vec<Record>,
    snapshot: Option<SnapshotSource>,
}

impl Disk {
    /// Starts the thread. It calls `done` for each write, in the order in which they came; after a
    /// failed one it never calls it again.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(files: LogFiles, done: Box<dyn Fn(Completion) + Send>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let writer = Writer { files, receiver, done, next: None, unsealed: Unsealed::Nothing };
        let thread = Builder::new().name("cronclave-disk".into()).spawn(|| writer.run())?;
        Ok(Self { sender, thread })
    }

    /// Hands over a write: its snapshot, if any, and then its records become durable, after all
    /// writes before.
    ///
    /// # Errors
    /// If the thread has stopped, or too many writes wait.
    pub fn submit(
        &self,
        write: WriteId,
        batch: Vec<Record>,
        snapshot: Option<SnapshotSource>,
    ) -> Result<(), DiskStopped> {
        self.sender.try_send(Group { write, batch, snapshot }).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => DiskStopped,
        })
    }

    /// Waits until everything that was handed over is done and the files are closed.
    pub fn stop(self) {
        drop(self.sender);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// What the thread owns.
struct Writer {
    files: LogFiles,
    receiver: Receiver<Group>,
    done: Box<dyn Fn(Completion) + Send>,
    /// A group that came while another was gathered and could not join it.
    next: Option<Group>,
    unsealed: Unsealed,
}

/// Whether anything was written since the last seal.
#[derive(Debug)]
enum Unsealed {
    Nothing,
    Something,
    /// The seal failed, which the next write will hear.
    Failed(io::Error),
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.receive() {
            if let Unsealed::Failed(error) = self.unsealed {
                (self.done)(Completion { write: first.write, result: Err(error) });
                return;
            }
            let groups = self.gather(first);
            if !self.write(groups) {
                return;
            }
            self.unsealed = Unsealed::Something;
        }
    }

    /// Waits for a group; seals the log meanwhile. `None` when no more will come.
    fn receive(&mut self) -> Option<Group> {
        if let Some(group) = self.next.take() {
            return Some(group);
        }
        match self.unsealed {
            Unsealed::Something => match self.receiver.recv_timeout(SEAL_AFTER) {
                Ok(group) => Some(group),
                Err(RecvTimeoutError::Disconnected) => {
                    self.seal();
                    None
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.seal();
                    self.receiver.recv().ok()
                }
            },
            Unsealed::Nothing | Unsealed::Failed(_) => self.receiver.recv().ok(),
        }
    }

    fn seal(&mut self) {
        self.unsealed = match self.files.seal() {
            Ok(()) => Unsealed::Nothing,
            Err(error) => Unsealed::Failed(error),
        };
    }

    /// Adds to `first` what waits. A group with a snapshot stays alone, since its snapshot comes
    /// before its records and after those of the groups before.
    fn gather(&mut self, first: Group) -> Vec<Group> {
        let mut groups = vec![first];
        while groups.len() < WAITING_MAX && groups[0].snapshot.is_none() {
            match self.receiver.try_recv() {
                Ok(group) if group.snapshot.is_none() => groups.push(group),
                Ok(group) => {
                    self.next = Some(group);
                    break;
                }
                Err(_) => break,
            }
        }
        groups
    }

    /// Makes `groups` durable and reports them; gives whether the disk still works.
    fn write(&mut self, groups: Vec<Group>) -> bool {
        let writes: Vec<WriteId> = groups.iter().map(|group| group.write).collect();
        let mut batch = Vec::new();
        let mut source = None;
        for group in groups {
            batch.extend(group.batch);
            source = source.or(group.snapshot);
        }
        let mut result = self.write_batch(&batch, source);
        for write in writes {
            let failed = result.is_err();
            let result = std::mem::replace(&mut result, Ok(None));
            (self.done)(Completion { write, result });
            if failed {
                return false;
            }
        }
        true
    }

    fn write_batch(
        &mut self,
        batch: &[Record],
        source: Option<SnapshotSource>,
    ) -> io::Result<Option<Bytes>> {
        let mut data = None;
        if let Some(SnapshotSource { meta, index, encode }) = source {
            let snapshot = Snapshot { meta, index, data: encode() };
            self.files.write_snapshot(&snapshot)?;
            data = Some(snapshot.data);
        }
        self.files.write(batch)?;
        Ok(data)
    }
}
