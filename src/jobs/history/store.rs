//! The rows of executions that have ended, on disk: [`Store`].
//!
//! The store is an embedded database (redb) over any
//! [`StorageBackend`]: a file in production, a
//! [`MemoryBackend`](crate::jobs::history::memory_backend::MemoryBackend) under simulation. It is
//! told what the log does to the rows, in the order of the log, and remembers in the same
//! transaction up to which entry. [`Store::apply`] does not sync: what a crash takes of it is
//! applied again from the log, which is kept until [`Store::commit`] has made it durable. A change
//! at or before [`Store::upto`] is skipped, so a replay adds nothing twice.
//!
//! **Retention** is a part of carrying out a change, so equal changes leave equal rows on every
//! server with equal [`Limits`]. Over `rows_per_job` the oldest claims of the job go; over `bytes`,
//! or past `age` before the newest end that was ever seen, those that ended first, of all jobs. One
//! change drops as many rows as make up for what it added and at most [`DROPS_MAX`] more, so a
//! limit that was lowered is reached over many changes, and none of them stalls. A cluster in
//! which nothing ends drops nothing.
//!
//! **Invariants**
//! - Rows and the entry up to which they are right change in one transaction: after any crash they
//!   are those of one call of [`Store::apply`], and all before the last [`Store::commit`] is there.
//! - The number of a job tells its rows from those of every other that has or had its name.
//! - Each row and each output has a checksum of its own: damage is an error and never a wrong row.
//!
//! **Left out on purpose**
//! - A row that weighs nothing: what `bytes` counts is a fixed formula over the row's texts, since
//!   the pages of the database are not the same on every server.

mod error;
mod page;
mod tables;
#[cfg(test)]
mod tests;
mod transfer;
mod writer;

use redb::{Database, Durability, ReadableDatabase, StorageBackend, TableHandle};

pub use self::error::HistoryError;
pub use self::page::{PAGE_OUTPUT_LEN_MAX, PAGE_ROWS_MAX};
pub use self::tables::ROW_OVERHEAD;
pub use self::transfer::{BLOCK_LEN_MAX, Digest, View};
pub use self::writer::DROPS_MAX;

use self::tables::{META, Meta};
use self::writer::Writer;
use crate::id::LogIndex;
use crate::jobs::history::change::{Change, Limits};

/// The format of what the store holds. Any change of its tables or their rows raises this.
const FORMAT: u32 = 1;

/// What a file of redb begins with. It is written last when a file is made, and zeros before.
const MAGIC_LEN: usize = 9;

/// How much of the database is kept in memory, in bytes: pages that are read often, and those that
/// are yet to be written.
pub const CACHE_LEN: usize = 32 << 20;

/// The rows of executions that have ended. See the [module](self).
#[derive(Debug)]
pub struct Store {
    db: Database,
    limits: Limits,
    meta: Meta,
    durable: Option<LogIndex>,
}

impl Store {
    /// Opens the store in `backend`, or makes an empty one if the backend is empty. What was not
    /// durable when a crash came is gone, and [`Store::upto`] says so.
    ///
    /// # Errors
    /// If the backend fails, if what it holds is damaged or no store, or if a newer version wrote
    /// it, in which case no row was changed.
    pub fn open(backend: impl StorageBackend, limits: Limits) -> Result<Self, HistoryError> {
        clear_unfinished(&backend)?;
        let db = Database::builder().set_cache_size(CACHE_LEN).create_with_backend(backend)?;
        let meta = match read_meta(&db)? {
            Some(meta) => meta,
            None => create_tables(&db)?,
        };
        let durable = meta.upto;
        Ok(Self { db, limits, durable, meta })
    }

    /// The last entry whose changes are carried out; `None` before the first. Part of it may not be
    /// durable.
    pub fn upto(&self) -> Option<LogIndex> {
        self.meta.upto
    }

    /// The last entry whose changes no crash can take; `None` before the first.
    pub fn durable(&self) -> Option<LogIndex> {
        self.durable
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.meta.rows
    }

    /// What all rows weigh, in bytes, as [`Limits::bytes`] counts them.
    pub fn bytes(&self) -> u64 {
        self.meta.bytes
    }

    /// Carries out what the entries up to and with `upto` do to the rows, all or nothing. Each
    /// change comes with the index of its entry; they are in the order of the log. Those of entries
    /// at or before [`Store::upto`] are skipped. Not durable before the next [`Store::commit`].
    ///
    /// # Errors
    /// If the backend fails or the store is damaged. Nothing is carried out then; the store has to
    /// be opened again.
    pub fn apply(
        &mut self,
        upto: LogIndex,
        changes: &[(LogIndex, Change)],
    ) -> Result<(), HistoryError> {
        let known = self.meta.upto;
        if known.is_some_and(|known| upto <= known) {
            return Ok(());
        }
        let new = |index: &LogIndex| known.is_none_or(|known| *index > known);
        let mut changes = changes.iter().filter(|(index, _)| new(index)).peekable();
        if changes.peek().is_none() {
            // Entries without changes are remembered with the next one, or when it is committed.
            self.meta.upto = Some(upto);
            return Ok(());
        }
        let mut txn = self.db.begin_write()?;
        txn.set_durability(Durability::None)?;
        let mut meta = self.meta.clone();
        meta.upto = Some(upto);
        let mut writer = Writer::open(&txn, self.limits, meta)?;
        for (_, change) in changes {
            writer.carry_out(change)?;
        }
        let meta = writer.finish()?;
        txn.commit()?;
        self.meta = meta;
        Ok(())
    }

    /// Makes everything that was applied durable, and gives up to which entry that is. Returns when
    /// it is synced; does nothing if it is already.
    ///
    /// # Errors
    /// If the backend fails or the store is damaged. The store has to be opened again.
    pub fn commit(&mut self) -> Result<Option<LogIndex>, HistoryError> {
        if self.durable == self.meta.upto {
            return Ok(self.durable);
        }
        let mut txn = self.db.begin_write()?;
        // The file is then usable at once after a crash, however large it is.
        txn.set_quick_repair(true);
        tables::write_meta(&txn, &self.meta)?;
        txn.commit()?;
        self.durable = self.meta.upto;
        Ok(self.durable)
    }
}

/// Empties a file whose making a crash has interrupted: there was never a row in it.
fn clear_unfinished(backend: &impl StorageBackend) -> Result<(), HistoryError> {
    let len = backend.len()?;
    let mut magic = [0; MAGIC_LEN];
    if len >= MAGIC_LEN as u64 {
        backend.read(0, &mut magic)?;
    }
    if len > 0 && magic == [0; MAGIC_LEN] {
        backend.set_len(0)?;
    }
    Ok(())
}

/// `None` if the database is new.
fn read_meta(db: &Database) -> Result<Option<Meta>, HistoryError> {
    let txn = db.begin_read()?;
    let tables: Vec<_> = txn.list_tables()?.collect();
    if tables.is_empty() {
        return Ok(None);
    }
    if tables.iter().all(|table| table.name() != META.name()) {
        return Err(HistoryError::Damaged("it is a database of something else".into()));
    }
    let table = txn.open_table(META)?;
    let format = table.get(tables::META_FORMAT)?;
    let format = format.and_then(|bytes| <[u8; 4]>::try_from(bytes.value()).ok());
    match format.map(u32::from_le_bytes) {
        Some(FORMAT) => {}
        Some(found) => return Err(HistoryError::NewerFormat { found, known: FORMAT }),
        None => return Err(HistoryError::Damaged("its format is not to be read".into())),
    }
    let state = table.get(tables::META_STATE)?;
    let state = state.ok_or_else(|| HistoryError::Damaged("its counters are gone".into()))?;
    tables::decode_meta(state.value()).map(Some)
}

fn create_tables(db: &Database) -> Result<Meta, HistoryError> {
    let meta = Meta::default();
    let txn = db.begin_write()?;
    txn.open_table(META)?.insert(tables::META_FORMAT, FORMAT.to_le_bytes().as_slice())?;
    let writer = Writer::open(&txn, Limits::default(), meta)?;
    let meta = writer.finish()?;
    txn.commit()?;
    Ok(meta)
}
