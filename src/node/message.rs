//! What nodes say to each other over a session: [`Envelope`], a frame's payload.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::consensus::{self, Footing, Promise, Standing};
use crate::id::{Boot, ClusterId, CommandId, Incarnation, LogIndex, NodeId, NodeName, Term};
use crate::jobs::command::Applied;
use crate::node::request::{RequestError, Write};
use crate::time::Wall;
use crate::{dispatch, membership};

/// All that one node has to say to another at one turn, in one lane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender's civil clock, a sample for the cluster's.
    pub wall: Wall,
    /// What it says.
    pub messages: Vec<Message>,
}

/// One thing that a node says to another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Who speaks. The first message of each side, and said again when anything in it changes.
    Hello(Box<Hello>),
    /// The other side is not heard, and the session ends.
    Refused(String),
    /// Raft.
    Raft(consensus::Message),
    /// The founding of a cluster.
    Formation(membership::formation::Message),
    /// Orders and reports.
    Dispatch(dispatch::message::Message),
    /// Who leads, as far as the sender knows; an agent reports to it.
    Leads {
        /// The term.
        term: Term,
        /// The leader, if one is known to hold a quorum.
        leader: Option<NodeId>,
    },
    /// A client's write, passed to the leader.
    Forward {
        /// Its id, the same however often it is passed on.
        id: CommandId,
        /// The write.
        write: Write,
    },
    /// What came of a forwarded write.
    Forwarded {
        /// Its id.
        id: CommandId,
        /// The outcome.
        result: Result<Box<Applied>, Refusal>,
    },
    /// A server asks the leader for a ReadIndex.
    ReadIndex {
        /// The asker's number.
        id: u64,
    },
    /// The leader's answer.
    ReadIndexIs {
        /// The asker's number.
        id: u64,
        /// The index that must be applied before the read, or `None` if the node does not lead.
        index: Option<LogIndex>,
    },
    /// The sender wants to be removed from the Raft configuration.
    Leave,
    /// The sender, the leader, has removed the receiver.
    Removed,
    /// How the sender stands in Raft has changed. Only between servers.
    Standing(Standing),
    /// The receiver is not heard, and the session ends: the sender has seen this boot of it, or a
    /// later one, in another life and at the same address. So its disk was set back.
    SetBack {
        /// The boot that the receiver named.
        boot: Boot,
        /// The last one that the sender has seen.
        seen: Boot,
    },
    /// How far the sender's vote and log go on its disk by now. Only between servers.
    Footing(Footing),
    /// The receiver is not heard, and the session ends: in an earlier boot, at the same address, it
    /// held more than it holds now. So its disk was set back.
    Outlived {
        /// The boot that the receiver named.
        boot: Boot,
        /// The one in which it held more.
        seen: Boot,
        /// What it never goes back behind.
        promise: Promise,
    },
}

/// Why a leader did not take a forwarded write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It does not lead, and has not proposed the write: try another.
    NotLeader,
    /// The client's answer.
    Failed(RequestError),
    /// It has something to propose before, and has not proposed the write: try again soon.
    NotYet,
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        Self::Failed(error)
    }
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Which start of it.
    pub boot: Boot,
    /// Drawn at each start: two starts with one boot number are told apart, and refused, by it.
    pub nonce: u64,
    /// Whether it is a server.
    pub server: bool,
    /// The version of its program.
    pub version: String,
    /// The cluster that it belongs to.
    pub cluster: Option<ClusterId>,
    /// How many servers it expects to found a cluster with; 0 for none.
    pub expect: u32,
    /// Whether it holds no log, no vote and no pledge to a set of others.
    pub virgin: bool,
    /// How it stands in Raft, at the start of the session; [`Message::Standing`] says what changes.
    pub standing: Standing,
    /// How far its vote and log go on its disk; [`Message::Footing`] says now and then how it goes
    /// on.
    pub footing: Footing,
    /// Its gossip address, `ip:port`.
    pub gossip_addr: String,
    /// Its peer address, `ip:port`.
    pub peer_addr: String,
    /// Whether it has left the cluster, and is about to stop.
    pub left: bool,
    /// Whether its disk is full: it cannot lead, and starts nothing.
    pub disk_full: bool,
    /// Its tags, the reserved ones included.
    pub tags: BTreeMap<String, String>,
}
