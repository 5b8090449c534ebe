//! The replicated state machine, and its snapshots.
//!
//! Snapshots are encoded outside of the engine's turns: building one clones the state (which is
//! cheap, its maps are persistent) and hands the clone out with a task; what comes back is the name
//! of a durable file. One from the leader is checked and decoded outside too, before it gets here.
//!
//! **Invariants**
//! - A snapshot is current only after it is durable.
//! - A task to build is handed out in the very step that clones the state, so what was applied
//!   before it is reported before it.
//! - At boot the last snapshot is restored and nothing is written. What is applied after it is
//!   reported as ever.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, rt};

use super::channels::{lock, oneshot};
use super::effect::{Effect, Effects};
use super::snapshots::{SnapshotDone, SnapshotSource, SnapshotTask, TaskId, TaskIds};
use super::types::{
    LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, index_of, term_of,
};
use crate::codec::snapshot::SnapshotFile;
use crate::codec::{DecodeError, encode};
use crate::id::{LogIndex, Term};

/// What the engine replicates. Cheap to clone.
pub trait Machine: Clone + Default + Send + Sync + 'static {
    /// What applying one entry answers.
    type Reply: Send + 'static;

    /// Applies one committed entry. Total, and the same on every server.
    fn apply(&mut self, index: LogIndex, term: Term, payload: &[u8]) -> Self::Reply;

    /// The whole state as bytes.
    fn snapshot(&self) -> Bytes;

    /// Reads what [`Machine::snapshot`] wrote.
    ///
    /// # Errors
    /// If the bytes are no such thing.
    fn restore(data: &[u8]) -> Result<Self, DecodeError>;
}

/// How the state machine treats writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Restoring what the disk holds: nothing is written.
    Boot,
    /// At work.
    Live,
    /// Under openraft's own suite, which has no disk: a snapshot is durable at once.
    #[cfg(test)]
    Suite,
}

/// The state machine of one engine. Clones are the same machine.
pub(crate) struct StateMachine<M: Machine> {
    inner: Arc<Mutex<Inner<M>>>,
    tasks: TaskIds,
    effects: Effects<M>,
}

struct Inner<M> {
    machine: M,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<Snapshot>,
    /// The state of a snapshot that is to be installed.
    decoded: Option<(SnapshotMeta, M)>,
    building: BTreeMap<TaskId, (SnapshotMeta, oneshot::Sender<Snapshot>)>,
    installing: Option<Installing<M>>,
    phase: Phase,
}

/// A snapshot from the leader that is being made durable.
struct Installing<M> {
    task: TaskId,
    snapshot: Snapshot,
    state: M,
    done: oneshot::Sender<()>,
}

impl<M: Machine> Clone for StateMachine<M> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            tasks: self.tasks.clone(),
            effects: self.effects.clone(),
        }
    }
}

impl<M: Machine> StateMachine<M> {
    /// An empty state, with the snapshot that the disk holds still to be restored from.
    pub(crate) fn new(tasks: TaskIds, effects: Effects<M>, snapshot: Option<Snapshot>) -> Self {
        let inner = Inner {
            machine: M::default(),
            applied: None,
            membership: StoredMembership::default(),
            snapshot,
            decoded: None,
            building: BTreeMap::new(),
            installing: None,
            phase: Phase::Boot,
        };
        Self { inner: Arc::new(Mutex::new(inner)), tasks, effects }
    }

    /// The state as of the last entry applied.
    pub(crate) fn machine(&self) -> M {
        lock(&self.inner).machine.clone()
    }

    /// What `read` finds in the state.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&M) -> T) -> T {
        read(&lock(&self.inner).machine)
    }

    /// Switches between boot and work.
    pub(crate) fn set_phase(&self, phase: Phase) {
        lock(&self.inner).phase = phase;
    }

    /// The last entry applied.
    pub(crate) fn applied(&self) -> Option<LogId> {
        lock(&self.inner).applied
    }

    /// The file of the current snapshot.
    pub(crate) fn snapshot_file(&self) -> Option<SnapshotFile> {
        lock(&self.inner).snapshot.as_ref().map(|snapshot| snapshot.snapshot)
    }

    /// Whether a snapshot is being built.
    pub(crate) fn is_building(&self) -> bool {
        !lock(&self.inner).building.is_empty()
    }

    /// Whether a snapshot from the leader is being made durable.
    pub(crate) fn is_installing(&self) -> bool {
        lock(&self.inner).installing.is_some()
    }

    /// Keeps the state of a snapshot that is about to be installed.
    pub(crate) fn keep_decoded(&self, meta: SnapshotMeta, machine: M) {
        lock(&self.inner).decoded = Some((meta, machine));
    }

    /// Drops that state, if it turned out not to be needed.
    pub(crate) fn forget_decoded(&self) {
        let decoded = lock(&self.inner).decoded.take();
        drop(decoded);
    }

    /// A task to build or to install is done. Who waited for it may be gone; it counts all the
    /// same, since the files have changed.
    pub(crate) fn on_done(&self, task: TaskId, done: &SnapshotDone) {
        match done {
            SnapshotDone::Built(file) => {
                let Some((meta, waiting)) = lock(&self.inner).building.remove(&task) else {
                    return;
                };
                let snapshot = Snapshot { meta, snapshot: *file };
                self.keep(snapshot.clone());
                let _dropped = rt::OneshotSender::send(waiting, snapshot);
            }
            SnapshotDone::Installed => {
                let installing =
                    lock(&self.inner).installing.take_if(|installing| installing.task == task);
                let Some(Installing { snapshot, state, done, .. }) = installing else { return };
                self.restore(snapshot, state);
                // Who waited was given up with the rest of Raft.
                let _dropped = rt::OneshotSender::send(done, ());
            }
            SnapshotDone::Read(_) | SnapshotDone::Received(_) | SnapshotDone::Verified(_) => {}
        }
    }

    /// Puts the state of `snapshot` in the place of what was applied.
    fn restore(&self, snapshot: Snapshot, state: M) {
        {
            let mut inner = lock(&self.inner);
            inner.machine = state;
            inner.applied = snapshot.meta.last_log_id;
            inner.membership = snapshot.meta.last_membership.clone();
        }
        self.keep(snapshot);
    }

    fn keep(&self, snapshot: Snapshot) {
        let mut inner = lock(&self.inner);
        let current = inner.snapshot.as_ref().and_then(|current| current.meta.last_log_id);
        if snapshot.meta.last_log_id >= current {
            inner.snapshot = Some(snapshot);
        }
    }
}

impl<M: Machine> RaftStateMachine<TypeConfig> for StateMachine<M> {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let inner = lock(&self.inner);
        Ok((inner.applied, inner.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let id = entry.log_id;
            let applied = {
                let mut inner = lock(&self.inner);
                inner.applied = Some(id);
                match entry.payload {
                    EntryPayload::Blank => None,
                    EntryPayload::Normal(Payload(bytes)) => {
                        Some(inner.machine.apply(index_of(&id), term_of(&id), &bytes))
                    }
                    EntryPayload::Membership(membership) => {
                        inner.membership = StoredMembership::new(Some(id), membership);
                        None
                    }
                }
            };
            if let Some(reply) = applied {
                self.effects.push(Effect::Applied { index: index_of(&id), reply });
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let (tx, built) = oneshot::channel();
        let task = self.tasks.draw();
        let mut inner = lock(&self.inner);
        let state = inner.machine.clone();
        let meta =
            SnapshotMeta { last_log_id: inner.applied, last_membership: inner.membership.clone() };
        inner.building.insert(task, (meta.clone(), tx));
        let index = meta.last_log_id.as_ref().map_or(LogIndex(0), index_of);
        let source = SnapshotSource::new(encode(&meta), index, move || state.snapshot());
        #[cfg(test)]
        if inner.phase == Phase::Suite {
            drop(inner);
            let file = SnapshotFile { index, ..SnapshotFile::default() };
            self.on_done(task, &SnapshotDone::Built(file));
            return Builder { built: Some(built) };
        }
        drop(inner);
        self.effects.push(Effect::Snapshot { id: task, task: SnapshotTask::Build(source) });
        Builder { built: Some(built) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        file: SnapshotFile,
    ) -> Result<(), io::Error> {
        let snapshot = Snapshot { meta: meta.clone(), snapshot: file };
        let done = {
            let mut inner = lock(&self.inner);
            let decoded = inner.decoded.take().filter(|(known, _)| known == meta);
            #[cfg(test)]
            let decoded = match inner.phase {
                Phase::Suite => Some((meta.clone(), M::default())),
                Phase::Boot | Phase::Live => decoded,
            };
            let (_, state) = decoded.ok_or_else(|| {
                io::Error::other("a snapshot is to be installed that was not verified")
            })?;
            if inner.phase != Phase::Live {
                drop(inner);
                self.restore(snapshot, state);
                return Ok(());
            }
            let (done, installed) = oneshot::channel();
            let task = self.tasks.draw();
            inner.installing = Some(Installing { task, snapshot, state, done });
            drop(inner);
            self.effects.push(Effect::Snapshot { id: task, task: SnapshotTask::Install { file } });
            installed
        };
        done.await.map_err(io::Error::other)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(lock(&self.inner).snapshot.clone())
    }
}

/// Waits for one snapshot that is being built.
pub(crate) struct Builder {
    built: Option<oneshot::Receiver<Snapshot>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let built = self.built.take();
        let built = built.ok_or_else(|| io::Error::other("a builder builds one snapshot"))?;
        built.await.map_err(io::Error::other)
    }
}
