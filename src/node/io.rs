//! The boundary of a node: every fact that enters it is an [`Input`], every effect an [`Output`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::codec::frame::Lane;
use crate::codec::record::{Doubt, Record};
use crate::consensus::{Settled, SnapshotDone, SnapshotTask, TaskId};
use crate::dispatch::launch::LaunchSpec;
use crate::id::{
    ClusterId, ExecutionId, LogIndex, NodeId, NodeName, RequestId, SessionId, Term, WriteId,
};
use crate::jobs::history::change::{Change, Page, Query};
use crate::jobs::job::RunResult;
use crate::node::request::{Reply, Request};

/// One attempt to connect to a peer. The node draws it, never twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// One fact from outside.
#[derive(Debug)]
pub enum Input {
    /// The deadline of [`Node::poll_timeout`](super::Node::poll_timeout) has passed. Never needed
    /// if another input comes; never wrong if none was due.
    Timeout,
    /// A stream to a peer is open, and frames may be sent.
    Connected {
        /// The driver's name for it.
        session: SessionId,
        /// The dial that it answers, or `None` if the other side dialled.
        dial: Option<DialId>,
        /// The other side's address, for messages to people.
        remote: SocketAddr,
    },
    /// A dial led to nothing.
    ConnectFailed {
        /// Which.
        dial: DialId,
        /// Why, for people.
        reason: String,
    },
    /// A stream has ended; frames on it may be lost.
    Disconnected {
        /// Which.
        session: SessionId,
        /// Why, for people.
        reason: String,
    },
    /// A frame came over a stream.
    Frame {
        /// Which stream.
        session: SessionId,
        /// Its payload.
        payload: Bytes,
    },
    /// A datagram came.
    Datagram {
        /// From where, as far as it can be believed.
        from: SocketAddr,
        /// Its payload.
        payload: Bytes,
    },
    /// A name that [`Output::Resolve`] asked for.
    Resolved {
        /// The name as asked.
        name: String,
        /// Its addresses, or why there are none.
        result: Result<Vec<SocketAddr>, String>,
    },
    /// A group that [`Output::Persist`] handed out is synced.
    Persisted {
        /// Which.
        write: WriteId,
    },
    /// What came of [`Output::Snapshot`].
    SnapshotDone {
        /// Which task.
        id: TaskId,
        /// What came of it.
        done: SnapshotDone,
    },
    /// All changes of [`Output::History`] up to and with this entry are carried out: a page that is
    /// read from here on shows them. Whether they are durable is another matter.
    HistoryKept {
        /// The greatest `upto` that was carried out.
        upto: LogIndex,
    },
    /// The rows that [`Output::ReadHistory`] asked for.
    HistoryRead {
        /// Whose request it was.
        id: RequestId,
        /// The rows, or why they could not be read.
        page: Result<Page, String>,
    },
    /// The disk failed. What it holds is unknown, so the node halts.
    DiskFailed {
        /// Why, for people.
        reason: String,
    },
    /// The disk is full. What [`Output::Persist`] handed out is kept and tried again: nothing is
    /// lost and nothing more becomes durable until [`Input::DiskFree`].
    DiskFull {
        /// Where, and how many bytes are needed, for people.
        reason: String,
    },
    /// The disk takes writes again; what was kept is being written.
    DiskFree,
    /// A client asks something.
    Request {
        /// The driver's name for it.
        id: RequestId,
        /// What.
        request: Request,
    },
    /// A process that [`Output::Launch`] started has ended, or could not be started.
    RunFinished {
        /// Which.
        execution: ExecutionId,
        /// How.
        result: RunResult,
    },
    /// The operator changed the node's own tags.
    Retag(BTreeMap<String, String>),
    /// Stop, without leaving the cluster: hand over, drain, and say [`Output::Stopped`].
    Shutdown {
        /// How long running executions may go on before they are ended.
        drain: Duration,
    },
}

/// One effect on the world. The driver performs them in order.
#[derive(Debug)]
pub enum Output {
    /// Connect to a peer and answer with [`Input::Connected`] or [`Input::ConnectFailed`].
    Dial {
        /// The node's name for the attempt.
        dial: DialId,
        /// `host:port`.
        addr: String,
    },
    /// Send a frame. Frames of one lane stay in order; one that cannot be sent ends the session.
    Send {
        /// Over which stream.
        session: SessionId,
        /// How urgently.
        lane: Lane,
        /// Its payload.
        payload: Bytes,
    },
    /// End a stream. No [`Input::Disconnected`] is needed for it.
    Close {
        /// Which.
        session: SessionId,
    },
    /// Send a datagram.
    Datagram {
        /// To where.
        to: SocketAddr,
        /// Its payload, at most 1,400 bytes.
        payload: Bytes,
    },
    /// Look up a name and answer with [`Input::Resolved`].
    Resolve {
        /// `host[:port]`.
        name: String,
    },
    /// Write these records in order, sync, and answer with [`Input::Persisted`]. Groups of records
    /// come one at a time.
    Persist {
        /// The node's name for the group.
        write: WriteId,
        /// The records.
        records: Vec<Record>,
    },
    /// Do something with snapshot files, beside the groups of records, and answer with
    /// [`Input::SnapshotDone`] where the task says so.
    Snapshot {
        /// The node's name for the task.
        id: TaskId,
        /// What to do.
        task: SnapshotTask,
    },
    /// Carry out these changes of the history of executions in their order, those that were carried
    /// out before excepted, and answer with [`Input::HistoryKept`]. No sync is needed: the log has
    /// what they came from, and at the next boot all that a snapshot does not cover come again.
    History {
        /// The last entry that these changes cover; the changes that come later have greater ones.
        upto: LogIndex,
        /// Each with the entry that it came from, in the order of the log.
        changes: Vec<(LogIndex, Change)>,
    },
    /// Read rows of the history as they are after all changes that were put out before this, and
    /// answer with [`Input::HistoryRead`], once. At most 16 have no answer at a time.
    ReadHistory {
        /// Whose request it is.
        id: RequestId,
        /// Which rows.
        query: Query,
    },
    /// Start a process and answer with [`Input::RunFinished`] when it has ended.
    Launch(LaunchSpec),
    /// End a process that was launched.
    Kill {
        /// Which.
        execution: ExecutionId,
        /// Why, for its row.
        reason: String,
    },
    /// Answer a client.
    Reply {
        /// Which request.
        id: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// Something that a person or a checker needs to know.
    Event(Event),
    /// The node has stopped in good order; nothing follows.
    Stopped,
    /// The node's disk was set back to an earlier time, and it must not go on with what it holds;
    /// nothing follows. Put the log, the snapshots and the history aside, draw another incarnation,
    /// and start again with [`NodeConfig::joins`](super::config::NodeConfig::joins).
    Reincarnate {
        /// What has shown it, for people.
        reason: String,
        /// The only cluster that the new incarnation may belong to.
        cluster: ClusterId,
        /// The gossip addresses of the others, `ip:port`: some of those it must find again.
        join: Vec<String>,
    },
    /// The node cannot go on; nothing follows. Restart it.
    Halt {
        /// Why.
        reason: String,
    },
}

/// Something that a person or a checker needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node belongs to this cluster from here on.
    ClusterJoined(ClusterId),
    /// This node leads, and its clock is set.
    LeadershipWon(Term),
    /// This node no longer leads.
    LeadershipLost(Term),
    /// Another node leads.
    LeaderKnown {
        /// Its name.
        leader: NodeName,
        /// Its term.
        term: Term,
    },
    /// Nobody leads, and this is what is missing. Repeated every 10 s.
    NoLeader(String),
    /// The end of this server's log was cut at a start: it does not vote until that is settled.
    InDoubt(Doubt),
    /// The doubt is over, and this server votes again.
    Settled {
        /// What was cut.
        doubt: Doubt,
        /// Why it is over.
        how: Settled,
    },
    /// A member came up.
    MemberUp {
        /// Its name.
        name: NodeName,
        /// Its peer address.
        addr: String,
    },
    /// A member stopped answering.
    MemberDown {
        /// Its name.
        name: NodeName,
    },
    /// A member has left the cluster.
    MemberLeft {
        /// Its name.
        name: NodeName,
    },
    /// The Raft configuration changed.
    VotersChanged {
        /// Who votes.
        voters: Vec<String>,
        /// Who listens.
        learners: Vec<String>,
    },
    /// A peer said something that it may not, and was not heard.
    Rejected {
        /// Who, if that is known.
        peer: Option<NodeId>,
        /// What was wrong.
        reason: String,
    },
    /// This node's or a peer's part in the cluster was refused.
    Refused(String),
    /// The leader's clock is off the cluster's: it claims nothing and hands over, if it can.
    ClockOff {
        /// By how many milliseconds.
        ms: i64,
    },
    /// A schedule or a target could not be worked out; the text names the job.
    JobTrouble(String),
    /// The disk is full, and what this node has to write waits; the text says for what.
    DiskFull(String),
    /// The disk takes writes again.
    DiskFree,
    /// An execution is about to start here.
    Launching(ExecutionId),
    /// The store of the history does not keep up. A leader claims nothing and takes no results
    /// until it has caught up.
    HistoryBehind {
        /// How many bytes of changes wait for it.
        bytes: u64,
    },
    /// The store of the history keeps up again.
    HistoryCaughtUp,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterJoined(cluster) => write!(f, "this node belongs to cluster {cluster}"),
            Self::LeadershipWon(term) => write!(f, "this node leads in term {term}"),
            Self::LeadershipLost(term) => write!(f, "this node no longer leads (term {term})"),
            Self::LeaderKnown { leader, term } => write!(f, "{leader} leads in term {term}"),
            Self::NoLeader(missing) => write!(f, "no leader: {missing}"),
            Self::InDoubt(Doubt { next, segment, offset, len }) => write!(
                f,
                "the log was cut by {len} bytes at byte {offset} of segment {segment}, half \
                 written at a crash: entries from {next} on may be missing here, so this server \
                 does not vote until a leader has confirmed its log"
            ),
            Self::Settled { how: Settled::ByLeader, .. } => {
                write!(f, "the log agrees with the leader's again, and this server votes")
            }
            Self::Settled { doubt, how: Settled::WithoutQuorum } => {
                let Doubt { next, segment, offset, len } = doubt;
                write!(
                    f,
                    "this server votes again although its log was cut: all voters answer, and \
                     those whose logs are whole are no quorum. Entries from {next} on that stood \
                     in the {len} bytes from byte {offset} of segment {segment} are lost, unless \
                     another server has them"
                )
            }
            Self::MemberUp { name, addr } => write!(f, "member {name} at {addr} is up"),
            Self::MemberDown { name } => write!(f, "member {name} does not answer"),
            Self::MemberLeft { name } => write!(f, "member {name} has left"),
            Self::VotersChanged { voters, learners } if learners.is_empty() => {
                write!(f, "voters: {}", voters.join(", "))
            }
            Self::VotersChanged { voters, learners } => {
                write!(f, "voters: {}; learners: {}", voters.join(", "), learners.join(", "))
            }
            Self::Rejected { peer: Some(peer), reason } => write!(f, "rejected {peer}: {reason}"),
            Self::Rejected { peer: None, reason } => write!(f, "rejected a message: {reason}"),
            Self::Refused(reason) => f.write_str(reason),
            Self::ClockOff { ms } => {
                write!(f, "this leader's clock is {ms} ms off the cluster's")
            }
            Self::JobTrouble(text) => f.write_str(text),
            Self::DiskFull(reason) => write!(f, "the disk is full, writes wait: {reason}"),
            Self::DiskFree => f.write_str("the disk takes writes again"),
            Self::Launching(execution) => write!(f, "execution {execution} starts"),
            Self::HistoryBehind { bytes } => write!(
                f,
                "the store of the history is {bytes} bytes behind; nothing new is run meanwhile"
            ),
            Self::HistoryCaughtUp => f.write_str("the store of the history has caught up"),
        }
    }
}
