//! The thread that reads and writes snapshot files: [`Snapshots`].
//!
//! It does what it is told in order, and answers by [`SnapshotEvent`]s. A snapshot is built on a
//! thread of its own, since that may take long, and others go on reading meanwhile. None of it is
//! ever on the thread that writes the log.
//!
//! **Invariants**
//! - A snapshot is reported as built or installed when its file, its name and its history are
//!   synced.
//! - Without room on the disk, a snapshot that is being built waits, and one that comes in is
//!   dropped. Any other error of a write is final.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use bytes::Bytes;

use super::snapshot_files::{Blocks, Place, SnapshotFiles};
use crate::codec::snapshot::SnapshotFile;
use crate::consensus::{SnapshotDone, SnapshotSource, SnapshotTask, TaskId};
use crate::id::{ClusterId, LogIndex};

/// The most tasks that may wait. A node has a few for each follower, so more is a fault of the
/// caller.
const WAITING_MAX: usize = 1_024;

/// How long to wait before a snapshot that found no room on the disk is built again, looked at so
/// often in between whether the thread is to stop.
const FULL_PAUSE: (u32, Duration) = (20, Duration::from_millis(50));

/// What has become of a task.
#[derive(Debug)]
pub enum SnapshotEvent {
    /// It is done.
    Done {
        /// Which.
        id: TaskId,
        /// What came of it.
        done: SnapshotDone,
    },
    /// The disk failed. Nothing more is done.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// The thread takes no more tasks: it has stopped after an error that it reported,
/// or too many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread of the snapshots takes no more tasks")]
pub struct SnapshotsStopped;

/// Takes blocks of history, one after the other.
pub type PutBlock<'a> = &'a mut dyn FnMut(Bytes) -> io::Result<()>;

/// The history of executions, which goes into snapshots and comes out of them.
pub trait History: Send + Sync {
    /// Makes everything durable that was handed over before the entry `index` or for it, and gives
    /// all blocks of the history to `put`. Gives the last entry whose changes are in them: `index`,
    /// or a later one.
    ///
    /// # Errors
    /// That of `put`, which ends it; or if the history cannot be read.
    fn export(&self, index: LogIndex, put: PutBlock<'_>) -> io::Result<Option<LogIndex>>;

    /// Puts the blocks of a snapshot in the place of the history, durably.
    ///
    /// # Errors
    /// [`ErrorKind::StorageFull`] if the disk has no room for them, and then nothing has changed;
    /// or if it cannot be done.
    fn replace(&self, blocks: Blocks) -> io::Result<()>;
}

type Report = Arc<dyn Fn(SnapshotEvent) + Send + Sync>;

/// The thread that owns the snapshot files. It ends when it is told to stop, or after an error that
/// it reported.
pub struct Snapshots {
    sender: SyncSender<Command>,
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

enum Command {
    Task(TaskId, SnapshotTask),
    SetCluster(ClusterId),
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").finish_non_exhaustive()
    }
}

impl Snapshots {
    /// Starts the thread. It calls `report` for each task that is answered.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(
        files: SnapshotFiles,
        history: Arc<dyn History>,
        report: Arc<dyn Fn(SnapshotEvent) + Send + Sync>,
    ) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            files,
            history,
            receiver,
            report,
            stop: Arc::clone(&stop),
            builds: Vec::new(),
        };
        let thread = Builder::new().name("cronclave-snapshots".into()).spawn(|| worker.run())?;
        Ok(Self { sender, thread, stop })
    }

    /// Hands over a task.
    ///
    /// # Errors
    /// If the thread has stopped, or too many tasks wait.
    pub fn submit(&self, id: TaskId, task: SnapshotTask) -> Result<(), SnapshotsStopped> {
        self.send(Command::Task(id, task))
    }

    /// The node belongs to this cluster, which is written into its snapshots from here on.
    ///
    /// # Errors
    /// If the thread has stopped.
    pub fn set_cluster(&self, cluster: ClusterId) -> Result<(), SnapshotsStopped> {
        self.send(Command::SetCluster(cluster))
    }

    /// Waits until everything that was handed over is done, and the history is stopped by
    /// `stop_history`. A snapshot that is being built is given up.
    pub fn stop(self, stop_history: impl FnOnce()) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.sender);
        // The thread may wait for it.
        stop_history();
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn send(&self, command: Command) -> Result<(), SnapshotsStopped> {
        self.sender.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => SnapshotsStopped,
        })
    }
}

/// What the thread owns.
struct Worker {
    files: SnapshotFiles,
    history: Arc<dyn History>,
    receiver: Receiver<Command>,
    report: Report,
    stop: Arc<AtomicBool>,
    builds: Vec<JoinHandle<()>>,
}

impl Worker {
    fn run(mut self) {
        while let Ok(command) = self.receiver.recv() {
            let done = match command {
                Command::Task(id, task) => self.perform(id, task),
                Command::SetCluster(cluster) => {
                    self.files.set_cluster(cluster);
                    Ok(())
                }
            };
            if let Err(error) = done {
                (self.report)(SnapshotEvent::Failed { reason: error.to_string() });
                break;
            }
        }
        self.stop.store(true, Ordering::Relaxed);
        for build in self.builds {
            // One that unwound has said so.
            drop(build.join());
        }
    }

    fn build(&mut self, id: TaskId, source: SnapshotSource) -> io::Result<()> {
        self.builds.retain(|build| !build.is_finished());
        let build = Build {
            id,
            place: self.files.place().clone(),
            source,
            history: Arc::clone(&self.history),
            stop: Arc::clone(&self.stop),
            outcome: Outcome { report: Arc::clone(&self.report), event: None },
        };
        let thread = Builder::new().name("cronclave-build".into());
        self.builds.push(thread.spawn(|| build.run())?);
        Ok(())
    }

    fn perform(&mut self, id: TaskId, task: SnapshotTask) -> io::Result<()> {
        let done = match task {
            SnapshotTask::Build(source) => return self.build(id, source),
            SnapshotTask::Read { file, offset, len } => {
                let read = self.files.read(file, offset, len);
                if let Err(error) = &read {
                    tracing::warn!(%error, "a snapshot cannot be read");
                }
                SnapshotDone::Read(read.ok())
            }
            SnapshotTask::Close { file } => {
                self.files.close(file);
                return Ok(());
            }
            SnapshotTask::Receive { file, offset, data } => {
                SnapshotDone::Received(match self.files.receive(file, offset, &data) {
                    Ok(()) => Ok(()),
                    // Parts that were on their way when one found no room.
                    Err(error) if error.kind() == ErrorKind::InvalidInput || is_full(&error) => {
                        Err(error.to_string())
                    }
                    Err(error) => return Err(error),
                })
            }
            SnapshotTask::Verify { file, meta, restore } => {
                let verified = match self.files.verify(file) {
                    Ok(read) if read.meta == meta => {
                        restore.decode(&read.data).map_err(|error| error.to_string())
                    }
                    Ok(_) => Err("it covers something else than was announced".to_owned()),
                    Err(reason) => Err(reason),
                };
                if verified.is_err() {
                    self.files.discard(file)?;
                }
                SnapshotDone::Verified(verified)
            }
            SnapshotTask::Install { file } => {
                self.files.install(file)?;
                if !self.replace_history(file)? {
                    return Ok(());
                }
                SnapshotDone::Installed
            }
            SnapshotTask::Discard { file } => return self.files.discard(file),
        };
        (self.report)(SnapshotEvent::Done { id, done });
        Ok(())
    }
}

impl Worker {
    /// Waits for room if there is none. False if the thread is to stop before: the next start does
    /// it then.
    fn replace_history(&self, file: SnapshotFile) -> io::Result<bool> {
        loop {
            match self.history.replace(self.files.place().history(file)?) {
                Ok(()) => return Ok(true),
                Err(_) if self.stop.load(Ordering::Relaxed) => return Ok(false),
                Err(error) if is_full(&error) => {
                    tracing::warn!(%error, "no room for the history in a snapshot");
                    pause(&self.stop);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// One snapshot that is being built, on its own thread.
struct Build {
    id: TaskId,
    place: Place,
    source: SnapshotSource,
    history: Arc<dyn History>,
    stop: Arc<AtomicBool>,
    outcome: Outcome,
}

/// Reports how a build has ended, however it did.
struct Outcome {
    report: Report,
    /// What is to be reported; nothing yet means that the thread unwinds.
    event: Option<Option<SnapshotEvent>>,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        let unwound = || {
            let reason = "the thread that builds a snapshot has unwound".to_owned();
            Some(SnapshotEvent::Failed { reason })
        };
        if let Some(event) = self.event.take().unwrap_or_else(unwound) {
            (self.report)(event);
        }
    }
}

impl Build {
    fn run(mut self) {
        self.outcome.event = loop {
            match self.attempt() {
                Ok(file) => {
                    let done = SnapshotDone::Built(file);
                    break Some(Some(SnapshotEvent::Done { id: self.id, done }));
                }
                Err(_) if self.is_stopped() => break Some(None),
                Err(error) if is_full(&error) => {
                    tracing::warn!(%error, "no room for a snapshot; the log grows until there is");
                    pause(&self.stop);
                }
                Err(error) => {
                    break Some(Some(SnapshotEvent::Failed { reason: error.to_string() }));
                }
            }
        };
    }

    fn attempt(&self) -> io::Result<SnapshotFile> {
        let Self { id, place, source, history, .. } = self;
        place.build(id.0, source, &mut |put| {
            history.export(source.index, &mut |block| {
                if self.is_stopped() {
                    return Err(io::Error::from(ErrorKind::Interrupted));
                }
                put(block)
            })
        })
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Waits before a full disk is tried again, or until the thread is to stop.
fn pause(stop: &AtomicBool) {
    let (times, pause) = FULL_PAUSE;
    for _ in 0..times {
        if !stop.load(Ordering::Relaxed) {
            std::thread::sleep(pause);
        }
    }
}

/// Whether an error says that the disk has no room.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
