//! One node with nothing around it but a disk in memory and clocks that are set: [`Bench`].

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::codec::memory_disk::MemoryDisk;
use crate::codec::memory_snapshots::MemorySnapshots;
use crate::codec::record::{Record, Recovered};
use crate::codec::snapshot::{History, Origin};
use crate::codec::{decode, encode};
use crate::consensus::{self, LogBounds, SnapshotTask, Standing, TaskId};
use crate::dispatch::leader::Patience;
use crate::id::{Boot, ClusterId, ExecutionId, Incarnation, NodeId, NodeName, SessionId};
use crate::id::{LogIndex, RequestId, WriteId};
use crate::jobs::history::change::{Change, Page};
use crate::membership::Profile;
use crate::node::config::{NodeConfig, NodeRole};
use crate::node::io::{DialId, Event, Input, Output};
use crate::node::message::{Envelope, Hello, Message};
use crate::node::request::{NodeStatus, Reply, Request};
use crate::node::{INPUTS_MAX, Node};
use crate::time::{Mono, Now, Wall};

/// 2026-01-01T00:00:00Z.
const START: Wall = Wall::from_secs(1_767_225_600);

/// The most effects that one run may have: a few for each input, an order for each execution.
const OUTPUTS_MAX: usize = 8 * INPUTS_MAX;

/// The most bytes that one run may send.
const SENT_MAX: usize = 64 << 20;

/// How often a node may ask in a row to be run at the very instant at which it was run.
const SPINS_MAX: usize = 64;

/// How many reads of the history may be with the store, given up or not.
const READS_MAX: usize = 16;

/// How much of what the node sent is kept, to be sent back to it.
const KEPT_MAX: usize = 8;

/// The session of each peer, if there is one, has this number in a node's first life; each life
/// has its own.
const SESSIONS_PER_LIFE: u64 = 1 << 32;

/// The cluster that the peers belong to.
pub(super) const CLUSTER: ClusterId = ClusterId(7);

/// The peers that speak to the node.
pub(super) const PEERS: [&str; 3] = ["n2", "n3", "n4"];

/// A request of the node's that a peer may answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) peer: usize,
    pub(super) rpc: u64,
    pub(super) kind: Kind,
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Vote(consensus::Vote),
    Entries,
    Heartbeat,
    Other,
}

/// A node, its disk, and what it waits for.
pub(super) struct Bench {
    node: Node,
    config: NodeConfig,
    pub(super) now: Now,
    disk: MemoryDisk,
    /// Being written: what the node has not been told is durable.
    writes: VecDeque<(WriteId, Vec<Record>)>,
    snapshots: MemorySnapshots,
    tasks: VecDeque<(TaskId, SnapshotTask)>,
    session_last: u64,
    /// The session of each peer.
    pub(super) sessions: BTreeMap<usize, SessionId>,
    pub(super) dials: VecDeque<DialId>,
    pub(super) launched: VecDeque<ExecutionId>,
    pub(super) datagrams: VecDeque<Bytes>,
    pub(super) frames: VecDeque<Bytes>,
    pub(super) asked: VecDeque<Asked>,
    /// Up to where this life's changes of the history were handed out.
    history_upto: Option<LogIndex>,
    /// Handed out, and not told to be kept.
    unkept: VecDeque<LogIndex>,
    /// Reads of the history that have no answer.
    reads: VecDeque<RequestId>,
    request_last: u64,
    /// Requests of this life, with their answers.
    requests: BTreeMap<RequestId, Option<Reply>>,
    pub(super) won: bool,
    pub(super) over: bool,
}

/// Where the node listens for gossip.
pub(super) fn gossip_addr(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 8_946))
}

fn config(role: NodeRole, join: &[&str]) -> NodeConfig {
    NodeConfig {
        name: NodeName::new("n1").expect("n1 is a name"),
        incarnation: Incarnation(1),
        boot: Boot(1),
        role,
        gossip_addr: gossip_addr(1),
        peer_addr: SocketAddr::from(([10, 0, 0, 1], 6_868)),
        tags: BTreeMap::new(),
        joins: None,
        join: join.iter().map(|&name| name.to_owned()).collect(),
        retry_interval: Duration::from_secs(30),
        reconnect_timeout: Duration::from_secs(86_400),
        dead_server_grace: Duration::from_secs(60),
        profile: Profile::Lan,
        raft_multiplier: 1,
        log: LogBounds::default(),
        patience: Patience::default(),
        timezone: "UTC".to_owned(),
        version: "0.0.0".to_owned(),
    }
}

/// What the peer at `place` of [`PEERS`] says of itself.
pub(super) fn hello(place: usize) -> Hello {
    let name = NodeName::new(PEERS[place]).expect("n and a digit are a name");
    let id = NodeId::derive(&name, Incarnation(1));
    Hello {
        id,
        name,
        incarnation: Incarnation(1),
        boot: Boot(1),
        nonce: 1,
        server: true,
        version: "0.0.0".to_owned(),
        cluster: Some(CLUSTER),
        expect: 3,
        virgin: false,
        standing: Standing::default(),
        footing: consensus::Footing::default(),
        left: Default::default(),
        disk_full: false,
        gossip_addr: format!("10.0.0.{}:8946", place + 2),
        peer_addr: format!("10.0.0.{}:6868", place + 2),
        tags: BTreeMap::new(),
    }
}

impl Bench {
    pub(super) fn new(role: NodeRole, join: &[&str]) -> Self {
        let config = config(role, join);
        let now = Now { mono: Mono::from_micros(1_000_000), wall: START };
        let disk = MemoryDisk::new(config.id()).with_segment_len(1 << 16);
        let snapshots = MemorySnapshots::new(Origin { cluster: CLUSTER, node: config.id() });
        let node = Node::boot(config.clone(), 1, &Recovered::default(), now);
        let node = node.expect("a node boots on an empty disk");
        Self {
            node,
            config,
            now,
            disk,
            writes: VecDeque::new(),
            snapshots,
            tasks: VecDeque::new(),
            session_last: 0,
            sessions: BTreeMap::new(),
            dials: VecDeque::new(),
            launched: VecDeque::new(),
            datagrams: VecDeque::new(),
            frames: VecDeque::new(),
            asked: VecDeque::new(),
            history_upto: None,
            unkept: VecDeque::new(),
            reads: VecDeque::new(),
            request_last: 0,
            requests: BTreeMap::new(),
            won: false,
            over: false,
        }
    }

    pub(super) fn id(&self) -> NodeId {
        self.config.id()
    }

    pub(super) fn push(&mut self, input: Input) {
        self.node.push(self.now, input);
    }

    pub(super) fn input(&mut self, input: Input) {
        self.push(input);
        self.run();
    }

    pub(super) fn run(&mut self) {
        if self.over {
            return;
        }
        self.node.run(self.now);
        let (mut count, mut sent) = (0, 0);
        while let Some(output) = self.node.poll_output() {
            assert!(!self.over, "a node that is over does nothing more, and not {output:?}");
            count += 1;
            if let Output::Send { payload, .. } = &output {
                sent += payload.len();
            }
            self.perform(output);
        }
        assert!(count <= OUTPUTS_MAX, "one run has {count} effects");
        assert!(sent <= SENT_MAX, "one run sends {sent} bytes");
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { dial, .. } => keep(&mut self.dials, dial),
            Output::Send { session, payload, .. } => self.on_sent(session, payload),
            Output::Close { session } => self.sessions.retain(|_, open| *open != session),
            Output::Datagram { payload, .. } => keep(&mut self.datagrams, payload),
            Output::Resolve { .. } | Output::Kill { .. } => {}
            Output::History { upto, changes } => self.on_history(upto, &changes),
            Output::ReadHistory { id, .. } => {
                self.reads.push_back(id);
                assert!(self.reads.len() <= READS_MAX, "{} reads wait", self.reads.len());
            }
            Output::Persist { write, records } => self.writes.push_back((write, records)),
            Output::Snapshot { id, task } => {
                if let SnapshotTask::Build(source) = &task {
                    let covered = Some(source.index);
                    assert!(covered <= self.history_upto, "a snapshot is ahead of the history");
                }
                self.tasks.push_back((id, task));
            }
            Output::Launch(spec) => keep(&mut self.launched, spec.execution),
            Output::Reply { id, reply } => {
                let before = self.requests.insert(id, Some(reply));
                let before = before.expect("only requests that were made are answered");
                assert!(before.is_none(), "request {id} is answered twice");
            }
            Output::Event(event) => self.won |= matches!(event, Event::LeadershipWon(_)),
            Output::Stopped => self.over = true,
            // Whatever a peer, a client or a clock says, a node goes on: what contradicts the log
            // is not heard, and the disk of a bench does not fail.
            Output::Halt { reason } => panic!("the node halts: {reason}"),
            Output::Reincarnate { .. } => self.over = true,
        }
    }

    /// Changes come in the order of the log, each once.
    fn on_history(&mut self, upto: LogIndex, changes: &[(LogIndex, Change)]) {
        assert!(changes.is_sorted_by_key(|(index, _)| *index), "{changes:?}");
        let (first, last) = (changes.first(), changes.last());
        assert!(first.is_none_or(|(index, _)| Some(*index) > self.history_upto), "{changes:?}");
        assert!(last.is_none_or(|(index, _)| *index <= upto) && Some(upto) > self.history_upto);
        self.history_upto = Some(upto);
        self.unkept.push_back(upto);
    }

    /// The store says that it has carried out some changes.
    pub(super) fn keep_history(&mut self) {
        if let Some(upto) = self.unkept.pop_front() {
            self.input(Input::HistoryKept { upto });
        }
    }

    /// The store answers the oldest read.
    pub(super) fn read_history(&mut self, page: Result<Page, String>) {
        if let Some(id) = self.reads.pop_front() {
            self.input(Input::HistoryRead { id, page });
        }
    }

    fn on_sent(&mut self, session: SessionId, payload: Bytes) {
        let peer = self.sessions.iter().find(|(_, open)| **open == session);
        let envelope = decode::<Envelope>("own envelope", &payload);
        let envelope = envelope.expect("a node's own frames can be read");
        if let Some((&peer, _)) = peer {
            for message in envelope.messages {
                if let Message::Raft(message) = message
                    && let Some((rpc, kind)) = request(&message)
                {
                    keep(&mut self.asked, Asked { peer, rpc, kind });
                }
            }
        }
        keep(&mut self.frames, payload);
    }

    /// Makes the oldest write durable, or does the oldest task with snapshot files if there is no
    /// write. False if there is neither.
    pub(super) fn persist(&mut self) -> bool {
        if let Some((write, records)) = self.writes.pop_front() {
            let written = self.disk.write(&records, None);
            written.expect("a node writes only what the log can hold");
            self.disk.finish();
            self.input(Input::Persisted { write });
            return true;
        }
        let Some((id, task)) = self.tasks.pop_front() else { return false };
        if let Some(done) = task.perform(&mut self.snapshots, &History::default()) {
            self.input(Input::SnapshotDone { id, done });
        }
        true
    }

    /// Lets the disk, and nothing else, come to rest.
    pub(super) fn settle(&mut self) {
        for _ in 0..SPINS_MAX {
            if self.over || !self.persist() {
                return;
            }
        }
    }

    /// Time passes, in one step; the deadlines within it are all overdue then.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now = Now { mono: self.now.mono + time, wall: self.now.wall + time };
        self.input(Input::Timeout);
    }

    /// Time passes up to the next deadline, if it is not further away than `most`.
    pub(super) fn pass_to_deadline(&mut self, most: Duration) {
        let wait = match self.node.poll_timeout() {
            Some((at, _)) => at.saturating_since(self.now.mono).min(most),
            None => most,
        };
        self.pass(wait);
    }

    /// A node whose deadlines are worked off waits for later ones.
    pub(super) fn check_that_it_rests(&mut self) {
        for _ in 0..SPINS_MAX {
            let Some((at, _)) = self.node.poll_timeout() else { return };
            if self.over || at > self.now.mono {
                return;
            }
            self.input(Input::Timeout);
        }
        let next = self.node.poll_timeout();
        panic!("at {} the node wants to be run again and again: {next:?}", self.now.mono);
    }

    /// The machine dies and starts again on its disk; `kept` says which bytes of each sector that
    /// was not synced are there. What it had in hand is gone.
    pub(super) fn restart(&mut self, kept: impl FnMut(usize) -> Range<usize>) {
        if let Some((_, records)) = self.writes.front() {
            let written = self.disk.write(records, None);
            written.expect("a node writes only what the log can hold");
            self.disk.run_to_sync();
        }
        self.disk.crash(kept);
        self.snapshots.crash();
        self.disk.set_snapshot(self.snapshots.newest());
        let recovered = self.disk.recover().expect("a crash is no damage");
        self.config.boot = Boot(self.config.boot.0 + 1);
        let node = Node::boot(self.config.clone(), self.config.boot.0, &recovered, self.now);
        self.node = node.unwrap_or_else(|error| panic!("what a node wrote it can read: {error}"));
        self.session_last = self.config.boot.0 * SESSIONS_PER_LIFE;
        self.over = false;
        self.writes.clear();
        self.tasks.clear();
        self.sessions.clear();
        self.dials.clear();
        self.launched.clear();
        self.asked.clear();
        self.history_upto = None;
        self.unkept.clear();
        self.reads.clear();
        self.requests.clear();
        self.run();
    }

    /// Opens a session of the peer at `place`; it has not said anything yet.
    pub(super) fn connect(&mut self, place: usize, dial: Option<DialId>) -> SessionId {
        self.session_last += 1;
        let session = SessionId(self.session_last);
        self.sessions.insert(place, session);
        let remote = SocketAddr::from(([10, 0, 0, 2], 40_000));
        self.input(Input::Connected { session, dial, remote });
        session
    }

    /// A session of the peer at `place`, in which it has said who it is.
    pub(super) fn link(&mut self, place: usize) {
        if !self.sessions.contains_key(&place) {
            self.connect(place, None);
            let wall = self.now.wall;
            self.say(place, wall, vec![Message::Hello(Box::new(hello(place)))]);
        }
    }

    /// The peer says something.
    pub(super) fn say(&mut self, place: usize, wall: Wall, messages: Vec<Message>) {
        self.frame(place, encode(&Envelope { wall, messages }));
    }

    /// The peer sends a frame.
    pub(super) fn frame(&mut self, place: usize, payload: Bytes) {
        if let Some(&session) = self.sessions.get(&place) {
            self.input(Input::Frame { session, payload });
        }
    }

    pub(super) fn request(&mut self, request: Request) -> RequestId {
        self.request_last += 1;
        let id = RequestId(self.request_last);
        self.requests.insert(id, None);
        self.input(Input::Request { id, request });
        id
    }

    pub(super) fn status(&mut self) -> Option<NodeStatus> {
        let id = self.request(Request::Status);
        match self.requests.get(&id) {
            Some(Some(Reply::Status(status))) => Some((**status).clone()),
            Some(Some(reply)) => panic!("not a status: {reply:?}"),
            Some(None) | None => {
                assert!(self.over, "a status is answered at once");
                None
            }
        }
    }

    /// How many requests were made in this life and not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.requests.values().filter(|reply| reply.is_none()).count()
    }
}

fn keep<T>(queue: &mut VecDeque<T>, value: T) {
    queue.push_back(value);
    if queue.len() > KEPT_MAX {
        queue.pop_front();
    }
}

fn request(message: &consensus::Message) -> Option<(u64, Kind)> {
    match message {
        consensus::Message::Vote { rpc, vote, .. } => Some((rpc.0, Kind::Vote(*vote))),
        consensus::Message::Append { rpc, .. } => Some((rpc.0, Kind::Entries)),
        consensus::Message::Heartbeat { rpc, .. } => Some((rpc.0, Kind::Heartbeat)),
        consensus::Message::Transfer { rpc, .. }
        | consensus::Message::SnapshotBegin { rpc, .. }
        | consensus::Message::SnapshotChunk { rpc, .. } => Some((rpc.0, Kind::Other)),
        consensus::Message::VoteReply { .. }
        | consensus::Message::TransferReply { .. }
        | consensus::Message::HeartbeatReply { .. }
        | consensus::Message::AppendReply { .. }
        | consensus::Message::SnapshotAck { .. }
        | consensus::Message::SnapshotReply { .. } => None,
    }
}
