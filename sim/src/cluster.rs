//! A cluster of simulated hosts, and what a test does to it: [`Cluster`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use cronclave::codec::log::Step;
use cronclave::codec::memory_disk::MemoryDisk;
use cronclave::codec::memory_snapshots::MemorySnapshots;
use cronclave::codec::snapshot::Origin;
use cronclave::consensus::LogBounds;
use cronclave::dispatch::leader::Patience;
use cronclave::id::{Boot, ClusterId, Incarnation, NodeName};
use cronclave::jobs::history::memory_backend::MemoryBackend;
use cronclave::jobs::history::store::Digest;
use cronclave::membership::Profile;
use cronclave::node::config::{NodeConfig, NodeRole};
use cronclave::node::io::Event;
use cronclave::node::request::{NodeStatus, Reply, Request};
use cronclave::time::{Mono, Wall};
use madsim::net::NetSim;
use madsim::runtime::Handle;
use madsim::task::{NodeId as Machine, spawn_local};
use madsim::time::{sleep, timeout};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::exec::run_processes;
use crate::ledger::Ledger;
use crate::model::links::{GOSSIP_PORT, PEER_PORT, addr_of};
use crate::shared::{self, Shared};
pub use crate::shared::{Happened, Outcome, SnapshotCounts};
use crate::trace::Trace;
use crate::world::run_host;

/// A node promises to answer within 2.5 s; a client that has heard nothing after this gives up.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(3);

/// The tag that agents bear, and its value.
pub const POOL: (&str, &str) = ("pool", "agents");

/// What a simulated cluster is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The source of all chance.
    pub seed: u64,
    /// How many servers; they are hosts 0, 1, ...
    pub servers: usize,
    /// How many agents; they are the hosts after the servers.
    pub agents: usize,
    /// Whether everything that enters and leaves the nodes is hashed.
    pub traced: Traced,
}

/// Whether a run has a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traced {
    /// It has, which takes time.
    Yes,
    /// It has none.
    No,
}

/// A cluster under simulation. Hosts are numbered from 0.
pub struct Cluster {
    shape: Shape,
    shared: Rc<Shared>,
    handle: Handle,
    machines: Vec<Machine>,
}

impl Cluster {
    /// Starts all hosts.
    pub fn start(shape: Shape) -> Self {
        Self::start_with(shape, LogBounds::default())
    }

    /// Starts all hosts, with other bounds of their logs.
    pub fn start_with(shape: Shape, log: LogBounds) -> Self {
        let mut rng = StdRng::seed_from_u64(shape.seed);
        let count = shape.servers + shape.agents;
        let machines = (0..count).map(|index| machine(&shape, log, index, &mut rng)).collect();
        let trace = (shape.traced == Traced::Yes).then(Trace::default);
        let shared = Shared::new(rng.random(), machines, trace);
        let handle = Handle::current();
        spawn_local(run_processes(Rc::clone(&shared)));
        let machines = (0..count)
            .map(|index| {
                let node = handle.create_node();
                let node = node.name(host_name(index)).ip(addr_of(index, 0).ip());
                node.init(move || run_host(index)).build().id()
            })
            .collect();
        Self { shape, shared, handle, machines }
    }

    /// The servers' numbers.
    pub fn servers(&self) -> Range<usize> {
        0..self.shape.servers
    }

    /// The numbers of the servers that run.
    pub fn live_servers(&self) -> Vec<usize> {
        self.servers().filter(|&index| self.shared.host(index).is_some()).collect()
    }

    /// Takes a host's power: its node dies, and of what its disk has not synced any sector is lost,
    /// or torn at any byte.
    pub fn kill(&self, index: usize) {
        self.handle.kill(self.machine(index));
        let machine = self.shared.machine(index);
        if let Some(host) = machine.host.borrow_mut().take() {
            host.abandon();
        }
        let rng = &mut *self.shared.rng.borrow_mut();
        machine.disk.borrow_mut().crash(|unsynced| match rng.random_range(0..4) {
            0 => 0..0,
            1 => 0..rng.random_range(0..=unsynced),
            _ => 0..unsynced,
        });
        // The file is the next node's before the store lets go of it: closing it writes.
        let found = machine.history.borrow().crash(|unsynced| rng.random_range(0..=unsynced));
        *machine.history.borrow_mut() = found;
        drop(machine.store.borrow_mut().take());
        machine.snapshots.borrow_mut().crash();
    }

    /// Has the end of a killed host's log rot: a bit of the last frame that is whole.
    pub fn rot_end(&self, index: usize) {
        let mut disk = self.shared.machine(index).disk.borrow_mut();
        let recovery = disk.read().expect("nothing else has rotted");
        // Recovery goes on where the log ends.
        let end = recovery.repairs.iter().find_map(|step| match step {
            Step::Write { segment, at, .. } => Some((*segment, *at)),
            Step::Create { .. } | Step::Sync { .. } | Step::SyncDir | Step::Remove { .. } => None,
        });
        let (segment, end) = end.expect("a host that ran has a log");
        disk.rot(segment, usize::try_from(end).expect("a short log") - 1, 1);
    }

    /// Whether a host's log was cut at a start, and nobody has settled what that may have cost.
    pub fn is_in_doubt(&self, index: usize) -> bool {
        let events = self.shared.events.borrow();
        let mine = events.iter().filter(|happened| happened.host == index);
        mine.fold(false, |before, happened| {
            let is_settled = matches!(happened.event, Event::Settled { .. });
            matches!(happened.event, Event::InDoubt(_)) || (before && !is_settled)
        })
    }

    /// Boots a killed host again, on what its disk still holds.
    pub fn restart(&self, index: usize) {
        self.handle.restart(self.machine(index));
    }

    /// A hash of the rows of ended executions on a server, if one runs and its store has done all
    /// that it was told.
    ///
    /// # Panics
    /// If the store is damaged.
    pub fn history(&self, index: usize) -> Option<Digest> {
        let host = self.shared.host(index)?;
        if !host.archive.is_idle() {
            return None;
        }
        let store = self.shared.machine(index).store.borrow();
        let digest = store.as_ref()?.view().and_then(|view| view.digest());
        Some(digest.expect("no simulated disk rots"))
    }

    /// Cuts a host off from all others.
    pub fn isolate(&self, index: usize) {
        NetSim::current().clog_node(self.machine(index));
    }

    /// Ends [`Cluster::isolate`].
    pub fn reconnect(&self, index: usize) {
        NetSim::current().unclog_node(self.machine(index));
    }

    /// Cuts the link between two hosts, in both directions.
    pub fn cut(&self, a: usize, b: usize) {
        let (a, b) = (self.machine(a), self.machine(b));
        NetSim::current().clog_link(a, b);
        NetSim::current().clog_link(b, a);
    }

    /// Ends [`Cluster::cut`].
    pub fn mend(&self, a: usize, b: usize) {
        let (a, b) = (self.machine(a), self.machine(b));
        NetSim::current().unclog_link(a, b);
        NetSim::current().unclog_link(b, a);
    }

    /// Leaves a host's disk without space for anything more.
    pub fn fill_disk(&self, index: usize) {
        self.shared.machine(index).room.set(shared::Room::None);
    }

    /// Ends [`Cluster::fill_disk`].
    pub fn free_disk(&self, index: usize) {
        self.shared.machine(index).room.set(shared::Room::Free);
    }

    /// Sets how far a host's civil clock is ahead of the true time.
    pub fn set_clock_ahead(&self, index: usize, micros: i64) {
        self.shared.machine(index).skew.set(micros);
    }

    /// Asks a host's node.
    pub async fn ask(&self, index: usize, request: Request) -> Outcome {
        let Some(host) = self.shared.host(index) else { return Outcome::Refused };
        let answer = host.ask(request);
        timeout(CLIENT_PATIENCE, answer.pop()).await.unwrap_or(Outcome::TimedOut)
    }

    /// How a host's node stands, if it runs.
    pub async fn status(&self, index: usize) -> Option<NodeStatus> {
        match self.ask(index, Request::Status).await {
            Outcome::Answered(Reply::Status(status)) => Some(*status),
            Outcome::Answered(_) | Outcome::Refused | Outcome::Lost | Outcome::TimedOut => None,
        }
    }

    /// The server that says of itself that it leads, of the highest term.
    pub async fn leader(&self) -> Option<usize> {
        let mut found = None;
        for index in self.live_servers() {
            if let Some(status) = self.status(index).await.filter(|status| status.is_leader) {
                found = found.max(Some((status.term, index)));
            }
        }
        found.map(|(_, index)| index)
    }

    /// Waits for a leader.
    ///
    /// # Panics
    /// If there is none in time.
    pub async fn await_leader(&self, patience: Duration) -> usize {
        let until = self.now() + patience;
        loop {
            if let Some(leader) = self.leader().await {
                return leader;
            }
            if self.now() >= until {
                self.tell();
                panic!("no leader within {patience:?}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// A duration within `range`, by the seed.
    pub fn draw(&self, range: Range<Duration>) -> Duration {
        let micros = |at: Duration| u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        self.shared.draw_micros(micros(range.start)..micros(range.end))
    }

    /// The simulation's clock.
    pub fn now(&self) -> Mono {
        self.shared.mono()
    }

    /// The true civil time.
    pub fn wall(&self) -> Wall {
        self.shared.wall()
    }

    /// What was started and what clients were told, so far.
    pub fn ledger(&self) -> Ledger {
        self.shared.ledger.borrow().clone()
    }

    /// Books what a client was told.
    pub(crate) fn book(&self, entry: impl FnOnce(&mut Ledger)) {
        entry(&mut self.shared.ledger.borrow_mut());
    }

    /// Every event so far, in order.
    pub fn events(&self) -> Vec<Happened> {
        self.shared.events.borrow().clone()
    }

    /// Nodes that could not go on, and why.
    pub fn halts(&self) -> Vec<(usize, String)> {
        self.shared.halts.borrow().clone()
    }

    /// What was done with snapshot files, on all hosts.
    pub fn snapshots(&self) -> SnapshotCounts {
        self.shared.snapshots.get()
    }

    /// How many turns all nodes have taken.
    pub fn turns(&self) -> u64 {
        self.shared.turns.get()
    }

    /// The hash of everything that entered and left the nodes, and how many things that were.
    pub fn trace(&self) -> Option<(u64, u64)> {
        self.shared.trace.borrow().as_ref().map(Trace::value)
    }

    /// Prints what happened, for whoever reads a failure.
    #[expect(clippy::print_stdout, reason = "the test harness shows it if the test fails")]
    pub fn tell(&self) {
        for Happened { at, host, event } in self.events() {
            println!("{at} host-{} {event}", host + 1);
        }
        for (host, reason) in self.halts() {
            println!("host-{} halted: {reason}", host + 1);
        }
    }

    fn machine(&self, index: usize) -> Machine {
        *self.machines.get(index).expect("hosts are numbered from 0 without gaps")
    }
}

fn host_name(index: usize) -> String {
    format!("host-{}", index + 1)
}

fn machine(shape: &Shape, log: LogBounds, index: usize, rng: &mut StdRng) -> shared::Machine {
    let name = NodeName::new(host_name(index)).expect("a host's name is a node's name");
    let is_server = index < shape.servers;
    let expect = u32::try_from(shape.servers).expect("a simulation has few servers");
    let mut tags = BTreeMap::new();
    if !is_server {
        tags.insert(POOL.0.to_owned(), POOL.1.to_owned());
    }
    // A lone server founds its cluster at once; others look for each other.
    let lone = is_server && shape.servers == 1;
    let join = (0..shape.servers).map(|server| format!("{}:{GOSSIP_PORT}", host_name(server)));
    let config = NodeConfig {
        name,
        incarnation: Incarnation(rng.random()),
        boot: Boot(0),
        role: match is_server {
            true => NodeRole::Server { bootstrap_expect: expect },
            false => NodeRole::Agent,
        },
        gossip_addr: addr_of(index, GOSSIP_PORT),
        peer_addr: addr_of(index, PEER_PORT),
        tags,
        joins: None,
        join: if lone { Vec::new() } else { join.collect() },
        retry_interval: Duration::from_secs(5),
        reconnect_timeout: Duration::from_secs(24 * 3_600),
        dead_server_grace: Duration::from_secs(24 * 3_600),
        profile: Profile::Lan,
        raft_multiplier: 1,
        log,
        patience: Patience::default(),
        timezone: "UTC".to_owned(),
        version: "simulated".to_owned(),
    };
    let disk = MemoryDisk::new(config.id()).with_segment_len(64 * 1024);
    let origin = Origin { cluster: ClusterId(0), node: config.id() };
    shared::Machine {
        disk: RefCell::new(disk),
        snapshots: RefCell::new(MemorySnapshots::new(origin)),
        config,
        history: RefCell::new(MemoryBackend::new()),
        store: RefCell::new(None),
        boots: Cell::new(0),
        room: Cell::new(shared::Room::Free),
        // Clocks that are kept by NTP are a few milliseconds apart.
        skew: Cell::new(rng.random_range(-5_000..5_000)),
        host: RefCell::new(None),
    }
}
