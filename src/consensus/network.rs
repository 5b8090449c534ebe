//! openraft's network: requests out, replies matched to who waits for them.
//!
//! Appends to one follower are pipelined: up to [`APPEND_WINDOW`] requests are under way, and their
//! replies are handed on in the order of the requests. A stream fails when its oldest request is
//! without an answer for too long, whatever limit openraft names, since it names none.
//!
//! **Left out on purpose**: retries and backoff, which are openraft's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::rt::{AsyncRuntime, Instant as _, OneshotSender as _, Select2};
use openraft::{OptionalSend, base};

use super::channels::{lock, mpsc, oneshot};
use super::doubt::Trust;
use super::footing::Promise;
use super::message::{Appended, Ballot, Message, RpcId, TransferRefused};
use super::peers::Inadmissible;
use super::runtime::{Host, Instant};
use super::sending::{Progress, Sending};
use super::snapshots::{SnapshotTask, TaskId, TaskIds};
use super::types::{LogId, Peer, Snapshot, TypeConfig, Vote};
use crate::codec::snapshot::SnapshotFile;
use crate::id::NodeId;

/// How many appends to one follower may be without an answer.
pub(crate) const APPEND_WINDOW: usize = 16;

type C = TypeConfig;

/// The network of one engine. Clones are the same network.
#[derive(Clone)]
pub(crate) struct Net {
    inner: Arc<Mutex<Inner>>,
    me: NodeId,
    limits: Limits,
    ids: TaskIds,
}

/// How long to wait for peers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For the answer to an append.
    pub(crate) append: Duration,
    /// For any word of a follower about a snapshot.
    pub(crate) snapshot: Duration,
}

struct Inner {
    /// The session with each peer that has one; the number changes with every session.
    sessions: BTreeMap<NodeId, u64>,
    next_session: u64,
    next_rpc: u64,
    waiting: BTreeMap<(NodeId, RpcId), oneshot::Sender<Reply>>,
    /// The snapshots that are being sent.
    snapshots: BTreeMap<(NodeId, RpcId), Transfer>,
    /// The chunks that are being read, and for which transfer.
    reads: BTreeMap<TaskId, (NodeId, RpcId)>,
    /// What is to be done with snapshot files.
    tasks: VecDeque<(TaskId, SnapshotTask)>,
    /// A snapshot that a follower could not use, or that could not be read.
    suspect: Option<SnapshotFile>,
    /// How far each follower has confirmed this node's log, under which vote.
    matched: BTreeMap<NodeId, (Vote, LogId)>,
    /// Followers in doubt about their logs: they may have lost what they confirmed.
    reverting: BTreeSet<NodeId>,
    outbox: VecDeque<(NodeId, Message)>,
    rejected: Vec<(NodeId, Inadmissible)>,
}

enum Reply {
    Vote(VoteResponse<C>),
    Transfer(Option<TransferRefused>),
    Appended(Appended),
}

struct Transfer {
    file: SnapshotFile,
    progress: mpsc::Sender<Progress>,
}

impl Net {
    /// A network without sessions. `first_rpc` is drawn, so that ids differ from life to life.
    pub(crate) fn new(me: NodeId, first_rpc: u64, limits: Limits, ids: TaskIds) -> Self {
        let inner = Inner {
            sessions: BTreeMap::new(),
            next_session: 1,
            // Room to count up from.
            next_rpc: first_rpc >> 8,
            waiting: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            reads: BTreeMap::new(),
            tasks: VecDeque::new(),
            suspect: None,
            matched: BTreeMap::new(),
            reverting: BTreeSet::new(),
            outbox: VecDeque::new(),
            rejected: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), me, limits, ids }
    }

    /// A session with `peer` begins.
    pub(crate) fn connect(&self, peer: NodeId) {
        self.disconnect(peer);
        let mut inner = lock(&self.inner);
        let session = inner.next_session;
        inner.next_session += 1;
        inner.sessions.insert(peer, session);
    }

    /// The session with `peer` ended: nothing that waits for it will be answered.
    pub(crate) fn disconnect(&self, peer: NodeId) {
        let (waiting, snapshots) = {
            let mut inner = lock(&self.inner);
            inner.sessions.remove(&peer);
            inner.reverting.remove(&peer);
            inner.outbox.retain(|(to, _)| *to != peer);
            (take_of(&mut inner.waiting, peer), take_of(&mut inner.snapshots, peer))
        };
        drop((waiting, snapshots));
    }

    /// Gives up every request, as at a new start; sessions stay.
    pub(crate) fn forget_all(&self) {
        let (waiting, snapshots) = {
            let mut inner = lock(&self.inner);
            inner.matched.clear();
            (std::mem::take(&mut inner.waiting), std::mem::take(&mut inner.snapshots))
        };
        drop((waiting, snapshots));
    }

    /// The session with `peer`, if there is one.
    pub(crate) fn session(&self, peer: NodeId) -> Option<u64> {
        lock(&self.inner).sessions.get(&peer).copied()
    }

    /// The peers with a session.
    pub(crate) fn is_connected(&self, peer: NodeId) -> bool {
        self.session(peer).is_some()
    }

    /// Sends, unless the session has ended meanwhile.
    pub(crate) fn send_in(&self, session: u64, peer: NodeId, message: Message) {
        let mut inner = lock(&self.inner);
        if inner.sessions.get(&peer) == Some(&session) {
            inner.outbox.push_back((peer, message));
        }
    }

    /// The next message to be sent.
    pub(crate) fn poll_send(&self) -> Option<(NodeId, Message)> {
        lock(&self.inner).outbox.pop_front()
    }

    /// Replies that turned out impossible when they were matched to their request.
    pub(crate) fn take_rejected(&self) -> Vec<(NodeId, Inadmissible)> {
        std::mem::take(&mut lock(&self.inner).rejected)
    }

    /// Hands a reply to who waits for it; one that nobody waits for is late and is dropped.
    pub(crate) fn on_reply(&self, peer: NodeId, rpc: RpcId, reply: NetReply) {
        let waiting = lock(&self.inner).waiting.remove(&(peer, rpc));
        let Some(waiting) = waiting else { return };
        let reply = match reply {
            NetReply::Vote(response) => Reply::Vote(response),
            NetReply::Transfer(refused) => Reply::Transfer(refused),
            NetReply::Appended(outcome) => Reply::Appended(outcome),
        };
        // Who waited may have given up in this very turn.
        drop(waiting.send(reply));
    }

    /// Tells a snapshot's sender how far the receiver is.
    pub(crate) fn on_snapshot_ack(&self, peer: NodeId, rpc: RpcId, received: u64) {
        self.on_snapshot(peer, rpc, Progress::Received(received));
    }

    /// Tells a snapshot's sender how it ended.
    pub(crate) fn on_snapshot_reply(&self, peer: NodeId, rpc: RpcId, installed: Option<Vote>) {
        self.on_snapshot(peer, rpc, Progress::Done(installed));
    }

    fn on_snapshot(&self, peer: NodeId, rpc: RpcId, progress: Progress) {
        let inner = lock(&self.inner);
        let sender = inner.snapshots.get(&(peer, rpc)).map(|transfer| transfer.progress.clone());
        drop(inner);
        if let Some(sender) = sender {
            // A peer that acknowledges more than was sent has its surplus dropped.
            drop(sender.try_send(progress));
        }
    }

    /// A chunk of a snapshot was read. Says whether anybody had asked for it.
    pub(crate) fn on_snapshot_read(&self, task: TaskId, data: Option<Bytes>) -> bool {
        let reader = lock(&self.inner).reads.remove(&task);
        if let Some((peer, rpc)) = reader {
            self.on_snapshot(peer, rpc, Progress::Read(data));
        }
        reader.is_some()
    }

    /// The next task with snapshot files.
    pub(crate) fn poll_task(&self) -> Option<(TaskId, SnapshotTask)> {
        lock(&self.inner).tasks.pop_front()
    }

    /// A snapshot that a follower could not use, or that could not be read, once.
    pub(crate) fn take_suspect(&self) -> Option<SnapshotFile> {
        lock(&self.inner).suspect.take()
    }

    /// Notes that something may be wrong with `file` on disk.
    pub(crate) fn suspect(&self, file: SnapshotFile) {
        lock(&self.inner).suspect = Some(file);
    }

    /// Begins to send a snapshot, with a message; `progress` hears of it from here on.
    pub(crate) fn begin_transfer(
        &self,
        peer: NodeId,
        file: SnapshotFile,
        progress: mpsc::Sender<Progress>,
        make: impl FnOnce(RpcId) -> Message,
    ) -> Result<(u64, RpcId), Unreachable<C>> {
        let mut inner = lock(&self.inner);
        let Some(&session) = inner.sessions.get(&peer) else {
            return Err(no_session());
        };
        let rpc = RpcId(inner.next_rpc);
        inner.next_rpc += 1;
        inner.snapshots.insert((peer, rpc), Transfer { file, progress });
        inner.outbox.push_back((peer, make(rpc)));
        Ok((session, rpc))
    }

    /// Has a chunk read for a transfer.
    pub(crate) fn read_for(&self, transfer: (NodeId, RpcId), task: SnapshotTask) {
        let id = self.ids.draw();
        let mut inner = lock(&self.inner);
        inner.reads.insert(id, transfer);
        inner.tasks.push_back((id, task));
    }

    /// Ends the sending of `file`, which is closed if nobody else reads it.
    pub(crate) fn end_transfer(&self, transfer: (NodeId, RpcId), file: SnapshotFile) {
        let id = self.ids.draw();
        let mut inner = lock(&self.inner);
        let ended = inner.snapshots.remove(&transfer);
        inner.reads.retain(|_, reader| *reader != transfer);
        if inner.snapshots.values().all(|other| other.file != file) {
            inner.tasks.push_back((id, SnapshotTask::Close { file }));
        }
        drop(inner);
        drop(ended);
    }

    pub(crate) fn me(&self) -> NodeId {
        self.me
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Notes that `peer` has confirmed everything up to `last` to the leader of `vote`.
    fn note_matched(&self, peer: NodeId, vote: Vote, last: Option<LogId>) {
        let Some(last) = last else { return };
        let mut inner = lock(&self.inner);
        let known = inner.matched.entry(peer).or_insert((vote, last));
        if known.0 != vote || known.1 < last {
            *known = (vote, last);
        }
    }

    /// What `peer` has promised by what it confirmed to this node.
    pub(crate) fn promise_of(&self, peer: NodeId) -> Option<Promise> {
        let known = lock(&self.inner).matched.get(&peer).copied();
        known.map(|(vote, upto)| Promise::confirmed(vote, upto))
    }

    /// Whether `peer` may turn out to hold less than it confirmed.
    pub(crate) fn allow_reversion(&self, peer: NodeId, trust: Trust) {
        let mut inner = lock(&self.inner);
        match trust {
            Trust::InDoubt => {
                inner.matched.remove(&peer);
                inner.reverting.insert(peer);
            }
            Trust::Sure => drop(inner.reverting.remove(&peer)),
        }
    }

    fn reject(&self, peer: NodeId, reason: Inadmissible) {
        lock(&self.inner).rejected.push((peer, reason));
    }

    /// Sends a request, and returns where its reply will come.
    fn request(
        &self,
        peer: NodeId,
        make: impl FnOnce(RpcId) -> Message,
    ) -> Result<(RpcId, oneshot::Receiver<Reply>), Unreachable<C>> {
        let (tx, rx) = oneshot::channel();
        let mut inner = lock(&self.inner);
        if !inner.sessions.contains_key(&peer) {
            return Err(no_session());
        }
        let rpc = RpcId(inner.next_rpc);
        inner.next_rpc += 1;
        inner.waiting.insert((peer, rpc), tx);
        inner.outbox.push_back((peer, make(rpc)));
        Ok((rpc, rx))
    }

    fn forget(&self, peer: NodeId, rpc: RpcId) {
        let waiting = lock(&self.inner).waiting.remove(&(peer, rpc));
        drop(waiting);
    }

    async fn call(
        &self,
        peer: NodeId,
        limit: Duration,
        action: RPCTypes,
        make: impl FnOnce(RpcId) -> Message,
    ) -> Result<Reply, RPCError<C>> {
        let (rpc, reply) = self.request(peer, make)?;
        match Host::timeout(limit, reply).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(no_session().into()),
            Err(_) => {
                self.forget(peer, rpc);
                Err(Timeout { action, id: self.me, target: peer, timeout: limit }.into())
            }
        }
    }
}

/// A reply as it came.
pub(crate) enum NetReply {
    /// To a vote.
    Vote(VoteResponse<C>),
    /// To a transfer.
    Transfer(Option<TransferRefused>),
    /// To an append or a heartbeat.
    Appended(Appended),
}

fn take_of<V>(map: &mut BTreeMap<(NodeId, RpcId), V>, peer: NodeId) -> Vec<V> {
    let keys: Vec<_> =
        map.range((peer, RpcId(0))..=(peer, RpcId(u64::MAX))).map(|(key, _)| *key).collect();
    keys.iter().filter_map(|key| map.remove(key)).collect()
}

pub(crate) fn no_session() -> Unreachable<C> {
    Unreachable::from_string("there is no session with the peer")
}

fn wrong_reply() -> RPCError<C> {
    NetworkError::from_string("the reply is of another kind than the request").into()
}

impl RaftNetworkFactory<C> for Net {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, _node: &Peer) -> Link {
        Link { net: self.clone(), peer: target, kind: Kind::Log }
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, _node: &Peer) -> Link {
        Link { net: self.clone(), peer: target, kind: Kind::Heartbeat }
    }
}

/// One of the ways to a peer.
pub(crate) struct Link {
    net: Net,
    peer: NodeId,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Log,
    Heartbeat,
}

impl Link {
    fn send_append(
        &self,
        request: AppendEntriesRequest<C>,
    ) -> Result<(RpcId, oneshot::Receiver<Reply>), Unreachable<C>> {
        let AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit: commit } =
            request;
        self.net.request(self.peer, |rpc| match self.kind {
            Kind::Heartbeat => Message::Heartbeat { rpc, vote, prev, commit },
            Kind::Log => Message::Append { rpc, vote, prev, entries, commit },
        })
    }

    async fn ask_vote(
        &self,
        ballot: Ballot,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let VoteRequest { vote, last_log_id: last, leadership_transfer: transfer } = rpc;
        let make = |rpc| Message::Vote { rpc, ballot, vote, last, transfer };
        match self.net.call(self.peer, option.hard_ttl(), RPCTypes::Vote, make).await? {
            Reply::Vote(response) => Ok(response),
            Reply::Transfer(_) | Reply::Appended(_) => Err(wrong_reply()),
        }
    }
}

impl RaftNetworkV2<C> for Link {
    type SnapshotData = SnapshotFile;

    /// One request of its own; openraft uses the stream instead.
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let requests = futures_util::stream::iter([rpc]);
        let mut replies = self.stream_append(requests, option).await?;
        match replies.next().await {
            Some(reply) => reply.map(AppendEntriesResponse::from),
            None => Err(no_session().into()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> base::BoxFuture<
        's,
        Result<base::BoxStream<'s, Result<StreamAppendResult<C>, RPCError<C>>>, RPCError<C>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<C>> + OptionalSend + Unpin + 'static,
    {
        // Without a session the stream fails at its first request and not before: it is there that
        // openraft waits between attempts.
        let appends =
            Appends { link: self, input: Some(input), window: VecDeque::new(), alarm: None };
        let stream = Ok(Box::pin(appends) as base::BoxStream<'s, _>);
        Box::pin(std::future::ready(stream))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.ask_vote(Ballot::Binding, rpc, option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.ask_vote(Ballot::Pre, rpc, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let last = snapshot.meta.last_log_id;
        let sending = Sending::begin(&self.net, self.peer, vote, snapshot)?;
        let result = match Host::select2(Box::pin(cancel), Box::pin(sending.run())).await {
            Select2::First(closed) => return Err(closed.into()),
            Select2::Second(result) => result,
        };
        if result.as_ref().is_ok_and(|response| response.vote == vote) {
            self.net.note_matched(self.peer, vote, last);
        }
        result
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        let (vote, to) = (*req.from_leader(), *req.to_node_id());
        let last = req.last_log_id().copied();
        let make = |rpc| Message::Transfer { rpc, vote, to, last };
        let ttl = option.hard_ttl();
        match self.net.call(self.peer, ttl, RPCTypes::TransferLeader, make).await? {
            Reply::Transfer(None) => Ok(Ok(())),
            Reply::Transfer(Some(TransferRefused::VoteChanged { expected, actual })) => {
                Ok(Err(TransferLeaderError::VoteChanged { expected, actual }))
            }
            Reply::Transfer(Some(TransferRefused::LogNotFlushed { expected, actual })) => {
                Ok(Err(TransferLeaderError::LogNotFlushed { expected, actual }))
            }
            Reply::Vote(_) | Reply::Appended(_) => Err(wrong_reply()),
        }
    }
}

/// Requests under way to one follower, and their replies in order.
struct Appends<'s, S> {
    link: &'s Link,
    /// `None` once it has ended.
    input: Option<S>,
    window: VecDeque<UnderWay>,
    /// Set for the oldest request that is without an answer.
    alarm: Option<(RpcId, Pin<Box<<Host as AsyncRuntime>::Sleep>>)>,
}

struct UnderWay {
    rpc: RpcId,
    vote: Vote,
    prev: Option<LogId>,
    last: Option<LogId>,
    sent: Instant,
    reply: oneshot::Receiver<Reply>,
}

type AppendItem = Result<StreamAppendResult<C>, RPCError<C>>;

impl<S> Appends<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<C>> + Unpin,
{
    /// Sends what there is, up to the window.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<(), RPCError<C>> {
        while self.window.len() < APPEND_WINDOW
            && let Some(input) = &mut self.input
        {
            match input.poll_next_unpin(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.input = None,
                Poll::Ready(Some(request)) => {
                    let (vote, prev) = (request.vote, request.prev_log_id);
                    let last = request.entries.last().map(|entry| entry.log_id).or(prev);
                    let sent = Instant::now();
                    let (rpc, reply) = self.link.send_append(request)?;
                    self.window.push_back(UnderWay { rpc, vote, prev, last, sent, reply });
                }
            }
        }
        Ok(())
    }

    /// What the answer to the oldest request means.
    fn judge(&self, request: &UnderWay, reply: Result<Reply, oneshot::Dropped>) -> AppendItem {
        let Ok(reply) = reply else {
            return Err(no_session().into());
        };
        let Reply::Appended(outcome) = reply else {
            return Err(wrong_reply());
        };
        let (net, peer) = (&self.link.net, self.link.peer);
        match outcome {
            Appended::Success => {
                net.note_matched(peer, request.vote, request.last);
                Ok(Ok(request.last))
            }
            Appended::Conflict => {
                let (known, is_reverting) = {
                    let inner = lock(&net.inner);
                    (inner.matched.get(&peer).copied(), inner.reverting.contains(&peer))
                };
                // A heartbeat names only what the follower has confirmed, lately or long ago.
                let may_conflict = self.link.kind == Kind::Log || is_reverting;
                match request.prev {
                    Some(prev) if may_conflict && !is_known(known, request.vote, prev) => {
                        Ok(Err(StreamAppendError::Conflict(prev)))
                    }
                    Some(_) | None => {
                        net.reject(peer, Inadmissible::LostEntries);
                        Err(NetworkError::from_string("the peer lost entries it had").into())
                    }
                }
            }
            Appended::HigherVote(vote) => Ok(Err(StreamAppendError::HigherVote(vote))),
        }
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<RPCError<C>> {
        let Some(oldest) = self.window.front() else {
            self.alarm = None;
            return Poll::Pending;
        };
        let limit = self.link.net.limits.append;
        let alarm = match &mut self.alarm {
            Some((rpc, alarm)) if *rpc == oldest.rpc => alarm,
            Some(_) | None => {
                let alarm = Box::pin(Host::sleep_until(oldest.sent + limit));
                &mut self.alarm.insert((oldest.rpc, alarm)).1
            }
        };
        alarm.poll_unpin(cx).map(|()| {
            let action = RPCTypes::AppendEntries;
            let (id, target) = (self.link.net.me, self.link.peer);
            Timeout { action, id, target, timeout: limit }.into()
        })
    }

    /// Ends the stream with `item` as its last.
    fn fail(&mut self, item: AppendItem) -> Poll<Option<AppendItem>> {
        self.input = None;
        self.abandon();
        Poll::Ready(Some(item))
    }
}

impl<S> Appends<'_, S> {
    fn abandon(&mut self) {
        self.alarm = None;
        for request in self.window.drain(..) {
            self.link.net.forget(self.link.peer, request.rpc);
        }
    }
}

/// Whether the follower has confirmed `prev` under `vote`.
fn is_known(matched: Option<(Vote, LogId)>, vote: Vote, prev: LogId) -> bool {
    matched.is_some_and(|(under, upto)| under == vote && prev <= upto)
}

impl<S> Stream for Appends<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<C>> + Unpin,
{
    type Item = AppendItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<AppendItem>> {
        let this = &mut *self;
        if let Err(error) = this.fill(cx) {
            return this.fail(Err(error));
        }
        let Some(oldest) = this.window.front_mut() else {
            this.alarm = None;
            return if this.input.is_none() { Poll::Ready(None) } else { Poll::Pending };
        };
        if let Poll::Ready(reply) = oldest.reply.poll_unpin(cx) {
            let request = this.window.pop_front().expect("it was just polled");
            let item = this.judge(&request, reply);
            return match item {
                Ok(Ok(_)) => Poll::Ready(Some(item)),
                Ok(Err(_)) | Err(_) => this.fail(item),
            };
        }
        match this.poll_alarm(cx) {
            Poll::Ready(error) => this.fail(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S> Drop for Appends<'_, S> {
    fn drop(&mut self) {
        self.abandon();
    }
}
