//! What an engine shows of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::types::Peer;
use crate::codec::record::Doubt;
use crate::id::{LogIndex, NodeId, Term};
use crate::time::Mono;

/// What a server is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It leads, or believes so: see [`Status::leader`].
    Leader,
    /// It asks for votes.
    Candidate,
    /// It follows, and votes.
    Follower,
    /// It follows without a vote.
    #[default]
    Learner,
}

/// How an engine stands. What it says of members is shared by all statuses between two changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, if that one is known to be alive: a leader names itself only while a quorum has
    /// answered within the lease, a follower names it only while it was heard within the lease.
    pub leader: Option<NodeId>,
    /// Who votes; in a joint membership, in either half. Empty before the cluster is founded.
    pub voters: Arc<BTreeSet<NodeId>>,
    /// Who learns.
    pub learners: Arc<BTreeSet<NodeId>>,
    /// What Raft knows of voters and learners.
    pub members: Arc<BTreeMap<NodeId, Peer>>,
    /// Whether a change of voters is under way.
    pub is_joint: bool,
    /// Whether the membership is committed.
    pub is_settled: bool,
    /// The last entry in the log.
    pub last: Option<LogIndex>,
    /// The last entry known to be committed.
    pub committed: Option<LogIndex>,
    /// The last entry applied.
    pub applied: Option<LogIndex>,
    /// The last entry covered by the current snapshot.
    pub snapshot: Option<LogIndex>,
    /// The last entry purged.
    pub purged: Option<LogIndex>,
    /// On a leader: how the others stand.
    pub followers: BTreeMap<NodeId, Follower>,
    /// Since when the oldest write has not been durable.
    pub unsynced_since: Option<Mono>,
    /// The bytes of the entries that are kept in memory.
    pub log_bytes: u64,
    /// Whether nothing, not even a vote, was ever written.
    pub is_fresh: bool,
    /// What a cut of the log has put in doubt. While there is something, this server neither votes
    /// nor campaigns.
    pub doubt: Option<Doubt>,
}

/// How a follower or learner stands, as its leader knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Follower {
    /// The last entry that it is known to share with the leader.
    pub matched: Option<LogIndex>,
    /// When the last request was sent that it has answered.
    pub acked: Option<Mono>,
}

impl Status {
    /// Whether another status tells a client or a scheduler anything new: who leads in which term
    /// and who is a member. Positions and times change with every entry and do not count.
    pub(crate) fn is_same_shape(&self, other: &Self) -> bool {
        self.role == other.role
            && self.term == other.term
            && self.leader == other.leader
            && self.voters == other.voters
            && self.learners == other.learners
            && self.members == other.members
            && self.is_joint == other.is_joint
            && self.is_settled == other.is_settled
            && self.is_fresh == other.is_fresh
            && self.doubt == other.doubt
    }
}
