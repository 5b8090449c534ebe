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
    /// For a snapshot up to this entry.
    Export {
        index: LogIndex,
        answer: Rc<Mailbox<History>>,
    },
    /// By that of a snapshot.
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

    /// The history as of the entry `index` or later, which is durable.
    pub(crate) async fn export(&self, index: LogIndex) -> History {
        let answer = Rc::new(Mailbox::default());
        self.push(Task::Export { index, answer: Rc::clone(&answer) });
        answer.pop().await
    }

    /// Puts the history of a snapshot in the place of the one that is there, durably.
    pub(crate) async fn replace(&self, history: History) {
        let answer = Rc::new(Mailbox::default());
        self.push(Task::Replace { history, answer: Rc::clone(&answer) });
        answer.pop().await;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.unfinished.get() == 0
    }
}

/// Opens what is on the machine's disk.
pub(crate) fn open(machine: &Machine) -> Result<(), HistoryError> {
    // The old one has to let go of the file before.
    drop(machine.store.borrow_mut().take());
    let mut store = Store::open(machine.history.borrow().clone(), Limits::default())?;
    let snapshots = machine.snapshots.borrow();
    if let Some(snapshot) = snapshots.newest()
        && store.upto() < Some(snapshot.index())
    {
        replace(&mut store, snapshots.history())?;
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
        let input = match task {
            Task::Apply { upto, changes } => {
                while machine.room.get() == Room::None {
                    sleep(FULL_RETRY).await;
                }
                match with_store(machine, |store| store.apply(upto, &changes)) {
                    Ok(()) => Some(Input::HistoryKept { upto }),
                    Err(error) => return fail(&host, &error),
                }
            }
            Task::Read { id, query } => {
                let page = with_store(machine, |store| store.page(&query));
                Some(Input::HistoryRead { id, page: page.map_err(|error| error.to_string()) })
            }
            Task::Export { index, answer } => {
                match with_store(machine, |store| export(store, index)) {
                    Ok(history) => answer.push(history),
                    Err(error) => return fail(&host, &error),
                }
                None
            }
            Task::Replace { history, answer } => {
                match with_store(machine, |store| replace(store, history)) {
                    Ok(()) => answer.push(()),
                    Err(error) => return fail(&host, &error),
                }
                None
            }
        };
        host.archive.unfinished.set(host.archive.unfinished.get() - 1);
        if let Some(input) = input {
            host.inbox.push(input);
        }
    }
}

fn export(store: &mut Store, index: LogIndex) -> Result<History, HistoryError> {
    store.apply(index, &[])?;
    store.commit()?;
    let view = store.view()?;
    let mut blocks = Vec::new();
    view.export(&mut |block| {
        blocks.push(block);
        Ok(())
    })?;
    Ok(History { upto: view.upto(), blocks })
}

fn replace(store: &mut Store, history: History) -> Result<(), HistoryError> {
    let upto = history.upto.expect("a snapshot holds the history");
    store.replace(upto, history.blocks.into_iter().map(Ok))
}

fn with_store<T>(machine: &Machine, work: impl FnOnce(&mut Store) -> T) -> T {
    work(machine.store.borrow_mut().as_mut().expect("a server has a history while it runs"))
}

fn fail(host: &Host, error: &HistoryError) {
    host.inbox.push(Input::DiskFailed { reason: error.to_string() });
}
