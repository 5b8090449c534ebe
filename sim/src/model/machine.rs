//! What is left of a machine when its node is dead, and what befalls it: [`Machine`].

use std::collections::BTreeMap;
use std::time::Duration;

use cronclave::codec::memory_disk::MemoryDisk;
use cronclave::codec::memory_snapshots::MemorySnapshots;
use cronclave::codec::record::Recovered;
use cronclave::codec::snapshot::Origin;
use cronclave::consensus::LogBounds;
use cronclave::dispatch::leader::Patience;
use cronclave::id::{Boot, ClusterId, ExecutionId, Incarnation, NodeName};
use cronclave::jobs::history::memory_backend::MemoryBackend;
use cronclave::jobs::history::store::Store;
use cronclave::membership::Profile;
use cronclave::node::config::{NodeConfig, NodeRole};

use super::clock::Clock;
use super::host::Host;
use super::links::{GOSSIP_PORT, PEER_PORT, addr_of};
use super::process::Process;
use crate::draws::Draws;
use crate::plan::{Options, Setting};

/// The tag that agents bear, and its value.
pub(crate) const POOL: (&str, &str) = ("pool", "agents");

/// A machine: its disk, its clocks, its processes, and the node that runs on it, if one does.
pub(crate) struct Machine {
    pub(crate) config: NodeConfig,
    pub(crate) disk: MemoryDisk,
    pub(crate) snapshots: MemorySnapshots,
    /// What they were at the node's start, for a disk that syncs none.
    pub(crate) snapshots_at_boot: Option<MemorySnapshots>,
    /// The file of its history of executions, in the life of the node that runs or comes next.
    pub(crate) history: MemoryBackend,
    /// The store in that file, while a node runs.
    pub(crate) store: Option<Store>,
    /// The starts on this disk.
    pub(crate) boots: u64,
    /// Counts what begins and ends here: an event that belongs to another life is void.
    pub(crate) life: u64,
    pub(crate) clock: Clock,
    pub(crate) ill: Illness,
    pub(crate) image: Option<Box<Image>>,
    /// The disk that was taken out, with its history.
    pub(crate) detached: Option<Box<(Image, MemoryBackend)>>,
    pub(crate) host: Option<Box<Host>>,
    pub(crate) is_paused: bool,
    /// Processes outlive their node.
    pub(crate) processes: BTreeMap<ExecutionId, Process>,
    /// Counts the writes to the log, over all lives and disks.
    pub(crate) write_last: u64,
    /// How often its disk was lost or set back.
    pub(crate) lost_disks: u32,
    /// Whether its node has left the cluster for good.
    pub(crate) has_left: bool,
}

/// What ails a disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Illness {
    pub(crate) is_full: bool,
    pub(crate) hangs: bool,
    /// How many times as long as usual a sync takes; 0 is as usual.
    pub(crate) slow: u32,
    pub(crate) fails_sync: bool,
    pub(crate) fails_read: bool,
    /// Rot was put into its log, so that a node may refuse to start.
    pub(crate) is_rotten: bool,
}

/// A disk as it was.
pub(crate) struct Image {
    disk: MemoryDisk,
    snapshots: MemorySnapshots,
    boots: u64,
    config: NodeConfig,
}

impl Machine {
    pub(crate) fn new(options: &Options, host: usize, draws: &mut Draws) -> Self {
        let config = config(options, host, draws);
        let skew = i64::from(options.skew) * 1_000;
        let off = draws.number(0..=u64::from(options.skew) * 2_000);
        let off = i64::try_from(off).expect("a small number") - skew;
        Self {
            disk: empty_disk(&config, options),
            snapshots: empty_snapshots(&config),
            config,
            snapshots_at_boot: None,
            history: MemoryBackend::new(),
            store: None,
            boots: 0,
            life: 0,
            clock: Clock::new(off),
            ill: Illness::default(),
            image: None,
            detached: None,
            host: None,
            is_paused: false,
            processes: BTreeMap::new(),
            write_last: 0,
            lost_disks: 0,
            has_left: false,
        }
    }

    /// What the next start finds in the configuration.
    pub(crate) fn configure(&mut self, setting: Setting) {
        match setting {
            Setting::RaftMultiplier(by) => self.config.raft_multiplier = by,
            Setting::SnapshotKb(kb) => self.config.log = log_bounds(kb),
        }
    }

    /// Everything on the disk is gone, and the next life is a new one. A drawn number makes it so.
    pub(crate) fn wipe(&mut self, options: &Options, incarnation: u64) {
        self.config.incarnation = Incarnation(incarnation);
        self.config.joins = None;
        self.disk = empty_disk(&self.config, options);
        self.snapshots = empty_snapshots(&self.config);
        drop(self.store.take());
        self.history = MemoryBackend::new();
        self.boots = 0;
        self.ill.is_rotten = false;
        self.lost_disks += 1;
    }

    /// A mutant: the node comes back on an empty disk as who it was.
    pub(crate) fn keep_identity(&mut self, options: &Options, old: Incarnation, boots: u64) {
        self.config.incarnation = old;
        self.boots = boots;
        self.disk = empty_disk(&self.config, options);
        self.snapshots = empty_snapshots(&self.config);
    }

    /// The same after [`cronclave::node::io::Output::Reincarnate`].
    pub(crate) fn reincarnate(
        &mut self,
        options: &Options,
        incarnation: u64,
        cluster: ClusterId,
        join: Vec<String>,
    ) {
        let lost_disks = self.lost_disks;
        self.wipe(options, incarnation);
        // It was counted when the disk was set back.
        self.lost_disks = lost_disks.max(1);
        self.config.joins = Some(cluster);
        self.config.join.extend(join);
        self.config.join.sort();
        self.config.join.dedup();
    }

    /// What a start would find on the disk, or `None` if it is damaged.
    pub(crate) fn read_disk(&mut self) -> Option<Recovered> {
        self.disk.set_snapshot(self.snapshots.newest());
        self.disk.read().ok().map(|read| read.recovered)
    }

    /// The same if the power failed now, and took all that was not synced.
    pub(crate) fn read_disk_without_power(&mut self) -> Option<Recovered> {
        self.disk.set_snapshot(self.snapshots.newest());
        let mut disk = self.disk.clone();
        disk.crash(|_| 0..0);
        disk.read().ok().map(|read| read.recovered)
    }

    pub(crate) fn take_image(&mut self) {
        self.image = Some(Box::new(self.image()));
    }

    fn image(&self) -> Image {
        Image {
            disk: self.disk.clone(),
            snapshots: self.snapshots.clone(),
            boots: self.boots,
            config: self.config.clone(),
        }
    }

    /// Takes the disk out. The next life is a new one, on an empty disk; a drawn number makes it
    /// so. A disk that is out already stays the one that is kept.
    pub(crate) fn detach(&mut self, options: &Options, incarnation: u64) {
        drop(self.store.take());
        let history = std::mem::replace(&mut self.history, MemoryBackend::new());
        let disk = self.image();
        self.detached.get_or_insert_with(|| Box::new((disk, history)));
        self.config.incarnation = Incarnation(incarnation);
        self.config.joins = None;
        self.disk = empty_disk(&self.config, options);
        self.snapshots = empty_snapshots(&self.config);
        self.boots = 0;
    }

    /// Puts the disk in again that was taken out, if one was.
    pub(crate) fn attach(&mut self) {
        let Some(detached) = self.detached.take() else { return };
        let (Image { disk, snapshots, boots, config }, history) = *detached;
        drop(self.store.take());
        (self.disk, self.snapshots, self.history) = (disk, snapshots, history);
        (self.boots, self.config) = (boots, config);
    }

    /// Puts the image in the place of what the disk holds. The history is not in it: a node makes
    /// that anew from snapshot and log. False if there is no image.
    pub(crate) fn set_back(&mut self) -> bool {
        let Some(image) = self.image.take() else { return false };
        self.disk = image.disk;
        self.disk.crash(|_| 0..0);
        self.snapshots = image.snapshots;
        self.snapshots.crash();
        self.boots = image.boots;
        self.config = image.config;
        drop(self.store.take());
        self.history = MemoryBackend::new();
        self.lost_disks += 1;
        true
    }
}

fn empty_disk(config: &NodeConfig, options: &Options) -> MemoryDisk {
    MemoryDisk::new(config.id()).with_segment_len(u64::from(options.segment_kb) * 1_024)
}

fn empty_snapshots(config: &NodeConfig) -> MemorySnapshots {
    MemorySnapshots::new(Origin { cluster: ClusterId(0), node: config.id() })
}

/// A machine's name, and its node's.
pub(crate) fn host_name(host: usize) -> String {
    format!("n{}", host + 1)
}

fn config(options: &Options, host: usize, draws: &mut Draws) -> NodeConfig {
    let is_server = options.is_server(host);
    let is_spare = host >= options.servers + options.agents;
    let expect = u32::try_from(options.servers).expect("a simulation has few servers");
    let mut tags = BTreeMap::new();
    if !is_server {
        tags.insert(POOL.0.to_owned(), POOL.1.to_owned());
    }
    // A lone server founds its cluster at once; others look for each other.
    let is_alone = is_server && options.servers == 1 && !is_spare;
    let join = (0..options.servers).map(|server| format!("{}:{GOSSIP_PORT}", host_name(server)));
    NodeConfig {
        name: NodeName::new(host_name(host)).expect("a machine's name is a node's name"),
        incarnation: Incarnation(draws.any()),
        boot: Boot(0),
        role: match (is_server, is_spare) {
            (true, false) => NodeRole::Server { bootstrap_expect: expect },
            (true, true) => NodeRole::Server { bootstrap_expect: 0 },
            (false, _) => NodeRole::Agent,
        },
        gossip_addr: addr_of(host, GOSSIP_PORT),
        peer_addr: addr_of(host, PEER_PORT),
        tags,
        joins: None,
        join: if is_alone { Vec::new() } else { join.collect() },
        retry_interval: Duration::from_secs(5),
        reconnect_timeout: Duration::from_secs(24 * 3_600),
        dead_server_grace: Duration::from_secs(u64::from(options.grace)),
        profile: Profile::Lan,
        raft_multiplier: options.raft_multiplier,
        log: log_bounds(options.snapshot_kb),
        patience: Patience {
            lost_after: Duration::from_secs(u64::from(options.lost_after)),
            ..Patience::default()
        },
        timezone: "UTC".to_owned(),
        version: "simulated".to_owned(),
    }
}

fn log_bounds(snapshot_kb: u32) -> LogBounds {
    match u64::from(snapshot_kb) * 1_024 {
        0 => LogBounds::default(),
        bytes => LogBounds {
            snapshot_after_bytes: bytes,
            keep_bytes: bytes / 2,
            keep_entries: 20,
            bytes_max: 4 << 20,
        },
    }
}
