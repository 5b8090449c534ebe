//! What the hosts of one simulation share: [`Shared`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use cronclave::codec::memory_disk::MemoryDisk;
use cronclave::codec::memory_snapshots::MemorySnapshots;
use cronclave::id::RequestId;
use cronclave::jobs::history::memory_backend::MemoryBackend;
use cronclave::jobs::history::store::Store;
use cronclave::node::config::NodeConfig;
use cronclave::node::io::Event;
use cronclave::node::request::Reply;
use cronclave::time::{Mono, Now, Wall};
use madsim::time::TimeHandle;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::exec::Launched;
use crate::ledger::Ledger;
use crate::mailbox::Mailbox;
use crate::trace::Trace;
use crate::world::Host;

/// 2026-11-23T02:00:00Z: when every simulation begins.
const BEGIN: Wall = Wall::from_secs(1_795_399_200);

/// Nodes never see the very start of their monotonic clock, as in production.
const MONO_BEGIN: u64 = 1_000_000;

thread_local! {
    /// A run has its thread for itself. madsim makes a host anew from a closure that owns nothing.
    static CURRENT: RefCell<Option<Rc<Shared>>> = const { RefCell::new(None) };
}

/// Whether a disk has space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// It has.
    Free,
    /// What is written waits.
    None,
}

/// What is left of a machine when its node is dead, and what befalls it.
pub(crate) struct Machine {
    pub(crate) config: NodeConfig,
    pub(crate) disk: RefCell<MemoryDisk>,
    /// The file of its history of executions, in the life of the node that runs or comes next.
    pub(crate) history: RefCell<MemoryBackend>,
    /// The store in that file, while a node runs.
    pub(crate) store: RefCell<Option<Store>>,
    pub(crate) snapshots: RefCell<MemorySnapshots>,
    pub(crate) boots: Cell<u64>,
    /// Whether its disk takes what is written to it.
    pub(crate) room: Cell<Room>,
    /// How far its civil clock is ahead of the true time, in microseconds.
    pub(crate) skew: Cell<i64>,
    /// The node that runs on it, if one does.
    pub(crate) host: RefCell<Option<Rc<Host>>>,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The node answered.
    Answered(Reply),
    /// No node was there to take it.
    Refused,
    /// The node died before it answered.
    Lost,
    /// The node did not answer in time.
    TimedOut,
}

/// What was done with snapshot files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotCounts {
    /// Snapshots that were built.
    pub built: u64,
    /// Transfers that were begun at their first byte.
    pub begun: u64,
    /// Chunks that were received.
    pub received: u64,
    /// Snapshots that were installed.
    pub installed: u64,
}

/// An event, with when and where it happened.
#[derive(Clone, Debug)]
pub struct Happened {
    /// When, by the simulation's clock.
    pub at: Mono,
    /// On which host.
    pub host: usize,
    /// What.
    pub event: Event,
}

/// All that outlives a node.
pub(crate) struct Shared {
    pub(crate) rng: RefCell<StdRng>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) ledger: RefCell<Ledger>,
    pub(crate) launched: Mailbox<Launched>,
    pub(crate) events: RefCell<Vec<Happened>>,
    pub(crate) halts: RefCell<Vec<(usize, String)>>,
    pub(crate) trace: RefCell<Option<Trace>>,
    pub(crate) turns: Cell<u64>,
    pub(crate) snapshots: Cell<SnapshotCounts>,
    names: Cell<u64>,
}

/// The requests that a node has not answered yet.
pub(crate) type Open = RefCell<BTreeMap<RequestId, Rc<Mailbox<Outcome>>>>;

impl Shared {
    pub(crate) fn new(seed: u64, machines: Vec<Machine>, trace: Option<Trace>) -> Rc<Self> {
        let shared = Rc::new(Self {
            rng: RefCell::new(StdRng::seed_from_u64(seed)),
            machines,
            ledger: RefCell::default(),
            launched: Mailbox::default(),
            events: RefCell::default(),
            halts: RefCell::default(),
            trace: RefCell::new(trace),
            turns: Cell::default(),
            snapshots: Cell::default(),
            names: Cell::default(),
        });
        CURRENT.with(|current| *current.borrow_mut() = Some(Rc::clone(&shared)));
        shared
    }

    /// The simulation that runs on this thread.
    pub(crate) fn current() -> Rc<Self> {
        let current = CURRENT.with(|current| current.borrow().clone());
        current.expect("a host is made by a simulation")
    }

    pub(crate) fn machine(&self, index: usize) -> &Machine {
        self.machines.get(index).expect("hosts are numbered from 0 without gaps")
    }

    /// The node that runs on a machine.
    pub(crate) fn host(&self, index: usize) -> Option<Rc<Host>> {
        self.machines.get(index)?.host.borrow().clone()
    }

    pub(crate) fn mono(&self) -> Mono {
        let micros = TimeHandle::current().elapsed().as_micros();
        Mono::from_micros(u64::try_from(micros).unwrap_or(u64::MAX).saturating_add(MONO_BEGIN))
    }

    /// The true civil time.
    pub(crate) fn wall(&self) -> Wall {
        BEGIN + Duration::from_micros(self.mono().as_micros())
    }

    /// Both clocks as a machine shows them.
    pub(crate) fn now(&self, index: usize) -> Now {
        let skew = self.machine(index).skew.get();
        let wall = Wall::from_micros(self.wall().as_micros().saturating_add(skew));
        Now { mono: self.mono(), wall }
    }

    /// A name that nothing else in this simulation has.
    pub(crate) fn fresh(&self) -> u64 {
        self.names.set(self.names.get() + 1);
        self.names.get()
    }

    /// A duration between the two, in microseconds.
    pub(crate) fn draw_micros(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_micros(self.rng.borrow_mut().random_range(range))
    }
}
