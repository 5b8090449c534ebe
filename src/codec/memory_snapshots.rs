//! Snapshot files in memory: [`MemorySnapshots`], which does what the shell does on real files.
//!
//! A file that is there was synced before it got its name, so a crash takes only the one that was
//! coming in.
//!
//! **Left out on purpose**
//! - Time: whoever owns the files decides when something is done.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::record::Snapshot;
use super::snapshot::{self, History, Origin, SnapshotDamage, SnapshotFile};
use crate::id::LogIndex;

/// The snapshot files of one node, in memory. See the module.
#[derive(Clone, Debug, Default)]
pub struct MemorySnapshots {
    origin: Origin,
    newest: Option<(SnapshotFile, Bytes)>,
    /// Files that are being read; the name of an old one is gone already.
    open: BTreeMap<SnapshotFile, Bytes>,
    incoming: Option<(SnapshotFile, Vec<u8>)>,
}

impl MemorySnapshots {
    /// No files yet, of a node that writes `origin` into them.
    pub fn new(origin: Origin) -> Self {
        Self { origin, ..Self::default() }
    }

    /// Makes a snapshot the newest one, unless one of a later entry was installed meanwhile.
    pub fn build(
        &mut self,
        index: LogIndex,
        meta: &[u8],
        state: &[u8],
        history: &History,
    ) -> SnapshotFile {
        let (file, bytes) = snapshot::encode(index, meta, state, history, self.origin);
        self.keep_newest(file, bytes);
        file
    }

    /// Files are named after their entries, and the newest is that of the last entry.
    fn keep_newest(&mut self, file: SnapshotFile, bytes: Bytes) {
        if self.newest.as_ref().is_none_or(|(newest, _)| newest.index <= file.index) {
            self.newest = Some((file, bytes));
        }
    }

    /// A part of a file, shorter at its end; `None` if the file is gone. It stays readable until
    /// [`MemorySnapshots::close`].
    pub fn read(&mut self, file: SnapshotFile, offset: u64, len: usize) -> Option<Bytes> {
        if let Some((newest, bytes)) = &self.newest
            && *newest == file
        {
            self.open.entry(file).or_insert_with(|| bytes.clone());
        }
        let bytes = self.open.get(&file)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(len).min(bytes.len());
        Some(bytes.slice(start..end))
    }

    /// Nobody reads `file` any more.
    pub fn close(&mut self, file: SnapshotFile) {
        self.open.remove(&file);
    }

    /// Takes a part of a snapshot that comes in. At offset 0 another one is dropped.
    ///
    /// # Errors
    /// If what comes before is not there.
    pub fn receive(&mut self, file: SnapshotFile, offset: u64, data: &[u8]) -> Result<(), String> {
        if offset == 0 {
            self.incoming = Some((file, Vec::new()));
        }
        match &mut self.incoming {
            Some((known, bytes)) if *known == file && bytes.len() as u64 == offset => {
                bytes.extend_from_slice(data);
                Ok(())
            }
            Some(_) | None => Err(format!("nothing is there before byte {offset}")),
        }
    }

    /// Checks the snapshot that came in, and reads what it covers and its state.
    ///
    /// # Errors
    /// If it is not whole, or not the one that was announced.
    pub fn verify(&self, file: SnapshotFile) -> Result<Snapshot, SnapshotDamage> {
        let incoming = self.incoming.as_ref().filter(|(known, _)| *known == file);
        let (_, bytes) = incoming.ok_or(SnapshotDamage::Checksum)?;
        let read = snapshot::decode(bytes)?;
        if read.file == file { Ok(read) } else { Err(SnapshotDamage::Checksum) }
    }

    /// Makes the snapshot that came in the newest one. Nothing if there is none.
    pub fn install(&mut self, file: SnapshotFile) {
        if let Some((known, bytes)) = self.incoming.take_if(|(known, _)| *known == file) {
            self.keep_newest(known, Bytes::from(bytes));
        }
    }

    /// Drops what came in of `file`.
    pub fn discard(&mut self, file: SnapshotFile) {
        self.incoming.take_if(|(known, _)| *known == file);
    }

    /// The newest snapshot, without its history.
    pub fn newest(&self) -> Option<Snapshot> {
        let (_, bytes) = self.newest.as_ref()?;
        Some(snapshot::decode(bytes).expect("it was verified before it got its name"))
    }

    /// The history in the newest snapshot.
    pub fn history(&self) -> History {
        let history = self.newest.as_ref().map(|(_, bytes)| snapshot::history(bytes));
        history.transpose().expect("it was verified before it got its name").unwrap_or_default()
    }

    /// The machine loses its power, or the node dies.
    pub fn crash(&mut self) {
        self.open.clear();
        self.incoming = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(from: &mut MemorySnapshots, file: SnapshotFile, to: &mut MemorySnapshots) {
        let mut offset = 0;
        while offset < file.len {
            let data = from.read(file, offset, 50).unwrap();
            to.receive(file, offset, &data).unwrap();
            offset += data.len() as u64;
        }
    }

    #[test]
    fn a_snapshot_is_copied_in_parts_and_installed_with_its_history() {
        let (mut from, mut to) = (MemorySnapshots::default(), MemorySnapshots::default());
        let blocks = vec![Bytes::from_static(b"rows")];
        let history = History { upto: Some(LogIndex(6)), blocks };
        let file = from.build(LogIndex(4), b"meta", b"state", &history);
        copy(&mut from, file, &mut to);
        assert_eq!(to.newest(), None);
        assert_eq!(to.verify(file).unwrap(), from.newest().unwrap());
        to.install(file);
        assert_eq!((to.newest(), to.history()), (from.newest(), history));
        assert_eq!(to.verify(file), Err(SnapshotDamage::Checksum), "it came in and is no more");
    }

    #[test]
    fn what_is_built_late_does_not_take_the_place_of_a_later_snapshot() {
        let (mut from, mut to) = (MemorySnapshots::default(), MemorySnapshots::default());
        let file = from.build(LogIndex(5), b"", b"state", &History::default());
        copy(&mut from, file, &mut to);
        to.install(file);
        to.build(LogIndex(4), b"", b"late", &History::default());
        assert_eq!(to.newest(), from.newest());
    }

    #[test]
    fn an_old_file_is_readable_as_long_as_somebody_reads_it() {
        let mut disk = MemorySnapshots::default();
        let old = disk.build(LogIndex(4), b"", b"old", &History::default());
        let begun = disk.read(old, 0, 9);
        disk.build(LogIndex(5), b"", b"new", &History::default());
        assert_eq!(disk.read(old, 0, 9), begun);
        disk.close(old);
        assert_eq!(disk.read(old, 0, 9), None);
    }

    #[test]
    fn parts_that_do_not_follow_and_other_snapshots_are_refused() {
        let (mut from, mut to) = (MemorySnapshots::default(), MemorySnapshots::default());
        let file = from.build(LogIndex(4), b"", b"state", &History::default());
        assert!(to.receive(file, 9, b"x").is_err());
        copy(&mut from, file, &mut to);
        let other = SnapshotFile { crc: file.crc ^ 1, ..file };
        assert!(to.verify(other).is_err());
        to.crash();
        assert!(to.verify(file).is_err());
    }
}
