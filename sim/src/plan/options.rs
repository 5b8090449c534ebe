//! What does not change in a run: [`Options`], drawn from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// A span of durations, in microseconds, from the first to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub from: u64,
    /// The greatest.
    pub to: u64,
}

impl Range {
    /// From `from` to `to` microseconds.
    pub const fn micros(from: u64, to: u64) -> Self {
        Self { from, to }
    }

    /// One of them.
    pub fn draw(self, rng: &mut StdRng) -> Duration {
        Duration::from_micros(rng.random_range(self.from..=self.to.max(self.from)))
    }
}

/// The options of a run. Swarm testing: each seed has most faults and loads switched off, so that
/// rare ones meet (Groce et al., "Swarm Testing", ISSTA 2012).
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The source of the chance that a plan leaves.
    pub seed: u64,
    /// How many servers found the cluster.
    pub servers: usize,
    /// How many agents there are.
    pub agents: usize,
    /// How many servers more there are, which are down at first and join when they are started.
    pub spares: usize,
    /// What stretches the times of Raft, 1 to 10.
    pub raft_multiplier: u8,
    /// How long a packet travels.
    pub latency: Range,
    /// How many of a million packets are lost.
    pub loss: u32,
    /// How many of a million packets arrive twice.
    pub duplicate: u32,
    /// How many of a million packets take up to a hundred times as long.
    pub tail: u32,
    /// How long a sync takes.
    pub sync: Range,
    /// How long a turn of a node takes, while what comes in waits.
    pub turn: Range,
    /// The farthest that civil clocks are off the true time at the start, in milliseconds.
    pub skew: u32,
    /// How many clients ask, one request at a time each.
    pub clients: usize,
    /// How long a client rests between two requests.
    pub rest: Range,
    /// How many names of jobs clients choose from.
    pub jobs: usize,
    /// How many jobs more are put when the cluster begins to work, and are then left alone.
    pub stock: usize,
    /// How many of a hundred requests are reads.
    pub reads: u32,
    /// The bytes of the command of each job that clients write, besides all else.
    pub job_bytes: u32,
    /// The shortest period of the jobs, in seconds.
    pub period: u32,
    /// How long processes run.
    pub run: Range,
    /// How many of a hundred processes end badly.
    pub fails: u32,
    /// A snapshot is taken after so many kilobytes of log; 0 is the product's default.
    pub snapshot_kb: u32,
    /// The length of a segment of the log, in kilobytes.
    pub segment_kb: u32,
    /// The seconds for which a dead server keeps its vote.
    pub grace: u32,
    /// The seconds of silence of a node after which what it runs is lost.
    pub lost_after: u32,
    /// The mutant that the world is, by name.
    pub mutant: Option<String>,
}

impl Default for Options {
    /// Three servers and an agent in a good network, and a light load.
    fn default() -> Self {
        Self {
            seed: 1,
            servers: 3,
            agents: 1,
            spares: 0,
            raft_multiplier: 1,
            latency: Range::micros(200, 1_500),
            loss: 0,
            duplicate: 0,
            tail: 0,
            sync: Range::micros(1_000, 5_000),
            turn: Range::micros(0, 0),
            skew: 5,
            clients: 2,
            rest: Range::micros(100_000, 400_000),
            jobs: 8,
            stock: 0,
            reads: 40,
            job_bytes: 0,
            period: 1,
            run: Range::micros(5_000, 400_000),
            fails: 10,
            snapshot_kb: 0,
            segment_kb: 64,
            grace: 86_400,
            lost_after: 60,
            mutant: None,
        }
    }
}

impl Options {
    /// The options of a seed.
    pub fn draw(seed: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed ^ 0x6f70_7469_6f6e_7321);
        let pick = |rng: &mut StdRng, from: &[u64]| *from.choose(rng).expect("not empty");
        let rare = |rng: &mut StdRng, of: u32, ppm: u32| {
            if rng.random_ratio(1, of) { rng.random_range(1..=ppm) } else { 0 }
        };
        let servers = *[1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7].choose(rng).expect("not empty");
        let sync = pick(rng, &[1_000, 5_000, 5_000, 20_000, 60_000]);
        let latency = pick(rng, &[500, 1_500, 1_500, 5_000, 15_000]);
        let rest = pick(rng, &[50_000, 200_000, 400_000, 2_000_000]);
        let run = pick(rng, &[20_000, 400_000, 2_000_000, 12_000_000]);
        let drawn = Self {
            seed,
            servers,
            agents: rng.random_range(0..=2),
            spares: usize::from(servers < 6 && rng.random_ratio(1, 5)),
            raft_multiplier: if rng.random_ratio(1, 10) { 3 } else { 1 },
            latency: Range::micros(rng.random_range(50..=latency / 2), latency),
            loss: rare(rng, 4, 20_000),
            duplicate: rare(rng, 4, 200_000),
            tail: rare(rng, 4, 10_000),
            sync: Range::micros(sync / 10, sync),
            turn: Range::micros(0, *[0, 0, 0, 500].choose(rng).expect("not empty")),
            skew: *[0, 5, 5, 200].choose(rng).expect("not empty"),
            clients: rng.random_range(1..=4),
            rest: Range::micros(rest / 4, rest),
            jobs: pick(rng, &[3, 8, 20, 60]) as usize,
            stock: 0,
            reads: rng.random_range(10..=60),
            job_bytes: 0,
            period: *[1, 1, 2, 5].choose(rng).expect("not empty"),
            run: Range::micros(run / 100, run),
            fails: *[0, 10, 50].choose(rng).expect("not empty"),
            snapshot_kb: *[0, 0, 16, 64].choose(rng).expect("not empty"),
            segment_kb: *[16, 64, 256].choose(rng).expect("not empty"),
            grace: *[86_400, 86_400, 20].choose(rng).expect("not empty"),
            lost_after: *[60, 60, 3].choose(rng).expect("not empty"),
            mutant: None,
        };
        if servers >= 3 && rng.random_ratio(1, 12) {
            return drawn.with_large_snapshots();
        }
        let stock = if rng.random_ratio(1, 25) { pick(rng, &[1_000, 3_000]) } else { 0 };
        Self { stock: stock as usize, ..drawn }
    }

    /// The same with jobs of which a snapshot is so large that it takes many messages.
    fn with_large_snapshots(self) -> Self {
        Self {
            clients: 2,
            rest: Range::micros(100_000, 300_000),
            jobs: 20,
            reads: 20,
            job_bytes: 200_000,
            snapshot_kb: 1_000,
            segment_kb: 1_024,
            ..self
        }
    }

    /// How many machines there are.
    pub fn machines(&self) -> usize {
        self.servers + self.agents + self.spares
    }

    /// Whether a machine is a server: one of the founders, or a spare.
    pub fn is_server(&self, host: usize) -> bool {
        host < self.servers || host >= self.servers + self.agents
    }

    /// The longest time of an election by these options, for expectations.
    pub fn election_max(&self) -> Duration {
        Duration::from_millis(250) * u32::from(self.raft_multiplier)
    }
}
