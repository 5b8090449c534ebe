//! The history of executions on a real disk, and the thread that keeps it: [`Archive`].
//!
//! | file | what |
//! |---|---|
//! | `history/history.redb` | the rows of ended executions, see [`Store`] |
//!
//! [`open`] opens the file below the data directory, which is locked. [`Archive::start`] gives it
//! to one thread, which does what it is told in order: it carries out changes, reads pages, and
//! answers by [`ArchiveEvent`]s. Changes that wait are carried out together, so a thread that falls
//! behind catches up. What is carried out is made durable when nothing is to be done, after much
//! was written, and when somebody asks for it; the log keeps the rest.
//!
//! A disk without room does not end the node. The thread looks for room before it writes, holds the
//! changes until there is some, and meanwhile answers reads with the reason; where the room that it
//! found is gone when the database writes, it waits. The node hands out only so much that is not
//! carried out, and stops making more.
//!
//! **Invariants**
//! - A page shows every change that was handed over before it was asked for.
//! - An error of the disk other than a lack of room is final: it is reported once, and the thread
//!   ends.

mod look;
mod patient;
mod queue;
mod space;
mod thread;

#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Builder, JoinHandle};

use bytes::Bytes;
use redb::backends::FileBackend;

pub use self::look::{Depth, Look, look};
use self::patient::{Patience, PatientFile};
pub use self::queue::{ArchiveStopped, READS_MAX};
use self::queue::{Command, Queue};
pub use self::space::{RESERVE_LEN, Room, Space};
use self::thread::Worker;
use crate::id::{LogIndex, RequestId};
use crate::jobs::history::change::{Change, Limits, Page, Query};
use crate::jobs::history::store::{HistoryError, Store, View};
use crate::shell::disk::{Blocks, ExitClass, HISTORY_DIR, History, PutBlock};

/// What the file of the history is called, in its directory.
pub const HISTORY_FILE: &str = "history.redb";

/// What the archive has done, or cannot do.
#[derive(Clone, Debug, PartialEq)]
pub enum ArchiveEvent {
    /// All changes up to and with this entry are carried out.
    Kept {
        /// The greatest `upto` that was carried out.
        upto: LogIndex,
    },
    /// The answer to a read.
    Read {
        /// Which read.
        id: RequestId,
        /// The rows, or why they could not be read.
        page: Result<Page, String>,
    },
    /// The disk failed, or what is on it is damaged. The thread has ended.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// Why the history cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The system refused something; the source names the path and the cause.
    #[error("data-dir cannot be used: {0}")]
    Io(#[source] io::Error),
    /// A newer version wrote it. No row was changed.
    #[error("{} has format {found}, this version knows only {known}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest one that this version reads.
        known: u32,
    },
    /// It is not what was written.
    #[error("{} is damaged: {reason}. {REPAIR}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl ArchiveError {
    /// What the exit code has to say.
    pub fn exit_class(&self) -> ExitClass {
        match self {
            Self::Io(_) | Self::NewerFormat { .. } => ExitClass::Environment,
            Self::Damaged { .. } => ExitClass::Damaged,
        }
    }
}

const REPAIR: &str = "Move this file away and start again: \
                      the history is then made anew from the newest snapshot and the log";

/// Opens the history below the data directory `data_dir`, which is locked, or makes an empty one.
/// The names of new files are durable when this returns.
///
/// # Errors
/// If the file is damaged or of a newer version, or cannot be read or written.
pub fn open(data_dir: &Path, limits: Limits) -> Result<(Store, Space), ArchiveError> {
    let dir = data_dir.join(HISTORY_DIR);
    let path = dir.join(HISTORY_FILE);
    let file = create(data_dir, &dir, &path).map_err(ArchiveError::Io)?;
    // The database unwinds on some damage. On a thread of its own that is an error like others.
    let patience = Patience::default();
    let space = Space::of_file(path.clone(), patience.clone());
    let opening = Builder::new().name("cronclave-archive".into()).spawn(move || {
        let backend = FileBackend::new(file).map_err(redb::Error::from)?;
        Store::open(PatientFile::new(backend, patience), limits)
    });
    let opened = opening.map_err(ArchiveError::Io)?.join();
    let damaged = |reason| ArchiveError::Damaged { path: path.clone(), reason };
    let store = match opened {
        Ok(Ok(store)) => store,
        Ok(Err(HistoryError::Io(error))) => return Err(ArchiveError::Io(at(&path, error))),
        Ok(Err(HistoryError::NewerFormat { found, known })) => {
            return Err(ArchiveError::NewerFormat { path, found, known });
        }
        Ok(Err(HistoryError::Damaged(reason))) => return Err(damaged(reason)),
        Ok(Err(error @ (HistoryError::Block(_) | HistoryError::Stopped(_)))) => {
            return Err(ArchiveError::Io(at(&path, io::Error::other(error))));
        }
        Err(_panic) => return Err(damaged("the database cannot go on with it".into())),
    };
    Ok((store, space))
}

/// The file of the history, made with its directory if there is none.
fn create(data_dir: &Path, dir: &Path, path: &Path) -> io::Result<File> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => sync_dir(data_dir)?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at(dir, error)),
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = file.open(path).map_err(|error| at(path, error))?;
    sync_dir(dir)?;
    Ok(file)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| at(path, error))
}

/// Names `path` in an error of the system, which does not.
fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The thread that owns the history. It ends when it is told to stop, or after an error that it
/// reported.
#[derive(Debug)]
pub struct Archive {
    queue: Arc<Queue>,
    patience: Patience,
    thread: JoinHandle<()>,
}

impl Archive {
    /// Starts the thread. It calls `report` with what it has done, in the order in which it was
    /// told to do it; after [`ArchiveEvent::Failed`] never again.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(
        store: Store,
        space: Space,
        report: Box<dyn Fn(ArchiveEvent) + Send>,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let patience = space.patience();
        patience.begin();
        let worker = Worker::new(store, space, Arc::clone(&queue), report);
        let thread = Builder::new().name("cronclave-archive".into()).spawn(|| worker.run())?;
        Ok(Self { queue, patience, thread })
    }

    /// Hands over what the entries up to `upto` do to the history. Answered by
    /// [`ArchiveEvent::Kept`].
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn apply(
        &self,
        upto: LogIndex,
        changes: Vec<(LogIndex, Change)>,
    ) -> Result<(), ArchiveStopped> {
        self.queue.push(Command::Apply { upto, changes })
    }

    /// Asks for rows. Answered by [`ArchiveEvent::Read`], with an error if more than [`READS_MAX`]
    /// reads wait.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn read(&self, id: RequestId, query: Query) -> Result<(), ArchiveStopped> {
        self.queue.push(Command::Read { id, query })
    }

    /// A handle for those who make snapshots of the history, or put one in its place.
    pub fn snapshots(&self) -> ArchiveSnapshots {
        ArchiveSnapshots { queue: Arc::clone(&self.queue) }
    }

    /// Waits until everything that was handed over is done and durable, and the file is closed.
    /// Changes that find no room on the disk are left to the log.
    pub fn stop(self) {
        self.queue.close();
        self.patience.end();
        if self.thread.join().is_err() {
            tracing::error!("the thread of the archive has unwound, as it has reported");
        }
    }
}

/// Makes snapshots of the history, and puts one in its place, from any thread.
#[derive(Clone, Debug)]
pub struct ArchiveSnapshots {
    queue: Arc<Queue>,
}

impl ArchiveSnapshots {
    /// Asks for the history as it is when everything that was handed over is carried out, the last
    /// of it that of the entry `upto`. Does not wait.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn view(&self, upto: LogIndex) -> Result<PendingView, ArchiveStopped> {
        let (reply, answer) = sync_channel(1);
        self.queue.push(Command::View { upto, reply })?;
        Ok(PendingView(answer))
    }

    /// Puts the blocks of the history up to `upto` in the place of the one that there is, whole or
    /// not at all, and waits until that is durable. They come to `len` bytes. See
    /// [`Store::replace`].
    ///
    /// # Errors
    /// As [`Store::replace`], with [`ErrorKind::StorageFull`] if they do not fit on the disk; or if
    /// the thread has ended. Only blocks that do not fit or are no history leave it at work.
    pub fn replace(
        &self,
        upto: LogIndex,
        len: u64,
        blocks: impl Iterator<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), HistoryError> {
        let (reply, answer) = sync_channel(1);
        let blocks = queue::Blocks(Box::new(blocks));
        self.queue.push(Command::Replace { upto, blocks, len, reply }).map_err(|_| stopped())?;
        answer.recv().map_err(|_| stopped())?
    }
}

impl History for ArchiveSnapshots {
    fn export(&self, index: LogIndex, put: PutBlock<'_>) -> io::Result<Option<LogIndex>> {
        let asked = self.view(index).map_err(io::Error::other)?;
        let view = asked.wait().map_err(io_error)?;
        view.export(put).map_err(io_error)?;
        Ok(view.upto())
    }

    fn replace(&self, blocks: Blocks) -> io::Result<()> {
        let upto = blocks.upto();
        let upto = upto.ok_or_else(|| io::Error::other("the snapshot holds no history"))?;
        let len = blocks.len();
        Self::replace(self, upto, len, blocks).map_err(io_error)
    }
}

/// Keeps the kind of an error of the system.
fn io_error(error: HistoryError) -> io::Error {
    match error {
        HistoryError::Io(error) => error,
        error @ (HistoryError::NewerFormat { .. }
        | HistoryError::Damaged(_)
        | HistoryError::Block(_)
        | HistoryError::Stopped(_)) => io::Error::other(error),
    }
}

/// A view that was asked for.
#[derive(Debug)]
pub struct PendingView(Receiver<Result<View, HistoryError>>);

impl PendingView {
    /// Waits for it. What it shows is durable.
    ///
    /// # Errors
    /// If the thread ends first.
    pub fn wait(self) -> Result<View, HistoryError> {
        self.0.recv().map_err(|_| stopped())?
    }
}

fn stopped() -> HistoryError {
    HistoryError::Stopped(ArchiveStopped.to_string())
}
