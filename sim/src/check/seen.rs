//! What a simulation shows to its checkers: [`Seen`], from the outside of the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use cronclave::codec::record::{Record, Recovered};
use cronclave::consensus::Status;
use cronclave::id::{ExecutionId, JobName, LogIndex, NodeId, Term};
use cronclave::jobs::State;
use cronclave::jobs::job::{Execution, RunResult};
use cronclave::node::io::Event;
use cronclave::node::request::{Reply, Request};
use cronclave::time::{Mono, Wall};

/// Names one attempt of a client: one request at one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// One thing that happened in a simulation. Machines are numbered from 0 and outlive their nodes
/// and their disks.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A node boots on what its machine's disk holds, read from its bytes.
    Boot {
        /// Which machine.
        host: usize,
        /// The node's id, which changes with a lost disk.
        id: NodeId,
        /// Whether it is a server.
        is_server: bool,
        /// What the disk holds.
        recovered: &'a Recovered,
    },
    /// Records are on their way to the disk: in its cache, and lost if the power is now.
    Written {
        /// Which machine.
        host: usize,
        /// Counts the writes of a machine, upwards.
        write: u64,
        /// What is written.
        records: &'a [Record],
    },
    /// Everything up to and with this write is synced by the disk itself, whatever the node was
    /// told.
    Synced {
        /// Which machine.
        host: usize,
        /// The last write that is durable.
        write: u64,
    },
    /// A snapshot file is durable, and covers the log up to and with this entry.
    Snapshot {
        /// Which machine.
        host: usize,
        /// The last entry that it covers.
        index: LogIndex,
    },
    /// The node is dead (or its disk was changed under it): this is what the disk holds now, read
    /// from its bytes; `None` if it holds nothing or is damaged.
    Down {
        /// Which machine.
        host: usize,
        /// What the disk holds.
        durable: Option<&'a Recovered>,
        /// Whether the disk is lost: what it held is gone for good.
        is_wiped: bool,
    },
    /// How a server stands after a turn in which that changed.
    Status {
        /// Which machine.
        host: usize,
        /// Its node's id.
        id: NodeId,
        /// How it stands.
        status: &'a Status,
        /// The term of the last entry that it knows to be committed, as it stands in its log.
        committed_term: Option<Term>,
    },
    /// A node has said something.
    Event {
        /// Which machine.
        host: usize,
        /// What.
        event: &'a Event,
    },
    /// A client asks a server.
    Asked {
        /// Which attempt.
        op: OpId,
        /// Which machine.
        via: usize,
        /// What.
        request: &'a Request,
    },
    /// A client learns what came of it.
    Answered {
        /// Which attempt.
        op: OpId,
        /// What.
        answer: &'a Answer,
    },
    /// A process starts.
    Started(&'a Start),
    /// A process has ended, and its node, if the one that started it still lives, is told.
    Ended {
        /// Which execution.
        execution: ExecutionId,
        /// On which machine.
        host: usize,
        /// How.
        result: &'a RunResult,
        /// Whether its node was there to hear it.
        is_heard: bool,
    },
    /// A node cannot go on.
    Halted {
        /// Which machine.
        host: usize,
        /// Why.
        reason: &'a str,
        /// Whether a fault that was put on this machine explains it (a failed sync, rot).
        is_excused: bool,
    },
    /// How much a node holds at the moment; shown now and then.
    Load {
        /// Which machine.
        host: usize,
        /// How much.
        load: Load,
    },
}

/// How much a node and what surrounds it hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Inputs that wait for the node.
    pub inputs: usize,
    /// Bytes of log entries that the node keeps in memory.
    pub log_bytes: u64,
    /// Bytes of segment files on the disk.
    pub disk_bytes: u64,
    /// Requests that the node has not answered.
    pub requests: usize,
    /// Frames that wait to be sent or delivered.
    pub frames: usize,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The node answered.
    Reply(Reply),
    /// No node was there to take it: it was not carried out.
    Unheard,
    /// The node died before it answered: nobody knows.
    Lost,
    /// The node did not answer in time, which it promises never to let happen.
    Silence,
}

/// The start of a simulated process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Which execution.
    pub execution: ExecutionId,
    /// Which job.
    pub job: JobName,
    /// When it was due, as its node was told.
    pub due: Wall,
    /// On which machine.
    pub host: usize,
    /// The id of the node that started it.
    pub node: NodeId,
    /// When, by the simulation's clock.
    pub at: Mono,
    /// The true civil time then.
    pub wall: Wall,
}

/// What a simulation looks like when it is over: all is healed and has had time to settle.
#[derive(Debug, Default)]
pub struct Ending {
    /// When, by the simulation's clock.
    pub at: Mono,
    /// The true civil time then.
    pub wall: Wall,
    /// The replicated state of each server that lives and is a member, by machine.
    pub states: BTreeMap<usize, State>,
    /// The rows of ended executions of these servers, with the index up to which they go.
    pub histories: BTreeMap<usize, (Option<LogIndex>, Vec<Arc<Execution>>)>,
    /// What each machine's disk holds, read from its bytes.
    pub disks: BTreeMap<usize, Recovered>,
    /// Machines whose disk was lost or set back in the run, with how often.
    pub lost_disks: BTreeMap<usize, u32>,
    /// Whether the run was such that entries may be lost for good (a majority of disks wiped).
    pub may_lose: bool,
}
