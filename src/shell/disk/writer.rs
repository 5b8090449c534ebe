//! The thread that writes: [`Disk`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::log_files::{LogFiles, WriteError};
use crate::codec::record::Record;
use crate::id::{ClusterId, WriteId};

/// The most groups that may wait. A node has one in flight, so more is a fault of the caller.
const WAITING_MAX: usize = 64;

/// How long a log is idle before it is sealed, so that damage after it is never taken for a crash.
const SEAL_AFTER: Duration = Duration::from_millis(100);

/// How long a full disk is left alone before a group is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(200);

/// What the disk tells.
#[derive(Debug)]
pub enum DiskEvent {
    /// A write is done, or never will be.
    Written(Completion),
    /// There is no space: nothing is lost, and nothing more becomes durable. Said once, until
    /// [`DiskEvent::Free`].
    Full {
        /// Where, and how many bytes are needed, for people.
        reason: String,
    },
    /// There is space again. The writes that waited are done.
    Free,
}

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
    sender: SyncSender<Order>,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What the thread is asked to do.
#[derive(Debug)]
enum Order {
    Write(Group),
    Cluster(ClusterId),
}

/// What is made durable as one.
#[derive(Debug)]
struct Group {
    write: WriteId,
    batch: Vec<Record>,
}

impl Disk {
    /// Starts the thread. It calls `tell` for each write, in the order in which they came, and when
    /// the disk is full or free again; after a failed write it never calls it again.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(files: LogFiles, tell: Box<dyn Fn(DiskEvent) + Send>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let stopping = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            files,
            receiver,
            tell,
            stopping: Arc::clone(&stopping),
            waiting: None,
            failed: None,
            space: Space::Free,
        };
        let thread = Builder::new().name("cronclave-disk".into()).spawn(|| writer.run())?;
        Ok(Self { sender, stopping, thread })
    }

    /// Hands over a write: its records become durable, after all writes before.
    ///
    /// # Errors
    /// If the thread has stopped, or too many writes wait.
    pub fn submit(&self, write: WriteId, batch: Vec<Record>) -> Result<(), DiskStopped> {
        self.order(Order::Write(Group { write, batch }))
    }

    /// Says that the node is a member of `cluster`, for the segments that begin after this.
    ///
    /// # Errors
    /// If the thread has stopped, or too many writes wait.
    pub fn set_cluster(&self, cluster: ClusterId) -> Result<(), DiskStopped> {
        self.order(Order::Cluster(cluster))
    }

    fn order(&self, order: Order) -> Result<(), DiskStopped> {
        self.sender.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => DiskStopped,
        })
    }

    /// Waits until everything that was handed over is done and the files are closed. What a full
    /// disk has no space for is given up.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        drop(self.sender);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// What the thread owns.
struct Writer {
    files: LogFiles,
    receiver: Receiver<Order>,
    tell: Box<dyn Fn(DiskEvent) + Send>,
    /// Whether nobody waits any more for space on a full disk.
    stopping: Arc<AtomicBool>,
    /// The group that came last.
    waiting: Option<Group>,
    /// Why the log could not be sealed, which the next write will hear.
    failed: Option<io::Error>,
    space: Space,
}

/// Whether the disk has space, as far as was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    Free,
    Full,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    On,
    /// Nobody waits for it any more, or the disk failed.
    No,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.receive() {
            if let Some(error) = self.failed.take() {
                let (write, result) = (first.write, Err(error));
                (self.tell)(DiskEvent::Written(Completion { write, result }));
                return;
            }
            let groups = self.gather(first);
            if self.write(groups) == Goes::No {
                return;
            }
        }
    }

    /// Waits for a group; gets the log ready for what may come meanwhile. `None` when no more will
    /// come.
    fn receive(&mut self) -> Option<Group> {
        loop {
            if let Some(group) = self.waiting.take() {
                return Some(group);
            }
            let order = match self.receiver.try_recv() {
                Ok(order) => order,
                Err(_) => self.receive_idle()?,
            };
            self.take(order);
        }
    }

    /// Waits for an order while there is nothing else to do.
    fn receive_idle(&mut self) -> Option<Order> {
        self.files.prepare();
        if self.files.is_sealed() || self.failed.is_some() {
            return self.receiver.recv().ok();
        }
        match self.receiver.recv_timeout(SEAL_AFTER) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Disconnected) => {
                self.seal();
                None
            }
            Err(RecvTimeoutError::Timeout) => {
                self.seal();
                self.receiver.recv().ok()
            }
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Write(group) => self.waiting = Some(group),
            Order::Cluster(cluster) => self.files.set_cluster(cluster),
        }
    }

    fn seal(&mut self) {
        match self.files.seal() {
            // Without space it is done before the next write, which will hear of it.
            Ok(()) | Err(WriteError::Full(_)) => {}
            Err(WriteError::Failed(error)) => self.failed = Some(error),
        }
    }

    /// Adds to `first` what waits.
    fn gather(&mut self, first: Group) -> Vec<Group> {
        let mut groups = vec![first];
        while groups.len() < WAITING_MAX
            && let Ok(order) = self.receiver.try_recv()
        {
            self.take(order);
            groups.extend(self.waiting.take());
        }
        groups
    }

    /// Makes `groups` durable and reports them.
    fn write(&mut self, groups: Vec<Group>) -> Goes {
        let writes: Vec<WriteId> = groups.iter().map(|group| group.write).collect();
        let batch: Vec<Record> = groups.into_iter().flat_map(|group| group.batch).collect();
        let mut result = match self.write_batch(&batch) {
            Ok(Goes::On) => Ok(()),
            Ok(Goes::No) => return Goes::No,
            Err(error) => Err(error),
        };
        for write in writes {
            let failed = result.is_err();
            let result = std::mem::replace(&mut result, Ok(()));
            (self.tell)(DiskEvent::Written(Completion { write, result }));
            if failed {
                return Goes::No;
            }
        }
        Goes::On
    }

    fn write_batch(&mut self, batch: &[Record]) -> io::Result<Goes> {
        let mut written = self.files.write(batch);
        loop {
            match written {
                Ok(()) => break,
                Err(WriteError::Failed(error)) => return Err(error),
                Err(WriteError::Full(reason)) => {
                    if self.wait_for_space(reason) == Goes::No {
                        return Ok(Goes::No);
                    }
                }
            }
            written = self.files.go_on();
        }
        if self.space == Space::Full {
            self.space = Space::Free;
            (self.tell)(DiskEvent::Free);
        }
        Ok(Goes::On)
    }

    /// Says that the disk is full, if that is new, and lets it be for a while.
    fn wait_for_space(&mut self, reason: String) -> Goes {
        if self.space == Space::Free {
            self.space = Space::Full;
            (self.tell)(DiskEvent::Full { reason });
        }
        std::thread::sleep(FULL_PAUSE);
        // If the process ends, so does the group: nobody was told that it is durable.
        if self.stopping.load(Ordering::Relaxed) { Goes::No } else { Goes::On }
    }
}
