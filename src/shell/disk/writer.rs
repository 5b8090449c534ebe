//! The thread that writes: [`Disk`].

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::files::LogFiles;
use crate::codec::record::Record;
use crate::id::WriteId;

/// The most groups that may wait. A node has one in flight, so more is a fault of the caller.
const WAITING_MAX: usize = 64;

/// How long a log is idle before it is sealed, so that damage after it is never taken for a crash.
const SEAL_AFTER: Duration = Duration::from_millis(100);

/// A write is done, or never will be.
#[derive(Debug)]
pub struct Completion {
    /// Which write.
    pub write: WriteId,
    /// Whether it is durable; or why nothing can be written any more.
    pub result: io::Result<()>,
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
}

impl Disk {
    /// Starts the thread. It calls `done` for each write, in the order in which they came; after a
    /// failed one it never calls it again.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(files: LogFiles, done: Box<dyn Fn(Completion) + Send>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let writer = Writer { files, receiver, done, unsealed: Unsealed::Nothing };
        let thread = Builder::new().name("cronclave-disk".into()).spawn(|| writer.run())?;
        Ok(Self { sender, thread })
    }

    /// Hands over a write: its records become durable, after all writes before.
    ///
    /// # Errors
    /// If the thread has stopped, or too many writes wait.
    pub fn submit(&self, write: WriteId, batch: Vec<Record>) -> Result<(), DiskStopped> {
        self.sender.try_send(Group { write, batch }).map_err(|error| match error {
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

    /// Adds to `first` what waits.
    fn gather(&mut self, first: Group) -> Vec<Group> {
        let mut groups = vec![first];
        while groups.len() < WAITING_MAX
            && let Ok(group) = self.receiver.try_recv()
        {
            groups.push(group);
        }
        groups
    }

    /// Makes `groups` durable and reports them; gives whether the disk still works.
    fn write(&mut self, groups: Vec<Group>) -> bool {
        let writes: Vec<WriteId> = groups.iter().map(|group| group.write).collect();
        let batch: Vec<Record> = groups.into_iter().flat_map(|group| group.batch).collect();
        let mut result = self.files.write(&batch);
        for write in writes {
            let failed = result.is_err();
            let result = std::mem::replace(&mut result, Ok(()));
            (self.done)(Completion { write, result });
            if failed {
                return false;
            }
        }
        true
    }
}
