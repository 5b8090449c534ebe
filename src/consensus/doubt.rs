//! Who may vote after a cut.
//!
//! A server whose recovery cut the end of its log does not know whether it had acknowledged what it
//! cut ([`Doubt`]). An entry that it acknowledged may be committed because of that, so it must not
//! help a candidate that lacks the entry: while in doubt it grants no vote, no pre-vote, takes no
//! leadership over and does not campaign. The doubt is over when
//!
//! - it follows a leader, and its log holds what that leader has committed, an entry of the
//!   leader's own term among it, and everything that the leader believes it to hold; or
//! - every voter answers, those not in doubt cannot elect a leader by themselves, and none of them
//!   has a longer log than this server. Then nobody can know better. If one has, this server
//!   stays in doubt, and votes for that one or whoever has as much.
//!
//! That it is over is durable before it votes like any other.
//!
//! Appends are accepted while in doubt. What a server says with them is that its log agrees with
//! the leader's up to here, durably, which is true whatever it lost before; what a vote says is
//! that its log holds everything that it ever acknowledged, which may be false. The vote itself is
//! never in doubt: the log syncs it twice before it counts, so that rot in it is always found.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::engine::Engine;
use super::machine::Machine;
use super::message::{Ballot, Message, TransferRefused};
use super::store::Known;
use super::types::{LogId, Vote};
use crate::codec::record::Doubt;
use crate::id::{LogIndex, NodeId, Term};

/// How a server stands, as it tells its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Whether it may vote.
    pub trust: Trust,
    /// The last membership in its log, committed or not.
    pub membership: Option<Voters>,
    /// How far its log goes.
    pub reach: Reach,
}

/// How far a log goes. Ordered as candidates are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reach {
    /// It holds nothing.
    #[default]
    Empty,
    /// This is its last entry.
    Upto(Term, LogIndex),
    /// It follows a leader, or leads, so it grows.
    Growing,
}

/// Whether a server knows that its log holds all that it acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// It does.
    #[default]
    Sure,
    /// It does not: the end of its log was cut.
    InDoubt,
}

/// Who votes, and since which entry of the log. Ordered by that entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Voters {
    /// The term of the entry.
    pub term: Term,
    /// Its index.
    pub index: LogIndex,
    /// Who votes; two sets while a change is under way, of each of which a majority is needed.
    pub halves: Vec<BTreeSet<NodeId>>,
}

/// What a server in doubt waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// For a leader: it has no vote, as far as anybody says.
    Leader,
    /// For these voters, which do not answer.
    Voters(BTreeSet<NodeId>),
    /// For those not in doubt to elect a leader: they can.
    Election,
}

/// How a doubt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// By a leader: everything that was acknowledged here and is committed is in the log again.
    ByLeader,
    /// Without one: no quorum exists without servers in doubt. What was cut may be lost.
    WithoutQuorum,
}

/// What the engine knows of doubts, its own and its peers'.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// What each peer with a session said last.
    peers: BTreeMap<NodeId, Standing>,
    /// What the last heartbeat said: its vote, what the leader takes this server to hold, and what
    /// is committed.
    heartbeat: Option<(Vote, Option<LogId>, LogId)>,
    /// Whether a vote was granted while in doubt.
    has_voted: bool,
    /// The doubt of which the end is on its way to the disk.
    settling: Option<(Doubt, Settled)>,
}

impl Doubts {
    pub(crate) fn forget(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }

    pub(crate) fn is_in_doubt(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|standing| standing.trust == Trust::InDoubt)
    }

    pub(crate) fn note_heartbeat(
        &mut self,
        vote: Vote,
        prev: Option<LogId>,
        commit: Option<LogId>,
    ) {
        self.heartbeat = commit.map(|commit| (vote, prev, commit));
    }
}

impl<M: Machine> Engine<M> {
    /// How this server stands, to be told to all peers at the start of a session and whenever it
    /// changes.
    pub fn standing(&self) -> Standing {
        let trust = match self.store.doubt() {
            Some(_) => Trust::InDoubt,
            None => Trust::Sure,
        };
        let reach = if self.status.leader.is_some() { Reach::Growing } else { self.reach() };
        let Some(metrics) = self.metrics() else {
            return Standing { trust, membership: None, reach };
        };
        let stored = &metrics.membership_config;
        let membership = stored.log_id().as_ref().map(|id| Voters {
            term: super::types::term_of(id),
            index: super::types::index_of(id),
            halves: stored.membership().get_joint_config().clone(),
        });
        Standing { trust, membership, reach }
    }

    fn reach(&self) -> Reach {
        reach_of(self.store.last())
    }

    /// A peer said how it stands. It holds until it says otherwise or its session ends.
    pub fn on_standing(&mut self, peer: NodeId, standing: Standing) {
        self.quiet_at = None;
        if self.net.session(peer).is_none() {
            return;
        }
        let _entered = self.host.enter();
        self.net.allow_reversion(peer, standing.trust);
        if let (Trust::InDoubt, Some(raft)) = (standing.trust, self.raft()) {
            // Without this openraft would take it for sure that the peer holds what it confirmed.
            self.host.spawn(async move {
                // A node that does not lead, or does not know the peer, has nothing to allow.
                drop(raft.trigger().allow_next_revert(&peer, true).await);
            });
        }
        self.doubts.peers.insert(peer, standing);
    }

    /// Whether `peer` has said that it is in doubt.
    pub fn is_in_doubt(&self, peer: NodeId) -> bool {
        self.doubts.is_in_doubt(peer)
    }

    /// What this server waits for, if it is in doubt.
    pub fn waiting(&self) -> Option<Waiting> {
        self.store.doubt()?;
        outlook(self.config.id, &self.standing(), &self.doubts.peers).err()
    }

    /// The answer to a request that must not be granted while in doubt.
    pub(crate) fn refuse_in_doubt(&mut self, message: &Message) -> Option<Message> {
        self.store.doubt()?;
        match message {
            Message::Vote { ballot, last, .. } if self.may_vote_for(*last) => {
                self.doubts.has_voted |= *ballot == Ballot::Binding;
                None
            }
            Message::Vote { rpc, .. } => {
                let vote = self.store.vote().unwrap_or_else(|| Vote::new(0, self.config.id));
                let last = self.store.last();
                Some(Message::VoteReply { rpc: *rpc, vote, granted: false, last })
            }
            Message::Transfer { rpc, to, last, .. } if *to == self.config.id => {
                // The nearest that openraft knows: not all that counts is on this disk.
                let (expected, actual) = (*last, None);
                let refused = Some(TransferRefused::LogNotFlushed { expected, actual });
                Some(Message::TransferReply { rpc: *rpc, refused })
            }
            Message::Transfer { .. }
            | Message::VoteReply { .. }
            | Message::TransferReply { .. }
            | Message::Heartbeat { .. }
            | Message::HeartbeatReply { .. }
            | Message::Append { .. }
            | Message::AppendReply { .. }
            | Message::SnapshotBegin { .. }
            | Message::SnapshotChunk { .. }
            | Message::SnapshotAck { .. }
            | Message::SnapshotReply { .. } => None,
        }
    }

    /// Whether a server in doubt may vote for a candidate whose log ends with `last`.
    fn may_vote_for(&self, last: Option<LogId>) -> bool {
        let least = outlook(self.config.id, &self.standing(), &self.doubts.peers);
        least.is_ok_and(|least| reach_of(last) >= least)
    }

    /// Ends the doubt if it can be ended. The host must be entered.
    pub(crate) fn weigh_doubt(&mut self) {
        let Some(doubt) = self.store.doubt() else {
            if let Some((doubt, how)) = self.doubts.settling.take() {
                if let Some(raft) = self.raft() {
                    raft.runtime_config().elect(true);
                }
                self.effects.push(Effect::Settled { doubt, how });
            }
            return;
        };
        if self.doubts.settling.is_some() {
            return;
        }
        let how = if self.is_caught_up() && !self.doubts.has_voted {
            Settled::ByLeader
        } else if self.is_caught_up() || self.may_vote_for(self.store.last()) {
            Settled::WithoutQuorum
        } else {
            return;
        };
        self.doubts.settling = Some((doubt, how));
        self.store.settle();
    }

    /// Whether the log holds all that the leader has committed, and all that it counts on.
    ///
    /// An earlier leader's entries that count lie before the first committed one of this leader's
    /// term. Of its own, it may have counted what this server acknowledged before the cut; it says
    /// so with its heartbeat, which names what it takes this server to hold.
    fn is_caught_up(&self) -> bool {
        let Some((vote, prev, commit)) = self.doubts.heartbeat else { return false };
        let holds = |id: LogId| match self.store.at(id.index) {
            Known::Is(known) => known == id,
            Known::Purged => true,
            Known::Absent => false,
        };
        self.store.vote() == Some(vote)
            && vote.committed
            && *commit.leader_id == vote.leader_id.term
            && holds(commit)
            && prev.is_none_or(holds)
    }
}

fn reach_of(last: Option<LogId>) -> Reach {
    last.map_or(Reach::Empty, |last| {
        Reach::Upto(super::types::term_of(&last), super::types::index_of(&last))
    })
}

/// Whether no leader can be elected without servers in doubt, of which `me` is one; then, what a
/// leader has to hold at least. Else what it has to wait for.
fn outlook(
    me: NodeId,
    own: &Standing,
    peers: &BTreeMap<NodeId, Standing>,
) -> Result<Reach, Waiting> {
    // What this server has lost may include the last change of who votes.
    let known = peers.values().chain([own]).filter_map(|standing| standing.membership.as_ref());
    let latest = known.filter(|known| known.halves.iter().all(|half| !half.is_empty())).max();
    let Some(halves) = latest.map(|latest| &latest.halves) else {
        return Err(Waiting::Leader);
    };
    let voters: BTreeSet<NodeId> = halves.iter().flatten().copied().collect();
    if !voters.contains(&me) {
        return Err(Waiting::Leader);
    }
    let is_silent = |id: &NodeId| *id != me && !peers.contains_key(id);
    let silent: BTreeSet<NodeId> = voters.iter().copied().filter(is_silent).collect();
    if !silent.is_empty() {
        return Err(Waiting::Voters(silent));
    }
    let is_sure = |id: &&NodeId| {
        **id != me && peers.get(id).is_some_and(|standing| standing.trust == Trust::Sure)
    };
    let is_quorum = |half: &BTreeSet<NodeId>| half.iter().filter(is_sure).count() > half.len() / 2;
    // Who does not know that it votes, since it never had an entry, will not stand.
    let can_stand = |id: &NodeId| {
        let membership = peers.get(id).and_then(|standing| standing.membership.as_ref());
        membership.is_some_and(|known| known.halves.iter().any(|half| half.contains(id)))
    };
    let someone_stands = voters.iter().filter(is_sure).any(can_stand);
    let reaches = voters.iter().filter(is_sure).filter_map(|id| Some(peers.get(id)?.reach));
    match reaches.max().unwrap_or_default() {
        Reach::Growing => Err(Waiting::Leader),
        Reach::Empty | Reach::Upto(..) if halves.iter().all(is_quorum) && someone_stands => {
            Err(Waiting::Election)
        }
        least @ (Reach::Empty | Reach::Upto(..)) => Ok(least),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(trust: Trust, voters: &[&[u64]]) -> Standing {
        let half = |ids: &&[u64]| ids.iter().map(|id| NodeId(*id)).collect();
        let halves: Vec<BTreeSet<NodeId>> = voters.iter().map(half).collect();
        let index = LogIndex(halves.iter().map(|half| half.len() as u64).sum());
        let membership = (!halves.is_empty()).then_some(Voters { term: Term(1), index, halves });
        Standing { trust, membership, reach: Reach::Empty }
    }

    fn look(own: &[&[u64]], peers: &[(u64, Trust, &[&[u64]])]) -> Result<Reach, Waiting> {
        let peers = peers.iter().map(|(id, trust, voters)| (NodeId(*id), standing(*trust, voters)));
        outlook(NodeId(1), &standing(InDoubt, own), &peers.collect())
    }

    use Trust::{InDoubt, Sure};

    const ANY: Result<Reach, Waiting> = Ok(Reach::Empty);

    const ABC: &[&[u64]] = &[&[1, 2, 3]];

    #[test]
    fn a_single_voter_waits_for_nobody() {
        assert_eq!(look(&[&[1]], &[]), ANY);
    }

    #[test]
    fn every_voter_has_to_answer() {
        let silent = Waiting::Voters(BTreeSet::from([NodeId(3)]));
        assert_eq!(look(ABC, &[(2, InDoubt, ABC)]), Err(silent));
    }

    #[test]
    fn a_quorum_without_doubt_elects_first() {
        assert_eq!(look(ABC, &[(2, Sure, ABC), (3, Sure, ABC)]), Err(Waiting::Election));
        assert_eq!(look(ABC, &[(2, Sure, ABC), (3, InDoubt, ABC)]), ANY);
    }

    #[test]
    fn both_halves_of_a_joint_membership_need_their_quorum() {
        let joint: &[&[u64]] = &[&[1, 2, 3], &[1, 4, 5]];
        let (b, c) = ((2, Sure, joint), (3, Sure, joint));
        assert_eq!(
            look(joint, &[b, c, (4, Sure, joint), (5, Sure, joint)]),
            Err(Waiting::Election)
        );
        assert_eq!(look(joint, &[b, c, (4, Sure, joint), (5, InDoubt, joint)]), ANY);
    }

    #[test]
    fn a_later_membership_of_a_peer_counts() {
        let later: &[&[u64]] = &[&[1, 2, 3, 4, 5]];
        let silent = Waiting::Voters(BTreeSet::from([NodeId(4), NodeId(5)]));
        assert_eq!(look(ABC, &[(2, InDoubt, ABC), (3, Sure, later)]), Err(silent));
        assert_eq!(look(ABC, &[(2, Sure, &[&[2, 3, 4, 5]])]), Err(Waiting::Leader));
    }

    #[test]
    fn those_who_never_had_an_entry_elect_nobody() {
        assert_eq!(look(ABC, &[(2, Sure, &[]), (3, Sure, &[])]), ANY);
        assert_eq!(look(ABC, &[(2, Sure, &[]), (3, Sure, ABC)]), Err(Waiting::Election));
        assert_eq!(look(&[], &[(2, Sure, &[])]), Err(Waiting::Leader));
    }

    #[test]
    fn the_longest_log_without_doubt_is_the_least_that_a_leader_has_to_hold() {
        let with = |trust, reach| Standing { reach, ..standing(trust, ABC) };
        let look = |b, c| {
            let peers = BTreeMap::from([(NodeId(2), b), (NodeId(3), c)]);
            outlook(NodeId(1), &standing(InDoubt, ABC), &peers)
        };
        let (short, long) = (Reach::Upto(Term(2), LogIndex(9)), Reach::Upto(Term(3), LogIndex(4)));
        assert_eq!(look(with(Sure, short), with(InDoubt, long)), Ok(short));
        assert_eq!(look(with(Sure, short), with(Sure, long)), Err(Waiting::Election));
        assert_eq!(look(with(Sure, Reach::Growing), with(InDoubt, long)), Err(Waiting::Leader));
        assert!(Reach::Empty < short && short < long && long < Reach::Growing);
    }
}
