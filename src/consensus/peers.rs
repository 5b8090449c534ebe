//! Which messages of peers are let through to openraft.
//!
//! openraft trusts its network: a forged or impossible message can make it panic, or make a
//! follower a leader. So every message is checked here against what a correct peer can say.
//!
//! **Invariants**
//! - A request's vote belongs to the peer at the other end of the session.
//! - Entries follow on what comes before them, in index and in term, and none is of a later term
//!   than the vote.
//! - Nothing that is committed here is contradicted.
//!
//! **Left out on purpose**: who may be a peer at all, which the session's handshake decides.

use std::cmp::Ordering;

use openraft::EntryPayload;

use super::message::{Appended, Message, TransferRefused};
use super::store::{Known, LogStore};
use super::types::{Entry, LogId, Membership, SnapshotMeta, Vote};
use crate::id::NodeId;

/// No term or index comes near this in the life of a cluster; beyond, sums could overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// Why a message of a peer is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Inadmissible {
    /// A term or index is too high to be real.
    #[error("a term or index is beyond any that can occur")]
    NumberTooHigh,
    /// The vote in a request is not the sender's.
    #[error("the vote belongs to another node than the sender")]
    NotItsVote,
    /// A candidate's vote says it was granted, or a leader's that it was not.
    #[error("the vote's state does not fit the message")]
    WrongVoteState,
    /// A vote for this node that this node never cast.
    #[error("the vote is this node's own, but this node never cast it")]
    ForgedOwnVote,
    /// Another leader of the same term is known.
    #[error("the term already has another leader")]
    SecondLeader,
    /// Indexes have a hole, or terms go back.
    #[error("entries do not follow on each other")]
    NotConsecutive,
    /// An entry or a snapshot is of a later term than the vote.
    #[error("an entry is of a later term than the vote")]
    BeyondVote,
    /// The commit position contradicts the entries.
    #[error("the commit position contradicts the log")]
    WrongCommit,
    /// A leader contradicts what it said before under the same vote.
    #[error("a leader contradicts itself")]
    ContradictsItself,
    /// A committed entry would be overwritten.
    #[error("a committed entry is contradicted")]
    ContradictsCommitted,
    /// A membership without voters, or with voters that it does not list.
    #[error("the membership is not valid")]
    BadMembership,
    /// The peer no longer has entries that it confirmed.
    #[error("the peer lost entries that it had confirmed")]
    LostEntries,
    /// A piece of a snapshot does not fit, or the whole is too large.
    #[error("a piece of a snapshot does not fit")]
    BadChunk,
    /// A snapshot's checksum or content is wrong.
    #[error("the snapshot is damaged")]
    DamagedSnapshot,
    /// There is no session with the peer.
    #[error("there is no session with the peer")]
    NoSession,
}

/// What this node knows, for the checks.
pub(crate) struct View<'a> {
    /// This node.
    pub(crate) me: NodeId,
    /// The vote that it has accepted.
    pub(crate) vote: Option<Vote>,
    /// The last entry that it knows to be committed.
    pub(crate) committed: Option<LogId>,
    /// No index up to this one may change: what is committed, or said to be by messages that were
    /// let through and are not yet worked off.
    pub(crate) floor: Option<u64>,
    /// Up to where the log agrees with that of a leader, and under which vote.
    pub(crate) agreed: Option<(Vote, LogId)>,
    /// Its log.
    pub(crate) log: &'a LogStore,
}

impl View<'_> {
    /// Whether `message` of `peer` may go on.
    pub(crate) fn admit(&self, peer: NodeId, message: &Message) -> Result<(), Inadmissible> {
        match message {
            Message::Vote { vote, last, .. } => {
                self.check_owner(peer, vote)?;
                check(!vote.committed, Inadmissible::WrongVoteState)?;
                check_before(*last, vote)
            }
            Message::VoteReply { vote, last, .. } => {
                self.check_reply(vote)?;
                check_bounds(*last)
            }
            Message::Transfer { vote, last, .. } => {
                self.check_leader(peer, vote)?;
                check_before(*last, vote)
            }
            Message::TransferReply { refused, .. } => match refused {
                None => Ok(()),
                Some(TransferRefused::VoteChanged { actual, .. }) => self.check_reply(actual),
                Some(TransferRefused::LogNotFlushed { actual, .. }) => check_bounds(*actual),
            },
            Message::Heartbeat { vote, prev, commit, .. } => {
                self.check_leader(peer, vote)?;
                self.check_entries(vote, *prev, &[], *commit)
            }
            Message::Append { vote, prev, entries, commit, .. } => {
                self.check_leader(peer, vote)?;
                self.check_entries(vote, *prev, entries, *commit)
            }
            Message::HeartbeatReply { outcome, .. } | Message::AppendReply { outcome, .. } => {
                match outcome {
                    Appended::Success | Appended::Conflict => Ok(()),
                    Appended::HigherVote(vote) => self.check_reply(vote),
                }
            }
            Message::SnapshotBegin { vote, meta, .. } => {
                self.check_leader(peer, vote)?;
                self.check_snapshot(vote, meta)
            }
            Message::SnapshotReply { installed, .. } => match installed {
                Some(vote) => self.check_reply(vote),
                None => Ok(()),
            },
            Message::SnapshotChunk { .. } | Message::SnapshotAck { .. } => Ok(()),
        }
    }

    fn check_owner(&self, peer: NodeId, vote: &Vote) -> Result<(), Inadmissible> {
        check(vote.leader_id.term < NUMBER_MAX, Inadmissible::NumberTooHigh)?;
        let is_its_own = vote.leader_id.voted_for == peer && peer != self.me;
        check(is_its_own, Inadmissible::NotItsVote)
    }

    fn check_leader(&self, peer: NodeId, vote: &Vote) -> Result<(), Inadmissible> {
        self.check_owner(peer, vote)?;
        check(vote.committed, Inadmissible::WrongVoteState)?;
        let is_second = self.vote.is_some_and(|known| {
            known.committed
                && known.leader_id.term == vote.leader_id.term
                && known.leader_id != vote.leader_id
        });
        check(!is_second, Inadmissible::SecondLeader)
    }

    /// A vote in a reply may be anybody's, but not one of ours that we never cast.
    fn check_reply(&self, vote: &Vote) -> Result<(), Inadmissible> {
        check(vote.leader_id.term < NUMBER_MAX, Inadmissible::NumberTooHigh)?;
        let term = vote.leader_id.term;
        let cast = self.vote.map_or(0, |known| known.leader_id.term);
        let is_forged = vote.leader_id.voted_for == self.me
            && if vote.committed {
                term > 0 && term >= cast && self.vote != Some(*vote)
            } else {
                term > cast
            };
        check(!is_forged, Inadmissible::ForgedOwnVote)
    }

    fn check_entries(
        &self,
        vote: &Vote,
        prev: Option<LogId>,
        entries: &[Entry],
        commit: Option<LogId>,
    ) -> Result<(), Inadmissible> {
        check_before(prev, vote)?;
        let mut last = prev;
        for entry in entries {
            let follows = match last {
                Some(last) => {
                    entry.log_id.index == last.index + 1 && entry.log_id.leader_id >= last.leader_id
                }
                None => entry.log_id.index == 0,
            };
            check(follows, Inadmissible::NotConsecutive)?;
            check_before(Some(entry.log_id), vote)?;
            if let EntryPayload::Membership(membership) = &entry.payload {
                check_membership(membership)?;
            }
            last = Some(entry.log_id);
        }
        self.check_commit(vote, last, entries, commit)?;
        if self.vote.is_some_and(|known| vote.partial_cmp(&known) == Some(Ordering::Less)) {
            // openraft will answer that there is a higher vote, and change nothing.
            return Ok(());
        }
        let ids = entries.iter().map(|entry| entry.log_id);
        prev.into_iter().chain(ids).try_for_each(|id| {
            self.check_committed(id)?;
            self.check_agreed(vote, id)
        })
    }

    /// A leader does not take back what it sent or confirmed.
    fn check_agreed(&self, vote: &Vote, id: LogId) -> Result<(), Inadmissible> {
        let Some(agreed) = self.agreed_under(vote).filter(|agreed| id.index <= agreed.index) else {
            return Ok(());
        };
        let is_ordered = id.leader_id <= agreed.leader_id;
        check(is_ordered, Inadmissible::ContradictsItself)?;
        match self.log.at(id.index) {
            Known::Is(known) => check(known == id, Inadmissible::ContradictsItself),
            Known::Purged | Known::Absent => Ok(()),
        }
    }

    fn agreed_under(&self, vote: &Vote) -> Option<LogId> {
        self.agreed.filter(|(under, _)| under == vote).map(|(_, upto)| upto)
    }

    /// Among the entries up to `last`, `commit` must be one of them; beyond it must be later.
    fn check_commit(
        &self,
        vote: &Vote,
        last: Option<LogId>,
        entries: &[Entry],
        commit: Option<LogId>,
    ) -> Result<(), Inadmissible> {
        let Some(commit) = commit else { return Ok(()) };
        check_before(Some(commit), vote)?;
        self.check_agreed(vote, commit)?;
        let Some(last) = last.max(self.agreed_under(vote)) else { return Ok(()) };
        let is_ordered = if commit.index > last.index {
            commit.leader_id >= last.leader_id
        } else {
            commit.leader_id <= last.leader_id
        };
        check(is_ordered, Inadmissible::WrongCommit)?;
        let first = entries.first().map_or(u64::MAX, |entry| entry.log_id.index);
        let offset = commit.index.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        let sent = offset.and_then(|offset| entries.get(offset));
        let is_same = sent.is_none_or(|entry| entry.log_id == commit);
        check(is_same, Inadmissible::WrongCommit)
    }

    /// `id` must not contradict what is committed.
    fn check_committed(&self, id: LogId) -> Result<(), Inadmissible> {
        if self.floor.is_none_or(|floor| id.index > floor) {
            return Ok(());
        }
        let is_later =
            self.committed.is_some_and(|committed| id.index <= committed.index && id > committed);
        check(!is_later, Inadmissible::ContradictsCommitted)?;
        match self.log.at(id.index) {
            Known::Is(known) => check(known == id, Inadmissible::ContradictsCommitted),
            Known::Purged | Known::Absent => Ok(()),
        }
    }

    fn check_snapshot(&self, vote: &Vote, meta: &SnapshotMeta) -> Result<(), Inadmissible> {
        let Some(last) = meta.last_log_id else {
            return Err(Inadmissible::DamagedSnapshot);
        };
        check_before(Some(last), vote)?;
        let membership = &meta.last_membership;
        let is_covered = membership.log_id().is_none_or(|id| id <= last && id.index <= last.index);
        check(is_covered, Inadmissible::DamagedSnapshot)?;
        check_membership(membership.membership())?;
        self.check_committed(last)
    }
}

fn check(holds: bool, reason: Inadmissible) -> Result<(), Inadmissible> {
    if holds { Ok(()) } else { Err(reason) }
}

fn check_bounds(id: Option<LogId>) -> Result<(), Inadmissible> {
    let is_real = id.is_none_or(|id| *id.leader_id < NUMBER_MAX && id.index < NUMBER_MAX);
    check(is_real, Inadmissible::NumberTooHigh)
}

/// What a peer has is not of a later term than its vote.
fn check_before(id: Option<LogId>, vote: &Vote) -> Result<(), Inadmissible> {
    check_bounds(id)?;
    let is_before = id.is_none_or(|id| *id.leader_id <= vote.leader_id.term);
    check(is_before, Inadmissible::BeyondVote)
}

fn check_membership(membership: &Membership) -> Result<(), Inadmissible> {
    let configs = membership.get_joint_config();
    let is_sized = (1..=2).contains(&configs.len());
    let is_filled = configs.iter().all(|config| !config.is_empty());
    let is_listed = configs.iter().flatten().all(|voter| membership.get_node(voter).is_some());
    check(is_sized && is_filled && is_listed, Inadmissible::BadMembership)
}
