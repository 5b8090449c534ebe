//! The whole history as bytes, out of one store and into another: [`View`], [`Store::replace`].
//!
//! The bytes are blocks of at most [`BLOCK_LEN_MAX`]: a head, then rows, then an end. A block is a
//! byte that says which format, a byte that says which of the three, what it holds, and a CRC-32C
//! of all of that. Equal rows give equal blocks, whatever their stores went through: they are
//! ordered by job and id, and hold nothing of the database.
//!
//! | block | holds, in postcard |
//! |---|---|
//! | 0, the head | the last entry whose changes are carried out, the latest end there ever was |
//! | 1, rows | rows with their output, one after the other |
//! | 2, the end | how many rows, what they weigh, CRC-32C of the checksums of the blocks of rows |

use std::io;

use bytes::{Bytes, BytesMut};
use redb::{ReadTransaction, ReadableDatabase, ReadableTable};
use serde::{Deserialize, Serialize};

use super::error::HistoryError;
use super::page::read_output;
use super::tables::{BareRow, ENDS, JOBS, JobRecord, Meta, OUTPUTS, ROWS, keys_of};
use super::writer::Writer;
use super::{Store, tables};
use crate::codec;
use crate::id::{ExecutionId, JobName, LogIndex};
use crate::jobs::job::Execution;
use crate::time::Wall;

/// The most bytes of a block. Most are a quarter of it; a row is far less, and never cut in two.
pub const BLOCK_LEN_MAX: usize = 1 << 20;

/// A block of rows is given out when the next row would make it longer than this.
const BLOCK_LEN: usize = BLOCK_LEN_MAX / 4;

/// The format of the blocks. Any change of them or of a row raises this.
const BLOCK_FORMAT: u8 = 1;

const HEAD: u8 = 0;
const ROWS_BLOCK: u8 = 1;
const END: u8 = 2;

/// The bytes of a block before and after what it holds.
const PREFIX_LEN: usize = 2;
const CRC_LEN: usize = 4;

/// Tells two histories apart: that of equal rows is equal. Not safe against forgery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    upto: Option<LogIndex>,
    newest: Wall,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    rows: u64,
    bytes: u64,
    /// Of the checksums of the blocks of rows.
    crc: u32,
}

/// The history as it was at one moment, whatever is applied meanwhile. It may be read on another
/// thread. While it is held the store keeps what it shows, so it is not to be held for long.
#[derive(Debug)]
pub struct View {
    txn: ReadTransaction,
    meta: Meta,
}

impl Store {
    /// The history as it is.
    ///
    /// # Errors
    /// If the backend fails or the store is damaged.
    pub fn view(&self) -> Result<View, HistoryError> {
        Ok(View { txn: self.db.begin_read()?, meta: self.meta.clone() })
    }

    /// Puts the history of another server in the place of this one, whole or not at all. It is
    /// durable when this returns. `upto` is what [`View::upto`] said when the blocks were made.
    ///
    /// # Errors
    /// [`HistoryError::Block`] if the blocks are not a whole history up to `upto`, and
    /// [`HistoryError::NewerFormat`] if a newer version made them: nothing is changed then. Others
    /// if reading a block, the backend or the store fails; the store has to be opened again.
    pub fn replace(
        &mut self,
        upto: LogIndex,
        blocks: impl IntoIterator<Item = io::Result<Bytes>>,
    ) -> Result<(), HistoryError> {
        let mut txn = self.db.begin_write()?;
        txn.set_quick_repair(true);
        txn.delete_table(JOBS)?;
        txn.delete_table(ROWS)?;
        txn.delete_table(OUTPUTS)?;
        txn.delete_table(ENDS)?;
        let meta = Meta { job_next: self.meta.job_next, ..Meta::default() };
        let writer = Writer::open(&txn, self.limits, meta)?;
        let mut reader = Reader { writer, head: None, last: None, read: End::default() };
        let mut blocks = blocks.into_iter();
        let end = loop {
            let block = blocks.next().ok_or_else(|| bad("the last ones are missing"))??;
            if let Some(end) = reader.take(&block)? {
                break end;
            }
        };
        if blocks.next().is_some() {
            return Err(bad("more follow after the last"));
        }
        let meta = reader.finish(upto, end)?;
        tables::write_meta(&txn, &meta)?;
        txn.commit()?;
        self.durable = meta.upto;
        self.meta = meta;
        Ok(())
    }
}

impl View {
    /// The last entry whose changes are in it; `None` before the first.
    pub fn upto(&self) -> Option<LogIndex> {
        self.meta.upto
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.meta.rows
    }

    /// Gives all rows as blocks, in order, to `put`; see the module for what they hold.
    ///
    /// # Errors
    /// That of `put`, which ends it; or if the backend fails or the store is damaged.
    pub fn export(&self, put: &mut dyn FnMut(Bytes) -> io::Result<()>) -> Result<(), HistoryError> {
        let head = Head { upto: self.meta.upto, newest: self.meta.newest };
        put(block(HEAD, &codec::encode(&head)))?;
        let mut end = End::default();
        let mut rows = BytesMut::new();
        self.each_row(&mut |row| {
            let encoded = codec::encode(row);
            if !rows.is_empty() && rows.len() + encoded.len() > BLOCK_LEN {
                put(end.add_block(&rows.split()))?;
            }
            end.add_row(row);
            rows.extend_from_slice(&encoded);
            Ok(())
        })?;
        if !rows.is_empty() {
            put(end.add_block(&rows))?;
        }
        Ok(put(block(END, &codec::encode(&end)))?)
    }

    /// A hash of all rows with their output, and of the latest end that there ever was.
    ///
    /// # Errors
    /// If the backend fails or the store is damaged.
    pub fn digest(&self) -> Result<Digest, HistoryError> {
        let mut hash = Fnv::default();
        hash.add(&self.meta.newest.as_micros().to_le_bytes());
        self.each_row(&mut |row| {
            hash.add(&codec::encode(row));
            Ok(())
        })?;
        Ok(Digest(hash.0))
    }

    /// All rows with their output, by job and id.
    pub(super) fn each_row(
        &self,
        take: &mut dyn FnMut(&Execution) -> io::Result<()>,
    ) -> Result<(), HistoryError> {
        let (jobs, rows) = (self.txn.open_table(JOBS)?, self.txn.open_table(ROWS)?);
        let outputs = self.txn.open_table(OUTPUTS)?;
        for job in jobs.iter()? {
            let job = JobRecord::from(job?.1.value());
            for item in rows.range(keys_of(job))? {
                let (key, value) = item?;
                let bare = BareRow::decode(key.value(), value.value())?;
                take(&read_output(&outputs, key.value(), bare, usize::MAX)?)?;
            }
        }
        Ok(())
    }
}

impl End {
    fn add_row(&mut self, row: &Execution) {
        self.rows += 1;
        self.bytes += tables::weight(row, row.output.len());
    }

    fn add_block(&mut self, rows: &[u8]) -> Bytes {
        let block = block(ROWS_BLOCK, rows);
        self.add_crc(&block);
        block
    }

    fn add_crc(&mut self, block: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, &block[block.len() - CRC_LEN..]);
    }
}

/// Takes the blocks of a history, one after the other.
struct Reader<'t> {
    writer: Writer<'t>,
    head: Option<Head>,
    /// The row before, which the next has to follow.
    last: Option<(JobName, ExecutionId)>,
    read: End,
}

impl Reader<'_> {
    /// Takes the next block; gives what the end says if it is that.
    fn take(&mut self, block: &[u8]) -> Result<Option<End>, HistoryError> {
        let (kind, content) = open_block(block)?;
        match (kind, self.head) {
            (HEAD, None) => {
                self.head = Some(decode("head of the history", content)?);
                Ok(None)
            }
            (ROWS_BLOCK, Some(_)) => {
                self.read.add_crc(block);
                self.take_rows(content)?;
                Ok(None)
            }
            (END, Some(_)) => decode("end of the history", content).map(Some),
            _ => Err(bad("they are not in order")),
        }
    }

    fn take_rows(&mut self, mut content: &[u8]) -> Result<(), HistoryError> {
        while !content.is_empty() {
            let (row, rest): (Execution, &[u8]) =
                postcard::take_from_bytes(content).map_err(|error| bad(&error.to_string()))?;
            content = rest;
            let place = Some((row.job.clone(), row.id));
            if place <= self.last {
                return Err(bad("the rows are not in order"));
            }
            if row.outcome.is_open() {
                return Err(bad("an execution has not ended"));
            }
            self.last = place;
            self.read.add_row(&row);
            self.writer.put(&row)?;
        }
        Ok(())
    }

    fn finish(self, upto: LogIndex, end: End) -> Result<Meta, HistoryError> {
        let head = self.head.ok_or_else(|| bad("the head is missing"))?;
        if head.upto != Some(upto) {
            return Err(bad("they are those of another entry"));
        }
        if self.read != end {
            return Err(bad("rows are missing"));
        }
        let meta = self.writer.finish()?;
        if head.newest < meta.newest {
            return Err(bad("a row ended after the latest end"));
        }
        Ok(Meta { upto: Some(upto), newest: head.newest, ..meta })
    }
}

fn block(kind: u8, content: &[u8]) -> Bytes {
    let mut block = BytesMut::with_capacity(PREFIX_LEN + content.len() + CRC_LEN);
    block.extend_from_slice(&[BLOCK_FORMAT, kind]);
    block.extend_from_slice(content);
    let crc = crc32c::crc32c(&block);
    block.extend_from_slice(&crc.to_le_bytes());
    block.freeze()
}

/// Which kind of block it is, and what it holds.
fn open_block(block: &[u8]) -> Result<(u8, &[u8]), HistoryError> {
    if block.len() > BLOCK_LEN_MAX {
        return Err(bad("one is too long"));
    }
    let (inner, crc) = block.split_last_chunk().ok_or_else(|| bad("one is too short"))?;
    if crc32c::crc32c(inner) != u32::from_le_bytes(*crc) {
        return Err(bad("the checksum of one does not match"));
    }
    let (prefix, content) =
        inner.split_first_chunk::<PREFIX_LEN>().ok_or_else(|| bad("one is too short"))?;
    match *prefix {
        [BLOCK_FORMAT, kind] => Ok((kind, content)),
        [found, _] => {
            Err(HistoryError::NewerFormat { found: found.into(), known: BLOCK_FORMAT.into() })
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, HistoryError> {
    codec::decode(what, bytes).map_err(|error| bad(&error.to_string()))
}

fn bad(reason: &str) -> HistoryError {
    HistoryError::Block(reason.to_owned())
}

/// FNV-1a.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
