//! The replicated state machine, and its snapshots.
//!
//! Snapshots are encoded outside of the engine's turns: building one clones the state (which is
//! cheap, its maps are persistent) and hands the clone out with the write; the encoded bytes come
//! back when they are durable.
//!
//! **Invariants**
//! - A snapshot is current only after it is durable.
//! - At boot the last snapshot is restored and nothing is written. What is applied after it is
//!   reported as ever.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, rt};

use super::channels::{lock, oneshot};
use super::effect::{Effect, Effects};
use super::store::LogStore;
use super::types::{
    LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, index_of, term_of,
};
use crate::codec::{DecodeError, encode};
use crate::id::{LogIndex, Term, WriteId};

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

/// A snapshot that is still to be encoded, outside of the engine's turn.
pub struct SnapshotSource {
    /// What it covers, for [`crate::codec::record::Snapshot::meta`].
    pub meta: Bytes,
    /// The last entry that it covers.
    pub index: LogIndex,
    encode: Box<dyn FnOnce() -> Bytes + Send>,
}

impl SnapshotSource {
    /// The state as bytes; this may take long.
    pub fn encode(self) -> Bytes {
        (self.encode)()
    }
}

impl fmt::Debug for SnapshotSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotSource(upto {})", self.index)
    }
}

/// How the state machine treats writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Restoring what the disk holds: nothing is written.
    Boot,
    /// At work.
    Live,
}

/// The state machine of one engine. Clones are the same machine.
pub(crate) struct StateMachine<M: Machine> {
    inner: Arc<Mutex<Inner<M>>>,
    store: LogStore,
    effects: Effects<M>,
}

struct Inner<M> {
    machine: M,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<Snapshot>,
    /// A snapshot from the leader that was decoded when it was admitted.
    decoded: Option<(SnapshotMeta, M)>,
    writes: BTreeMap<WriteId, oneshot::Sender<Bytes>>,
    phase: Phase,
}

impl<M: Machine> Clone for StateMachine<M> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            store: self.store.clone(),
            effects: self.effects.clone(),
        }
    }
}

impl<M: Machine> StateMachine<M> {
    /// An empty state, with the snapshot that the disk holds still to be restored from.
    pub(crate) fn new(store: LogStore, effects: Effects<M>, snapshot: Option<Snapshot>) -> Self {
        let inner = Inner {
            machine: M::default(),
            applied: None,
            membership: StoredMembership::default(),
            snapshot,
            decoded: None,
            writes: BTreeMap::new(),
            phase: Phase::Boot,
        };
        Self { inner: Arc::new(Mutex::new(inner)), store, effects }
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

    /// The size of the current snapshot.
    pub(crate) fn snapshot_bytes(&self) -> u64 {
        lock(&self.inner).snapshot.as_ref().map_or(0, |snapshot| snapshot.snapshot.len() as u64)
    }

    /// Keeps what a snapshot from the leader decoded to, so that installing it is quick.
    pub(crate) fn keep_decoded(&self, meta: SnapshotMeta, machine: M) {
        lock(&self.inner).decoded = Some((meta, machine));
    }

    /// Completes the snapshot write `write`; says whether there was one.
    pub(crate) fn on_persisted(&self, write: WriteId, data: Bytes) -> bool {
        let waiting = lock(&self.inner).writes.remove(&write);
        match waiting {
            // The engine may have given up on it meanwhile.
            Some(waiting) => rt::OneshotSender::send(waiting, data).is_ok(),
            None => false,
        }
    }

    /// Writes a snapshot and returns its bytes when they are durable.
    async fn persist(
        &self,
        meta: &SnapshotMeta,
        source: impl FnOnce() -> Bytes + Send + 'static,
    ) -> Result<Bytes, io::Error> {
        if lock(&self.inner).phase == Phase::Boot {
            return Ok(source());
        }
        let (tx, rx) = oneshot::channel();
        let write = self.store.draw_write();
        lock(&self.inner).writes.insert(write, tx);
        let index = meta.last_log_id.as_ref().map_or(LogIndex(0), index_of);
        let source = SnapshotSource { meta: encode(meta), index, encode: Box::new(source) };
        self.effects.push(Effect::Persist { write, records: Vec::new(), snapshot: Some(source) });
        rx.await.map_err(io::Error::other)
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
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder<M>;

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

    async fn get_snapshot_builder(&mut self) -> Builder<M> {
        let inner = lock(&self.inner);
        let meta =
            SnapshotMeta { last_log_id: inner.applied, last_membership: inner.membership.clone() };
        Builder { state: inner.machine.clone(), meta, machine: self.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Bytes,
    ) -> Result<(), io::Error> {
        let decoded = lock(&self.inner).decoded.take();
        let state = match decoded {
            Some((known, state)) if known == *meta => state,
            _ => M::restore(&snapshot).map_err(io::Error::other)?,
        };
        let data = snapshot.clone();
        self.persist(meta, move || data).await?;
        {
            let mut inner = lock(&self.inner);
            inner.machine = state;
            inner.applied = meta.last_log_id;
            inner.membership = meta.last_membership.clone();
        }
        self.keep(Snapshot { meta: meta.clone(), snapshot });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(lock(&self.inner).snapshot.clone())
    }
}

/// Builds one snapshot from a clone of the state.
pub(crate) struct Builder<M: Machine> {
    state: M,
    meta: SnapshotMeta,
    machine: StateMachine<M>,
}

impl<M: Machine> RaftSnapshotBuilder<TypeConfig> for Builder<M> {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let state = self.state.clone();
        let data = self.machine.persist(&self.meta, move || state.snapshot()).await?;
        let snapshot = Snapshot { meta: self.meta.clone(), snapshot: data };
        self.machine.keep(snapshot.clone());
        Ok(snapshot)
    }
}
