//! Messages of peers: checked, answered, or handed to openraft.

use std::future::Future;
use std::sync::Arc;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

use super::effect::Effect;
use super::engine::{Engine, Raft};
use super::machine::Machine;
use super::message::{Appended, Ballot, Message, RpcId, TransferRefused};
use super::network::NetReply;
use super::peers::{Inadmissible, View};
use super::receiving::Announced;
use super::store::Known;
use super::types::{LogId, TypeConfig, Vote};
use crate::id::NodeId;
use crate::time::Mono;

/// How many requests of one peer may be under way: more than its own windows allow.
const SERVING_MAX: usize = 256;

/// How many requests may wait for a vote to be durable.
const HELD_MAX: usize = 4_096;

impl<M: Machine> Engine<M> {
    /// A message came in the session with `peer`. One that no correct peer can send is dropped
    /// with [`Effect::Rejected`].
    pub fn on_message(&mut self, now: Mono, peer: NodeId, message: Message) {
        self.quiet_at = None;
        let host = self.host.clone();
        let _entered = host.enter();
        self.set_now(now);
        let Some(raft) = self.raft() else { return };
        if let Err(reason) = self.take(peer, message, raft) {
            self.effects.push(Effect::Rejected { peer, reason });
        }
    }

    fn take(&mut self, peer: NodeId, message: Message, raft: Raft<M>) -> Result<(), Inadmissible> {
        let session = self.net.session(peer).ok_or(Inadmissible::NoSession)?;
        if is_request(&message) {
            self.prepare(&message);
            if !self.held.is_empty() || self.store.is_vote_pending() {
                self.hold(peer, session, message);
                return Ok(());
            }
        }
        self.let_in(peer, session, message, raft)
    }

    /// Keeps a request until openraft can work it off: only then can the next be judged. A full
    /// disk may take hours: what comes meanwhile goes unanswered, and its sender asks again. So
    /// does what comes beyond [`HELD_MAX`].
    fn hold(&mut self, peer: NodeId, session: u64, message: Message) {
        if self.is_disk_full() {
            self.held.clear();
        } else if self.held.len() < HELD_MAX {
            self.held.push_back((peer, session, message));
        } else {
            tracing::debug!(%peer, "too many requests wait: this one goes unanswered");
        }
    }

    /// Takes the requests that were kept, as far as openraft can work them off. The host must be
    /// entered.
    pub(crate) fn take_held(&mut self) {
        while let Some((peer, session, message)) = self.held.pop_front() {
            self.prepare(&message);
            let raft = self.raft();
            let (Some(raft), false) = (raft, self.store.is_vote_pending()) else {
                self.held.push_front((peer, session, message));
                break;
            };
            if self.net.session(peer) != Some(session) {
                continue;
            }
            if let Err(reason) = self.let_in(peer, session, message, raft) {
                self.effects.push(Effect::Rejected { peer, reason });
            }
        }
    }

    fn let_in(
        &mut self,
        peer: NodeId,
        session: u64,
        message: Message,
        raft: Raft<M>,
    ) -> Result<(), Inadmissible> {
        self.admit(peer, &message)?;
        if let Some(refusal) = self.refuse_in_doubt(&message) {
            self.net.send_in(session, peer, refusal);
            return Ok(());
        }
        self.turn.is_dirty = true;
        match message {
            Message::Vote { rpc, ballot, vote, last, transfer } => {
                let mut request = VoteRequest::new(vote, last);
                request.leadership_transfer = transfer;
                self.serve(peer, session, serve_vote(raft, rpc, ballot, request));
            }
            Message::Transfer { rpc, vote, to, last } => {
                let request = TransferLeaderRequest::new(vote, to, last);
                self.serve(peer, session, serve_transfer(raft, rpc, request));
            }
            Message::Heartbeat { rpc, vote, prev, commit } => {
                let commit = self.current(vote, commit);
                self.on_heartbeat(peer, session, raft, (rpc, vote, prev, commit));
            }
            Message::Append { rpc, vote, prev, entries, commit } => {
                let commit = self.current(vote, commit);
                let last = entries.last().map(|entry| entry.log_id).or(prev);
                self.heard(peer, vote);
                self.note_agreed(vote, prev, last);
                self.turn.tail = Some((vote, last));
                self.note_commit(commit);
                let request = AppendEntriesRequest {
                    vote,
                    prev_log_id: prev,
                    entries,
                    leader_commit: commit,
                };
                let reply = serve_append(raft, request);
                self.serve(peer, session, async move {
                    let outcome = reply.await?;
                    Some(Message::AppendReply { rpc, outcome })
                });
            }
            Message::SnapshotBegin { rpc, vote, meta, len, crc } => {
                let announced = Announced { rpc, vote, meta, len, crc };
                self.on_snapshot_begin(peer, session, announced, raft)?;
            }
            Message::SnapshotChunk { rpc, offset, data } => {
                self.on_snapshot_chunk(peer, rpc, offset, data)?;
            }
            Message::VoteReply { rpc, vote, granted, last } => {
                let response = VoteResponse::new(vote, last, granted);
                self.net.on_reply(peer, rpc, NetReply::Vote(response));
            }
            Message::TransferReply { rpc, refused } => {
                self.net.on_reply(peer, rpc, NetReply::Transfer(refused));
            }
            Message::HeartbeatReply { rpc, outcome } | Message::AppendReply { rpc, outcome } => {
                self.net.on_reply(peer, rpc, NetReply::Appended(outcome));
            }
            Message::SnapshotAck { rpc, received } => {
                self.net.on_snapshot_ack(peer, rpc, received);
            }
            Message::SnapshotReply { rpc, installed } => {
                self.net.on_snapshot_reply(peer, rpc, installed);
            }
        }
        Ok(())
    }

    /// Works off what waits if `message` can only be judged after that.
    ///
    /// Pipelined appends follow on each other, and can be judged without, unless they speak of
    /// entries in whose place others stand, which wait to be cut.
    fn prepare(&mut self, message: &Message) {
        let conflicts =
            |id: LogId| matches!(self.store.at(id.index), Known::Is(known) if known != id);
        let must_settle = match message {
            Message::Append { vote, prev, entries, commit, .. } => {
                let mut named = prev.iter().chain(commit).copied();
                let mut entries = entries.iter().map(|entry| entry.log_id);
                let is_next = self.turn.tail == Some((*vote, *prev));
                self.turn.is_dirty && (!is_next || named.any(conflicts) || entries.any(conflicts))
            }
            Message::Heartbeat { prev, commit, .. } => {
                let is_known = prev.is_none_or(|prev| self.store.at(prev.index) == Known::Is(prev));
                self.turn.is_dirty && (!is_known || commit.is_some_and(conflicts))
            }
            Message::SnapshotBegin { .. } | Message::Transfer { .. } | Message::Vote { .. } => {
                self.turn.is_dirty
            }
            Message::SnapshotChunk { .. }
            | Message::VoteReply { .. }
            | Message::TransferReply { .. }
            | Message::HeartbeatReply { .. }
            | Message::AppendReply { .. }
            | Message::SnapshotAck { .. }
            | Message::SnapshotReply { .. } => false,
        };
        if must_settle {
            self.settle();
        }
    }

    pub(crate) fn admit(&self, peer: NodeId, message: &Message) -> Result<(), Inadmissible> {
        let committed = self.metrics().and_then(|metrics| metrics.local_committed);
        let floor = committed.map(|committed| committed.index).max(self.turn.commit);
        let view = View {
            me: self.config.id,
            vote: self.store.vote(),
            committed,
            floor,
            agreed: self.agreed,
            log: &self.store,
        };
        view.admit(peer, message)
    }

    /// The commit position of a leader of the past is left out: openraft would take it to heart
    /// even in a message that it refuses.
    fn current(&self, vote: Vote, commit: Option<LogId>) -> Option<LogId> {
        commit.filter(|_| self.store.vote().is_none_or(|known| vote >= known))
    }

    fn note_commit(&mut self, commit: Option<LogId>) {
        self.turn.commit = self.turn.commit.max(commit.map(|commit| commit.index));
    }

    /// Notes up to where the log agrees with the leader's, once entries up to `last` that follow on
    /// `prev` are worked off.
    fn note_agreed(&mut self, vote: Vote, prev: Option<LogId>, last: Option<LogId>) {
        let agreed = self.agreed.filter(|(under, _)| *under == vote).map(|(_, upto)| upto);
        let follows = prev.is_none_or(|prev| {
            let is_waiting = agreed.is_some_and(|upto| upto == prev);
            is_waiting || self.store.at(prev.index) == Known::Is(prev)
        });
        if let (true, Some(upto)) = (follows, last.max(agreed)) {
            self.agreed = Some((vote, upto));
        }
    }

    /// Notes that the leader of `vote` lives, unless a later one is known.
    pub(crate) fn heard(&mut self, peer: NodeId, vote: Vote) {
        if self.store.vote().is_none_or(|known| vote >= known) {
            self.heard = Some((peer, self.now));
        }
    }

    /// Runs `reply` and sends what it gives, in this session only. While a disk hangs, the requests
    /// of an honest leader pile up: beyond [`SERVING_MAX`] they go unanswered, and it asks again.
    pub(crate) fn serve(
        &mut self,
        peer: NodeId,
        session: u64,
        reply: impl Future<Output = Option<Message>> + Send + 'static,
    ) {
        let token = self.serving.entry(peer).or_default();
        if Arc::strong_count(token) > SERVING_MAX {
            tracing::debug!(%peer, "too many requests are under way: this one goes unanswered");
            return;
        }
        let token = Arc::clone(token);
        let net = self.net.clone();
        self.host.spawn(async move {
            if let Some(message) = reply.await {
                net.send_in(session, peer, message);
            }
            drop(token);
        });
    }

    /// A heartbeat of the leader that is followed already is answered at once: openraft's answer
    /// waits for all writes before it, and a slow disk would look like a dead follower.
    fn on_heartbeat(
        &mut self,
        peer: NodeId,
        session: u64,
        raft: Raft<M>,
        (rpc, vote, prev, commit): (RpcId, Vote, Option<LogId>, Option<LogId>),
    ) {
        self.heard(peer, vote);
        self.doubts.note_heartbeat(vote, prev, commit);
        self.note_agreed(vote, prev, prev);
        self.note_commit(commit);
        let is_followed = self.store.vote() == Some(vote);
        let is_matched = prev.is_none_or(|prev| match self.store.at(prev.index) {
            Known::Is(known) => known == prev,
            Known::Purged => true,
            Known::Absent => false,
        });
        let is_answered = is_followed && is_matched;
        if is_answered {
            let reply = Message::HeartbeatReply { rpc, outcome: Appended::Success };
            self.net.send_in(session, peer, reply);
        }
        let request = AppendEntriesRequest {
            vote,
            prev_log_id: prev,
            entries: Vec::new(),
            leader_commit: commit,
        };
        let reply = serve_append(raft, request);
        self.serve(peer, session, async move {
            let outcome = reply.await?;
            (!is_answered).then_some(Message::HeartbeatReply { rpc, outcome })
        });
    }
}

/// Whether openraft's core has to work `message` off.
fn is_request(message: &Message) -> bool {
    match message {
        Message::Vote { .. }
        | Message::Transfer { .. }
        | Message::Heartbeat { .. }
        | Message::Append { .. }
        | Message::SnapshotBegin { .. }
        | Message::SnapshotChunk { .. } => true,
        Message::VoteReply { .. }
        | Message::TransferReply { .. }
        | Message::HeartbeatReply { .. }
        | Message::AppendReply { .. }
        | Message::SnapshotAck { .. }
        | Message::SnapshotReply { .. } => false,
    }
}

async fn serve_vote<M: Machine>(
    raft: Raft<M>,
    rpc: RpcId,
    ballot: Ballot,
    request: VoteRequest<TypeConfig>,
) -> Option<Message> {
    let response = match ballot {
        Ballot::Pre => raft.pre_vote(request).await,
        Ballot::Binding => raft.vote(request).await,
    };
    let VoteResponse { vote, vote_granted: granted, last_log_id: last } = response.ok()?;
    Some(Message::VoteReply { rpc, vote, granted, last })
}

async fn serve_transfer<M: Machine>(
    raft: Raft<M>,
    rpc: RpcId,
    request: TransferLeaderRequest<TypeConfig>,
) -> Option<Message> {
    let refused = match raft.handle_transfer_leader(request).await.ok()? {
        Ok(()) => None,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            Some(TransferRefused::VoteChanged { expected, actual })
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            Some(TransferRefused::LogNotFlushed { expected, actual })
        }
    };
    Some(Message::TransferReply { rpc, refused })
}

async fn serve_append<M: Machine>(
    raft: Raft<M>,
    request: AppendEntriesRequest<TypeConfig>,
) -> Option<Appended> {
    match raft.append_entries(request).await.ok()? {
        AppendEntriesResponse::Success => Some(Appended::Success),
        AppendEntriesResponse::Conflict => Some(Appended::Conflict),
        AppendEntriesResponse::HigherVote(vote) => Some(Appended::HigherVote(vote)),
        // A follower of this version takes all or nothing; no answer makes the leader ask again.
        AppendEntriesResponse::PartialSuccess(_) => None,
    }
}
