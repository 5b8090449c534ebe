//! A log without its engine: what a server's log says ([`Survey`]), and the log with which one
//! server goes on alone after a permanent loss of the quorum ([`rescue`]).
//!
//! Raft cannot go on without a quorum, and rightly so: what the lost servers had acknowledged may
//! be nowhere else. Where an operator decides to go on all the same, the log of one server is taken
//! for the truth. It gets two kinds of entries at its end, of a term above all that it has seen: a
//! membership in which this server alone votes, and the commands given. The entries before stay
//! byte for byte as they are, so whoever gets the log from this server applies what it applied.
//!
//! **Invariants**
//! - Nothing that was in the log or the snapshot is dropped.
//! - What is added is of a term above the vote and above every entry, and the vote is of that term.
//! - A server that is no member is refused: its log may be that of another time.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;

use super::types::{
    Entry, LogId, Membership, Payload, Peer, SnapshotMeta, StoredMembership, Vote, index_of,
    term_of,
};
use crate::codec::record::{Record, Recovered};
use crate::codec::{DecodeError, decode, encode};
use crate::id::{LogIndex, NodeId, Term};

/// A position in the log, with the term of its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The term in which the entry was proposed. It comes first: a log with a greater last term is
    /// the better one, whatever its length.
    pub term: Term,
    /// The entry's index.
    pub index: LogIndex,
}

/// What a server's log says about Raft.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The term of the last vote.
    pub term: Option<Term>,
    /// For whom this server voted in that term.
    pub voted_for: Option<NodeId>,
    /// The last entry, of the log or covered by the snapshot.
    pub last: Option<Position>,
    /// The last entry that is known to be committed: at least what the snapshot covers.
    pub committed: Option<Position>,
    /// The last entry that the snapshot covers.
    pub snapshot: Option<Position>,
    /// The last entry that was purged.
    pub purged: Option<Position>,
    /// The membership that is in force, committed or not: who votes, in either half if it is joint.
    pub voters: BTreeSet<NodeId>,
    /// Voters and learners, and what Raft knows of them.
    pub members: BTreeMap<NodeId, Peer>,
    /// Where that membership stands.
    pub membership: Option<Position>,
}

/// Why a log cannot be read or gone on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RescueError {
    /// A record is no such thing.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// There is nothing to go on with.
    #[error("the log holds no membership: this server never belonged to a cluster")]
    NoMembership,
    /// The server is not in the membership.
    #[error(
        "node {0} is no member of its cluster by its own log: it was never admitted, or was removed"
    )]
    NotAMember(NodeId),
}

/// Reads what the log says.
///
/// # Errors
/// If a record cannot be read.
pub fn survey(recovered: &Recovered) -> Result<Survey, DecodeError> {
    let id = |bytes: Option<&bytes::Bytes>| -> Result<Option<LogId>, DecodeError> {
        bytes.map(|bytes| decode("log id", bytes)).transpose()
    };
    let vote = recovered.vote.as_ref();
    let vote: Option<Vote> = vote.map(|bytes| decode("vote", bytes)).transpose()?;
    let meta = recovered.snapshot.as_ref().map(|snapshot| &snapshot.meta);
    let meta: Option<SnapshotMeta> =
        meta.map(|bytes| decode("snapshot meta", bytes)).transpose()?;
    let covered = meta.as_ref().and_then(|meta| meta.last_log_id);
    let purged = id(recovered.purged.as_ref())?;
    let in_log = recovered.entries.last();
    let in_log = in_log.map(|(index, term, _)| Position { term: *term, index: *index });
    let known = [covered, purged].into_iter().flatten().map(position);
    let membership = membership_of(recovered, meta)?;
    let seat = membership.membership();
    Ok(Survey {
        term: vote.map(|vote| Term(vote.leader_id.term)),
        voted_for: vote.map(|vote| vote.leader_id.voted_for),
        last: known.clone().chain(in_log).max(),
        committed: known.chain(id(recovered.committed.as_ref())?.map(position)).max(),
        snapshot: covered.map(position),
        purged: purged.map(position),
        voters: seat.voter_ids().collect(),
        members: seat.nodes().map(|(&id, peer)| (id, peer.clone())).collect(),
        membership: membership.log_id().map(position),
    })
}

/// The records of a whole new log with which server `me` goes on as the only voter: everything
/// that `recovered` holds, and at its end the membership and `commands`, all of it committed. The
/// node's own facts are not among them. `addr` replaces the address at which peers reach it.
///
/// # Errors
/// If the log cannot be read, or the server is no member by it.
pub fn rescue(
    recovered: &Recovered,
    me: NodeId,
    addr: Option<&str>,
    commands: &[bytes::Bytes],
) -> Result<Vec<Record>, RescueError> {
    let survey = survey(recovered)?;
    if survey.membership.is_none() {
        return Err(RescueError::NoMembership);
    }
    let mut peer = survey.members.get(&me).cloned().ok_or(RescueError::NotAMember(me))?;
    if let Some(addr) = addr {
        addr.clone_into(&mut peer.addr);
    }
    let last = survey.last.ok_or(RescueError::NoMembership)?;
    let Term(seen) = survey.term.max(Some(last.term)).unwrap_or_default();
    let term = Term(seen.saturating_add(1));
    let alone = Membership::new(vec![BTreeSet::from([me])], BTreeMap::from([(me, peer)]));
    let alone = alone.map_err(|_| RescueError::NotAMember(me))?;
    let commands = commands.iter().map(|command| Payload(command.clone()));
    let payloads =
        std::iter::once(EntryPayload::Membership(alone)).chain(commands.map(EntryPayload::Normal));
    let mut records = base(recovered, survey.snapshot)?;
    let mut end = last;
    for payload in payloads {
        end = Position { term, index: LogIndex(end.index.0.saturating_add(1)) };
        let entry = Entry { log_id: log_id(end), payload };
        records.push(Record::Entry { index: end.index, term, body: encode(&entry) });
    }
    // It has voted for itself, and no leader of this term can be another.
    records.push(Record::Vote(encode(&Vote::new(term.0, me))));
    records.push(Record::Committed(encode(&log_id(end))));
    Ok(records)
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Described {
    /// A command of whoever uses the engine.
    Command(Payload),
    /// An entry of Raft's own, in words.
    Other(String),
}

/// What the entry with this body holds.
///
/// # Errors
/// If it is none.
pub fn describe(body: &[u8]) -> Result<Described, DecodeError> {
    let entry: Entry = decode("log entry", body)?;
    Ok(match entry.payload {
        EntryPayload::Normal(payload) => Described::Command(payload),
        EntryPayload::Blank => Described::Other("a leader's first entry".to_owned()),
        EntryPayload::Membership(membership) => {
            let named = |id: &NodeId| {
                let name = membership.get_node(id).map(|peer| peer.name.clone());
                name.filter(|name| !name.is_empty()).unwrap_or_else(|| id.to_string())
            };
            let half =
                |ids: &BTreeSet<NodeId>| ids.iter().map(named).collect::<Vec<_>>().join(", ");
            let halves: Vec<String> = membership.get_joint_config().iter().map(half).collect();
            let learners: Vec<String> = membership.learner_ids().map(|id| named(&id)).collect();
            let mut text = format!("voters: {}", halves.join(" and "));
            if !learners.is_empty() {
                text.push_str("; learners: ");
                text.push_str(&learners.join(", "));
            }
            Described::Other(text)
        }
    })
}

/// What the log holds, for a new one. Where the snapshot is ahead of the log, as after a crash
/// between the two, the log begins behind it.
fn base(recovered: &Recovered, snapshot: Option<Position>) -> Result<Vec<Record>, DecodeError> {
    let mut records = Vec::with_capacity(recovered.entries.len() + 8);
    let in_log = recovered.entries.last().map(|entry| entry.0);
    let ahead = snapshot.filter(|snapshot| Some(snapshot.index) > in_log);
    if let Some(ahead) = ahead {
        let body = encode(&log_id(ahead));
        records.push(Record::Purge { upto: ahead.index, body });
        return Ok(records);
    }
    if let Some(body) = &recovered.purged {
        let purged: LogId = decode("purged id", body)?;
        records.push(Record::Purge { upto: index_of(&purged), body: body.clone() });
    }
    let entries = recovered.entries.iter().cloned();
    records.extend(entries.map(|(index, term, body)| Record::Entry { index, term, body }));
    Ok(records)
}

/// The last membership of the log, or else that of the snapshot.
fn membership_of(
    recovered: &Recovered,
    meta: Option<SnapshotMeta>,
) -> Result<StoredMembership, DecodeError> {
    let covered = meta.as_ref().and_then(|meta| meta.last_log_id).map(|id| id.index);
    for (index, _, body) in recovered.entries.iter().rev() {
        if Some(index.0) <= covered {
            break;
        }
        let entry: Entry = decode("log entry", body)?;
        if let EntryPayload::Membership(membership) = entry.payload {
            return Ok(StoredMembership::new(Some(entry.log_id), membership));
        }
    }
    Ok(meta.map(|meta| meta.last_membership).unwrap_or_default())
}

fn position(id: LogId) -> Position {
    Position { term: term_of(&id), index: index_of(&id) }
}

fn log_id(at: Position) -> LogId {
    LogId::new_term_index(at.term.0, at.index.0)
}
