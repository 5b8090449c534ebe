//! How much room the disk has for the history: [`Space`].

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::patient::Patience;
use crate::jobs::history::store::CACHE_LEN;

/// What is left free on the disk, in bytes: the log and the history's own counters need it.
pub const RESERVE_LEN: u64 = 8 << 20;

/// The unit in which the system counts what a file takes.
const BLOCK_LEN: u64 = 512;

/// Whether something fits on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// It does.
    Enough,
    /// It does not, for this reason.
    Short(String),
}

/// Asks the disk how much room it has.
pub struct Space {
    room: Box<dyn FnMut(u64) -> io::Result<Room> + Send>,
    patience: Patience,
}

impl Space {
    /// Space as `room` says: whether so many bytes fit, or why that cannot be said.
    pub fn new(room: impl FnMut(u64) -> io::Result<Room> + Send + 'static) -> Self {
        Self { room: Box::new(room), patience: Patience::default() }
    }

    /// The space of the disk that holds the file `path`, which waits for more with `patience`.
    pub(super) fn of_file(path: PathBuf, patience: Patience) -> Self {
        Self { patience, ..Self::new(move |len| room(&path, len)) }
    }

    /// How the file waits for space.
    pub(super) fn patience(&self) -> Patience {
        self.patience.clone()
    }

    /// Whether `len` more bytes fit.
    pub(super) fn room(&mut self, len: u64) -> io::Result<Room> {
        (self.room)(len)
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Space")
    }
}

fn room(path: &Path, len: u64) -> io::Result<Room> {
    let meta = fs::metadata(path)?;
    // The database writes late, and into a file that is longer than what the disk has given it.
    let holes = meta.len().saturating_sub(meta.blocks().saturating_mul(BLOCK_LEN));
    let unwritten = holes.min(CACHE_LEN as u64);
    let disk = rustix::fs::statvfs(path)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let wanted = RESERVE_LEN + unwritten + len;
    Ok(if free >= wanted {
        Room::Enough
    } else {
        Room::Short(format!("{free} bytes are free, and {wanted} are needed"))
    })
}
