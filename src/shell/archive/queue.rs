//! What waits for the archive's thread: [`Queue`].

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::id::{LogIndex, RequestId};
use crate::jobs::history::change::{Change, Query};
use crate::jobs::history::store::{HistoryError, View};

/// The most reads that may wait. The next is answered with an error.
pub const READS_MAX: usize = 1_024;

/// Changes that wait are carried out together, up to about this many.
const GROUP_LEN: usize = 4_096;

/// The archive takes no more: its thread has ended, after an error that it reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the archive of executions takes no more")]
pub struct ArchiveStopped;

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Carry out changes.
    Apply { upto: LogIndex, changes: Vec<(LogIndex, Change)> },
    /// Read rows.
    Read { id: RequestId, query: Query },
    /// Answer that too many reads wait.
    Refuse { id: RequestId },
    /// Make everything durable, and show it as it is then.
    View { upto: LogIndex, reply: Reply<View> },
    /// Put these blocks in the place of all rows.
    Replace { upto: LogIndex, blocks: Blocks, len: u64, reply: Reply<()> },
}

/// Where an answer goes on which somebody waits.
pub(super) type Reply<T> = SyncSender<Result<T, HistoryError>>;

/// Blocks of another server's history, one after the other.
pub(super) struct Blocks(pub(super) Box<dyn Iterator<Item = io::Result<Bytes>> + Send>);

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blocks")
    }
}

/// What the thread finds when it looks.
#[derive(Debug)]
pub(super) enum Next {
    Command(Command),
    /// Nothing came within the time.
    Idle,
    /// Nothing is left, and nothing will come.
    Closed,
}

/// Commands in the order in which they came. Bounded: what waits of changes is bounded by the node,
/// which hands out only so much that is not carried out; those side by side become one command; and
/// reads are counted.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    commands: VecDeque<Command>,
    reads: usize,
    door: Door,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Door {
    #[default]
    Open,
    /// No more commands come.
    Closed,
    /// Nobody takes them.
    Stopped,
}

impl Queue {
    pub(super) fn push(&self, command: Command) -> Result<(), ArchiveStopped> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        if inner.door != Door::Open {
            return Err(ArchiveStopped);
        }
        match (command, inner.commands.back_mut()) {
            (
                Command::Apply { upto, changes },
                Some(Command::Apply { upto: last, changes: before }),
            ) if before.len() + changes.len() <= GROUP_LEN => {
                *last = upto;
                before.extend(changes);
            }
            (Command::Read { id, .. }, _) if inner.reads >= READS_MAX => {
                inner.commands.push_back(Command::Refuse { id });
            }
            (command, _) => {
                inner.reads += usize::from(matches!(command, Command::Read { .. }));
                inner.commands.push_back(command);
            }
        }
        drop(guard);
        self.changed.notify_one();
        Ok(())
    }

    /// The next command; waits for one, at most `patience` if there is a limit.
    pub(super) fn next(&self, patience: Option<Duration>) -> Next {
        let mut inner = self.lock();
        loop {
            if let Some(command) = inner.commands.pop_front() {
                inner.reads -= usize::from(matches!(command, Command::Read { .. }));
                return Next::Command(command);
            }
            if inner.door == Door::Closed {
                return Next::Closed;
            }
            inner = match patience {
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let woken = self.changed.wait_timeout(inner, patience);
                    let (inner, waited) = woken.unwrap_or_else(PoisonError::into_inner);
                    if waited.timed_out() && inner.commands.is_empty() && inner.door == Door::Open {
                        return Next::Idle;
                    }
                    inner
                }
            };
        }
    }

    /// Takes the reads that wait, wherever they stand.
    pub(super) fn take_reads(&self) -> Vec<RequestId> {
        let mut inner = self.lock();
        let mut ids = Vec::new();
        inner.commands.retain(|command| match command {
            Command::Read { id, .. } | Command::Refuse { id } => {
                ids.push(*id);
                false
            }
            Command::Apply { .. } | Command::View { .. } | Command::Replace { .. } => true,
        });
        inner.reads = 0;
        ids
    }

    /// Waits for a moment or for the end; gives whether the end has come.
    pub(super) fn pause(&self, duration: Duration) -> Pause {
        let inner = self.lock();
        let open = |inner: &mut Inner| inner.door == Door::Open;
        let woken = self.changed.wait_timeout_while(inner, duration, open);
        let (inner, _) = woken.unwrap_or_else(PoisonError::into_inner);
        if inner.door == Door::Open { Pause::Over } else { Pause::Closed }
    }

    /// No more commands come.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        if inner.door == Door::Open {
            inner.door = Door::Closed;
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Nobody takes commands any more.
    pub(super) fn stop(&self) {
        let mut inner = self.lock();
        inner.door = Door::Stopped;
        inner.commands.clear();
        inner.reads = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing here unwinds while the lock is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a pause ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    Over,
    Closed,
}
