//! The history of executions on one machine: the store that ships, over a simulated file.

use std::collections::VecDeque;
use std::time::Duration;

use cronclave::codec::snapshot::History;
use cronclave::consensus::{SnapshotTask, TaskId};
use cronclave::id::{LogIndex, RequestId};
use cronclave::jobs::history::change::{Change, Limits, Query};
use cronclave::jobs::history::store::{HistoryError, Store};
use cronclave::node::io::Input;

use super::machine::Machine;
use super::{Event, Sim};
use crate::plan::Range;

/// How long the store takes until it has worked off what waits for it. It is long, so that much is
/// worked off at once: a simulation spends most of its time here otherwise.
const WORK: Range = Range::micros(1_000, 200_000);

/// What was carried out is made durable after so long.
const COMMIT_AFTER: Duration = Duration::from_secs(5);

/// The most tasks that are worked off at once.
const TASKS_MAX: usize = 256;

/// What the store is to do.
#[derive(Debug)]
pub(super) enum Task {
    Apply {
        upto: LogIndex,
        changes: Vec<(LogIndex, Change)>,
    },
    Read {
        id: RequestId,
        query: Query,
    },
    /// Make everything durable that was handed over before the entry `index` or for it, and give
    /// all of it to a snapshot.
    Export {
        index: LogIndex,
        id: TaskId,
        task: SnapshotTask,
    },
    /// Put what the newest snapshot holds in the place of all rows; it was installed as `id`.
    Replace {
        id: TaskId,
    },
}

/// The thread that keeps the store.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    queue: VecDeque<Task>,
    is_busy: bool,
    has_commit: bool,
    is_dirty: bool,
}

impl Archive {
    /// Whether everything that was handed over is carried out.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Opens what is on the machine's disk. A history that is behind the newest snapshot is made anew
/// from that, as the shell does it.
pub(super) fn open(machine: &mut Machine) -> Result<(), HistoryError> {
    // The old one has to let go of the file before.
    drop(machine.store.take());
    let mut store = Store::open(machine.history.clone(), Limits::default())?;
    let newest = machine.snapshots.newest().map(|snapshot| snapshot.index());
    if store.upto() < newest {
        replace(&mut store, machine.snapshots.history())?;
    }
    machine.store = Some(store);
    Ok(())
}

impl Sim {
    pub(super) fn push_archive(&mut self, index: usize, task: Task) {
        if let Some(host) = &mut self.machines[index].host {
            host.archive.queue.push_back(task);
        }
        self.archive_on(index);
    }

    /// Has the store work, if there is something and it does not work already.
    pub(super) fn archive_on(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let (life, is_full) = (machine.life, machine.ill.is_full);
        let Some(host) = &mut machine.host else { return };
        if host.archive.is_busy || host.archive.queue.is_empty() || is_full {
            return;
        }
        host.archive.is_busy = true;
        let takes = self.draws.disk.span(WORK);
        self.after(takes, Event::Archive { host: index, life });
    }

    pub(super) fn on_archive(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let life = machine.life;
        let Some(host) = &mut machine.host else { return };
        host.archive.is_busy = false;
        if machine.ill.is_full {
            return;
        }
        let count = host.archive.queue.len().min(TASKS_MAX);
        let tasks: Vec<Task> = host.archive.queue.drain(..count).collect();
        host.archive.is_dirty = true;
        let has_commit = std::mem::replace(&mut host.archive.has_commit, true);
        let mut together: Option<(LogIndex, Vec<(LogIndex, Change)>)> = None;
        for task in tasks {
            if let Task::Apply { upto, changes } = task {
                let (last, all) = together.get_or_insert_with(|| (upto, Vec::new()));
                *last = upto;
                all.extend(changes);
                continue;
            }
            let done = self.apply(index, together.take());
            if let Err(error) = done.and_then(|()| self.work_off(index, task)) {
                return self.archive_failed(index, &error);
            }
        }
        if let Err(error) = self.apply(index, together) {
            return self.archive_failed(index, &error);
        }
        if !has_commit {
            self.after(COMMIT_AFTER, Event::Commit { host: index, life });
        }
        self.archive_on(index);
    }

    fn apply(
        &mut self,
        index: usize,
        work: Option<(LogIndex, Vec<(LogIndex, Change)>)>,
    ) -> Result<(), HistoryError> {
        let Some((upto, changes)) = work else { return Ok(()) };
        store(&mut self.machines[index]).apply(upto, &changes)?;
        self.give(index, Input::HistoryKept { upto });
        Ok(())
    }

    fn work_off(&mut self, index: usize, task: Task) -> Result<(), HistoryError> {
        let machine = &mut self.machines[index];
        match task {
            Task::Apply { .. } => {}
            Task::Read { id, query } => {
                let page = store(machine).page(&query).map_err(|error| error.to_string());
                self.give(index, Input::HistoryRead { id, page });
            }
            Task::Export { index: upto, id, task } => {
                let history = export(store(machine), upto)?;
                self.built(index, id, task, &history);
            }
            Task::Replace { id } => {
                let history = machine.snapshots.history();
                replace(store(machine), history)?;
                self.installed(index, id);
            }
        }
        Ok(())
    }

    /// What was carried out is made durable when nothing has come for a while.
    pub(super) fn on_commit(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let Some(host) = &mut machine.host else { return };
        host.archive.has_commit = false;
        if !std::mem::take(&mut host.archive.is_dirty) || machine.ill.is_full {
            return;
        }
        if let Err(error) = store(machine).commit() {
            self.archive_failed(index, &error);
        }
    }

    fn archive_failed(&mut self, index: usize, error: &HistoryError) {
        self.give(index, Input::DiskFailed { reason: error.to_string() });
    }
}

fn store(machine: &mut Machine) -> &mut Store {
    machine.store.as_mut().expect("a server has a history while it runs")
}

fn export(store: &mut Store, index: LogIndex) -> Result<History, HistoryError> {
    store.apply(index, &[])?;
    store.commit()?;
    let view = store.view()?;
    let mut history = History { upto: view.upto(), blocks: Vec::new() };
    view.export(&mut |block| {
        history.blocks.push(block);
        Ok(())
    })?;
    Ok(history)
}

fn replace(store: &mut Store, history: History) -> Result<(), HistoryError> {
    let upto = history.upto.expect("every snapshot here holds a history");
    store.replace(upto, history.blocks.into_iter().map(Ok))
}
