//! The history of executions on its way to the store that keeps it: what becomes of the rows is
//! collected here while entries are applied, handed out once a turn, and counted until it is kept.
//!
//! A store that is slower than the cluster must not make a node grow. So a leader whose store is
//! behind by [`UNKEPT_BYTES_MAX`] neither claims what is due nor proposes results (their nodes keep
//! them and report again) until half of that is kept. A follower cannot refuse what is committed;
//! one that is behind by twice as much takes no more entries, and Raft sends them again.
//!
//! **Invariants**
//! - Changes are handed out in the order of the log, each once in the life of a process.
//! - What is handed out before a snapshot or a read covers every entry that is applied by then.

use std::collections::VecDeque;

use super::Node;
use super::io::{Event, Output};
use crate::id::{JobName, LogIndex, RequestId};
use crate::jobs::history::change::{Change, Page, Query, Select};
use crate::jobs::job::{Execution, OUTPUT_LEN_MAX, RunResult};
use crate::node::request::{Reply, RequestError};

/// How many bytes of changes may be under way to the store before a leader waits for it.
pub(super) const UNKEPT_BYTES_MAX: u64 = 64 << 20;

/// What a change weighs beside its texts, rounded up.
const CHANGE_OVERHEAD: u64 = 512;

/// What is under way to the store of the history.
#[derive(Debug, Default)]
pub(super) struct Unkept {
    /// Not handed out yet.
    fresh: Vec<(LogIndex, Change)>,
    /// Handed out and not kept: up to where, and how many bytes.
    out: VecDeque<(LogIndex, u64)>,
    /// What `fresh` and `out` weigh.
    bytes: u64,
    /// What `fresh` weighs.
    fresh_bytes: u64,
    /// What the results weigh that this node has proposed, and that are not applied yet.
    proposed: u64,
    /// The greatest entry that was handed out.
    upto: Option<LogIndex>,
    pace: Pace,
    /// What was told last.
    told: Pace,
}

/// Whether the store keeps up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pace {
    #[default]
    KeepsUp,
    Behind,
}

impl Unkept {
    /// An entry was applied, and this becomes of the history by it.
    pub(super) fn push(&mut self, index: LogIndex, changes: Vec<Change>) {
        for change in changes {
            let weight = weight(&change);
            self.bytes += weight;
            self.fresh_bytes += weight;
            self.fresh.push((index, change));
        }
    }

    /// What is to be handed out, up to and with the entry `applied`. Without changes there is
    /// nothing, unless the store `must` hear of that entry.
    fn take(&mut self, applied: LogIndex, must: Must) -> Option<Output> {
        let upto = self.fresh.last().map_or(applied, |(index, _)| applied.max(*index));
        let is_news = match must {
            Must::Know => self.upto < Some(upto),
            Must::Carry => false,
        };
        if self.fresh.is_empty() && !is_news {
            return None;
        }
        self.upto = Some(upto);
        self.out.push_back((upto, std::mem::take(&mut self.fresh_bytes)));
        Some(Output::History { upto, changes: std::mem::take(&mut self.fresh) })
    }

    /// The store has carried out all changes up to and with `upto`.
    pub(super) fn on_kept(&mut self, upto: LogIndex) {
        while let Some((index, bytes)) = self.out.front().copied()
            && index <= upto
        {
            self.out.pop_front();
            self.bytes -= bytes;
        }
    }

    /// Whether a result may be proposed that weighs so much.
    pub(super) fn has_room(&mut self, weight: u64) -> bool {
        if self.weight() + weight > UNKEPT_BYTES_MAX {
            self.pace = Pace::Behind;
        }
        self.pace == Pace::KeepsUp
    }

    /// Whether nothing new may be begun until more is kept.
    pub(super) fn is_behind(&self) -> bool {
        self.pace == Pace::Behind
    }

    /// Whether not even a follower may take more.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > 2 * UNKEPT_BYTES_MAX
    }

    pub(super) fn on_proposed(&mut self, weight: u64) {
        self.proposed += weight;
    }

    pub(super) fn on_settled(&mut self, weight: u64) {
        self.proposed -= weight;
    }

    fn weight(&self) -> u64 {
        self.bytes + self.proposed
    }

    /// The pace, if it is another than the one that was told last.
    fn look(&mut self) -> Option<Pace> {
        if self.weight() > UNKEPT_BYTES_MAX {
            self.pace = Pace::Behind;
        } else if self.weight() <= UNKEPT_BYTES_MAX / 2 {
            self.pace = Pace::KeepsUp;
        }
        let before = std::mem::replace(&mut self.told, self.pace);
        (before != self.pace).then_some(self.pace)
    }
}

/// Why changes are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    /// So that they are carried out some time.
    Carry,
    /// So that the store knows how far the log has come, with or without changes.
    Know,
}

fn weight(change: &Change) -> u64 {
    match change {
        Change::Put(row) => CHANGE_OVERHEAD + texts(row),
        Change::Forget(_) => CHANGE_OVERHEAD,
    }
}

fn texts(row: &Execution) -> u64 {
    (row.output.len() + row.reason.len()) as u64
}

/// What a result will weigh as a row.
pub(super) fn weight_of(result: &RunResult) -> u64 {
    let output = result.output.len().min(OUTPUT_LEN_MAX);
    CHANGE_OVERHEAD + (output + result.reason.len()) as u64
}

impl Node {
    /// Hands out what has come together in this turn.
    pub(super) fn hand_out_history(&mut self) {
        let applied = self.raft.applied.unwrap_or_default();
        let output = self.unkept.take(applied, Must::Carry);
        self.outputs.extend(output);
    }

    /// Hands out what there is, so that the store covers this entry before the next output. All
    /// that was applied up to it must have been reported by the engine.
    pub(super) fn cover_by_history(&mut self, index: LogIndex) {
        let output = self.unkept.take(index, Must::Know);
        self.outputs.extend(output);
    }

    /// Says so once when the store falls behind, and goes on when it has caught up. True if either
    /// has just happened.
    pub(super) fn watch_history(&mut self) -> bool {
        match self.unkept.look() {
            None => return false,
            Some(Pace::Behind) => self.event(Event::HistoryBehind { bytes: self.unkept.bytes }),
            Some(Pace::KeepsUp) => {
                self.event(Event::HistoryCaughtUp);
                self.hear_reports();
            }
        }
        true
    }

    /// Asks the store for executions of a job, as of what is applied. False if it has to wait.
    pub(super) fn read_history(&mut self, id: RequestId, job: JobName, select: Select) -> bool {
        let Some(engine) = &self.engine else { return false };
        let state = engine.machine().0;
        let Some(stored) = state.job(&job) else {
            self.answer(id, Reply::Failed(RequestError::JobNotFound(job)));
            return true;
        };
        if !self.requests.begin_reading(id) {
            return false;
        }
        let open = state.open_of(stored).cloned().collect();
        self.hand_out_history();
        self.outputs.push_back(Output::ReadHistory { id, query: Query { job, open, select } });
        true
    }

    /// The store has answered. A request that is over meanwhile has its answer.
    pub(super) fn on_history_read(&mut self, id: RequestId, page: Result<Page, String>) {
        if self.requests.end_reading(id) {
            self.answer(
                id,
                match page {
                    Ok(page) => Reply::Executions(Box::new(page)),
                    Err(reason) => Reply::Failed(RequestError::HistoryUnavailable(reason)),
                },
            );
        }
    }
}
