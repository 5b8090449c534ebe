//! Engines on a network and disks that are a heap of events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::codec::memory_snapshots::MemorySnapshots;
use crate::codec::record::{Record, Recovered};
use crate::codec::snapshot::History;
use crate::codec::{DecodeError, decode, encode};
use crate::consensus::*;
use crate::id::{CommandId, LogIndex, NodeId, Term, WriteId};
use crate::time::Mono;

/// A replicated state: the payloads in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally(pub(super) Vec<Bytes>);

impl Machine for Tally {
    type Reply = usize;

    fn apply(&mut self, _: LogIndex, _: Term, payload: &[u8]) -> usize {
        self.0.push(Bytes::copy_from_slice(payload));
        self.0.len()
    }

    fn snapshot(&self) -> Bytes {
        encode(&self.0)
    }

    fn restore(data: &[u8]) -> Result<Self, DecodeError> {
        decode("tally", data).map(Self)
    }
}

/// SplitMix64, apart from that of the engines.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

enum Event {
    Deliver {
        to: NodeId,
        from: NodeId,
        bytes: Bytes,
    },
    Standing {
        to: NodeId,
        from: NodeId,
        standing: Standing,
    },
    Synced {
        node: NodeId,
        life: u64,
        write: WriteId,
        records: Vec<Record>,
    },
    /// The oldest task with snapshot files is done.
    Task {
        node: NodeId,
        life: u64,
    },
}

pub(super) struct Server {
    pub(super) engine: Option<Engine<Tally>>,
    pub(super) disk: Recovered,
    pub(super) snapshots: MemorySnapshots,
    /// Tasks with snapshot files: they keep order.
    tasks: VecDeque<(TaskId, SnapshotTask)>,
    /// When the last of them is done.
    task_at: u64,
    life: u64,
    dirty: bool,
    /// What its peers were told last.
    standing: Standing,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) servers: BTreeMap<NodeId, Server>,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    chance: Chance,
    seed: u64,
    /// When the last message from one to the other arrives: sessions keep order.
    arrivals: BTreeMap<(NodeId, NodeId), u64>,
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    /// Links that are up but deliver nothing.
    pub(super) mute: BTreeSet<(NodeId, NodeId)>,
    /// Nodes whose disk does not complete.
    pub(super) stuck: BTreeSet<NodeId>,
    pub(super) log: Vec<(NodeId, Note)>,
    pub(super) hash: u64,
    pub(super) snapshots_sent: usize,
    pub(super) chunk_bytes_sent: u64,
    /// Bytes of chunks that disks have taken.
    pub(super) received: u64,
    pub(super) installed: usize,
    /// Nodes whose snapshot files do not get on, while their logs do.
    pub(super) stuck_tasks: BTreeSet<NodeId>,
    /// How many chunks to come in are to be spoiled.
    pub(super) spoil: u32,
    /// How long a task with snapshot files takes at most, in microseconds.
    pub(super) task_micros: u64,
    pub(super) tweak: fn(&mut EngineConfig),
    /// Changes a message; some are delivered a second time, changed.
    pub(super) forge: Option<fn(&mut Chance, &mut Message)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Proposed(CommandId, Result<(LogIndex, Term), ProposeError>),
    Read(u64, Result<LogIndex, NotLeader>),
    Change(Change, Result<(), ChangeError>),
    Settled(Settled),
    Rejected(NodeId, Inadmissible),
    Halt(String),
}

pub(super) fn id(n: u64) -> NodeId {
    NodeId(n)
}

impl World {
    pub(super) fn new(count: u64, seed: u64) -> Self {
        Self::with(count, seed, |_| ())
    }

    pub(super) fn with(count: u64, seed: u64, tweak: fn(&mut EngineConfig)) -> Self {
        let mut world = Self {
            now: 1_000,
            servers: BTreeMap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            chance: Chance(seed),
            seed,
            arrivals: BTreeMap::new(),
            cut: BTreeSet::new(),
            mute: BTreeSet::new(),
            stuck: BTreeSet::new(),
            log: Vec::new(),
            hash: seed,
            snapshots_sent: 0,
            chunk_bytes_sent: 0,
            received: 0,
            installed: 0,
            stuck_tasks: BTreeSet::new(),
            spoil: 0,
            task_micros: 2_000,
            tweak,
            forge: None,
        };
        for n in 1..=count {
            world.add(n);
        }
        world
    }

    /// A founded cluster with a leader.
    pub(super) fn founded(count: u64, seed: u64) -> (Self, NodeId) {
        let mut world = Self::new(count, seed);
        world.found();
        let leader = world.await_leader();
        (world, leader)
    }

    pub(super) fn found(&mut self) {
        let members = self.servers.keys().map(|id| (*id, Peer::default())).collect();
        self.engine(id(1)).initialize(members);
        self.touch(id(1));
    }

    pub(super) fn add(&mut self, n: u64) {
        let server = Server {
            engine: None,
            disk: Recovered::default(),
            snapshots: MemorySnapshots::default(),
            tasks: VecDeque::new(),
            task_at: 0,
            life: 0,
            dirty: false,
            standing: Standing::default(),
        };
        self.servers.insert(id(n), server);
        self.start(id(n));
    }

    /// Hands a node a message, as if it had just come.
    pub(super) fn hand(&mut self, to: NodeId, from: NodeId, message: Message) {
        let now = Mono::from_micros(self.now);
        self.engine(to).on_message(now, from, message);
    }

    pub(super) fn engine(&mut self, node: NodeId) -> &mut Engine<Tally> {
        self.servers.get_mut(&node).unwrap().engine.as_mut().unwrap()
    }

    pub(super) fn touch(&mut self, node: NodeId) {
        self.servers.get_mut(&node).unwrap().dirty = true;
    }

    pub(super) fn kill(&mut self, node: NodeId) {
        let server = self.servers.get_mut(&node).unwrap();
        server.engine = None;
        server.snapshots.crash();
        server.tasks.clear();
        server.life += 1;
        self.drop_sessions(|a, b| a == node || b == node);
    }

    pub(super) fn start(&mut self, node: NodeId) {
        let mut config = EngineConfig::new(node);
        (self.tweak)(&mut config);
        let server = self.servers.get_mut(&node).unwrap();
        let seed = self.seed ^ (node.0 << 8) ^ server.life;
        let now = Mono::from_micros(self.now);
        let engine = Engine::boot(config, seed, &server.disk, now).unwrap();
        server.standing = engine.standing();
        server.engine = Some(engine);
        server.dirty = true;
        self.connect_all();
    }

    /// Begins the sessions that can be and are not.
    pub(super) fn connect_all(&mut self) {
        let up: Vec<NodeId> =
            self.servers.iter().filter(|(_, s)| s.engine.is_some()).map(|(id, _)| *id).collect();
        for &a in &up {
            for &b in &up {
                if a == b || self.cut.contains(&(a, b)) || self.arrivals.contains_key(&(a, b)) {
                    continue;
                }
                self.arrivals.insert((a, b), self.now);
                let standing = self.servers[&b].standing.clone();
                self.engine(a).on_connected(b);
                self.engine(a).on_standing(b, standing);
                self.touch(a);
            }
        }
    }

    fn drop_sessions(&mut self, hit: impl Fn(NodeId, NodeId) -> bool) {
        let gone: Vec<_> = self.arrivals.keys().copied().filter(|&(a, b)| hit(a, b)).collect();
        for (a, b) in gone {
            self.arrivals.remove(&(a, b));
            if self.servers[&a].engine.is_some() {
                self.engine(a).on_disconnected(b);
                self.touch(a);
            }
        }
        self.events.retain(|_, event| match event {
            Event::Deliver { to, from, .. } | Event::Standing { to, from, .. } => !hit(*to, *from),
            Event::Synced { .. } | Event::Task { .. } => true,
        });
    }

    pub(super) fn kill_if_up(&mut self, node: NodeId) {
        if self.servers[&node].engine.is_some() {
            self.kill(node);
        }
    }

    pub(super) fn start_all(&mut self) {
        let down = self.servers.iter().filter(|(_, s)| s.engine.is_none()).map(|(id, _)| *id);
        for node in down.collect::<Vec<_>>() {
            self.start(node);
        }
    }

    pub(super) fn draw(&mut self, bound: u64) -> u64 {
        self.chance.below(bound)
    }

    pub(super) fn isolate(&mut self, node: NodeId) {
        let all: Vec<NodeId> = self.servers.keys().copied().collect();
        for other in all {
            self.cut.insert((node, other));
            self.cut.insert((other, node));
        }
        self.drop_sessions(|a, b| a == node || b == node);
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.mute.clear();
        self.stuck.clear();
        self.connect_all();
    }

    fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash ^= u64::from(*byte);
            self.hash = self.hash.wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    /// Runs every server that has something to do, then moves on to the next event or deadline.
    fn step(&mut self, until: u64) {
        let nodes: Vec<NodeId> = self.servers.keys().copied().collect();
        for node in nodes {
            self.turn(node);
        }
        let event = self.events.keys().next().map(|(at, _)| *at);
        let timer = self
            .servers
            .values()
            .filter_map(|s| s.engine.as_ref()?.poll_timeout())
            .map(Mono::as_micros)
            .min();
        let next = [event, timer].into_iter().flatten().min().unwrap_or(until);
        self.now = next.clamp(self.now, until);
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= self.now
        {
            let event = entry.remove();
            self.perform(event);
        }
    }

    fn turn(&mut self, node: NodeId) {
        let now = Mono::from_micros(self.now);
        let server = self.servers.get_mut(&node).unwrap();
        let Some(engine) = &mut server.engine else { return };
        let due = engine.poll_timeout().is_some_and(|at| at <= now);
        if !due && !server.dirty {
            return;
        }
        server.dirty = false;
        engine.run(now);
        let mut effects = Vec::new();
        while let Some(effect) = engine.poll_effect() {
            effects.push(effect);
        }
        let draws = engine.draws();
        let standing = engine.standing();
        if server.standing != standing {
            server.standing = standing.clone();
            self.tell_standing(node, &standing);
        }
        self.note(&self.now.to_le_bytes());
        self.note(&draws.to_le_bytes());
        for effect in effects {
            self.note(format!("{node} {effect:?}").as_bytes());
            self.effect(node, effect);
        }
    }

    fn tell_standing(&mut self, node: NodeId, standing: &Standing) {
        for peer in self.servers.keys().copied().collect::<Vec<_>>() {
            if let Some(at) = self.arrival(node, peer) {
                let standing = standing.clone();
                self.schedule(at, Event::Standing { to: peer, from: node, standing });
            }
        }
    }

    /// When something that is sent now arrives, after all that was sent before; never if the link
    /// is down or mute.
    fn arrival(&mut self, from: NodeId, to: NodeId) -> Option<u64> {
        let last = *self.arrivals.get(&(from, to))?;
        if self.mute.contains(&(from, to)) {
            return None;
        }
        let at = last.max(self.now + 200 + self.chance.below(800));
        self.arrivals.insert((from, to), at);
        Some(at)
    }

    fn effect(&mut self, node: NodeId, effect: Effect<Tally>) {
        match effect {
            Effect::Send { peer, message } => {
                if matches!(message, Message::SnapshotBegin { .. }) {
                    self.snapshots_sent += 1;
                }
                if let Message::SnapshotChunk { data, .. } = &message {
                    self.chunk_bytes_sent += data.len() as u64;
                }
                let Some(at) = self.arrival(node, peer) else { return };
                let bytes = encode(&message);
                self.schedule(at, Event::Deliver { to: peer, from: node, bytes });
            }
            Effect::Persist { write, records } => {
                let life = self.servers[&node].life;
                let at = self.now + 500 + self.chance.below(2_000);
                self.schedule(at, Event::Synced { node, life, write, records });
            }
            Effect::Snapshot { id, task } => {
                let done = self.now + self.task_micros / 4 + self.chance.below(self.task_micros);
                let server = self.servers.get_mut(&node).unwrap();
                server.task_at = server.task_at.max(done);
                server.tasks.push_back((id, task));
                let (life, at) = (server.life, server.task_at);
                self.schedule(at, Event::Task { node, life });
            }
            Effect::Applied { .. } | Effect::StatusChanged => {}
            Effect::Proposed { id, result } => self.log.push((node, Note::Proposed(id, result))),
            Effect::ReadIndex { id, result } => self.log.push((node, Note::Read(id, result))),
            Effect::MembershipDone { change, result } => {
                self.log.push((node, Note::Change(change, result)));
            }
            Effect::Settled { how, .. } => self.log.push((node, Note::Settled(how))),
            Effect::Rejected { peer, reason } => {
                self.log.push((node, Note::Rejected(peer, reason)));
            }
            Effect::Halt { reason } => self.log.push((node, Note::Halt(reason))),
        }
    }

    fn perform(&mut self, event: Event) {
        match event {
            Event::Deliver { to, from, bytes } => {
                if self.servers[&to].engine.is_some() {
                    let mut message: Message = decode("message", &bytes).unwrap();
                    if let Some(forge) = self.forge
                        && self.chance.below(4) == 0
                    {
                        let original = message.clone();
                        forge(&mut self.chance, &mut message);
                        self.hand(to, from, message);
                        message = original;
                    }
                    self.hand(to, from, message);
                    self.touch(to);
                }
            }
            Event::Standing { to, from, standing } => {
                if self.servers[&to].engine.is_some() {
                    self.engine(to).on_standing(from, standing);
                    self.touch(to);
                }
            }
            Event::Synced { node, life, write, records } => {
                if self.servers[&node].life != life {
                    return;
                }
                if self.stuck.contains(&node) {
                    let again = Event::Synced { node, life, write, records };
                    self.schedule(self.now + 10_000, again);
                    return;
                }
                let server = self.servers.get_mut(&node).unwrap();
                for record in records {
                    keep(&mut server.disk, record);
                }
                self.engine(node).on_persisted(write);
                self.touch(node);
            }
            Event::Task { node, life } => {
                if self.servers[&node].life != life {
                    return;
                }
                if self.stuck.contains(&node) || self.stuck_tasks.contains(&node) {
                    self.schedule(self.now + 10_000, Event::Task { node, life });
                    return;
                }
                let server = self.servers.get_mut(&node).unwrap();
                let (id, mut task) = server.tasks.pop_front().unwrap();
                if let SnapshotTask::Receive { data, .. } = &mut task {
                    self.received += data.len() as u64;
                    if self.spoil > 0 {
                        self.spoil -= 1;
                        let mut bytes = data.to_vec();
                        bytes[100] ^= 4;
                        *data = Bytes::from(bytes);
                    }
                }
                let done = task.perform(&mut server.snapshots, &History::default());
                server.disk.snapshot = server.snapshots.newest();
                if let Some(done) = done {
                    self.installed += usize::from(done == SnapshotDone::Installed);
                    self.engine(node).on_snapshot_done(id, done);
                    self.touch(node);
                }
            }
        }
    }

    pub(super) fn run_for(&mut self, duration: Duration) {
        let until = self.now + u64::try_from(duration.as_micros()).unwrap();
        while self.now < until {
            self.step(until);
        }
    }

    /// Runs until `done` gives something, for a minute at most.
    pub(super) fn until<T>(&mut self, what: &str, done: impl Fn(&Self) -> Option<T>) -> T {
        let limit = self.now + 60_000_000;
        while self.now < limit {
            if let Some(value) = done(self) {
                return value;
            }
            let next = (self.now + 1_000).min(limit);
            self.step(next);
        }
        let status: Vec<_> =
            self.servers.values().filter_map(|s| Some(s.engine.as_ref()?.status())).collect();
        panic!("never came about: {what}\n{:?}\n{status:#?}", self.log);
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        let is_leader = |id: NodeId, engine: &Engine<Tally>| {
            engine.status().role == Role::Leader && engine.status().leader == Some(id)
        };
        self.servers
            .iter()
            .find(|(id, server)| server.engine.as_ref().is_some_and(|e| is_leader(**id, e)))
            .map(|(id, _)| *id)
    }

    pub(super) fn await_leader(&mut self) -> NodeId {
        self.until("a leader", Self::leader)
    }

    pub(super) fn propose(&mut self, node: NodeId, seq: u64, payload: &[u8]) -> CommandId {
        let command = CommandId { seq, ..CommandId::default() };
        self.engine(node).propose(command, Bytes::copy_from_slice(payload));
        self.touch(node);
        command
    }

    pub(super) fn fate(&self, id: CommandId) -> Option<Result<(LogIndex, Term), ProposeError>> {
        let fate = |note: &Note| {
            if let Note::Proposed(known, fate) = note {
                (*known == id).then_some(*fate)
            } else {
                None
            }
        };
        self.log.iter().find_map(|(_, note)| fate(note))
    }

    pub(super) fn commit(&mut self, node: NodeId, seq: u64, payload: &[u8]) -> LogIndex {
        let command = self.propose(node, seq, payload);
        self.until("the commit", |world| world.fate(command)).unwrap().0
    }

    pub(super) fn tally(&self, node: NodeId) -> Tally {
        self.servers[&node].engine.as_ref().unwrap().machine()
    }

    pub(super) fn status(&self, node: NodeId) -> Status {
        self.servers[&node].engine.as_ref().unwrap().status().clone()
    }

    pub(super) fn assert_no_trouble(&self) {
        let trouble =
            self.log.iter().find(|(_, n)| matches!(n, Note::Rejected(..) | Note::Halt(_)));
        assert_eq!(trouble, None);
    }
}

/// What a disk makes of a record.
pub(super) fn keep(disk: &mut Recovered, record: Record) {
    match record {
        Record::Vote(vote) => disk.vote = Some(vote),
        Record::Entry { index, term, body } => disk.entries.push((index, term, body)),
        Record::Truncate { from } => disk.entries.retain(|(index, ..)| *index < from),
        Record::Purge { upto, body } => {
            disk.purged = Some(body);
            disk.entries.retain(|(index, ..)| *index > upto);
        }
        Record::Reset { .. } => disk.entries.clear(),
        Record::Committed(id) => disk.committed = Some(id),
        Record::Doubt(doubt) => disk.doubt = Some(doubt),
        Record::Settled => disk.doubt = None,
        Record::Local(_) | Record::Checkpoint(_) => {}
    }
}
