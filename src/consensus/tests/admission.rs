//! Forged and impossible messages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use openraft::EntryPayload;

use super::world::{Note, World, id};
use crate::codec::encode;
use crate::codec::record::Recovered;
use crate::consensus::peers::View;
use crate::consensus::store::{LogStore, Sync};
use crate::consensus::types::{Membership, StoredMembership};
use crate::consensus::*;
use crate::id::{LogIndex, NodeId, Term};

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const RPC: RpcId = RpcId(1);

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

fn entry(term: u64, index: u64) -> Entry {
    let payload = EntryPayload::Normal(Payload(Bytes::from_static(b"x")));
    Entry { log_id: log_id(term, index), payload }
}

fn leader(term: u64, node: NodeId) -> Vote {
    Vote::new_committed(term, node)
}

fn candidate(term: u64, node: NodeId) -> Vote {
    Vote::new(term, node)
}

fn append(vote: Vote, prev: Option<LogId>, entries: Vec<Entry>, commit: Option<LogId>) -> Message {
    Message::Append { rpc: RPC, vote, prev, entries, commit }
}

fn heartbeat(vote: Vote) -> Message {
    Message::Heartbeat { rpc: RPC, vote, prev: None, commit: None }
}

fn stand(vote: Vote, last: Option<LogId>) -> Message {
    Message::Vote { rpc: RPC, ballot: Ballot::Binding, vote, last, transfer: false }
}

fn granted(vote: Vote) -> Message {
    Message::VoteReply { rpc: RPC, vote, granted: true, last: None }
}

fn snapshot(vote: Vote, last: LogId, membership: Membership) -> Message {
    let last_membership = StoredMembership::new(Some(log_id(0, 0)), membership);
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership };
    Message::SnapshotBegin { rpc: RPC, vote, meta, len: 1, crc: 0 }
}

fn members() -> Membership {
    Membership::new_with_defaults(vec![BTreeSet::from([ME, PEER])], [])
}

/// Judged by a node in term 5 that follows `PEER`, with entries 0 to 9 of term 4 of which 0 to 6
/// are committed and 0 to 8 are known to be in the leader's log.
fn judge(message: &Message) -> Result<(), Inadmissible> {
    let log = ten_entries();
    let (vote, committed) = (Some(leader(5, PEER)), Some(log_id(4, 6)));
    View {
        me: ME,
        vote,
        committed,
        floor: Some(6),
        agreed: Some((leader(5, PEER), log_id(4, 8))),
        log: &log,
    }
    .admit(PEER, message)
}

fn ten_entries() -> LogStore {
    let entries = (0..10).map(|index| (LogIndex(index), Term(4), encode(&entry(4, index))));
    let recovered = Recovered { entries: entries.collect(), ..Recovered::default() };
    LogStore::recover(&recovered, 1 << 20, Sync::Immediate).unwrap()
}

#[test]
fn what_a_correct_leader_says_is_let_through() {
    let ours = leader(5, PEER);
    let next = vec![entry(5, 10), entry(5, 11)];
    assert_eq!(judge(&append(ours, Some(log_id(4, 9)), next, Some(log_id(4, 9)))), Ok(()));
    let replaced = vec![entry(5, 9)];
    assert_eq!(judge(&append(ours, Some(log_id(4, 8)), replaced, Some(log_id(4, 6)))), Ok(()));
    let replaced = vec![entry(6, 7)];
    let next_leader = leader(6, PEER);
    assert_eq!(judge(&append(next_leader, Some(log_id(4, 6)), replaced, None)), Ok(()));
    assert_eq!(judge(&append(ours, None, vec![entry(4, 0)], Some(log_id(5, 20)))), Ok(()));
    assert_eq!(judge(&heartbeat(ours)), Ok(()));
    assert_eq!(judge(&stand(candidate(6, PEER), Some(log_id(5, 12)))), Ok(()));
    assert_eq!(judge(&granted(candidate(5, ME))), Ok(()));
    assert_eq!(judge(&granted(leader(5, PEER))), Ok(()));
    assert_eq!(judge(&snapshot(ours, log_id(5, 20), members())), Ok(()));
}

#[test]
fn a_vote_must_be_the_senders_and_fit_the_message() {
    let other = NodeId(3);
    assert_eq!(judge(&heartbeat(leader(6, other))), Err(Inadmissible::NotItsVote));
    assert_eq!(judge(&heartbeat(leader(6, ME))), Err(Inadmissible::NotItsVote));
    assert_eq!(judge(&stand(candidate(6, other), None)), Err(Inadmissible::NotItsVote));
    assert_eq!(judge(&heartbeat(candidate(6, PEER))), Err(Inadmissible::WrongVoteState));
    assert_eq!(judge(&stand(leader(6, PEER), None)), Err(Inadmissible::WrongVoteState));
    let huge = leader(u64::MAX, PEER);
    assert_eq!(judge(&heartbeat(huge)), Err(Inadmissible::NumberTooHigh));
}

#[test]
fn a_term_has_one_leader() {
    let log = LogStore::recover(&Recovered::default(), 1, Sync::Immediate).unwrap();
    let vote = Some(leader(5, NodeId(3)));
    let view = View { me: ME, vote, committed: None, floor: None, agreed: None, log: &log };
    let second = heartbeat(leader(5, PEER));
    assert_eq!(view.admit(PEER, &second), Err(Inadmissible::SecondLeader));
}

#[test]
fn nobody_makes_this_node_a_leader_by_a_reply() {
    let forged = leader(9, ME);
    assert_eq!(judge(&granted(forged)), Err(Inadmissible::ForgedOwnVote));
    assert_eq!(judge(&granted(candidate(6, ME))), Err(Inadmissible::ForgedOwnVote));
    let outcome = Appended::HigherVote(forged);
    let reply = Message::AppendReply { rpc: RPC, outcome: outcome.clone() };
    assert_eq!(judge(&reply), Err(Inadmissible::ForgedOwnVote));
    let reply = Message::HeartbeatReply { rpc: RPC, outcome };
    assert_eq!(judge(&reply), Err(Inadmissible::ForgedOwnVote));
    let reply = Message::SnapshotReply { rpc: RPC, installed: Some(forged) };
    assert_eq!(judge(&reply), Err(Inadmissible::ForgedOwnVote));
}

#[test]
fn entries_follow_on_each_other() {
    let vote = leader(5, PEER);
    let prev = Some(log_id(4, 9));
    let gap = append(vote, prev, vec![entry(5, 11)], None);
    assert_eq!(judge(&gap), Err(Inadmissible::NotConsecutive));
    let back = append(vote, prev, vec![entry(5, 10), entry(4, 11)], None);
    assert_eq!(judge(&back), Err(Inadmissible::NotConsecutive));
    let late = append(vote, None, vec![entry(5, 1)], None);
    assert_eq!(judge(&late), Err(Inadmissible::NotConsecutive));
}

#[test]
fn nothing_is_of_a_later_term_than_the_vote() {
    let vote = leader(5, PEER);
    let ahead = append(vote, Some(log_id(4, 9)), vec![entry(6, 10)], None);
    assert_eq!(judge(&ahead), Err(Inadmissible::BeyondVote));
    let ahead = append(vote, Some(log_id(6, 9)), vec![], None);
    assert_eq!(judge(&ahead), Err(Inadmissible::BeyondVote));
    let ahead = append(vote, None, vec![], Some(log_id(6, 3)));
    assert_eq!(judge(&ahead), Err(Inadmissible::BeyondVote));
    let ahead = snapshot(vote, log_id(6, 20), members());
    assert_eq!(judge(&ahead), Err(Inadmissible::BeyondVote));
    assert_eq!(
        judge(&stand(candidate(6, PEER), Some(log_id(7, 1)))),
        Err(Inadmissible::BeyondVote)
    );
}

#[test]
fn what_is_committed_is_not_contradicted() {
    let vote = leader(5, PEER);
    let contradicts = Err(Inadmissible::ContradictsCommitted);
    let over = append(vote, Some(log_id(4, 5)), vec![entry(5, 6)], None);
    assert_eq!(judge(&over), contradicts);
    assert_eq!(judge(&append(vote, Some(log_id(3, 6)), vec![], None)), contradicts);
    assert_eq!(judge(&append(vote, Some(log_id(5, 6)), vec![], None)), contradicts);
    assert_eq!(judge(&snapshot(vote, log_id(5, 6), members())), contradicts);
    // The same from a leader of the past is only answered with the higher vote.
    assert_eq!(judge(&append(leader(4, PEER), Some(log_id(3, 6)), vec![], None)), Ok(()));
}

#[test]
fn a_leader_does_not_contradict_itself() {
    let vote = leader(5, PEER);
    let contradicts = Err(Inadmissible::ContradictsItself);
    let over = append(vote, Some(log_id(4, 6)), vec![entry(5, 7)], None);
    assert_eq!(judge(&over), contradicts);
    assert_eq!(judge(&append(vote, Some(log_id(3, 8)), vec![], None)), contradicts);
    assert_eq!(judge(&append(vote, None, vec![], Some(log_id(3, 8)))), contradicts);
}

#[test]
fn the_commit_position_fits_the_entries() {
    let vote = leader(5, PEER);
    let entries = vec![entry(5, 10), entry(5, 11)];
    let wrong = append(vote, Some(log_id(4, 9)), entries.clone(), Some(log_id(4, 10)));
    assert_eq!(judge(&wrong), Err(Inadmissible::WrongCommit));
    let beyond = append(vote, Some(log_id(4, 9)), entries, Some(log_id(4, 100)));
    assert_eq!(judge(&beyond), Err(Inadmissible::WrongCommit));
    let beyond = append(vote, None, vec![], Some(log_id(3, 100)));
    assert_eq!(judge(&beyond), Err(Inadmissible::WrongCommit));
}

#[test]
fn a_membership_has_voters_and_lists_them() {
    let vote = leader(5, PEER);
    let prev = Some(log_id(4, 9));
    let wrong = |membership| {
        let payload = EntryPayload::Membership(membership);
        append(vote, prev, vec![Entry { log_id: log_id(5, 10), payload }], None)
    };
    // The wire carries what the constructors would refuse.
    let unlisted: Membership = {
        let configs = vec![BTreeSet::from([ME])];
        let nodes: BTreeMap<NodeId, Peer> = BTreeMap::new();
        postcard::from_bytes(&encode(&(configs, nodes))).unwrap()
    };
    assert_eq!(judge(&wrong(Membership::default())), Err(Inadmissible::BadMembership));
    assert_eq!(judge(&wrong(unlisted)), Err(Inadmissible::BadMembership));
    let empty = snapshot(vote, log_id(5, 20), Membership::default());
    assert_eq!(judge(&empty), Err(Inadmissible::BadMembership));
}

/// Sends `message` from the leader to a follower of a founded cluster.
fn rejected(message: impl Fn(Vote, LogId) -> Message) -> Option<Inadmissible> {
    let (mut world, from) = World::founded(3, 20);
    world.commit(from, 1, b"x");
    world.run_for(Duration::from_secs(1));
    let to = id(from.0 % 3 + 1);
    let term = world.status(from).term.0;
    let last = log_id(term, world.status(from).last.map_or(0, |last| last.0));
    world.hand(to, from, message(leader(term, from), last));
    world.touch(to);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.status(to).leader, world.leader());
    world.log.iter().find_map(|(_, note)| match note {
        Note::Rejected(_, reason) => Some(*reason),
        Note::Halt(reason) => panic!("{reason}"),
        Note::Proposed(..) | Note::Read(..) | Note::Change(..) | Note::Settled(_) => None,
    })
}

/// A follower has entries that nobody else has. In one turn the next leader replaces them, and goes
/// on to speak of what has taken their place. The simulator found this (seed 1140963302).
#[test]
fn what_waits_to_be_cut_is_not_held_against_its_leader() {
    let (mut world, from) = World::founded(3, 22);
    world.commit(from, 1, b"x");
    world.run_for(Duration::from_secs(1));
    let (to, next) = (id(from.0 % 3 + 1), id((from.0 + 1) % 3 + 1));
    let (term, last) = (world.status(from).term.0, world.status(from).last.unwrap().0);
    let prev = Some(log_id(term, last));
    let tail = |term: u64, at: u64| (0..3).map(move |more| entry(term, at + more)).collect();
    let lone = append(leader(term, from), prev, tail(term, last + 1), None);
    world.hand(to, from, lone);
    world.touch(to);
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.status(to).last, Some(LogIndex(last + 3)));
    let (vote, later) = (leader(term + 5, next), |index| Some(log_id(term + 5, index)));
    let committed = later(last + 2);
    let messages = [
        append(vote, prev, vec![entry(term + 5, last + 1)], committed),
        append(vote, later(last + 1), vec![entry(term + 5, last + 2)], committed),
        Message::Heartbeat { rpc: RPC, vote, prev, commit: later(last + 1) },
        append(vote, later(last + 2), vec![entry(term + 5, last + 3)], later(last + 3)),
    ];
    for message in messages {
        world.hand(to, next, message);
    }
    world.touch(to);
    world.run_for(Duration::from_millis(1));
    let rejected = world.log.iter().filter(|(_, note)| matches!(note, Note::Rejected(..)));
    assert_eq!(rejected.collect::<Vec<_>>(), [] as [&(NodeId, Note); 0]);
}

#[test]
fn pieces_of_snapshots_must_fit() {
    let begin = |vote, last: LogId, len, crc| {
        let last = log_id(*last.leader_id, last.index + 5);
        let last_membership = StoredMembership::new(Some(log_id(0, 0)), members());
        let meta = SnapshotMeta { last_log_id: Some(last), last_membership };
        Message::SnapshotBegin { rpc: RPC, vote, meta, len, crc }
    };
    assert_eq!(rejected(|v, l| begin(v, l, u64::MAX, 0)), Some(Inadmissible::BadChunk));
    assert_eq!(rejected(|v, l| begin(v, l, 0, 7)), Some(Inadmissible::BadChunk));
    assert_eq!(rejected(|v, l| begin(v, l, 100, 7)), None);
    let chunk = Message::SnapshotChunk { rpc: RPC, offset: 9, data: Bytes::from_static(b"x") };
    assert_eq!(rejected(|_, _| chunk.clone()), None);
}

#[test]
fn a_message_without_a_session_is_dropped() {
    let (mut world, from) = World::founded(3, 21);
    world.hand(from, NodeId(99), heartbeat(leader(9, NodeId(99))));
    world.touch(from);
    world.run_for(Duration::from_millis(1));
    let note = Note::Rejected(NodeId(99), Inadmissible::NoSession);
    assert!(world.log.contains(&(from, note)));
}
