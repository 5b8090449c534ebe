//! Looking at the history of a stopped node without changing its file: [`look`].
//!
//! A database that is opened repairs itself first. Here it does so on an [`Overlay`]: what it
//! writes stays in memory, and the file is only read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

use redb::StorageBackend;

use super::{ArchiveError, HISTORY_DIR, HISTORY_FILE, at};
use crate::id::LogIndex;
use crate::jobs::history::change::Limits;
use crate::jobs::history::store::{HistoryError, Store};

/// How much is kept in memory where something was written, in bytes.
const PAGE_LEN: u64 = 4_096;

/// What a history holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub len: u64,
    /// The last entry whose changes it holds.
    pub upto: Option<LogIndex>,
    /// How many rows there are.
    pub rows: u64,
    /// What is wrong with it.
    pub damage: Option<String>,
}

/// How much of a history is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What it says about itself.
    Summary,
    /// Every row with its output.
    Whole,
}

/// Reads the history below the data directory `data_dir`; `None` if there is none.
///
/// # Errors
/// If it cannot be read, or a newer version wrote it.
pub fn look(data_dir: &Path, depth: Depth) -> Result<Option<Look>, ArchiveError> {
    let path = data_dir.join(HISTORY_DIR).join(HISTORY_FILE);
    let io = |error| ArchiveError::Io(at(&path, error));
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let len = file.metadata().map_err(io)?.len();
    // The database unwinds on some damage. On a thread of its own that is an error like others.
    let reading = Builder::new().name("cronclave-look".into()).spawn(move || {
        let store = Store::open(Overlay::new(file, len), Limits::default())?;
        if depth == Depth::Whole {
            store.view()?.digest()?;
        }
        Ok((store.upto(), store.rows()))
    });
    let read = reading.map_err(io)?.join();
    let damaged = |reason| (None, 0, Some(reason));
    let (upto, rows, damage) = match read {
        Ok(Ok((upto, rows))) => (upto, rows, None),
        Ok(Err(HistoryError::NewerFormat { found, known })) => {
            return Err(ArchiveError::NewerFormat { path, found, known });
        }
        Ok(Err(HistoryError::Io(error))) => return Err(io(error)),
        Ok(Err(HistoryError::Damaged(reason))) => damaged(reason),
        Ok(Err(error @ (HistoryError::Block(_) | HistoryError::Stopped(_)))) => {
            damaged(error.to_string())
        }
        Err(_panic) => damaged("the database cannot go on with it".to_owned()),
    };
    Ok(Some(Look { path, len, upto, rows, damage }))
}

/// A file that is only read, with what was written to it in memory.
#[derive(Debug)]
struct Overlay {
    file: File,
    written: Mutex<Written>,
}

/// What is otherwise than in the file.
#[derive(Debug)]
struct Written {
    len: u64,
    /// Beyond this nothing of the file counts: it was shorter once.
    file_len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    fn new(file: File, len: u64) -> Self {
        let written = Written { len, file_len: len, pages: BTreeMap::new() };
        Self { file, written: Mutex::new(written) }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        // Each call leaves it whole, also one that unwinds.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page of this number, as it is.
    fn page(&self, written: &Written, number: u64) -> io::Result<Vec<u8>> {
        if let Some(page) = written.pages.get(&number) {
            return Ok(page.clone());
        }
        let start = number.saturating_mul(PAGE_LEN);
        let mut page = vec![0; usize::try_from(PAGE_LEN).unwrap_or(0)];
        let there = written.file_len.saturating_sub(start).min(PAGE_LEN);
        let there = usize::try_from(there).unwrap_or(0);
        self.file.read_exact_at(&mut page[..there], start)?;
        Ok(page)
    }
}

/// The pages that `len` bytes at `offset` touch: of each its number, where in it they begin, and
/// how many they are.
fn touched(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset.saturating_add(len);
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (number, start) = (at / PAGE_LEN, at % PAGE_LEN);
        let count = (PAGE_LEN - start).min(end - at);
        at += count;
        let small = |number: u64| usize::try_from(number).unwrap_or(0);
        Some((number, small(start), small(count)))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        let len = out.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > written.len) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        for (number, start, count) in touched(offset, len) {
            let page = self.page(&written, number)?;
            out[done..done + count].copy_from_slice(&page[start..start + count]);
            done += count;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written();
        if len < written.len {
            let (number, rest) = (len / PAGE_LEN, usize::try_from(len % PAGE_LEN).unwrap_or(0));
            written.pages.retain(|page, _| *page <= number);
            if let Some(page) = written.pages.get_mut(&number) {
                page[rest..].fill(0);
            }
            written.file_len = written.file_len.min(len);
        }
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        let mut done = 0;
        for (number, start, count) in touched(offset, data.len() as u64) {
            let mut page = self.page(&written, number)?;
            page[start..start + count].copy_from_slice(&data[done..done + count]);
            written.pages.insert(number, page);
            done += count;
        }
        written.len = written.len.max(offset.saturating_add(data.len() as u64));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn overlay(content: &[u8]) -> (tempfile::TempDir, Overlay) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, content).unwrap();
        let file = File::open(path).unwrap();
        (dir, Overlay::new(file, content.len() as u64))
    }

    fn all(overlay: &Overlay) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(overlay.len().unwrap()).unwrap()];
        overlay.read(0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn an_overlay_is_as_a_file_that_was_written() {
        let content: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let (dir, overlay) = overlay(&content);
        let mut wanted = content.clone();
        assert_eq!(all(&overlay), wanted);
        for (offset, len) in [(0, 1), (4_090, 12), (100, 9_000), (19_990, 10), (20_000, 5_000)] {
            let data = vec![0xee; len];
            overlay.write(offset as u64, &data).unwrap();
            wanted.resize(wanted.len().max(offset + len), 0);
            wanted[offset..offset + len].copy_from_slice(&data);
            assert_eq!(all(&overlay), wanted, "{offset}");
        }
        for len in [24_000, 5_000, 5_000, 30_000, 4_096, 8_192, 0, 10] {
            overlay.set_len(len as u64).unwrap();
            wanted.resize(len, 0);
            assert_eq!(all(&overlay), wanted, "{len}");
        }
        assert!(overlay.read(9, &mut [0; 2]).is_err());
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), content);
    }

    #[test]
    fn looking_at_a_history_changes_nothing_and_finds_damage() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look(dir.path(), Depth::Whole).unwrap(), None);
        let (mut store, _) = super::super::open(dir.path(), Limits::default()).unwrap();
        store.apply(LogIndex(7), &[]).unwrap();
        store.commit().unwrap();
        drop(store);
        let path = dir.path().join(HISTORY_DIR).join(HISTORY_FILE);
        let before = fs::read(&path).unwrap();
        let seen = look(dir.path(), Depth::Whole).unwrap().unwrap();
        assert_eq!((seen.upto, seen.rows, seen.damage), (Some(LogIndex(7)), 0, None));
        assert_eq!(seen.len, before.len() as u64);
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::write(&path, &before[..100]).unwrap();
        let seen = look(dir.path(), Depth::Summary).unwrap().unwrap();
        assert!(seen.damage.is_some(), "{seen:?}");
        assert_eq!(fs::read(&path).unwrap(), &before[..100]);
    }
}
