//! openraft's types, as this crate fills them in.

use std::fmt;

use bytes::Bytes;
use openraft::impls::{BoxedErrorSource, InlineBatch, leader_id_std};
use openraft::raft::responder::Responder;
use openraft::{OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};

use super::runtime::Host;
use crate::codec::snapshot::SnapshotFile;
use crate::id::{LogIndex, NodeId, Term};

/// What Raft knows of a member besides its id.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// Its node's name.
    pub name: String,
    /// Where it takes connections from peers.
    pub addr: String,
}

/// An opaque command in a log entry.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Default)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The key to openraft's types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct TypeConfig {}

impl RaftTypeConfig for TypeConfig {
    type D = Payload;
    type R = ();
    type NodeId = NodeId;
    type Node = Peer;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Payload, NodeId, Peer>;
    type Entry = openraft::impls::Entry<CommittedLeaderId, Self::Payload>;
    type AsyncRuntime = Host;
    type Responder<T>
        = Callback<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
type CommittedLeaderId = <LeaderId as openraft::vote::RaftLeaderId>::Committed;

/// A position in the log with its term.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// A vote: term, candidate or leader, and whether a quorum granted it.
pub type Vote = openraft::impls::Vote<LeaderId>;
/// A log entry.
pub type Entry =
    openraft::impls::Entry<CommittedLeaderId, openraft::EntryPayload<Payload, NodeId, Peer>>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, NodeId, Peer>;
/// A membership with its position in the log.
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, NodeId, Peer>;
/// Who votes and who learns.
pub(crate) type Membership = openraft::Membership<NodeId, Peer>;
/// A snapshot with its file.
pub(crate) type Snapshot = openraft::Snapshot<CommittedLeaderId, NodeId, Peer, SnapshotFile>;

/// The index of a log id.
pub(crate) fn index_of(id: &LogId) -> LogIndex {
    LogIndex(id.index)
}

/// The term of a log id.
pub(crate) fn term_of(id: &LogId) -> Term {
    Term(*id.leader_id)
}

/// Takes the outcome of a write, once; `None` if Raft ended without one.
pub(crate) struct Callback<T> {
    done: Option<Box<dyn FnOnce(Option<T>) + Send>>,
}

impl<T> Callback<T> {
    /// Calls `done` with the outcome.
    pub(crate) fn new(done: impl FnOnce(Option<T>) + Send + 'static) -> Self {
        Self { done: Some(Box::new(done)) }
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Callback<T> {
    fn on_complete(mut self, result: T) {
        if let Some(done) = self.done.take() {
            done(Some(result));
        }
    }
}

impl<T> Drop for Callback<T> {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(None);
        }
    }
}
