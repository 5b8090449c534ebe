//! The store against a plain list of rows, through retention, pages, transfers and crashes.

mod crash;
mod model;
mod pages;
mod retention;
mod transfer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Digest, HistoryError, Store};
use crate::id::{ExecutionId, JobName, LogIndex, NodeId, NodeName, Revision};
use crate::jobs::history::change::{Change, Limits};
use crate::jobs::history::memory_backend::MemoryBackend;
use crate::jobs::job::{Execution, Outcome, Target, Trigger};
use crate::time::Wall;

/// Limits that nothing here reaches.
const WIDE: Limits =
    Limits { rows_per_job: u64::MAX, bytes: u64::MAX, age: Duration::from_secs(1 << 40) };

fn job(name: &str) -> JobName {
    JobName::new(name).unwrap()
}

fn id(claim: u64) -> ExecutionId {
    ExecutionId { claim: LogIndex(claim), slot: 0 }
}

/// An execution that ended well, claimed by the entry `claim`, one second after the one before.
fn row(name: &str, claim: u64, output: &str) -> Execution {
    let at = Wall::from_secs(i64::try_from(claim).unwrap());
    let target = Target { id: NodeId(7), name: NodeName::new("alpha").unwrap() };
    Execution {
        id: id(claim),
        group: id(claim),
        job: job(name),
        job_created: LogIndex(1),
        revision: Revision(1),
        due: at,
        claimed_at: at,
        trigger: Trigger::Schedule,
        node: Some(target),
        attempt: 1,
        not_before: at,
        started_at: Some(at),
        finished_at: Some(at),
        outcome: Outcome::Succeeded,
        reason: String::new(),
        exit_code: Some(0),
        output: Arc::from(output),
        output_truncated: false,
    }
}

fn put(row: Execution) -> Change {
    Change::Put(Arc::new(row))
}

fn open(backend: &MemoryBackend, limits: Limits) -> Store {
    Store::open(backend.clone(), limits).unwrap()
}

fn empty(limits: Limits) -> Store {
    open(&MemoryBackend::new(), limits)
}

/// Carries out one change as the entry `index`.
fn apply(store: &mut Store, index: u64, change: Change) {
    store.apply(LogIndex(index), &[(LogIndex(index), change)]).unwrap();
}

/// All rows of the store, by job and id.
fn all(store: &Store) -> Vec<Execution> {
    let mut rows = Vec::new();
    let view = store.view().unwrap();
    view.each_row(&mut |row| {
        rows.push(row.clone());
        Ok(())
    })
    .unwrap();
    rows
}

fn digest(store: &Store) -> Digest {
    store.view().unwrap().digest().unwrap()
}

fn blocks(store: &Store) -> Vec<Bytes> {
    let mut blocks = Vec::new();
    let view = store.view().unwrap();
    view.export(&mut |block| {
        blocks.push(block);
        Ok(())
    })
    .unwrap();
    blocks
}

fn replace(store: &mut Store, upto: u64, blocks: &[Bytes]) -> Result<(), HistoryError> {
    store.replace(LogIndex(upto), blocks.iter().cloned().map(Ok))
}
