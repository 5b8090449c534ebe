//! A snapshot that comes in from a leader.
//!
//! Chunks go to the disk as they come, and are acknowledged when they are written; only then may
//! the leader send more. When the file is whole it is checked and its state decoded, outside of the
//! turn. Only then does openraft hear of it, so that a damaged one harms nothing; and openraft
//! decides whether it is still needed, since much may have been committed while it came.
//!
//! A transfer whose session ends stays where it is. Whoever announces the same file next, the same
//! leader or another, is told how much of it is there, and goes on from there.
//!
//! **Invariants**
//! - At most one snapshot comes in. Another takes its place, unless it is whole already.
//! - No more than [`CHUNK_WINDOW`] chunks wait for the disk.
//! - A leader of the past is told so, and harms no transfer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use openraft::rt::AsyncRuntime as _;

use super::channels::lock;
use super::effect::Effect;
use super::engine::{Engine, Raft};
use super::machine::Machine;
use super::message::{Message, RpcId};
use super::network::Net;
use super::peers::Inadmissible;
use super::runtime::Host;
use super::sending::{CHUNK_BYTES, CHUNK_WINDOW};
use super::snapshots::{Restore, Slot, SnapshotDone, SnapshotTask, TaskId};
use super::types::{Snapshot, SnapshotMeta, Vote, index_of};
use crate::codec::encode;
use crate::codec::snapshot::{HEADER_LEN, SnapshotFile};
use crate::id::NodeId;

/// A snapshot as its sender announces it.
pub(crate) struct Announced {
    pub(crate) rpc: RpcId,
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

impl Announced {
    fn file(&self) -> SnapshotFile {
        let index = self.meta.last_log_id.as_ref().map(index_of).unwrap_or_default();
        SnapshotFile { index, len: self.len, crc: self.crc }
    }

    fn begin(&self) -> Message {
        let Self { rpc, vote, ref meta, len, crc } = *self;
        Message::SnapshotBegin { rpc, vote, meta: meta.clone(), len, crc }
    }
}

/// A snapshot that is coming in.
pub(crate) struct Incoming<M> {
    file: SnapshotFile,
    meta: SnapshotMeta,
    /// Who sends it; `None` while its session is gone.
    sender: Arc<Mutex<Option<Sender>>>,
    stage: Stage<M>,
}

enum Stage<M> {
    Receiving(Receiving),
    Verifying {
        task: TaskId,
        state: Slot<M>,
    },
    /// Whole and decoded; waits for a leader to announce it again.
    Verified(M),
    /// openraft has it, until nobody else holds the token.
    Installing(Arc<()>),
}

#[derive(Default)]
struct Receiving {
    /// How much is on the disk.
    written: u64,
    /// What is on its way to the disk: the tasks, and where their chunks end.
    writing: VecDeque<(TaskId, u64)>,
}

impl Receiving {
    fn accepted(&self) -> u64 {
        self.writing.back().map_or(self.written, |(_, end)| *end)
    }
}

#[derive(Clone)]
struct Sender {
    peer: NodeId,
    session: u64,
    rpc: RpcId,
    vote: Vote,
    told: Told,
}

/// Whether a sender knows where to begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Chunks of before are still being written.
    NotYet,
    Yes,
}

impl<M> Incoming<M> {
    fn ack(&self, net: &Net, received: u64) {
        if let Some(Sender { peer, session, rpc, .. }) = lock(&self.sender).clone() {
            net.send_in(session, peer, Message::SnapshotAck { rpc, received });
        }
    }

    fn sender(&self) -> Option<Sender> {
        lock(&self.sender).clone()
    }
}

impl<M: Machine> Engine<M> {
    pub(crate) fn on_snapshot_begin(
        &mut self,
        peer: NodeId,
        session: u64,
        announced: Announced,
        raft: Raft<M>,
    ) -> Result<(), Inadmissible> {
        if announced.len < HEADER_LEN as u64 || announced.len > self.config.snapshot_bytes_max {
            return Err(Inadmissible::BadChunk);
        }
        let Announced { rpc, vote, .. } = announced;
        if let Some(known) = self.store.vote().filter(|known| *known > vote) {
            let reply = Message::SnapshotReply { rpc, installed: Some(known) };
            self.net.send_in(session, peer, reply);
            return Ok(());
        }
        self.heard(peer, vote);
        let file = announced.file();
        let committed = self.metrics().and_then(|metrics| metrics.local_committed);
        if committed.is_some_and(|committed| index_of(&committed) >= file.index) {
            self.decline(peer, session, announced, raft);
            return Ok(());
        }
        let told = Told::Yes;
        let sender = Sender { peer, session, rpc, vote, told };
        self.tidy_incoming();
        match &self.incoming {
            Some(incoming) if incoming.file == file => return self.resume(sender, raft),
            // Whole already: it is soon installed or dropped, and the sender tries again.
            Some(Incoming { stage: Stage::Verifying { .. } | Stage::Installing(_), .. }) => {
                return Ok(());
            }
            Some(_) | None => {}
        }
        self.drop_incoming();
        let sender = Arc::new(Mutex::new(Some(sender)));
        let stage = Stage::Receiving(Receiving::default());
        let incoming = Incoming { file, meta: announced.meta, sender, stage };
        incoming.ack(&self.net, 0);
        self.incoming = Some(incoming);
        Ok(())
    }

    /// All that the snapshot covers is here: openraft says so without having it.
    fn decline(&mut self, peer: NodeId, session: u64, announced: Announced, raft: Raft<M>) {
        let file = announced.file();
        let Announced { rpc, vote, meta, .. } = announced;
        let snapshot = Snapshot { meta, snapshot: file };
        self.serve(peer, session, async move {
            let response = raft.install_full_snapshot(vote, snapshot).await.ok()?;
            Some(Message::SnapshotReply { rpc, installed: Some(response.vote) })
        });
    }

    /// The same file is announced again: its transfer goes on where it is.
    fn resume(&mut self, mut sender: Sender, raft: Raft<M>) -> Result<(), Inadmissible> {
        let Some(incoming) = &mut self.incoming else { return Ok(()) };
        let received = match &incoming.stage {
            Stage::Receiving(receiving) if receiving.writing.is_empty() => receiving.written,
            Stage::Receiving(_) => {
                sender.told = Told::NotYet;
                *lock(&incoming.sender) = Some(sender);
                return Ok(());
            }
            Stage::Verifying { .. } | Stage::Verified(_) | Stage::Installing(_) => {
                incoming.file.len
            }
        };
        *lock(&incoming.sender) = Some(sender);
        incoming.ack(&self.net, received);
        if matches!(incoming.stage, Stage::Verified(_)) {
            return self.install_incoming(raft);
        }
        Ok(())
    }

    pub(crate) fn on_snapshot_chunk(
        &mut self,
        peer: NodeId,
        rpc: RpcId,
        offset: u64,
        data: Bytes,
    ) -> Result<(), Inadmissible> {
        let Some(Incoming { file, sender, stage: Stage::Receiving(receiving), .. }) =
            &mut self.incoming
        else {
            return Ok(());
        };
        let is_its = lock(sender)
            .as_ref()
            .is_some_and(|known| (known.peer, known.rpc) == (peer, rpc) && known.told == Told::Yes);
        if !is_its {
            // Its sender gave it up, or began another.
            return Ok(());
        }
        let accepted = receiving.accepted();
        let end = accepted + data.len() as u64;
        let window = CHUNK_WINDOW * CHUNK_BYTES as u64;
        let fits = offset == accepted
            && !data.is_empty()
            && data.len() <= CHUNK_BYTES
            && end <= file.len
            && end - receiving.written <= window;
        if !fits {
            self.drop_incoming();
            return Err(Inadmissible::BadChunk);
        }
        let id = self.tasks.draw();
        receiving.writing.push_back((id, end));
        let task = SnapshotTask::Receive { file: *file, offset, data };
        self.effects.push(Effect::Snapshot { id, task });
        Ok(())
    }

    /// A task with snapshot files is done.
    pub fn on_snapshot_done(&mut self, id: TaskId, done: SnapshotDone) {
        self.quiet_at = None;
        let host = self.host.clone();
        let _entered = host.enter();
        match done {
            SnapshotDone::Built(_) | SnapshotDone::Installed => self.machine.on_done(id, &done),
            SnapshotDone::Read(data) => drop(self.net.on_snapshot_read(id, data)),
            SnapshotDone::Received(result) => self.on_chunk_written(id, result),
            SnapshotDone::Verified(result) => self.on_verified(id, result),
        }
    }

    fn on_chunk_written(&mut self, id: TaskId, result: Result<(), String>) {
        let Some(incoming) = &mut self.incoming else { return };
        let Stage::Receiving(receiving) = &mut incoming.stage else { return };
        let Some((_, end)) = receiving.writing.pop_front_if(|(writing, _)| *writing == id) else {
            return;
        };
        if let Err(reason) = result {
            // Without an answer the sender waits for a while before it tries again, which is what
            // a full disk needs.
            tracing::warn!(reason, "a snapshot that comes in cannot be written");
            self.drop_incoming();
            return;
        }
        receiving.written = end;
        let is_quiet = receiving.writing.is_empty();
        if end == incoming.file.len {
            self.verify_incoming();
            return;
        }
        let tell = lock(&incoming.sender).as_mut().is_some_and(|sender| {
            if is_quiet {
                sender.told = Told::Yes;
            }
            sender.told == Told::Yes
        });
        if tell {
            incoming.ack(&self.net, end);
        }
    }

    fn verify_incoming(&mut self) {
        let Some(incoming) = &mut self.incoming else { return };
        let (restore, state) = Restore::new(M::restore);
        let task = self.tasks.draw();
        incoming.stage = Stage::Verifying { task, state };
        incoming.ack(&self.net, incoming.file.len);
        let (file, meta) = (incoming.file, encode(&incoming.meta));
        let task_of = SnapshotTask::Verify { file, meta, restore };
        self.effects.push(Effect::Snapshot { id: task, task: task_of });
        let pause = self.net.limits().snapshot / 4;
        let sender = Arc::downgrade(&incoming.sender);
        self.host.spawn(say_alive(self.net.clone(), sender, file.len, pause));
    }

    fn on_verified(&mut self, id: TaskId, result: Result<(), String>) {
        let Some(incoming) = &mut self.incoming else { return };
        let Stage::Verifying { task, state } = &incoming.stage else { return };
        if *task != id {
            return;
        }
        let state = state.take();
        let (Ok(()), Some(state)) = (&result, state) else {
            let sender = incoming.sender();
            tracing::warn!(?result, "a snapshot that came in is damaged");
            self.incoming = None;
            if let Some(Sender { peer, session, rpc, .. }) = sender {
                let reply = Message::SnapshotReply { rpc, installed: None };
                self.net.send_in(session, peer, reply);
                let reason = Inadmissible::DamagedSnapshot;
                self.effects.push(Effect::Rejected { peer, reason });
            }
            return;
        };
        incoming.stage = Stage::Verified(state);
        let Some(Sender { peer, .. }) = incoming.sender() else { return };
        let Some(raft) = self.raft() else { return };
        if let Err(reason) = self.install_incoming(raft) {
            self.drop_incoming();
            self.effects.push(Effect::Rejected { peer, reason });
        }
    }

    /// Hands the snapshot, which is whole and decoded, to openraft.
    fn install_incoming(&mut self, raft: Raft<M>) -> Result<(), Inadmissible> {
        // Much may have been committed while it came.
        self.settle();
        let Some(incoming) = &mut self.incoming else { return Ok(()) };
        let Some(Sender { peer, session, rpc, vote, .. }) = incoming.sender() else {
            return Ok(());
        };
        let (meta, file) = (incoming.meta.clone(), incoming.file);
        let SnapshotFile { len, crc, .. } = file;
        let announced = Announced { rpc, vote, meta: meta.clone(), len, crc };
        self.admit(peer, &announced.begin())?;
        let Some(incoming) = &mut self.incoming else { return Ok(()) };
        let token = Arc::new(());
        let stage = std::mem::replace(&mut incoming.stage, Stage::Installing(Arc::clone(&token)));
        let Stage::Verified(state) = stage else {
            incoming.stage = stage;
            return Ok(());
        };
        self.machine.keep_decoded(meta.clone(), state);
        self.turn.is_dirty = true;
        let sender = Arc::clone(&incoming.sender);
        let (machine, net, effects) =
            (self.machine.clone(), self.net.clone(), self.effects.clone());
        let discard = self.tasks.draw();
        let snapshot = Snapshot { meta, snapshot: file };
        // The answer goes to whoever sends it by then, as the session may have changed.
        self.serve(peer, session, async move {
            let response = raft.install_full_snapshot(vote, snapshot).await;
            machine.forget_decoded();
            let task = SnapshotTask::Discard { file };
            effects.push(Effect::Snapshot { id: discard, task });
            if let (Ok(response), Some(sender)) = (response, lock(&sender).take()) {
                let Sender { peer, session, rpc, .. } = sender;
                let installed = Some(response.vote);
                net.send_in(session, peer, Message::SnapshotReply { rpc, installed });
            }
            drop(token);
            None
        });
        Ok(())
    }

    /// Forgets a snapshot that openraft is done with, and one that is not needed any more.
    pub(crate) fn tidy_incoming(&mut self) {
        let Some(incoming) = &self.incoming else { return };
        let is_over = match &incoming.stage {
            Stage::Installing(token) => Arc::strong_count(token) == 1,
            Stage::Receiving(_) | Stage::Verified(_) => {
                let committed = self.metrics().and_then(|metrics| metrics.local_committed);
                committed.is_some_and(|committed| index_of(&committed) >= incoming.file.index)
                    && incoming.sender().is_none()
            }
            Stage::Verifying { .. } => false,
        };
        if is_over {
            self.drop_incoming();
        }
    }

    /// Drops a snapshot that openraft will not be done with any more.
    pub(crate) fn drop_installing(&mut self) {
        let is_installing = |incoming: &Incoming<M>| match &incoming.stage {
            Stage::Installing(_) => true,
            Stage::Receiving(_) | Stage::Verifying { .. } | Stage::Verified(_) => false,
        };
        if self.incoming.as_ref().is_some_and(is_installing) {
            self.drop_incoming();
        }
    }

    /// Drops what has come of a snapshot.
    pub(crate) fn drop_incoming(&mut self) {
        let Some(Incoming { file, .. }) = self.incoming.take() else { return };
        let id = self.tasks.draw();
        self.effects.push(Effect::Snapshot { id, task: SnapshotTask::Discard { file } });
    }

    /// The session with `peer` ended, or began anew: what it was sending waits where it is.
    pub(crate) fn interrupt_incoming(&self, peer: NodeId) {
        if let Some(incoming) = &self.incoming {
            lock(&incoming.sender).take_if(|sender| sender.peer == peer);
        }
    }
}

/// Tells the sender now and then that its snapshot is being checked and installed.
async fn say_alive(net: Net, sender: Weak<Mutex<Option<Sender>>>, received: u64, pause: Duration) {
    loop {
        Host::sleep(pause).await;
        let Some(sender) = sender.upgrade() else { return };
        let known = lock(&sender).clone();
        if let Some(Sender { peer, session, rpc, .. }) = known {
            net.send_in(session, peer, Message::SnapshotAck { rpc, received });
        }
    }
}
