//! Pages of rows: [`Store::page`].

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableDatabase, ReadableTable};

use super::Store;
use super::error::HistoryError;
use super::tables::{
    BareRow, JOBS, JobRecord, OUTPUTS, ROWS, RowKey, id_of, key_of, keys_of, read_sort_value,
    sort_value,
};
use crate::id::{ExecutionId, JobName};
use crate::jobs::apply::tail;
use crate::jobs::history::change::{Order, Page, Query, Select, Sort};
use crate::jobs::job::Execution;

/// The most rows of one page.
pub const PAGE_ROWS_MAX: u64 = 1_000;

/// The most bytes of output in one page. If its rows have more, each is cut to its end.
pub const PAGE_OUTPUT_LEN_MAX: usize = 32 << 20;

/// An execution that may be on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    value: Option<i64>,
    id: ExecutionId,
}

impl Store {
    /// What the store and `query.open` have of a job. An execution of which both have a row is
    /// shown as ended. Rows of a page are at most [`PAGE_ROWS_MAX`], and their outputs together at
    /// most [`PAGE_OUTPUT_LEN_MAX`] bytes; a single execution comes with all of its output.
    ///
    /// # Errors
    /// If the backend fails or the store is damaged.
    pub fn page(&self, query: &Query) -> Result<Page, HistoryError> {
        let txn = self.db.begin_read()?;
        let job = job_of(&txn, &query.job)?;
        match query.select {
            Select::One(id) => one(&txn, job, query, id),
            Select::Part { sort, order, skip, limit, output_len_max } => {
                let mut chosen = candidates(&txn, job, query, sort)?;
                let total = chosen.len() as u64;
                match order {
                    Order::Ascending => chosen.sort_unstable(),
                    Order::Descending => chosen.sort_unstable_by(|a, b| b.cmp(a)),
                }
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                let limit = usize::try_from(limit.min(PAGE_ROWS_MAX)).unwrap_or(usize::MAX);
                let ids = chosen.into_iter().skip(skip).take(limit).map(|chosen| chosen.id);
                let ids: Vec<ExecutionId> = ids.collect();
                let len_max = usize::try_from(output_len_max).unwrap_or(usize::MAX);
                Ok(Page { rows: rows(&txn, job, query, &ids, len_max)?, total })
            }
        }
    }
}

fn job_of(txn: &ReadTransaction, name: &JobName) -> Result<Option<JobRecord>, HistoryError> {
    Ok(txn.open_table(JOBS)?.get(name.as_str())?.map(|value| value.value().into()))
}

fn one(
    txn: &ReadTransaction,
    job: Option<JobRecord>,
    query: &Query,
    id: ExecutionId,
) -> Result<Page, HistoryError> {
    let mut total = query.open.len() as u64;
    if let Some(job) = job {
        let table = txn.open_table(ROWS)?;
        total += job.rows;
        for row in &query.open {
            total -= u64::from(table.get(key_of(job, row.id))?.is_some());
        }
    }
    Ok(Page { rows: rows(txn, job, query, &[id], usize::MAX)?, total })
}

/// All executions of the job, each once.
fn candidates(
    txn: &ReadTransaction,
    job: Option<JobRecord>,
    query: &Query,
    sort: Sort,
) -> Result<Vec<Candidate>, HistoryError> {
    let open = query.open.iter();
    let mut open: BTreeMap<ExecutionId, Option<i64>> =
        open.map(|row| (row.id, sort_value(row, sort))).collect();
    let mut found = Vec::new();
    if let Some(job) = job {
        for item in txn.open_table(ROWS)?.range(keys_of(job))? {
            let (key, value) = item?;
            let id = id_of(key.value());
            open.remove(&id);
            found.push(Candidate { id, value: read_sort_value(value.value(), sort)? });
        }
    }
    found.extend(open.into_iter().map(|(id, value)| Candidate { id, value }));
    Ok(found)
}

/// A row of the page whose output has not been read or cut.
enum Found<'q> {
    Stored(RowKey, Box<BareRow>),
    Open(&'q Arc<Execution>),
}

impl Found<'_> {
    fn output_len(&self) -> usize {
        match self {
            Self::Stored(_, row) => row.output_len,
            Self::Open(row) => row.output.len(),
        }
    }
}

/// The executions `ids`, each with at most `len_max` bytes of output, and all with at most
/// [`PAGE_OUTPUT_LEN_MAX`]. Unknown ones are left out.
fn rows(
    txn: &ReadTransaction,
    job: Option<JobRecord>,
    query: &Query,
    ids: &[ExecutionId],
    len_max: usize,
) -> Result<Vec<Arc<Execution>>, HistoryError> {
    let table = txn.open_table(ROWS)?;
    let open: BTreeMap<ExecutionId, &Arc<Execution>> =
        query.open.iter().map(|row| (row.id, row)).collect();
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let key = job.map(|job| key_of(job, *id));
        let stored = key.map(|key| table.get(key)).transpose()?.flatten();
        if let (Some(key), Some(value)) = (key, stored) {
            found.push(Found::Stored(key, Box::new(BareRow::decode(key, value.value())?)));
        } else if let Some(row) = open.get(id) {
            found.push(Found::Open(row));
        }
    }
    let wanted: usize = found.iter().map(|row| row.output_len().min(len_max)).sum();
    let share = PAGE_OUTPUT_LEN_MAX / found.len().max(1);
    let len_max = if wanted > PAGE_OUTPUT_LEN_MAX { len_max.min(share) } else { len_max };
    let outputs = txn.open_table(OUTPUTS)?;
    found.into_iter().map(|row| show(&outputs, row, len_max)).collect()
}

/// The row with the end of its output, at most `len_max` bytes.
fn show(
    outputs: &impl ReadableTable<RowKey, &'static [u8]>,
    row: Found<'_>,
    len_max: usize,
) -> Result<Arc<Execution>, HistoryError> {
    match row {
        Found::Stored(key, row) => read_output(outputs, key, *row, len_max).map(Arc::new),
        Found::Open(row) if row.output.len() <= len_max => Ok(Arc::clone(row)),
        Found::Open(row) => {
            let output = Arc::from(tail(&row.output, len_max));
            Ok(Arc::new(Execution { output, output_truncated: true, ..Execution::clone(row) }))
        }
    }
}

/// Completes a row with the end of its output, at most `len_max` bytes.
pub(super) fn read_output(
    outputs: &impl ReadableTable<RowKey, &'static [u8]>,
    key: RowKey,
    row: BareRow,
    len_max: usize,
) -> Result<Execution, HistoryError> {
    if row.output_len == 0 {
        return Ok(row.execution);
    }
    let value = outputs.get(key)?;
    let bytes = value.as_ref().map_or(&[][..], |value| value.value());
    let output = row.check_output(bytes)?;
    let kept = tail(output, len_max);
    let output_truncated = row.execution.output_truncated || kept.len() < output.len();
    Ok(Execution { output: Arc::from(kept), output_truncated, ..row.execution })
}
