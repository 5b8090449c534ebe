//! [`Node`]: everything that a server or an agent decides, as one pure state machine.
//!
//! The contract between a node and its driver is told in the [crate's map](crate). Inside, a turn
//! works off what was pushed and then lets each part act until all are quiet:
//!
//! | part | decides |
//! |---|---|
//! | `links` | who is dialled and heard |
//! | [`membership`](crate::membership) | who is alive, who founds a cluster, who votes |
//! | [`consensus`] | what is committed |
//! | [`dispatch`](crate::dispatch) | what is due, ordered, started and reported |
//! | `requests` | what clients are told |
//! | `disk` | what is written together |
//! | `history` | what is on its way to the store of executions |
//!
//! The parts do not know each other; this module carries facts from one to the other, and has no
//! logic beyond that.
//!
//! **Invariants**
//! - The same boot and the same inputs at the same times give the same outputs, on every machine.
//! - Nothing unwinds out of [`Node::push`], [`Node::run`] or the polls; a bug inside becomes
//!   [`Output::Halt`], and the node is inert from then on.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod clock;
mod cluster;
pub mod config;
mod disk;
mod effects;
mod full;
mod history;
pub mod io;
mod lead;
mod links;
mod local;
pub mod message;
mod propose;
mod replicated;
pub mod request;
mod requests;
pub mod rescue;
mod serve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::clock::ClusterClock;
use self::cluster::DialBasis;
use self::config::NodeConfig;
use self::disk::DiskQueue;
use self::history::Unkept;
use self::io::{Event, Input, Output};
use self::lead::{Leading, Own};
use self::links::Links;
use self::local::Local;
use self::message::{Hello, Message};
use self::replicated::Replicated;
use self::requests::Requests;
use crate::codec::DecodeError;
use crate::codec::record::Recovered;
use crate::consensus::{self, Engine, EngineConfig, Footing, Standing};
use crate::dispatch::agent::Agent;
use crate::dispatch::leader::NodeView;
use crate::id::{ClusterId, CommandId, NodeId, RequestId, Term};
use crate::jobs::State;
use crate::membership::formation::{Candidate, Formation, Start};
use crate::membership::gossip::Gossiper;
use crate::membership::roster::{self, Roster};
use crate::time::{Mono, Now};

/// How many inputs may be pushed before a run; more are refused by a driver's own bound.
pub const INPUTS_MAX: usize = 4_096;

/// How often the parts may act in one turn before the rest waits for the next.
const ROUNDS_MAX: usize = 64;

/// How often it is said what is missing while nobody leads.
const NO_LEADER_EVERY: Duration = Duration::from_secs(10);

/// How often results that nobody has acknowledged are reported again.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// How often peers are told how far this server's disk goes, if that has changed.
const FOOTING_EVERY: Duration = Duration::from_secs(1);

/// How long a stopping leader waits for another to take over.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// Why a node wants to be called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Raft: a heartbeat, an election, a stream without answer.
    Consensus,
    /// Gossip: a probe, a suspicion, another round of joining.
    Gossip,
    /// The founding of a cluster: a proposal is repeated.
    Formation,
    /// A dial is repeated, or a stranger has not said who it is.
    Links,
    /// Something is due, or a wait is over.
    Schedule,
    /// A client's request is to be answered.
    Request,
    /// A notice is repeated, or results are reported again.
    Repeat,
    /// The node is stopping.
    Stop,
}

/// Why a node could not boot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// A record of the node's own could not be read.
    #[error("the data directory is damaged or of another version: {0}")]
    Local(#[from] DecodeError),
    /// Raft's records could not be read, or contradict each other.
    #[error("the data directory is damaged or of another version: {0}")]
    Consensus(#[from] consensus::BootError),
}

/// A server or an agent. See the [module](self) and the [crate's map](crate).
pub struct Node {
    config: NodeConfig,
    tags: BTreeMap<String, String>,
    now: Now,
    booted: Mono,
    rng: StdRng,
    inputs: VecDeque<Input>,
    outputs: VecDeque<Output>,
    loopback: VecDeque<Message>,
    life: Life,
    local: Local,
    disk: DiskQueue,
    /// What the disk has no room for, while it is full.
    disk_full: Option<String>,
    links: Links,
    roster: Roster,
    formation: Option<Formation>,
    engine: Option<Engine<Replicated>>,
    raft: consensus::Status,
    unkept: Unkept,
    clock: ClusterClock,
    leading: Option<Leading>,
    known_leader: (Term, Option<NodeId>),
    /// Servers that said that they do not lead. A leader without a quorum still sends heartbeats,
    /// so its followers' Raft goes on naming it.
    disclaiming: BTreeSet<NodeId>,
    agent: Agent,
    requests: Requests,
    /// The peer that said last that it leads.
    claimed: Option<(Term, NodeId)>,
    forwarded: BTreeMap<CommandId, NodeId>,
    own: BTreeMap<CommandId, Own>,
    proposal_last: u64,
    reads: BTreeMap<u64, (Option<NodeId>, u64)>,
    read_last: u64,
    no_leader_at: Mono,
    report_at: Mono,
    /// When peers are told next how far this server's disk goes.
    footing_at: Mono,
    dial_basis: Option<DialBasis>,
    /// The nodes that may run something, as of that version of the links.
    nodes: Option<(u64, Arc<[NodeView]>)>,
    /// The version of the links of which formation knows.
    formation_basis: Option<u64>,
}

/// Whether a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Life {
    /// It does.
    Running,
    /// It was told to stop: it drains until the deadline, then ends what still runs.
    Stopping { since: Mono, drain_until: Mono, killed: bool },
    /// A client asked it to leave; it waits for its removal.
    Leaving(RequestId),
    /// It has stopped or halted; nothing follows.
    Over,
}

impl Node {
    /// Starts a node on what its data directory held. `seed` is the source of all its chance.
    ///
    /// # Errors
    /// If `recovered` holds records that this version cannot read or that contradict each other.
    pub fn boot(
        config: NodeConfig,
        seed: u64,
        recovered: &Recovered,
        now: Now,
    ) -> Result<Self, BootError> {
        let mut rng = StdRng::seed_from_u64(seed);
        let (local, agent) = Local::recover(recovered)?;
        let engine = match config.is_server() {
            true => Some(Engine::boot(engine_config(&config), rng.random(), recovered, now.mono)?),
            false => None,
        };
        let virgin = recovered.vote.is_none()
            && recovered.entries.is_empty()
            && recovered.snapshot.is_none()
            && recovered.purged.is_none();
        let tags = config.tags.clone();
        let mut me = hello(&config, &tags, &local, virgin, rng.random());
        me.standing = engine.as_ref().map(Engine::standing).unwrap_or_default();
        me.footing = engine.as_ref().map(Engine::footing).unwrap_or_default();
        let formation = formation(&config, &me, &local, rng.random(), now.mono);
        let roster = Roster::new(roster_config(&config, &local), rng.random(), now.mono);
        let raft = engine.as_ref().map(|engine| engine.status().clone()).unwrap_or_default();
        let doubt = raft.doubt.map(|doubt| Output::Event(Event::InDoubt(doubt)));
        let mut node = Self {
            links: Links::new(me, local.met.clone(), rng.random()),
            config,
            tags,
            now,
            booted: now.mono,
            rng,
            inputs: VecDeque::new(),
            outputs: doubt.into_iter().collect(),
            loopback: VecDeque::new(),
            life: Life::Running,
            local,
            disk: DiskQueue::default(),
            disk_full: None,
            roster,
            formation,
            engine,
            raft,
            unkept: Unkept::default(),
            clock: ClusterClock::default(),
            leading: None,
            known_leader: (Term(0), None),
            disclaiming: BTreeSet::new(),
            agent,
            requests: Requests::default(),
            claimed: None,
            forwarded: BTreeMap::new(),
            own: BTreeMap::new(),
            proposal_last: 0,
            reads: BTreeMap::new(),
            read_last: 0,
            no_leader_at: now.mono + NO_LEADER_EVERY,
            report_at: now.mono + REPORT_EVERY,
            footing_at: now.mono,
            dial_basis: None,
            nodes: None,
            formation_basis: None,
        };
        if let (None, Some(cluster)) = (node.local.cluster, node.config.joins) {
            node.belong_to(cluster);
        }
        Ok(node)
    }

    /// Takes one input. It is worked off by the next [`Node::run`].
    pub fn push(&mut self, now: Now, input: Input) {
        self.observe(now);
        if self.life != Life::Over {
            self.inputs.push_back(input);
        }
    }

    /// Works off everything that was pushed, and every deadline that has passed.
    pub fn run(&mut self, now: Now) {
        self.observe(now);
        if self.life == Life::Over {
            return;
        }
        // A node whose parts were torn apart by an unwind is never entered again: it is over.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.turn())) {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            self.halt(format!("a bug: {}", text.unwrap_or("an unwind without a text")));
        }
    }

    /// The next effect, in order. Drain to `None` after every [`Node::run`].
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Node::run`] is to be called again if nothing happens before, and why.
    pub fn poll_timeout(&self) -> Option<(Mono, Timer)> {
        if self.life == Life::Over {
            return None;
        }
        let engine = self.engine.as_ref().and_then(Engine::poll_timeout);
        let formation = self.formation.as_ref().and_then(Formation::poll_timeout);
        let leading = self.leading.as_ref().and_then(Leading::poll_timeout);
        let report = self.agent.has_unreported().then_some(self.report_at);
        let notice = self.raft_leader().is_none().then_some(self.no_leader_at);
        [
            (engine, Timer::Consensus),
            (self.roster.poll_timeout(), Timer::Gossip),
            (formation, Timer::Formation),
            (self.links.poll_timeout(), Timer::Links),
            (leading, Timer::Schedule),
            (self.requests.poll_timeout(), Timer::Request),
            (report.into_iter().chain(notice).min(), Timer::Repeat),
            (self.stop_timeout(), Timer::Stop),
        ]
        .into_iter()
        .filter_map(|(at, timer)| Some((at?, timer)))
        .min()
    }

    /// The cluster that it belongs to, once that is durable.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.links.me().cluster
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.links.me().id
    }

    /// How its Raft stood after the last [`Node::run`]; as that of an empty server on an agent.
    pub fn raft(&self) -> &consensus::Status {
        &self.raft
    }

    /// The term of the last entry that this server knows to be committed, as its own log has it;
    /// `None` if it is purged, or this is an agent. For checkers: the log may be ahead of the disk.
    pub fn committed_term(&self) -> Option<Term> {
        self.engine.as_ref()?.term_at(self.raft.committed?)
    }

    /// The replicated state as this server has applied it; `None` on an agent.
    pub fn state(&self) -> Option<State> {
        self.engine.as_ref().map(|engine| engine.machine().0)
    }

    fn observe(&mut self, now: Now) {
        self.now = Now { mono: self.now.mono.max(now.mono), wall: now.wall };
    }

    fn turn(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            self.on_input(input);
        }
        for _ in 0..ROUNDS_MAX {
            if self.life == Life::Over || !self.round() {
                break;
            }
        }
        if self.life == Life::Over {
            return;
        }
        self.hand_out_history();
        if self.disk.wants_checkpoint() {
            self.disk.push_checkpoint(self.local.checkpoint(&self.agent));
        }
        self.outputs.extend(self.disk.flush());
        self.outputs.extend(self.links.flush(self.now));
        self.stop_if_drained();
    }

    /// Lets each part act once. True if any did, so that the others may have more to do.
    fn round(&mut self) -> bool {
        let mut acted = self.run_links();
        acted |= self.run_roster();
        acted |= self.run_formation();
        acted |= self.run_engine();
        acted |= self.run_agent();
        acted |= self.watch_history();
        acted |= self.run_lead();
        acted |= self.run_requests();
        while let Some(message) = self.loopback.pop_front() {
            self.on_message(self.id(), message);
            acted = true;
        }
        self.run_notices();
        acted
    }

    fn on_input(&mut self, input: Input) {
        let now = self.now.mono;
        match input {
            Input::Timeout => {}
            Input::Connected { session, dial, remote } => {
                self.links.on_connected(now, session, dial, remote);
            }
            Input::ConnectFailed { dial, reason } => {
                tracing::trace!(dial = dial.0, reason, "dial failed");
                self.links.on_connect_failed(now, dial);
            }
            Input::Disconnected { session, reason } => {
                tracing::debug!(%session, reason, "session ended");
                let events = self.links.on_disconnected(now, session);
                self.on_links(events);
            }
            Input::Frame { session, payload } => self.on_frame(session, &payload),
            Input::Datagram { from, payload } => self.roster.on_datagram(now, from, &payload),
            Input::Resolved { name, result } => self.roster.on_resolved(now, &name, result),
            Input::Persisted { write } => self.on_persisted(write),
            Input::SnapshotDone { id, done } => self.on_snapshot_done(id, done),
            Input::HistoryKept { upto } => self.unkept.on_kept(upto),
            Input::HistoryRead { id, page } => self.on_history_read(id, page),
            Input::DiskFailed { reason } => self.halt(format!("the disk failed: {reason}")),
            Input::DiskFull { reason } => self.on_disk_full(reason),
            Input::DiskFree => self.on_disk_free(),
            Input::Request { id, request } => self.on_request(id, request),
            Input::RunFinished { execution, result } => self.agent.on_finished(execution, result),
            Input::Retag(tags) => self.retag(tags),
            Input::Shutdown { drain } => self.begin_stop(drain),
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn halt(&mut self, reason: String) {
        self.life = Life::Over;
        self.outputs.push_back(Output::Halt { reason });
    }

    fn retag(&mut self, tags: BTreeMap<String, String>) {
        self.tags = tags;
        let all = self.config.all_tags(&self.tags);
        self.links.update_me(|me| me.tags = all);
    }
}

fn engine_config(config: &NodeConfig) -> EngineConfig {
    let multiplier = u32::from(config.raft_multiplier);
    EngineConfig { multiplier, log: config.log, ..EngineConfig::new(config.id()) }
}

fn hello(
    config: &NodeConfig,
    tags: &BTreeMap<String, String>,
    local: &Local,
    virgin: bool,
    nonce: u64,
) -> Hello {
    Hello {
        id: config.id(),
        name: config.name.clone(),
        incarnation: config.incarnation,
        boot: config.boot,
        nonce,
        server: config.is_server(),
        version: config.version.clone(),
        cluster: local.cluster,
        expect: config.expect(),
        virgin,
        standing: Standing::default(),
        footing: Footing::default(),
        gossip_addr: config.gossip_addr.to_string(),
        peer_addr: config.peer_addr.to_string(),
        left: false,
        disk_full: false,
        tags: config.all_tags(tags),
    }
}

fn roster_config(config: &NodeConfig, local: &Local) -> roster::Config {
    roster::Config {
        me: Gossiper {
            id: config.id(),
            boot: config.boot,
            generation: 0,
            gossip: config.gossip_addr,
            peer_port: config.peer_addr.port(),
            server: config.is_server(),
        },
        profile: config.profile,
        join: config.join.clone(),
        retry_interval: config.retry_interval,
        reconnect_timeout: config.reconnect_timeout,
        cluster: local.cluster,
    }
}

fn formation(
    config: &NodeConfig,
    me: &Hello,
    local: &Local,
    seed: u64,
    now: Mono,
) -> Option<Formation> {
    if !config.is_server() {
        return None;
    }
    let start = if config.join.is_empty() { Start::Alone } else { Start::Joining };
    let mut formation = Formation::new(candidate(me), start, local.pledge.clone(), seed, now);
    if let Some(cluster) = local.cluster {
        formation.founded(cluster);
    }
    Some(formation)
}

/// A server as formation sees it.
fn candidate(hello: &Hello) -> Candidate {
    Candidate {
        id: hello.id,
        name: hello.name.clone(),
        addr: hello.peer_addr.clone(),
        expect: hello.expect,
        cluster: hello.cluster,
        virgin: hello.virgin,
    }
}
