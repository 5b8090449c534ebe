//! A simulated cluster as one state machine: [`Sim`]. It has machines, a network, clients and a
//! plan, and knows nothing of what moves it.
//!
//! A world takes out of it what is to happen later ([`Sim::take`]), and gives each event back when
//! its time has come ([`Sim::handle`]). There are two: a bare event heap ([`crate::heap`]) and
//! madsim (`crate::madsim`). Both thus run the same nodes in the same production loop over the same
//! disks, and apply the same plan under the same checkers.
//!
//! | part | what |
//! |---|---|
//! | `machine` | what outlives a node: disk, clocks, processes |
//! | `host` | one boot of a node: the [`World`](cronclave::driver::World) of the production loop |
//! | `disk`, `snapshots`, `archive` | how long the disk takes, and what ails it |
//! | `links`, `net` | sessions between nodes, and what becomes of packets |
//! | `process` | processes, which outlive their node |
//! | `clients`, `stock`, `probes` | who asks, and what has to come of it |
//! | `expectations` | what a plan expects at a moment |
//! | `faults` | what a plan does |
//! | `ending` | when all is over |

mod archive;
mod clients;
pub(crate) mod clock;
mod disk;
mod ending;
mod expectations;
mod faults;
mod host;
pub(crate) mod links;
mod machine;
pub(crate) mod net;
mod probes;
mod process;
mod snapshots;
mod stock;
mod witness;

use std::collections::BTreeSet;
use std::time::Duration;

use cronclave::codec::snapshot::History;
use cronclave::consensus::{SnapshotTask, TaskId};
use cronclave::id::{ClusterId, ExecutionId, NodeId};
use cronclave::time::Mono;

use self::clients::Clients;
use self::clock::MONO_BEGIN;
use self::links::Packet;
use self::machine::{Machine, host_name};
use self::net::Net;
use self::probes::Probes;
use self::stock::Stock;
pub(crate) use self::witness::Promises;
pub use self::witness::Telling;
use crate::check::Checkers;
use crate::check::spins::Spins;
use crate::draws::Draws;
use crate::mutant::Layer;
use crate::plan::{During, Keep, Options, Plan, Step};
use crate::run::Look;
use crate::story::Story;
use crate::trace::Trace;

/// Something whose time comes.
#[derive(Debug)]
pub(crate) enum Event {
    /// A step of the plan.
    Step(usize),
    /// The node takes a turn.
    Turn { host: usize, life: u64 },
    /// The node's deadline, as it was when this was armed.
    Wake { host: usize, life: u64, at: Mono },
    /// A packet arrives.
    Packet { from: usize, to: usize, packet: Packet },
    /// A sync is done.
    Synced { host: usize, life: u64 },
    /// A log may have been idle.
    Seal { host: usize, life: u64 },
    /// The store of the history has worked.
    Archive { host: usize, life: u64 },
    /// The store of the history may make durable what it has.
    Commit { host: usize, life: u64 },
    /// A snapshot is written.
    Built { host: usize, life: u64, id: TaskId, built: Box<(SnapshotTask, History)> },
    /// A snapshot that came in is synced.
    Install { host: usize, life: u64, id: TaskId, task: Box<SnapshotTask> },
    /// Sessions are looked after.
    Links { host: usize, life: u64 },
    /// A name is looked up.
    Resolved { host: usize, life: u64, name: String },
    /// A leader is in the middle of what a plan waits for.
    Ambush { host: usize, life: u64, keep: Keep },
    /// A node starts again on an empty disk.
    Reborn { host: usize, life: Box<Rebirth> },
    /// A process ends.
    ProcessEnds { host: usize, execution: ExecutionId, serial: u64 },
    /// A client has rested.
    Client(usize),
    /// One of those who put the stock goes on.
    Loader(usize),
    /// A client's patience with a request is over.
    Patience(crate::check::seen::OpId),
    /// A probe makes its next attempt, or is judged.
    Probe(usize),
    /// The loads are looked at.
    Sample,
    /// The workload is over; whether all has settled is looked at now and then.
    Settle,
}

impl Event {
    /// The machine that it belongs to, and in which life; an event of another life is void.
    pub(crate) fn owner(&self) -> Option<(usize, u64)> {
        match *self {
            Self::Turn { host, life }
            | Self::Wake { host, life, .. }
            | Self::Synced { host, life }
            | Self::Seal { host, life }
            | Self::Archive { host, life }
            | Self::Commit { host, life }
            | Self::Built { host, life, .. }
            | Self::Install { host, life, .. }
            | Self::Links { host, life }
            | Self::Ambush { host, life, .. }
            | Self::Resolved { host, life, .. } => Some((host, life)),
            Self::Step(_)
            | Self::Packet { .. }
            | Self::Reborn { .. }
            | Self::ProcessEnds { .. }
            | Self::Client(_)
            | Self::Loader(_)
            | Self::Patience(_)
            | Self::Probe(_)
            | Self::Sample
            | Self::Settle => None,
        }
    }
}

/// With what a node begins anew whose disk was set back.
#[derive(Debug)]
pub(crate) struct Rebirth {
    incarnation: u64,
    cluster: ClusterId,
    join: Vec<String>,
}

/// A packet that leaves a machine. What becomes of it is the world's affair.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) packet: Packet,
}

/// What a world has to know of machines and links, if it keeps such things itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// A node runs.
    Up(usize),
    /// A node is dead.
    Down(usize),
    /// A link was cut or mended.
    Link(usize, usize),
}

/// All that a world has to do.
#[derive(Debug, Default)]
pub(crate) struct Todo {
    /// What happens, and when.
    pub(crate) due: Vec<(Mono, Event)>,
    /// What is sent now.
    pub(crate) sent: Vec<Sent>,
    /// What a world may have to do about its own machines.
    pub(crate) control: Vec<Control>,
}

/// The streams of chance.
#[derive(Debug)]
struct Streams {
    boot: Draws,
    disk: Draws,
    turn: Draws,
    run: Draws,
    crash: Draws,
    load: Draws,
}

impl Streams {
    fn new(seed: u64) -> Self {
        let named = |name| Draws::new(seed, name);
        Self {
            boot: named("boot"),
            disk: named("disk"),
            turn: named("turn"),
            run: named("run"),
            crash: named("crash"),
            load: named("load"),
        }
    }

    fn hash(&self) -> u64 {
        let all = [&self.boot, &self.disk, &self.turn, &self.run, &self.crash, &self.load];
        all.iter().fold(0, |hash, draws| hash.rotate_left(9) ^ draws.hash())
    }
}

/// What a run has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Turns of all nodes.
    pub turns: u64,
    /// Events of the world.
    pub events: u64,
    /// Packets that were sent.
    pub packets: u64,
    /// Processes that were started.
    pub starts: u64,
    /// Writes that were acknowledged.
    pub acked: u64,
    /// Reads that were answered.
    pub read: u64,
    /// Requests that were made.
    pub asked: u64,
    /// Snapshots that were built, and installed from another server.
    pub snapshots: (u64, u64),
}

/// A simulated cluster. See the [module](self).
pub(crate) struct Sim {
    options: Options,
    steps: Vec<Step>,
    /// How many of them are done.
    steps_done: usize,
    end: Mono,
    now: Mono,
    machines: Vec<Machine>,
    net: Net,
    /// From whom each machine's sessions hang.
    hung: Vec<Vec<bool>>,
    /// What the first leader to be in the middle of something has to fear.
    ambush: Option<(During, Keep)>,
    /// What was there at the plan's last mark.
    mark: expectations::Mark,
    /// Whether an expectation speaks of what nodes tell.
    hears_events: bool,
    due: Vec<(Mono, Event)>,
    sent: Vec<Sent>,
    control: Vec<Control>,
    draws: Streams,
    clients: Clients,
    stock: Stock,
    probes: Probes,
    pub(crate) checkers: Checkers,
    pub(crate) promises: Promises,
    spins: Spins,
    /// What surrounds the nodes: a mutant, or nothing.
    layer: Layer,
    /// For how many samples the tolerated number of servers was lost, and one more.
    held: [u32; 2],
    telling: Telling,
    story: Story,
    traced: Option<Trace>,
    /// Whether the checkers see anything.
    pub(crate) is_watched: bool,
    serial: u64,
    /// The ids that nodes had, and on which machines.
    ids: BTreeSet<(NodeId, usize)>,
    events: u64,
    turns: u64,
    packets: u64,
    starts: u64,
    snapshots_built: u64,
    snapshots_installed: u64,
    is_settling: bool,
    settling: ending::Settling,
    pub(crate) is_over: bool,
}

/// How often the loads are looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

impl Sim {
    pub(crate) fn new(plan: &Plan, look: Look) -> Self {
        let Look { telling, traced, watched } = look;
        let options = plan.options.clone();
        let count = options.machines();
        let mut draws = Streams::new(options.seed);
        let machines =
            (0..count).map(|host| Machine::new(&options, host, &mut draws.boot)).collect();
        let mut sim = Self {
            net: Net::new(&options),
            hung: vec![vec![false; count]; count],
            clients: Clients::new(&options),
            stock: Stock::new(options.stock),
            probes: Probes::default(),
            checkers: witness::checkers(plan),
            promises: Promises::default(),
            spins: Spins::new(count),
            layer: witness::layer(plan),
            held: [0; 2],
            story: witness::story(plan),
            options,
            steps: plan.steps.clone(),
            steps_done: 0,
            end: MONO_BEGIN + plan.end,
            now: MONO_BEGIN,
            machines,
            ambush: None,
            mark: expectations::Mark::default(),
            hears_events: expectations::hears_events(plan),
            due: Vec::new(),
            sent: Vec::new(),
            control: Vec::new(),
            draws,
            telling,
            traced: traced.then(Trace::default),
            is_watched: watched,
            serial: 0,
            ids: BTreeSet::new(),
            events: 0,
            turns: 0,
            packets: 0,
            starts: 0,
            snapshots_built: 0,
            snapshots_installed: 0,
            is_settling: false,
            settling: ending::Settling::default(),
            is_over: false,
        };
        sim.begin();
        sim
    }

    fn begin(&mut self) {
        for (number, step) in self.steps.iter().enumerate() {
            self.due.push((MONO_BEGIN + step.at, Event::Step(number)));
        }
        self.due.push((self.end, Event::Settle));
        self.due.push((MONO_BEGIN + SAMPLE_EVERY, Event::Sample));
        for host in 0..self.options.servers + self.options.agents {
            self.boot(host);
        }
        self.begin_clients();
        self.begin_stock();
    }

    /// The simulation's clock.
    pub(crate) fn now(&self) -> Mono {
        self.now
    }

    /// What has to happen later, since this was asked last.
    pub(crate) fn take(&mut self, todo: &mut Todo) {
        todo.due.append(&mut self.due);
        todo.sent.append(&mut self.sent);
        todo.control.append(&mut self.control);
    }

    /// The network, for a world that asks it what becomes of packets.
    pub(crate) fn net(&mut self) -> &mut Net {
        &mut self.net
    }

    /// What happened, for people.
    pub(crate) fn into_story(self) -> Story {
        self.story
    }

    /// The ids that nodes had, each in both ways in which it is written, with their machines'
    /// names.
    pub(crate) fn names(&self) -> Vec<(String, String)> {
        let both = |(id, host): &(NodeId, usize)| {
            let name = host_name(*host);
            [(format!("{id:?}"), name.clone()), (id.to_string(), name)]
        };
        self.ids.iter().flat_map(both).collect()
    }

    /// What was counted.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            turns: self.turns,
            events: self.events,
            packets: self.packets,
            starts: self.starts,
            snapshots: (self.snapshots_built, self.snapshots_installed),
            ..self.clients.counts()
        }
    }

    /// A hash of all inputs, outputs and draws, if the run is traced, and of the draws if not.
    pub(crate) fn hash(&self) -> u64 {
        let traced = self.traced.as_ref().map_or(0, |trace| trace.value().0);
        traced ^ self.draws.hash().rotate_left(17) ^ self.net.hash()
    }

    /// Something happens now.
    pub(crate) fn handle(&mut self, at: Mono, event: Event) {
        self.now = self.now.max(at);
        if let Some((host, life)) = event.owner()
            && self.machines[host].life != life
        {
            return;
        }
        self.events += 1;
        match event {
            Event::Step(number) => self.on_step(number),
            Event::Turn { host, .. } => self.on_turn(host),
            Event::Wake { host, at, .. } => self.on_wake(host, at),
            Event::Packet { from, to, packet } => self.on_packet(from, to, packet),
            Event::Synced { host, .. } => self.on_synced(host),
            Event::Seal { host, .. } => self.on_seal(host),
            Event::Archive { host, .. } => self.on_archive(host),
            Event::Commit { host, .. } => self.on_commit(host),
            Event::Built { host, id, built, .. } => self.on_built(host, id, *built),
            Event::Install { host, id, task, .. } => self.on_install(host, id, *task),
            Event::Links { host, .. } => self.on_links(host),
            Event::Ambush { host, keep, .. } => self.on_ambush(host, keep),
            Event::Resolved { host, name, .. } => self.on_resolved(host, name),
            Event::Reborn { host, life } => self.reborn(host, *life),
            Event::ProcessEnds { host, execution, serial } => {
                self.on_process_ends(host, execution, serial);
            }
            Event::Client(client) => self.on_client(client),
            Event::Loader(loader) => self.on_loader(loader),
            Event::Patience(op) => self.on_patience(op),
            Event::Probe(probe) => self.on_probe(probe),
            Event::Sample => self.on_sample(),
            Event::Settle => self.on_settle(),
        }
    }

    /// Has something happen at an instant.
    fn at(&mut self, at: Mono, event: Event) {
        self.due.push((at, event));
    }

    /// Has something happen later.
    fn after(&mut self, by: Duration, event: Event) {
        self.due.push((self.now + by, event));
    }
}
