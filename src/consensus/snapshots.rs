//! What an engine wants done with snapshot files: [`SnapshotTask`], answered by [`SnapshotDone`].
//!
//! A snapshot is a file, and may be large. The engine holds its name ([`SnapshotFile`]) and, on its
//! way to or from a peer, a few chunks; whoever owns the files does the rest outside of the
//! engine's turns: encoding the state, checking a file, decoding the state that came in one.
//!
//! **Invariants**
//! - Tasks are begun in the order in which they come. A [`SnapshotTask::Build`] may take long and
//!   is overtaken by those after it.
//! - Every task but [`SnapshotTask::Close`] and [`SnapshotTask::Discard`] is answered once.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::channels::lock;
use crate::codec::DecodeError;
use crate::codec::memory_snapshots::MemorySnapshots;
use crate::codec::snapshot::{History, SnapshotFile};
use crate::id::LogIndex;

/// A task with snapshot files, as the engine numbers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// A snapshot that is still to be encoded, outside of the engine's turn.
pub struct SnapshotSource {
    /// What it covers, for [`crate::codec::record::Snapshot::meta`].
    pub meta: Bytes,
    /// The last entry that it covers.
    pub index: LogIndex,
    encode: Box<dyn Fn() -> Bytes + Send>,
}

impl SnapshotSource {
    /// A snapshot up to `index`, whose state `encode` gives.
    pub fn new(meta: Bytes, index: LogIndex, encode: impl Fn() -> Bytes + Send + 'static) -> Self {
        Self { meta, index, encode: Box::new(encode) }
    }

    /// The state as bytes, the same each time; this may take long.
    pub fn encode(&self) -> Bytes {
        (self.encode)()
    }
}

impl fmt::Debug for SnapshotSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotSource(upto {})", self.index)
    }
}

/// Decodes the state that came in a snapshot, and keeps it until the snapshot is installed.
pub struct Restore {
    decode: Box<Decode>,
}

type Decode = dyn FnOnce(&[u8]) -> Result<(), DecodeError> + Send;

impl Restore {
    /// Has the state decoded by `decode` and put into the slot that is returned.
    pub(crate) fn new<M: Send + 'static>(
        decode: impl FnOnce(&[u8]) -> Result<M, DecodeError> + Send + 'static,
    ) -> (Self, Slot<M>) {
        let slot = Slot { state: Arc::new(Mutex::new(None)) };
        let filled = slot.clone();
        let decode = move |data: &[u8]| {
            *lock(&filled.state) = Some(decode(data)?);
            Ok(())
        };
        (Self { decode: Box::new(decode) }, slot)
    }

    /// Decodes `data`; this may take long.
    ///
    /// # Errors
    /// If it is no state.
    pub fn decode(self, data: &[u8]) -> Result<(), DecodeError> {
        (self.decode)(data)
    }
}

impl fmt::Debug for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Restore")
    }
}

/// Where a decoded state waits.
pub(crate) struct Slot<M> {
    state: Arc<Mutex<Option<M>>>,
}

impl<M> Slot<M> {
    /// The state, once it is decoded.
    pub(crate) fn take(&self) -> Option<M> {
        lock(&self.state).take()
    }
}

impl<M> Clone for Slot<M> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state) }
    }
}

/// Something to do with snapshot files.
#[derive(Debug)]
pub enum SnapshotTask {
    /// Write a snapshot to a new file, with the history as of its index or later, and make it
    /// durable, and the history before it. Then the other files may go. Answered by
    /// [`SnapshotDone::Built`].
    Build(SnapshotSource),
    /// Read a part of a file, which stays readable until [`SnapshotTask::Close`]. Answered by
    /// [`SnapshotDone::Read`].
    Read {
        /// Which file.
        file: SnapshotFile,
        /// Where the part begins.
        offset: u64,
        /// How long it is; less is there only at the end of the file.
        len: usize,
    },
    /// Nobody reads the file any more. Not answered.
    Close {
        /// Which file.
        file: SnapshotFile,
    },
    /// Write a part of a snapshot that comes in, without a sync. The part at offset 0 begins it,
    /// and drops any other that was coming in. Answered by [`SnapshotDone::Received`].
    Receive {
        /// Which file it is to be.
        file: SnapshotFile,
        /// Where the part belongs; all before it came before.
        offset: u64,
        /// The part.
        data: Bytes,
    },
    /// Check that the snapshot that came in is whole and is this one, and decode its state.
    /// Answered by [`SnapshotDone::Verified`].
    Verify {
        /// Which file.
        file: SnapshotFile,
        /// What it must cover.
        meta: Bytes,
        /// For its state.
        restore: Restore,
    },
    /// Make the snapshot that came in durable, with its name, then put its history in the place of
    /// the one that is there, durably. Then the other files may go. It was verified. Answered by
    /// [`SnapshotDone::Installed`].
    Install {
        /// Which file.
        file: SnapshotFile,
    },
    /// Drop what came in of this snapshot. Nothing if it was installed. Not answered.
    Discard {
        /// Which file.
        file: SnapshotFile,
    },
}

/// What came of a [`SnapshotTask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotDone {
    /// The snapshot is durable, under this name.
    Built(SnapshotFile),
    /// The part, or `None` if the file is gone or cannot be read.
    Read(Option<Bytes>),
    /// The part is written; or why not, and then what came in is dropped.
    Received(Result<(), String>),
    /// The snapshot is whole and its state is decoded; or what is wrong with it, and then it is
    /// dropped.
    Verified(Result<(), String>),
    /// The snapshot is durable, and its history is in place.
    Installed,
}

impl SnapshotTask {
    /// Does the task on files in memory, with `history` as the history of the executions up to now.
    /// `None` if the task is not answered.
    pub fn perform(self, files: &mut MemorySnapshots, history: &History) -> Option<SnapshotDone> {
        Some(match self {
            Self::Build(source) => {
                let state = source.encode();
                SnapshotDone::Built(files.build(source.index, &source.meta, &state, history))
            }
            Self::Read { file, offset, len } => SnapshotDone::Read(files.read(file, offset, len)),
            Self::Close { file } => {
                files.close(file);
                return None;
            }
            Self::Receive { file, offset, data } => {
                SnapshotDone::Received(files.receive(file, offset, &data))
            }
            Self::Verify { file, meta, restore } => {
                let verified = match files.verify(file) {
                    Ok(read) if read.meta == meta => {
                        restore.decode(&read.data).map_err(|error| error.to_string())
                    }
                    Ok(_) => Err("the snapshot covers something else".to_owned()),
                    Err(damage) => Err(damage.to_string()),
                };
                if verified.is_err() {
                    files.discard(file);
                }
                SnapshotDone::Verified(verified)
            }
            Self::Install { file } => {
                files.install(file);
                SnapshotDone::Installed
            }
            Self::Discard { file } => {
                files.discard(file);
                return None;
            }
        })
    }
}

/// Gives tasks their ids. Clones draw from one row.
#[derive(Clone, Default)]
pub(crate) struct TaskIds {
    last: Arc<Mutex<u64>>,
}

impl TaskIds {
    pub(crate) fn draw(&self) -> TaskId {
        let mut last = lock(&self.last);
        *last += 1;
        TaskId(*last)
    }
}
