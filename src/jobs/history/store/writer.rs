//! How a change is carried out, and what is dropped for it: [`Writer`].

use redb::{ReadableTable, Table, WriteTransaction};

use super::error::HistoryError;
use super::tables::{
    BareRow, ENDS, EndKey, JOBS, JobRecord, Meta, OUTPUTS, ROW_OVERHEAD, ROWS, RowKey, encode_row,
    end_key, end_of, key_of, keys_of, weight, write_meta,
};
use crate::id::JobName;
use crate::jobs::history::change::{Change, Limits};
use crate::jobs::job::Execution;
use crate::time::Wall;

/// The most rows that one change drops beyond those that make up for what it adds.
pub const DROPS_MAX: u64 = 64;

/// The tables in a transaction, and the counters as they will be after it.
pub(super) struct Writer<'t> {
    txn: &'t WriteTransaction,
    limits: Limits,
    meta: Meta,
    jobs: Table<'t, &'static str, (u64, u64, u64)>,
    rows: Table<'t, RowKey, &'static [u8]>,
    outputs: Table<'t, RowKey, &'static [u8]>,
    ends: Table<'t, EndKey, ()>,
}

impl<'t> Writer<'t> {
    /// Opens the tables, and makes them if there are none.
    pub(super) fn open(
        txn: &'t WriteTransaction,
        limits: Limits,
        meta: Meta,
    ) -> Result<Self, HistoryError> {
        Ok(Self {
            txn,
            limits,
            meta,
            jobs: txn.open_table(JOBS)?,
            rows: txn.open_table(ROWS)?,
            outputs: txn.open_table(OUTPUTS)?,
            ends: txn.open_table(ENDS)?,
        })
    }

    pub(super) fn carry_out(&mut self, change: &Change) -> Result<(), HistoryError> {
        match change {
            Change::Put(row) => {
                self.put(row)?;
                self.drop_excess(row)
            }
            Change::Forget(job) => self.forget(job),
        }
    }

    /// Writes the counters; gives them.
    pub(super) fn finish(self) -> Result<Meta, HistoryError> {
        write_meta(self.txn, &self.meta)?;
        Ok(self.meta)
    }

    /// Adds a row, or puts it in the place of the one of its id. Drops nothing.
    pub(super) fn put(&mut self, row: &Execution) -> Result<(), HistoryError> {
        let mut job = match self.job(&row.job)? {
            Some(job) => job,
            None => {
                self.meta.job_next += 1;
                JobRecord { number: self.meta.job_next, rows: 0, bytes: 0 }
            }
        };
        let key = key_of(job, row.id);
        if let Some(old) = self.take(key)? {
            job.rows = job.rows.saturating_sub(1);
            job.bytes = job.bytes.saturating_sub(old.weight());
        }
        self.rows.insert(key, &*encode_row(row))?;
        if !row.output.is_empty() {
            self.outputs.insert(key, row.output.as_bytes())?;
        }
        self.ends.insert(end_key(row, key), ())?;
        let weight = weight(row, row.output.len());
        job.rows += 1;
        job.bytes += weight;
        self.meta.rows += 1;
        self.meta.bytes += weight;
        self.meta.newest = self.meta.newest.max(end_of(row));
        self.jobs.insert(row.job.as_str(), <(u64, u64, u64)>::from(job))?;
        Ok(())
    }

    /// Drops what is too much after `added` was put: what makes up for it, and some more.
    fn drop_excess(&mut self, added: &Execution) -> Result<(), HistoryError> {
        // No row weighs less than the overhead, so these drops free at least what was added.
        let making_up = weight(added, added.output.len()).div_ceil(ROW_OVERHEAD);
        let mut drops = DROPS_MAX + making_up;
        if let Some(job) = self.job(&added.job)? {
            let excess = job.rows.saturating_sub(self.limits.rows_per_job).min(drops);
            drops -= excess;
            for _ in 0..excess {
                let oldest = self.rows.range(keys_of(job))?.next().transpose()?;
                let Some(key) = oldest.map(|(key, _)| key.value()) else { break };
                self.drop_row(key)?;
            }
        }
        while drops > 0 {
            let Some(first) = self.ends.first()?.map(|(key, _)| key.value()) else { break };
            let aged = Wall::from_micros(first.0) < self.meta.newest - self.limits.age;
            if !aged && self.meta.bytes <= self.limits.bytes {
                break;
            }
            self.drop_row((first.1, first.2, first.3))?;
            drops -= 1;
        }
        Ok(())
    }

    /// Drops all rows of a job: they stand side by side, so this is quick for thousands of them.
    fn forget(&mut self, name: &JobName) -> Result<(), HistoryError> {
        let Some(job) = self.job(name)? else { return Ok(()) };
        for item in self.rows.range(keys_of(job))? {
            let (key, value) = item?;
            let row = BareRow::decode(key.value(), value.value())?;
            self.ends.remove(end_key(&row.execution, key.value()))?;
        }
        self.rows.retain_in(keys_of(job), |_, _| false)?;
        self.outputs.retain_in(keys_of(job), |_, _| false)?;
        self.jobs.remove(name.as_str())?;
        self.meta.rows = self.meta.rows.saturating_sub(job.rows);
        self.meta.bytes = self.meta.bytes.saturating_sub(job.bytes);
        Ok(())
    }

    fn job(&self, name: &JobName) -> Result<Option<JobRecord>, HistoryError> {
        Ok(self.jobs.get(name.as_str())?.map(|value| value.value().into()))
    }

    /// Drops a row, and its job's record with the last one.
    fn drop_row(&mut self, key: RowKey) -> Result<(), HistoryError> {
        let lost = |what: &str| HistoryError::Damaged(format!("{what} of a row is gone"));
        let row = self.take(key)?.ok_or_else(|| lost("the content"))?;
        let name = &row.execution.job;
        let mut job = self.job(name)?.ok_or_else(|| lost("the job"))?;
        job.rows = job.rows.saturating_sub(1);
        job.bytes = job.bytes.saturating_sub(row.weight());
        if job.rows == 0 {
            self.jobs.remove(name.as_str())?;
        } else {
            self.jobs.insert(name.as_str(), <(u64, u64, u64)>::from(job))?;
        }
        Ok(())
    }

    /// Takes a row out of all tables but that of its job.
    fn take(&mut self, key: RowKey) -> Result<Option<BareRow>, HistoryError> {
        let Some(value) = self.rows.remove(key)? else { return Ok(None) };
        let row = BareRow::decode(key, value.value())?;
        drop(value);
        if row.output_len > 0 {
            self.outputs.remove(key)?;
        }
        self.ends.remove(end_key(&row.execution, key))?;
        self.meta.rows = self.meta.rows.saturating_sub(1);
        self.meta.bytes = self.meta.bytes.saturating_sub(row.weight());
        Ok(Some(row))
    }
}
