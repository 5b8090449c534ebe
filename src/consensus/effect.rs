//! What an engine wants done and has to tell, and why it refuses.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use super::channels::lock;
use super::doubt::Settled;
use super::machine::Machine;
use super::message::Message;
use super::peers::Inadmissible;
use super::snapshots::{SnapshotTask, TaskId};
use crate::codec::record::{Doubt, Record};
use crate::id::{CommandId, LogIndex, NodeId, Term, WriteId};

/// What an engine wants done, or has to tell.
#[derive(Debug)]
pub enum Effect<M: Machine> {
    /// Send to a peer with which there is a session, in [`Message::lane`].
    Send {
        /// To whom.
        peer: NodeId,
        /// What.
        message: Message,
    },
    /// Make durable, then call [`super::Engine::on_persisted`]. Groups of records come one at a
    /// time.
    Persist {
        /// The id of the write.
        write: WriteId,
        /// For the log, in this order.
        records: Vec<Record>,
    },
    /// Do something with snapshot files, and call [`super::Engine::on_snapshot_done`] with what
    /// came of it. Must not hold up the groups of records.
    Snapshot {
        /// Which task.
        id: TaskId,
        /// What to do.
        task: SnapshotTask,
    },
    /// An entry was applied: in the order of the log, each once after the snapshot that the machine
    /// began with. Those that are applied at boot come first.
    Applied {
        /// Its index.
        index: LogIndex,
        /// What the machine answered.
        reply: M::Reply,
    },
    /// The fate of [`super::Engine::propose`].
    Proposed {
        /// Which one.
        id: CommandId,
        /// Where it is in the log, committed and applied; or why not.
        result: Result<(LogIndex, Term), ProposeError>,
    },
    /// The answer to [`super::Engine::read_index`].
    ReadIndex {
        /// Which one.
        id: u64,
        /// The state as of this index, once applied, is fresh enough to answer.
        result: Result<LogIndex, NotLeader>,
    },
    /// The end of a change of membership.
    MembershipDone {
        /// Which one.
        change: Change,
        /// Whether it is committed.
        result: Result<(), ChangeError>,
    },
    /// Role, term, leader or members changed: see [`super::Engine::status`].
    StatusChanged,
    /// The doubt that a cut had left is over, durably: this server votes again.
    Settled {
        /// What was cut.
        doubt: Doubt,
        /// Why it is over.
        how: Settled,
    },
    /// A message of a peer was impossible, and dropped.
    Rejected {
        /// Whose.
        peer: NodeId,
        /// Why.
        reason: Inadmissible,
    },
    /// The engine cannot go on, and does nothing from now on.
    Halt {
        /// Why.
        reason: String,
    },
}

/// Why a proposal is not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead. Never proposed: try the leader.
    #[error("this server does not lead")]
    NotLeader {
        /// Who does.
        leader: Option<NodeId>,
    },
    /// This node leads, but no quorum has answered of late. Never proposed.
    #[error("no quorum has answered of late")]
    LeaseExpired,
    /// Too many proposals are waiting. Never proposed.
    #[error("too many proposals are waiting")]
    Busy,
    /// The log has grown to its bound, and the snapshot that lets it shrink is not durable yet.
    /// Never proposed.
    #[error("the log is full until a snapshot is durable")]
    LogFull,
    /// It was proposed, and leadership was lost before it was known to be committed.
    #[error("the outcome is unknown")]
    Unknown,
}

/// Why a linearizable read cannot be answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this server does not lead")]
pub struct NotLeader {
    /// Who does.
    pub leader: Option<NodeId>,
}

/// A change of membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The cluster is founded.
    Initialize,
    /// A server begins to learn.
    AddLearner(NodeId),
    /// These are to be the voters.
    Voters(BTreeSet<NodeId>),
    /// A learner goes.
    RemoveLearner(NodeId),
}

/// Why the membership did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This node does not lead.
    #[error("this server does not lead")]
    NotLeader {
        /// Who does.
        leader: Option<NodeId>,
    },
    /// Another change is under way.
    #[error("another change of the membership is under way")]
    InProgress,
    /// It cannot be done: the reason says why.
    #[error("{0}")]
    Refused(String),
    /// It was proposed, and its fate is unknown.
    #[error("the outcome is unknown")]
    Unknown,
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This node does not lead.
    #[error("this server does not lead")]
    NotLeader,
    /// The target does not vote.
    #[error("the target has no vote")]
    NotVoter,
    /// The target has not answered within the last second.
    #[error("the target has not answered within the last second")]
    NotReachable,
    /// The target is in doubt about its log, and takes nothing over.
    #[error("the target does not know whether its log is whole")]
    InDoubt,
    /// Another one is under way.
    #[error("a handover is already under way")]
    InProgress,
}

/// Effects in the order in which they arose.
pub(crate) struct Effects<M: Machine> {
    queue: Arc<Mutex<VecDeque<Effect<M>>>>,
}

impl<M: Machine> Clone for Effects<M> {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue) }
    }
}

impl<M: Machine> Default for Effects<M> {
    fn default() -> Self {
        Self { queue: Arc::new(Mutex::new(VecDeque::new())) }
    }
}

impl<M: Machine> Effects<M> {
    pub(crate) fn push(&self, effect: Effect<M>) {
        lock(&self.queue).push_back(effect);
    }

    pub(crate) fn pop(&self) -> Option<Effect<M>> {
        lock(&self.queue).pop_front()
    }
}
