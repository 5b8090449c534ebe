//! What a client asks of a node, and what it is told: [`Request`] and [`Reply`].
//!
//! Clients are HTTP in production and the workload in simulation; both speak these types.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, JobName, LogIndex, NodeId, NodeName, Term};
use crate::jobs::command::Applied;
use crate::jobs::history::change::{Page, Select};
use crate::jobs::job::JobSpec;
use crate::jobs::state::State;

/// One thing that a client asks. Every request is answered by one [`Reply`], within
/// [`REQUEST_TIMEOUT`] unless its node dies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Change the replicated state. Any server takes it and forwards it to the leader.
    Write(Write),
    /// Look at the replicated state.
    Read(Consistency),
    /// Look at executions of a job, open and ended.
    Executions {
        /// Which job.
        job: JobName,
        /// Which of its executions.
        select: Select,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Who is in the cluster, by this node's roster and the Raft configuration.
    Members,
    /// How this node stands.
    Status,
    /// Hand over leadership, leave the Raft configuration and the gossip, and stop.
    Leave,
}

/// How long a request may stay open before it is answered with [`RequestError::NoLeader`] (never
/// proposed) or [`RequestError::Unknown`] (proposed, fate unknown).
pub const REQUEST_TIMEOUT: Duration = Duration::from_millis(2_500);

/// A change that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// Create the job, or replace its definition.
    PutJob(Arc<JobSpec>),
    /// Delete the job and its history.
    DeleteJob(JobName),
    /// Disable the job if it is enabled, else enable it.
    ToggleJob(JobName),
    /// Run the job now, whatever its schedule says.
    RunJob(JobName),
    /// Change the cluster's time zone, which holds for jobs that name none.
    SetTimezone(String),
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every write that was acknowledged before it began (ReadIndex, Raft thesis
    /// section 6.4).
    Linearizable,
    /// Whatever this server has applied.
    Stale,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug)]
pub enum Reply {
    /// A write was committed and applied.
    Written(Box<Applied>),
    /// What a read sees.
    View(Box<View>),
    /// Answer to [`Request::Executions`].
    Executions(Box<Page>),
    /// Answer to [`Request::Members`], sorted by name.
    Members(Vec<Member>),
    /// Answer to [`Request::Status`].
    Status(Box<NodeStatus>),
    /// The node has left and is about to stop.
    Left,
    /// The request was not carried out, or its fate is unknown.
    Failed(RequestError),
}

/// The replicated state as of one log index.
#[derive(Clone, Debug)]
pub struct View {
    /// The state; its maps are shared, so this is cheap.
    pub state: State,
    /// The last entry applied to it.
    pub applied: Option<LogIndex>,
    /// The leader that this node knows.
    pub leader: Option<NodeName>,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RequestError {
    /// No leader was found in time. State unchanged: try again.
    #[error("no leader: {0}")]
    NoLeader(String),
    /// The write was proposed and not seen committed in time. It may or may not take effect:
    /// read before trying again.
    #[error(
        "outcome unknown: the write was proposed and no commit was seen in time; \
         read before you try again"
    )]
    Unknown,
    /// The same, and the reason is a full disk, which the text names.
    #[error(
        "outcome unknown: the write was proposed and no commit was seen in time, because {0}; \
         read before you try again"
    )]
    UnknownDiskFull(String),
    /// The server that would have to write has no space, and no other can take its place; the text
    /// names it. State unchanged: try again when there is space, which needs no restart.
    #[error("disk full: {0}")]
    DiskFull(String),
    /// Too many requests are open here. State unchanged: try again later.
    #[error("busy: {0} requests are open, at most that many are taken")]
    Busy(usize),
    /// The log has grown to its bound. State unchanged: try again when a snapshot is durable.
    #[error(
        "busy: the log has grown to log-max-size, and the snapshot that lets it shrink is not \
         durable yet; try again in a few seconds"
    )]
    LogFull,
    /// The request is not valid. State unchanged: give up.
    #[error("{0}")]
    Invalid(String),
    /// This node is an agent, which holds no state. State unchanged: ask a server.
    #[error("this node is an agent; ask a server")]
    NotServer,
    /// There is no such job. Give up.
    #[error("job {:?} not found", .0.as_str())]
    JobNotFound(JobName),
    /// The history of executions cannot be read or written in time. State unchanged: try again.
    #[error("the history of executions is not available: {0}")]
    HistoryUnavailable(String),
    /// The node is stopping. State unchanged: ask another.
    #[error("this node is stopping; ask another server")]
    Stopping,
}

impl RequestError {
    /// Whether a write that is answered so may have been carried out, or may still be.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Unknown | Self::UnknownDiskFull(_) => true,
            Self::NoLeader(_)
            | Self::DiskFull(_)
            | Self::Busy(_)
            | Self::LogFull
            | Self::Invalid(_)
            | Self::NotServer
            | Self::JobNotFound(_)
            | Self::HistoryUnavailable(_)
            | Self::Stopping => false,
        }
    }
}

/// A node as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its gossip address, `ip:port`.
    pub gossip_addr: String,
    /// Its peer address, `ip:port`.
    pub peer_addr: String,
    /// Its tags, the reserved ones (`role`, `dc`, `region`, `version`, `server`, ...) included.
    pub tags: BTreeMap<String, String>,
    /// Whether it answers.
    pub status: MemberStatus,
    /// Its part in Raft.
    pub raft: RaftRole,
    /// Whether it says that its disk is full.
    pub disk_full: bool,
}

/// Whether a member answers, in Serf's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberStatus {
    /// It answers.
    Alive,
    /// It said goodbye.
    Left,
    /// It stopped answering.
    Failed,
}

/// A member's part in the Raft configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaftRole {
    /// It has none.
    None,
    /// It receives the log and does not vote.
    Learner,
    /// It votes.
    Voter,
    /// It leads, as far as this node knows.
    Leader,
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Whether it is a server.
    pub server: bool,
    /// The cluster that it belongs to.
    pub cluster: Option<ClusterId>,
    /// Its tags, the reserved ones included.
    pub tags: BTreeMap<String, String>,
    /// Its Raft term.
    pub term: Term,
    /// The leader, if one is known to hold a quorum.
    pub leader: Option<NodeName>,
    /// Whether that is this node.
    pub is_leader: bool,
    /// The last entry applied.
    pub applied: Option<LogIndex>,
    /// The last entry committed.
    pub committed: Option<LogIndex>,
    /// The names of the voters.
    pub voters: Vec<NodeName>,
    /// Executions that run here.
    pub running: usize,
    /// What the system says, while this node's disk is full.
    pub disk_full: Option<String>,
    /// What is missing while there is no leader.
    pub waiting_for: Option<String>,
    /// Which servers, of this and those that answer, do not vote because their logs were cut, and
    /// what this one waits for.
    pub in_doubt: Option<String>,
}
