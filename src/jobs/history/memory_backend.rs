//! A file in memory that forgets what was not synced: [`MemoryBackend`].
//!
//! It stands in for the file of the history's store under simulation, as
//! [`MemoryDisk`](crate::codec::memory_disk::MemoryDisk) does for the log. A crash keeps what was
//! synced, and of each page that was written since as much of its beginning as the simulation
//! says, so writes are lost, torn, and land in any order. The length is one of those that the file
//! was told to have since the sync: file systems change it in one piece.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

/// A write is torn within a page of this many bytes.
const PAGE_LEN: usize = 4_096;

/// A file in memory. Clones are the same file. See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    file: Arc<Mutex<File>>,
    /// The life of the process that uses it.
    life: u64,
}

#[derive(Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// What is synced of the pages that were written since.
    undo: BTreeMap<usize, Vec<u8>>,
    synced_len: usize,
    /// The lengths that it was given since the sync.
    lens: Vec<usize>,
    /// Raised by a crash: who opened the file before does not reach it any more.
    life: u64,
    syncs: u64,
    sync_last: Option<u64>,
}

impl MemoryBackend {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// The machine loses its power, and starts again: gives the file as it is found then. `keep` is
    /// asked how many of so many changes of its length are on the disk, and then, for each page
    /// that was written and not synced, how many of that many bytes at its beginning are. Whoever
    /// has the file open gets errors from then on.
    #[must_use]
    pub fn crash(&self, mut keep: impl FnMut(usize) -> usize) -> Self {
        let mut file = self.file();
        let file = &mut *file;
        let lens = std::mem::take(&mut file.lens);
        let kept = if lens.is_empty() { 0 } else { keep(lens.len()).min(lens.len()) };
        let len = kept.checked_sub(1).map_or(file.synced_len, |last| lens[last]);
        file.bytes.resize(file.synced_len.max(file.bytes.len()), 0);
        for (page, old) in std::mem::take(&mut file.undo) {
            let start = (page * PAGE_LEN).min(file.bytes.len());
            let end = (start + PAGE_LEN).min(file.bytes.len());
            let new = &mut file.bytes[start..end];
            let kept = keep(new.len()).min(new.len());
            for (at, byte) in new.iter_mut().enumerate().skip(kept) {
                *byte = old.get(at).copied().unwrap_or(0);
            }
        }
        file.bytes.resize(len, 0);
        file.synced_len = len;
        file.life += 1;
        file.sync_last = None;
        Self { file: Arc::clone(&self.file), life: file.life }
    }

    /// How often the file was synced.
    pub fn syncs(&self) -> u64 {
        self.file().syncs
    }

    /// From the sync after this many on, and until a crash, syncs and whatever follows fail: the
    /// moment at which a crash is to come.
    pub fn fail_after(&self, syncs: u64) {
        self.file().sync_last = Some(syncs);
    }

    /// Flips the bits of `mask` in one byte, as rot does. Nothing if there is no such byte.
    pub fn rot(&self, offset: usize, mask: u8) {
        if let Some(byte) = self.file().bytes.get_mut(offset) {
            *byte ^= mask;
        }
    }

    /// How many bytes the file has.
    pub fn file_len(&self) -> usize {
        self.file().bytes.len()
    }

    fn file(&self) -> MutexGuard<'_, File> {
        // Nothing here unwinds while the lock is held.
        self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The file, if the process that opened it still lives.
    fn living(&self) -> io::Result<MutexGuard<'_, File>> {
        let file = self.file();
        if file.life == self.life { Ok(file) } else { Err(ErrorKind::BrokenPipe.into()) }
    }
}

impl File {
    /// Remembers what is synced of the pages from `start` to `end`, before they change.
    fn remember(&mut self, start: usize, end: usize) {
        for page in start / PAGE_LEN..end.div_ceil(PAGE_LEN) {
            let bytes = &self.bytes;
            self.undo.entry(page).or_insert_with(|| {
                let start = (page * PAGE_LEN).min(bytes.len());
                let end = (start + PAGE_LEN).min(bytes.len());
                bytes[start..end].to_vec()
            });
        }
    }
}

impl StorageBackend for MemoryBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.living()?.bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let file = self.living()?;
        let start = usize::try_from(offset).map_err(|_| ErrorKind::UnexpectedEof)?;
        let bytes = file.bytes.get(start..).and_then(|bytes| bytes.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut file = self.living()?;
        let len = usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?;
        let (least, most) = (len.min(file.bytes.len()), len.max(file.bytes.len()));
        file.remember(least, most);
        file.bytes.resize(len, 0);
        file.lens.push(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut file = self.living()?;
        if file.sync_last.is_some_and(|last| file.syncs >= last) {
            return Err(io::Error::other("the disk stopped"));
        }
        file.syncs += 1;
        file.undo.clear();
        file.lens.clear();
        file.synced_len = file.bytes.len();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut file = self.living()?;
        let start = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
        let end = start + data.len();
        file.remember(start, end);
        if file.bytes.len() < end {
            file.bytes.resize(end, 0);
            file.lens.push(end);
        }
        file.bytes[start..end].copy_from_slice(data);
        Ok(())
    }
}
