//! A disk in memory that forgets what was not synced: [`MemoryDisk`].
//!
//! It does the same [`Step`]s as the shell does on real files, one at a time, so a simulation can
//! let a node die between any two of them. Files consist of sectors. Of each sector that was
//! written and not synced, a crash keeps as much as the simulation says: nothing, all, or some of
//! its new bytes, whatever becomes of the sectors around it. A file whose name was not synced may
//! be gone, and one whose removal was not synced may be back. A removed segment is kept as a spare,
//! with all that is in it, and becomes a new one.
//!
//! **Left out on purpose**
//! - Time: whoever owns the disk decides when the next step is done.
//! - The files of snapshots: [`MemorySnapshots`](super::memory_snapshots::MemorySnapshots).
//! - Disks that lose what they said was synced, or that change a byte which is not written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use super::log::{
    EncodeError, LogDamage, LogLimits, LogWriter, Owner, Recovery, SegmentNumber, Step,
    recover_loaded,
};
use super::record::{Record, Recovered, Snapshot};
use crate::id::{ClusterId, LogIndex, NodeId};

/// How much a disk writes as one, in bytes.
const SECTOR_LEN: usize = 512;

/// The log of one node, in memory, and the newest snapshot beside it. See the module.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    owner: Owner,
    limits: LogLimits,
    sector_len: usize,
    writer: LogWriter,
    files: BTreeMap<FileId, MemoryFile>,
    file_last: u64,
    /// The segments that there are.
    names: BTreeMap<SegmentNumber, FileId>,
    /// Those that a crash leaves.
    synced_names: BTreeMap<SegmentNumber, FileId>,
    /// What was done to names since they were synced.
    renames: Vec<Rename>,
    spares: VecDeque<FileId>,
    /// Spares that a crash may bring back as segments.
    unsynced_spares: VecDeque<FileId>,
    snapshot: Option<Snapshot>,
    pending: VecDeque<Task>,
}

/// One file, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileId(u64);

/// A file as it is read, and as it is on the disk.
#[derive(Clone, Debug, Default)]
struct MemoryFile {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// The sectors in which the two may differ.
    unsynced: BTreeSet<usize>,
}

/// What a step does to a name.
#[derive(Clone, Copy, Debug)]
enum Rename {
    Appears(SegmentNumber, FileId),
    Goes(SegmentNumber),
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
        let (owner, limits) = (Owner { node, cluster: None }, LogLimits::default());
        Self {
            owner,
            limits,
            sector_len: SECTOR_LEN,
            writer: LogWriter::new(owner, limits),
            files: BTreeMap::new(),
            file_last: 0,
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            renames: Vec::new(),
            spares: VecDeque::new(),
            unsynced_spares: VecDeque::new(),
            snapshot: None,
            pending: VecDeque::new(),
        }
    }

    /// Ends segments at `len` bytes, so that a short run sees many of them.
    pub fn with_segment_len(mut self, len: u64) -> Self {
        self.limits.segment_len = len;
        self.writer = LogWriter::new(self.owner, self.limits);
        self
    }

    /// Makes sectors `len` bytes long, at least 1, so that a short record has several.
    pub fn with_sector_len(mut self, len: usize) -> Self {
        self.sector_len = len.max(1);
        self
    }

    /// The node is a member of `cluster`; see [`LogWriter::set_cluster`].
    pub fn set_cluster(&mut self, cluster: ClusterId) {
        self.owner.cluster = Some(cluster);
        self.writer.set_cluster(cluster);
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

    /// Where the log ends once nothing is queued; see [`LogWriter::end`].
    pub fn end(&self) -> Option<(SegmentNumber, u64)> {
        self.writer.end()
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

    /// The machine loses its power. `keep` is asked, for each sector that is not synced, which of
    /// its so many bytes are on the disk all the same; the others are as they were. It is asked
    /// too, of one byte, for each name that is not synced, whether it came or went: an empty answer
    /// says that it did not.
    pub fn crash(&mut self, mut keep: impl FnMut(usize) -> Range<usize>) {
        self.pending.clear();
        for rename in std::mem::take(&mut self.renames) {
            if keep(1).is_empty() {
                continue;
            }
            match rename {
                Rename::Appears(segment, file) => self.synced_names.insert(segment, file),
                Rename::Goes(segment) => self.synced_names.remove(&segment),
            };
        }
        self.names = self.synced_names.clone();
        for file in self.files.values_mut() {
            file.crash(self.sector_len, &mut keep);
        }
        self.unsynced_spares.clear();
        let named: BTreeSet<FileId> = self.names.values().copied().collect();
        self.spares = self.files.keys().filter(|file| !named.contains(file)).copied().collect();
        self.forget_files();
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
        self.writer = writer;
        // A log that begins anew knows of no life before, and could not tell what is left of one.
        if self.names.is_empty() {
            self.spares.clear();
            self.forget_files();
        }
        self.pending = repairs.into_iter().map(Task::Step).collect();
        Ok(recovered)
    }

    /// What [`recover()`](super::log::recover()) makes of the files as they are now. Changes
    /// nothing.
    ///
    /// # Errors
    /// If the log is damaged.
    pub fn read(&self) -> Result<Recovery, LogDamage> {
        let bytes_of = |file: &FileId| Bytes::copy_from_slice(&self.files[file].bytes);
        let segments = self.names.iter().map(|(&number, file)| (number, bytes_of(file))).collect();
        recover_loaded(self.owner, self.limits, &segments, self.snapshot.clone())
    }

    /// The segments that there are, and the lengths of their files in bytes.
    pub fn segments(&self) -> impl Iterator<Item = (SegmentNumber, usize)> {
        self.names.iter().map(|(&number, file)| (number, self.files[file].bytes.len()))
    }

    /// What the file of a segment holds, up to the last byte that was ever written.
    pub fn file(&self, segment: SegmentNumber) -> Option<&[u8]> {
        let file = self.names.get(&segment)?;
        self.files.get(file).map(|file| &file.bytes[..])
    }

    /// Flips the bits of `mask` in one byte of a segment, as rot does. Nothing if there is no such
    /// byte.
    pub fn rot(&mut self, segment: SegmentNumber, offset: usize, mask: u8) {
        let file = self.names.get(&segment).and_then(|file| self.files.get_mut(file));
        let Some(file) = file else { return };
        for bytes in [&mut file.bytes, &mut file.synced] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= mask;
            }
        }
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Create { segment, len: _, header } => {
                let file = match self.names.get(&segment) {
                    Some(&file) => file,
                    None => self.begin_file(segment),
                };
                self.write_file(file, 0, &header);
            }
            Step::Write { segment, at, bytes } => {
                let at = usize::try_from(at).expect("a file in memory has offsets of memory");
                self.write_file(self.names[&segment], at, &bytes);
            }
            Step::Sync { segment } => {
                let file = self.files.get_mut(&self.names[&segment]);
                file.expect("a name has a file").sync(self.sector_len);
            }
            Step::SyncDir => self.sync_names(),
            Step::Remove { segment } => {
                if let Some(file) = self.names.remove(&segment) {
                    self.renames.push(Rename::Goes(segment));
                    self.unsynced_spares.push_back(file);
                }
            }
        }
    }

    /// Gives `segment` a spare file, if there is one, or a new one.
    fn begin_file(&mut self, segment: SegmentNumber) -> FileId {
        let file = self.spares.pop_front().unwrap_or_else(|| {
            self.file_last += 1;
            self.files.insert(FileId(self.file_last), MemoryFile::default());
            FileId(self.file_last)
        });
        self.names.insert(segment, file);
        self.renames.push(Rename::Appears(segment, file));
        file
    }

    fn write_file(&mut self, file: FileId, at: usize, bytes: &[u8]) {
        let file = self.files.get_mut(&file).expect("a name has a file");
        file.write(at, bytes, self.sector_len);
    }

    fn sync_names(&mut self) {
        self.renames.clear();
        self.synced_names = self.names.clone();
        self.spares.append(&mut self.unsynced_spares);
        self.forget_files();
    }

    /// Keeps as many spares as the limits say, and no file that has no name.
    fn forget_files(&mut self) {
        self.spares.truncate(self.limits.spare_segments);
        let used: BTreeSet<FileId> =
            self.names.values().chain(self.spares.iter()).copied().collect();
        self.files.retain(|file, _| used.contains(file));
    }
}

impl MemoryFile {
    fn write(&mut self, at: usize, bytes: &[u8], sector_len: usize) {
        let end = at + bytes.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[at..end].copy_from_slice(bytes);
        self.unsynced.extend(at / sector_len..end.div_ceil(sector_len));
    }

    fn sync(&mut self, sector_len: usize) {
        self.crash(sector_len, &mut |len| 0..len);
    }

    /// Keeps of each unsynced sector what `keep` says.
    fn crash(&mut self, sector_len: usize, keep: &mut impl FnMut(usize) -> Range<usize>) {
        // The length of a file is set ahead of time: what is lost of it reads as zeros.
        self.synced.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.unsynced) {
            let start = sector * sector_len;
            let len = sector_len.min(self.bytes.len() - start);
            let kept = keep(len);
            let kept = start + kept.start.min(len)..start + kept.end.min(len);
            if !kept.is_empty() {
                self.synced[kept.clone()].copy_from_slice(&self.bytes[kept]);
            }
            let whole = start..start + len;
            self.bytes[whole.clone()].copy_from_slice(&self.synced[whole]);
        }
    }
}
