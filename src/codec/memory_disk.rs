//! A disk in memory that forgets what was not synced: [`MemoryDisk`].
//!
//! It does the same [`Step`]s as the shell does on real files, one at a time, so a simulation can
//! let a node die between any two of them. A crash keeps of each file what was synced and as much
//! of the rest as the simulation says, torn at any byte; a file whose name was not synced may be
//! gone, and one whose removal was not synced may be back.
//!
//! **Left out on purpose**
//! - Time: whoever owns the disk decides when the next step is done.
//! - The files of snapshots: [`MemorySnapshots`](super::memory_snapshots::MemorySnapshots).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::log::{EncodeError, LogDamage, LogWriter, Recovery, SegmentNumber, Step, recover};
use super::record::{Record, Recovered, Snapshot};
use crate::id::{LogIndex, NodeId};

/// The log of one node, in memory, and the newest snapshot beside it. See the module.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    node: NodeId,
    segment_len: u64,
    writer: LogWriter,
    segments: BTreeMap<SegmentNumber, MemoryFile>,
    /// Segments whose removal a crash may undo.
    removed: BTreeMap<SegmentNumber, MemoryFile>,
    snapshot: Option<Snapshot>,
    pending: VecDeque<Task>,
}

/// A file, and how much of it a crash cannot take.
#[derive(Clone, Debug, Default)]
struct MemoryFile {
    bytes: Vec<u8>,
    synced: usize,
    name: Name,
}

/// Whether the name of a file is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Name {
    #[default]
    Unsynced,
    Synced,
}

/// What the disk has yet to do.
#[derive(Clone, Debug)]
enum Task {
    Step(Step),
    Snapshot(Snapshot),
}

impl MemoryDisk {
    /// The empty disk of the node `node`.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            segment_len: super::log::SEGMENT_LEN,
            writer: LogWriter::new(node),
            segments: BTreeMap::new(),
            removed: BTreeMap::new(),
            snapshot: None,
            pending: VecDeque::new(),
        }
    }

    /// Ends segments at `len` bytes, so that a short run sees many of them.
    pub fn with_segment_len(mut self, len: u64) -> Self {
        self.segment_len = len;
        self.writer = self.writer.with_segment_len(len);
        self
    }

    /// Queues a snapshot, if any, and then the steps that make `batch` durable.
    ///
    /// # Errors
    /// As [`LogWriter::encode`]; nothing is queued then.
    pub fn write(
        &mut self,
        batch: &[Record],
        snapshot: Option<&Snapshot>,
    ) -> Result<(), EncodeError> {
        let steps = self.writer.encode(batch)?;
        self.pending.extend(snapshot.cloned().map(Task::Snapshot));
        self.pending.extend(steps.into_iter().map(Task::Step));
        Ok(())
    }

    /// Says which snapshot is the newest beside the log, for the next recovery.
    pub fn set_snapshot(&mut self, snapshot: Option<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// Queues the steps that mark everything written as synced; see [`LogWriter::seal`].
    pub fn seal(&mut self) {
        self.pending.extend(self.writer.seal().into_iter().map(Task::Step));
    }

    /// The index that the next entry has to have; see [`LogWriter::next_index`].
    pub fn next_index(&self) -> Option<LogIndex> {
        self.writer.next_index()
    }

    /// How many steps are queued. What was queued before is durable when there are none.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Does the next step that is queued; gives how many are left.
    pub fn step(&mut self) -> usize {
        match self.pending.pop_front() {
            Some(Task::Step(step)) => self.perform(step),
            Some(Task::Snapshot(snapshot)) => self.snapshot = Some(snapshot),
            None => {}
        }
        self.pending.len()
    }

    /// Does everything that is queued up to the next sync, as a disk does while a sync runs.
    pub fn run_to_sync(&mut self) {
        let is_sync = |task: &Task| matches!(task, Task::Step(Step::Sync { .. }));
        while self.pending.front().is_some_and(|task| !is_sync(task)) {
            self.step();
        }
    }

    /// Does everything that is queued.
    pub fn finish(&mut self) {
        while self.step() > 0 {}
    }

    /// The machine loses its power. `keep` is asked, for each file with something not synced, how
    /// many of that many bytes are on the disk all the same. A file whose name was not synced is
    /// gone if the answer is 0; one whose removal was not synced is back unless it is 0.
    pub fn crash(&mut self, mut keep: impl FnMut(usize) -> usize) {
        self.pending.clear();
        for (number, file) in std::mem::take(&mut self.removed) {
            if keep(file.bytes.len()) > 0 {
                self.segments.entry(number).or_insert(file);
            }
        }
        self.segments.retain(|_, file| {
            let unsynced = file.bytes.len() - file.synced;
            if file.name == Name::Synced && unsynced == 0 {
                return true;
            }
            let asked = if unsynced == 0 { file.bytes.len() } else { unsynced };
            let kept = keep(asked);
            file.bytes.truncate(file.synced + kept.min(unsynced));
            file.synced = file.bytes.len();
            let stays = file.name == Name::Synced || kept > 0;
            file.name = Name::Synced;
            stays
        });
    }

    /// Starts again from what is on the disk, and does the repairs; a crash may follow any of them
    /// with [`MemoryDisk::recover_unrepaired`].
    ///
    /// # Errors
    /// If the log is damaged.
    pub fn recover(&mut self) -> Result<Recovered, LogDamage> {
        let recovered = self.recover_unrepaired()?;
        self.finish();
        Ok(recovered)
    }

    /// Starts again from what is on the disk, and queues the repairs.
    ///
    /// # Errors
    /// If the log is damaged.
    pub fn recover_unrepaired(&mut self) -> Result<Recovered, LogDamage> {
        let Recovery { recovered, writer, repairs, .. } = self.read()?;
        self.writer = writer.with_segment_len(self.segment_len);
        self.pending = repairs.into_iter().map(Task::Step).collect();
        Ok(recovered)
    }

    /// What [`recover()`] makes of the files as they are now. Changes nothing.
    ///
    /// # Errors
    /// If the log is damaged.
    pub fn read(&self) -> Result<Recovery, LogDamage> {
        let segments = self.segments.iter();
        let copy = |file: &MemoryFile| Bytes::copy_from_slice(&file.bytes);
        let segments = segments.map(|(&number, file)| (number, copy(file))).collect();
        recover(self.node, &segments, self.snapshot.clone())
    }

    /// The segments that there are, and their lengths in bytes.
    pub fn segments(&self) -> impl Iterator<Item = (SegmentNumber, usize)> {
        self.segments.iter().map(|(&number, file)| (number, file.bytes.len()))
    }

    /// Flips the bits of `mask` in one byte of a segment, as rot does. Nothing if there is no such
    /// byte.
    pub fn rot(&mut self, segment: SegmentNumber, offset: usize, mask: u8) {
        let file = self.segments.get_mut(&segment);
        if let Some(byte) = file.and_then(|file| file.bytes.get_mut(offset)) {
            *byte ^= mask;
        }
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Create { segment, header } => {
                let bytes = header.to_vec();
                let file = MemoryFile { bytes, ..MemoryFile::default() };
                self.removed.remove(&segment);
                self.segments.insert(segment, file);
            }
            Step::Append { segment, bytes } => self.file(segment).bytes.extend_from_slice(&bytes),
            Step::Cut { segment, len } => {
                let file = self.file(segment);
                file.bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
                file.synced = file.synced.min(file.bytes.len());
            }
            Step::Sync { segment } => {
                let file = self.file(segment);
                file.synced = file.bytes.len();
            }
            Step::SyncDir => {
                self.removed.clear();
                self.segments.values_mut().for_each(|file| file.name = Name::Synced);
            }
            Step::Remove { segment } => {
                if let Some(file) = self.segments.remove(&segment) {
                    self.removed.insert(segment, file);
                }
            }
        }
    }

    fn file(&mut self, segment: SegmentNumber) -> &mut MemoryFile {
        self.segments.get_mut(&segment).expect("a segment is created before it is used")
    }
}
