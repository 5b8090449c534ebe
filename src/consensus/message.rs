//! What servers say to each other.
//!
//! Every request carries an [`RpcId`] that its sender never uses twice for a peer in one life; the
//! reply names it. A reply is sent in the session in which its request came, or not at all.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::types::{Entry, LogId, SnapshotMeta, Vote};
use crate::id::NodeId;

/// A request, as its sender numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RpcId(pub u64);

/// The order in which waiting messages leave: a heartbeat does not wait for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Votes, heartbeats and all replies but those to appends: small, and first.
    Control,
    /// Log entries and their replies.
    Append,
    /// Snapshots.
    Bulk,
}

/// A message between two engines.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Message {
    /// May I have your vote?
    Vote {
        /// Its number.
        rpc: RpcId,
        /// Whether it is asked for or only sounded out.
        ballot: Ballot,
        /// The candidate's vote.
        vote: Vote,
        /// The candidate's last entry.
        last: Option<LogId>,
        /// Whether the leader asked it to stand, so that its lease does not count.
        transfer: bool,
    },
    /// The answer to [`Message::Vote`].
    VoteReply {
        /// The request's number.
        rpc: RpcId,
        /// The voter's vote.
        vote: Vote,
        /// Whether it was granted.
        granted: bool,
        /// The voter's last entry.
        last: Option<LogId>,
    },
    /// The leader hands over.
    Transfer {
        /// Its number.
        rpc: RpcId,
        /// The leader's vote.
        vote: Vote,
        /// Who is to lead.
        to: NodeId,
        /// What that one must have.
        last: Option<LogId>,
    },
    /// The answer to [`Message::Transfer`].
    TransferReply {
        /// The request's number.
        rpc: RpcId,
        /// Why not, if not.
        refused: Option<TransferRefused>,
    },
    /// The leader lives.
    Heartbeat {
        /// Its number.
        rpc: RpcId,
        /// The leader's vote.
        vote: Vote,
        /// What the leader knows the follower to have.
        prev: Option<LogId>,
        /// What is committed.
        commit: Option<LogId>,
    },
    /// The answer to [`Message::Heartbeat`].
    HeartbeatReply {
        /// The request's number.
        rpc: RpcId,
        /// What became of it.
        outcome: Appended,
    },
    /// Entries for the log.
    Append {
        /// Its number.
        rpc: RpcId,
        /// The leader's vote.
        vote: Vote,
        /// The entry before the first.
        prev: Option<LogId>,
        /// The entries.
        entries: Vec<Entry>,
        /// What is committed.
        commit: Option<LogId>,
    },
    /// The answer to [`Message::Append`], when the entries are durable.
    AppendReply {
        /// The request's number.
        rpc: RpcId,
        /// What became of it.
        outcome: Appended,
    },
    /// A snapshot follows.
    SnapshotBegin {
        /// Its number, which its chunks and their acknowledgements carry too.
        rpc: RpcId,
        /// The leader's vote.
        vote: Vote,
        /// What it covers.
        meta: SnapshotMeta,
        /// Its length in bytes.
        len: u64,
        /// The CRC-32C of all of it.
        crc: u32,
    },
    /// A piece of a snapshot.
    SnapshotChunk {
        /// The snapshot's number.
        rpc: RpcId,
        /// Where it belongs.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// So much of a snapshot has come.
    SnapshotAck {
        /// The snapshot's number.
        rpc: RpcId,
        /// How many bytes.
        received: u64,
    },
    /// The end of a snapshot.
    SnapshotReply {
        /// The snapshot's number.
        rpc: RpcId,
        /// The follower's vote once it is installed, or `None` if it was not usable.
        installed: Option<Vote>,
    },
}

/// Whether a vote is asked for or only sounded out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ballot {
    /// Would you? Binds nobody.
    Pre,
    /// Do you?
    Binding,
}

/// What became of entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Appended {
    /// They are in the log, durably.
    Success,
    /// The follower has another entry, or none, where the leader took one for granted.
    Conflict,
    /// The follower has seen a higher vote.
    HigherVote(Vote),
}

/// Why a server does not take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferRefused {
    /// It has another vote by now.
    VoteChanged {
        /// The vote that the leader named.
        expected: Vote,
        /// The vote that it has.
        actual: Vote,
    },
    /// Its log is not long enough on disk.
    LogNotFlushed {
        /// What the leader named.
        expected: Option<LogId>,
        /// What it has.
        actual: Option<LogId>,
    },
}

impl Message {
    /// The lane in which it travels.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Vote { .. }
            | Self::VoteReply { .. }
            | Self::Transfer { .. }
            | Self::TransferReply { .. }
            | Self::Heartbeat { .. }
            | Self::HeartbeatReply { .. }
            | Self::SnapshotAck { .. }
            | Self::SnapshotReply { .. } => Lane::Control,
            Self::Append { .. } | Self::AppendReply { .. } => Lane::Append,
            Self::SnapshotBegin { .. } | Self::SnapshotChunk { .. } => Lane::Bulk,
        }
    }
}
