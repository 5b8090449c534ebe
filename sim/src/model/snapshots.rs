//! The snapshot files of one machine.

use cronclave::codec::snapshot::History;
use cronclave::consensus::{SnapshotDone, SnapshotTask, TaskId};
use cronclave::node::io::Input;

use super::archive::Task;
use super::host::Host;
use super::{Event, Sim};
use crate::check::coverage::Situation;
use crate::check::seen::Seen;

impl Sim {
    pub(super) fn push_task(&mut self, index: usize, id: TaskId, task: SnapshotTask) {
        if let Some(host) = &mut self.machines[index].host {
            host.tasks.push_back((id, task));
        }
        self.work_on(index);
    }

    /// Does one task with snapshot files after the other. A snapshot is built beside them.
    pub(super) fn work_on(&mut self, index: usize) {
        loop {
            let machine = &mut self.machines[index];
            let life = machine.life;
            let is_full = machine.ill.is_full;
            let Some(host) = &mut machine.host else { return };
            if host.is_installing {
                return;
            }
            let Some((id, task)) = host.tasks.pop_front() else { return };
            match &task {
                SnapshotTask::Build(source) => {
                    let upto = source.index;
                    self.push_archive(index, Task::Export { index: upto, id, task });
                }
                SnapshotTask::Install { .. } if is_full => {
                    host.tasks.push_front((id, task));
                    return;
                }
                SnapshotTask::Install { .. } => {
                    host.is_installing = true;
                    let takes = self.draws.disk.span(self.options.sync);
                    self.after(
                        takes,
                        Event::Install { host: index, life, id, task: Box::new(task) },
                    );
                }
                // What is not synced costs no time that a simulation could show.
                SnapshotTask::Read { .. }
                | SnapshotTask::Close { .. }
                | SnapshotTask::Receive { .. }
                | SnapshotTask::Verify { .. }
                | SnapshotTask::Discard { .. } => self.perform_task(index, id, task, is_full),
            }
        }
    }

    fn perform_task(&mut self, index: usize, id: TaskId, task: SnapshotTask, is_full: bool) {
        self.note_task(index, &task);
        let snapshots = &mut self.machines[index].snapshots;
        let done = if let (SnapshotTask::Receive { file, .. }, true) = (&task, is_full) {
            snapshots.discard(*file);
            let reason = "no space is left on a simulated disk".to_owned();
            Some(SnapshotDone::Received(Err(reason)))
        } else {
            task.perform(snapshots, &History::default())
        };
        let Some(done) = done else { return };
        self.give(index, Input::SnapshotDone { id, done });
    }

    /// Takes note of what the task means for the snapshots that are on their way.
    fn note_task(&mut self, index: usize, task: &SnapshotTask) {
        let Some(host) = &mut self.machines[index].host else { return };
        match task {
            SnapshotTask::Receive { .. } => host.is_receiving = true,
            SnapshotTask::Read { file, .. } => {
                host.sending.insert(*file);
            }
            SnapshotTask::Close { file } => {
                host.sending.remove(file);
            }
            SnapshotTask::Discard { .. } => host.is_receiving = false,
            SnapshotTask::Verify { .. } | SnapshotTask::Install { .. } | SnapshotTask::Build(_) => {
            }
        }
    }

    /// A node dies, and with it what was on its way.
    pub(super) fn note_broken_off(&mut self, dead: &Host) {
        if dead.is_receiving {
            self.checkers.note(Situation::SnapshotReceiverDied);
        }
        if !dead.sending.is_empty() {
            self.checkers.note(Situation::SnapshotSenderDied);
        }
    }

    /// The archive has given its rows: the file is written and synced, which takes a while.
    pub(super) fn built(
        &mut self,
        index: usize,
        id: TaskId,
        task: SnapshotTask,
        history: &History,
    ) {
        let machine = &self.machines[index];
        let life = machine.life;
        let slow = machine.ill.slow.max(1);
        let takes = self.draws.disk.span(self.options.sync) * slow;
        let built = Box::new((task, history.clone()));
        self.after(takes, Event::Built { host: index, life, id, built });
    }

    pub(super) fn on_built(&mut self, index: usize, id: TaskId, built: (SnapshotTask, History)) {
        let (task, history) = built;
        let done = task.perform(&mut self.machines[index].snapshots, &history);
        self.show_snapshot(index);
        if let Some(done) = done {
            self.snapshots_built += 1;
            self.give(index, Input::SnapshotDone { id, done });
        }
    }

    /// The file that came in gets its name. The node may die before the history is in place: its
    /// next life does the rest then.
    pub(super) fn on_install(&mut self, index: usize, id: TaskId, task: SnapshotTask) {
        let done = task.perform(&mut self.machines[index].snapshots, &History::default());
        debug_assert!(matches!(done, Some(SnapshotDone::Installed)));
        self.show_snapshot(index);
        self.push_archive(index, Task::Replace { id });
    }

    pub(super) fn installed(&mut self, index: usize, id: TaskId) {
        self.snapshots_installed += 1;
        if let Some(host) = &mut self.machines[index].host {
            host.is_installing = false;
            host.is_receiving = false;
        }
        self.give(index, Input::SnapshotDone { id, done: SnapshotDone::Installed });
        self.work_on(index);
    }

    fn show_snapshot(&mut self, index: usize) {
        if self.layer.loses_snapshots() {
            return;
        }
        if let Some(newest) = self.machines[index].snapshots.newest() {
            self.see(&Seen::Snapshot { host: index, index: newest.index() });
        }
    }
}
