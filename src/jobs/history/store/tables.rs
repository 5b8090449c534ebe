//! The tables of the store, and how a row is written in them.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | a name | the format; the counters of the whole store ([`Meta`]) |
//! | `jobs` | a job's name | its number, its rows, their weight |
//! | `rows` | the job's number, the execution's id | the row without its output |
//! | `outputs` | the same | the output, if it is not empty |
//! | `ends` | when it ended, then the same | nothing |
//!
//! A value of `rows` begins with a checksum of what follows, the fields that rows are sorted by,
//! and the length and checksum of the output; then comes the row in postcard. So rows are sorted
//! and counted without their texts, and no output is read that is not shown.

use std::sync::Arc;

use redb::{TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::error::HistoryError;
use crate::codec;
use crate::id::{ExecutionId, LogIndex};
use crate::jobs::history::change::Sort;
use crate::jobs::job::Execution;
use crate::time::Wall;

/// What a row weighs beside its texts, in bytes: its fields and its places in the tables, rounded
/// up.
pub const ROW_OVERHEAD: u64 = 512;

pub(super) const META_FORMAT: &str = "format";
pub(super) const META_STATE: &str = "state";

/// The number of a job, and the id of an execution of it.
pub(super) type RowKey = (u64, u64, u32);

/// When an execution ended, in microseconds since 1970, and its key.
pub(super) type EndKey = (i64, u64, u64, u32);

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const JOBS: TableDefinition<'_, &str, (u64, u64, u64)> = TableDefinition::new("jobs");
pub(super) const ROWS: TableDefinition<'_, RowKey, &[u8]> = TableDefinition::new("rows");
pub(super) const OUTPUTS: TableDefinition<'_, RowKey, &[u8]> = TableDefinition::new("outputs");
pub(super) const ENDS: TableDefinition<'_, EndKey, ()> = TableDefinition::new("ends");

/// The counters of the whole store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// The last entry whose changes are carried out.
    pub(super) upto: Option<LogIndex>,
    /// The number of the next job.
    pub(super) job_next: u64,
    pub(super) rows: u64,
    /// What all rows weigh.
    pub(super) bytes: u64,
    /// The latest end of all rows that there ever were.
    pub(super) newest: Wall,
}

impl Default for Meta {
    fn default() -> Self {
        let newest = Wall::from_micros(i64::MIN);
        Self { upto: None, job_next: 0, rows: 0, bytes: 0, newest }
    }
}

pub(super) fn decode_meta(bytes: &[u8]) -> Result<Meta, HistoryError> {
    codec::decode("counters of the history", bytes)
        .map_err(|error| HistoryError::Damaged(error.to_string()))
}

pub(super) fn write_meta(txn: &WriteTransaction, meta: &Meta) -> Result<(), HistoryError> {
    txn.open_table(META)?.insert(META_STATE, &*codec::encode(meta))?;
    Ok(())
}

/// What the store has of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JobRecord {
    /// Tells it from every other job that has or had its name.
    pub(super) number: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl From<(u64, u64, u64)> for JobRecord {
    fn from((number, rows, bytes): (u64, u64, u64)) -> Self {
        Self { number, rows, bytes }
    }
}

impl From<JobRecord> for (u64, u64, u64) {
    fn from(job: JobRecord) -> Self {
        (job.number, job.rows, job.bytes)
    }
}

/// All keys that rows of the job may have.
pub(super) fn keys_of(job: JobRecord) -> std::ops::RangeInclusive<RowKey> {
    (job.number, 0, 0)..=(job.number, u64::MAX, u32::MAX)
}

pub(super) fn key_of(job: JobRecord, id: ExecutionId) -> RowKey {
    (job.number, id.claim.0, id.slot)
}

pub(super) fn id_of(key: RowKey) -> ExecutionId {
    ExecutionId { claim: LogIndex(key.1), slot: key.2 }
}

/// When an execution ended. Rows are of ended ones, so the second is never needed.
pub(super) fn end_of(row: &Execution) -> Wall {
    row.finished_at.unwrap_or(row.claimed_at)
}

pub(super) fn end_key(row: &Execution, key: RowKey) -> EndKey {
    (end_of(row).as_micros(), key.0, key.1, key.2)
}

/// What a row weighs, in bytes.
pub(super) fn weight(row: &Execution, output_len: usize) -> u64 {
    let node = row.node.as_ref().map_or(0, |target| target.name.as_str().len());
    let texts = output_len + row.reason.len() + row.job.as_str().len() + node;
    ROW_OVERHEAD + texts as u64
}

/// What rows are sorted by; rows with equal ones are in the order of their ids.
pub(super) fn sort_value(row: &Execution, sort: Sort) -> Option<i64> {
    match sort {
        Sort::Id => None,
        Sort::Due => Some(row.due.as_micros()),
        Sort::StartedAt => row.started_at.map(Wall::as_micros),
        Sort::FinishedAt => row.finished_at.map(Wall::as_micros),
        Sort::Attempt => Some(i64::from(row.attempt)),
    }
}

/// Where the parts of a value of `rows` begin.
const DUE_AT: usize = 4;
const STARTED_AT: usize = 12;
const FINISHED_AT: usize = 21;
const ATTEMPT_AT: usize = 30;
const OUTPUT_LEN_AT: usize = 34;
const OUTPUT_CRC_AT: usize = 38;
const EXECUTION_AT: usize = 42;

/// Writes a row without its output.
pub(super) fn encode_row(row: &Execution) -> Vec<u8> {
    let bare = Execution { output: Arc::from(""), ..row.clone() };
    let output_len = u32::try_from(row.output.len()).unwrap_or(u32::MAX);
    let mut bytes = vec![0; DUE_AT];
    bytes.extend_from_slice(&row.due.as_micros().to_le_bytes());
    for time in [row.started_at, row.finished_at] {
        bytes.push(u8::from(time.is_some()));
        bytes.extend_from_slice(&time.map_or(0, Wall::as_micros).to_le_bytes());
    }
    bytes.extend_from_slice(&row.attempt.to_le_bytes());
    bytes.extend_from_slice(&output_len.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(row.output.as_bytes()).to_le_bytes());
    bytes.extend_from_slice(&codec::encode(&bare));
    let crc = crc32c::crc32c(&bytes[DUE_AT..]);
    bytes[..DUE_AT].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What a value of `rows` is sorted by, read without the rest of it.
pub(super) fn read_sort_value(bytes: &[u8], sort: Sort) -> Result<Option<i64>, HistoryError> {
    if bytes.len() < EXECUTION_AT {
        return Err(damaged_row("it is too short"));
    }
    let micros = |at| i64::from_le_bytes(array(bytes, at));
    let optional = |at: usize| (bytes[at] != 0).then(|| micros(at + 1));
    Ok(match sort {
        Sort::Id => None,
        Sort::Due => Some(micros(DUE_AT)),
        Sort::StartedAt => optional(STARTED_AT),
        Sort::FinishedAt => optional(FINISHED_AT),
        Sort::Attempt => Some(i64::from(u32::from_le_bytes(array(bytes, ATTEMPT_AT)))),
    })
}

/// A row whose output has not been read.
#[derive(Debug)]
pub(super) struct BareRow {
    pub(super) execution: Execution,
    pub(super) output_len: usize,
    output_crc: u32,
}

impl BareRow {
    /// Reads a value of `rows`, which belongs to `key`.
    pub(super) fn decode(key: RowKey, bytes: &[u8]) -> Result<Self, HistoryError> {
        if bytes.len() < EXECUTION_AT {
            return Err(damaged_row("it is too short"));
        }
        if crc32c::crc32c(&bytes[DUE_AT..]) != u32::from_le_bytes(array(bytes, 0)) {
            return Err(damaged_row("its checksum does not match"));
        }
        let execution: Execution = codec::decode("row of the history", &bytes[EXECUTION_AT..])
            .map_err(|error| damaged_row(&error.to_string()))?;
        if execution.id != id_of(key) {
            return Err(damaged_row("it is another one"));
        }
        let output_len = u32::from_le_bytes(array(bytes, OUTPUT_LEN_AT)) as usize;
        let output_crc = u32::from_le_bytes(array(bytes, OUTPUT_CRC_AT));
        Ok(Self { execution, output_len, output_crc })
    }

    pub(super) fn weight(&self) -> u64 {
        weight(&self.execution, self.output_len)
    }

    /// The text of the output, if these are its bytes.
    pub(super) fn check_output<'a>(&self, bytes: &'a [u8]) -> Result<&'a str, HistoryError> {
        if bytes.len() != self.output_len || crc32c::crc32c(bytes) != self.output_crc {
            return Err(damaged_row("the checksum of its output does not match"));
        }
        std::str::from_utf8(bytes).map_err(|_| damaged_row("its output is no text"))
    }
}

fn damaged_row(reason: &str) -> HistoryError {
    HistoryError::Damaged(format!("a row cannot be read: {reason}"))
}

/// The `N` bytes at `at`, which are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has the length of the array")
}
