//! The log of a machine, as its disk takes it in: one write after the other, each synced before the
//! next, with the time that takes and the faults that befall it.

use std::collections::VecDeque;
use std::time::Duration;

use cronclave::codec::record::Record;
use cronclave::id::WriteId;
use cronclave::node::io::Input;
use cronclave::time::Mono;

use super::{Event, Sim};
use crate::check::seen::Seen;

/// A log that is idle for so long is sealed, as the shell does it.
const SEAL_AFTER: Duration = Duration::from_millis(100);

/// A group of records, and its number on the machine.
#[derive(Debug)]
struct Write {
    write: WriteId,
    number: u64,
    records: Vec<Record>,
}

/// The thread that writes.
#[derive(Debug, Default)]
pub(super) struct Writer {
    queue: VecDeque<Write>,
    /// What is being written, and its number on the machine; a seal has no name.
    current: Option<(Option<WriteId>, u64)>,
    /// Whether a sync is on its way.
    is_syncing: bool,
    /// Whether the node was told that the disk is full.
    told_full: bool,
    is_sealed: bool,
    /// Whether the end of the log is cut by what is being written, or was by what was written last.
    cuts: bool,
    /// When the last write was done.
    done_at: Mono,
}

impl Writer {
    /// Whether records are on their way to the disk.
    pub(super) fn is_writing(&self) -> bool {
        matches!(self.current, Some((Some(_), _)))
    }

    /// Whether the end of the log was just cut, or is about to be.
    pub(super) fn has_cut(&self) -> bool {
        self.cuts
    }
}

impl Sim {
    pub(super) fn persist(&mut self, index: usize, write: WriteId, records: Vec<Record>) {
        let records = self.layer.records(records);
        if self.layer.completes_early() {
            self.give(index, Input::Persisted { write });
        }
        let machine = &mut self.machines[index];
        machine.write_last += 1;
        let number = machine.write_last;
        self.see(&Seen::Written { host: index, write: number, records: &records });
        if let Some(host) = &mut self.machines[index].host {
            host.writer.queue.push_back(Write { write, number, records });
        }
        self.write_next(index);
    }

    /// Begins the next write, if there is one and nothing is in its way.
    pub(super) fn write_next(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let ill = machine.ill;
        let Some(host) = &mut machine.host else { return };
        let writer = &mut host.writer;
        if writer.current.is_some() || writer.queue.is_empty() {
            return;
        }
        if ill.is_full {
            if !writer.told_full {
                writer.told_full = true;
                let reason = "no space is left on a simulated disk".to_owned();
                self.give(index, Input::DiskFull { reason });
            }
            return;
        }
        let Some(Write { write, number, records }) = writer.queue.pop_front() else { return };
        writer.current = Some((Some(write), number));
        writer.is_sealed = false;
        writer.cuts = records.iter().any(|record| matches!(record, Record::Truncate { .. }));
        let was_full = std::mem::take(&mut writer.told_full);
        if let Err(error) = machine.disk.write(&records, None) {
            let reason = error.to_string();
            return self.give(index, Input::DiskFailed { reason });
        }
        if was_full {
            self.give(index, Input::DiskFree);
        }
        self.sync_next(index);
    }

    /// Does what needs no sync, and has the next sync begin, or ends the write.
    fn sync_next(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        machine.disk.run_to_sync();
        if machine.disk.pending() == 0 {
            return self.end_write(index);
        }
        let life = machine.life;
        if let Some(host) = &mut machine.host {
            host.writer.is_syncing = true;
        }
        let slow = machine.ill.slow.max(1);
        let takes = self.draws.disk.span(self.options.sync) * slow;
        self.after(takes, Event::Synced { host: index, life });
    }

    pub(super) fn on_synced(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let Some(host) = &mut machine.host else { return };
        if machine.ill.hangs || !host.writer.is_syncing {
            // It comes to its end when the disk is well again.
            return;
        }
        host.writer.is_syncing = false;
        if machine.ill.fails_sync {
            let reason = "a simulated sync failed".to_owned();
            return self.give(index, Input::DiskFailed { reason });
        }
        machine.disk.step();
        self.sync_next(index);
    }

    fn end_write(&mut self, index: usize) {
        let now = self.now;
        let machine = &mut self.machines[index];
        let life = machine.life;
        let Some(host) = &mut machine.host else { return };
        let Some((write, number)) = host.writer.current.take() else { return };
        host.writer.done_at = now;
        host.writer.is_sealed = write.is_none();
        if let Some(write) = write {
            self.see(&Seen::Synced { host: index, write: number });
            if !self.layer.completes_early() {
                self.give(index, Input::Persisted { write });
            }
            self.after(SEAL_AFTER, Event::Seal { host: index, life });
        }
        self.write_next(index);
    }

    /// Seals a log that has been idle.
    pub(super) fn on_seal(&mut self, index: usize) {
        let now = self.now;
        let machine = &mut self.machines[index];
        let number = machine.write_last;
        let Some(host) = &mut machine.host else { return };
        let writer = &mut host.writer;
        let is_idle = writer.current.is_none() && writer.queue.is_empty();
        let idle_for = now.saturating_since(writer.done_at);
        if !is_idle || writer.is_sealed || idle_for < SEAL_AFTER || machine.ill.is_full {
            return;
        }
        writer.current = Some((None, number));
        machine.disk.seal();
        self.sync_next(index);
    }

    /// The disk works again: what it held up goes on.
    pub(super) fn disk_is_well(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let life = machine.life;
        let Some(host) = &mut machine.host else { return };
        if host.writer.is_syncing {
            self.after(Duration::from_micros(1), Event::Synced { host: index, life });
        }
        self.write_next(index);
        self.work_on(index);
        self.archive_on(index);
    }
}
