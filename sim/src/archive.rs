//! The history of executions on one host: the store that ships, over a simulated file.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use cronclave::codec::snapshot::History;
use cronclave::id::{LogIndex, RequestId};
use cronclave::jobs::history::change::{Change, Limits, Query};
use cronclave::jobs::history::store::{HistoryError, Store};
use cronclave::node::io::Input;
use madsim::time::{sleep, timeout};

use crate::mailbox::Mailbox;
use crate::shared::{Machine, Room, Shared};
use crate::world::Host;

/// How long the store takes for one thing, in microseconds. madsim sleeps no shorter than a
/// millisecond.
const WORK_MICROS: std::ops::Range<u64> = 1_000..3_000;

/// When nothing has come for so long, what was carried out is made durable.
const COMMIT_AFTER: Duration = Duration::from_millis(500);

/// How often a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_millis(200);

/// What the store is to do.
pub(crate) enum Task {
    Apply {
        upto: LogIndex,
        changes: Vec<(LogIndex, Change)>,
    },
    Read {
        id: RequestId,
        query: Query,
    },
    /// Make everything durable that was handed over before the entry `index` or for it, and give
    /// all of it.
    Export {
        index: LogIndex,
        answer: Rc<Mailbox<History>>,
    },
    /// Put this in the place of all rows.
    Replace {
        history: History,
        answer: Rc<Mailbox<()>>,
    },
}

/// What waits for the store, and whether it has done all of it.
#[derive(Default)]
pub(crate) struct Archive {
    tasks: Mailbox<Task>,
    unfinished: Cell<usize>,
}

impl Archive {
    pub(crate) fn push(&self, task: Task) {
        self.unfinished.set(self.unfinished.get() + 1);
        self.tasks.push(task);
    }

    /// The history of a snapshot up to `index`.
    pub(crate) async fn export(&self, index: LogIndex) -> History {
        let answer = Rc::new(Mailbox::default());
        self.push(Task::Export { index, answer: Rc::clone(&answer) });
        answer.pop().await
    }

    /// Puts the history of a snapshot in the place of this one.
    pub(crate) async fn replace(&self, history: History) {
        let answer = Rc::new(Mailbox::default());
        self.push(Task::Replace { history, answer: Rc::clone(&answer) });
        answer.pop().await;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.unfinished.get() == 0
    }
}

/// Opens what is on the machine's disk. A history that is behind the newest snapshot is made anew
/// from that, as the shell does it.
pub(crate) fn open(machine: &Machine) -> Result<(), HistoryError> {
    // The old one has to let go of the file before.
    drop(machine.store.borrow_mut().take());
    let mut store = Store::open(machine.history.borrow().clone(), Limits::default())?;
    let newest = machine.snapshots.borrow().newest().map(|snapshot| snapshot.index());
    if store.upto() < newest {
        replace(&mut store, machine.snapshots.borrow().history())?;
    }
    *machine.store.borrow_mut() = Some(store);
    Ok(())
}

/// Does what is asked of the store on this host, in order, until the host is dead.
pub(crate) async fn keep(host: Rc<Host>, shared: Rc<Shared>, index: usize) {
    let machine = shared.machine(index);
    loop {
        let Ok(task) = timeout(COMMIT_AFTER, host.archive.tasks.pop()).await else {
            if let Err(error) = with_store(machine, Store::commit) {
                return fail(&host, &error);
            }
            continue;
        };
        sleep(shared.draw_micros(WORK_MICROS)).await;
        let done = match task {
            Task::Apply { upto, changes } => {
                while machine.room.get() == Room::None {
                    sleep(FULL_RETRY).await;
                }
                let done = with_store(machine, |store| store.apply(upto, &changes));
                done.map(|()| host.inbox.push(Input::HistoryKept { upto }))
            }
            Task::Read { id, query } => {
                let page = with_store(machine, |store| store.page(&query));
                let page = page.map_err(|error| error.to_string());
                host.inbox.push(Input::HistoryRead { id, page });
                Ok(())
            }
            Task::Export { index, answer } => {
                let history = with_store(machine, |store| export(store, index));
                history.map(|history| answer.push(history))
            }
            Task::Replace { history, answer } => {
                let done = with_store(machine, |store| replace(store, history));
                done.map(|()| answer.push(()))
            }
        };
        if let Err(error) = done {
            return fail(&host, &error);
        }
        host.archive.unfinished.set(host.archive.unfinished.get() - 1);
    }
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

fn with_store<T>(machine: &Machine, work: impl FnOnce(&mut Store) -> T) -> T {
    work(machine.store.borrow_mut().as_mut().expect("a server has a history while it runs"))
}

fn fail(host: &Host, error: &HistoryError) {
    host.inbox.push(Input::DiskFailed { reason: error.to_string() });
}
