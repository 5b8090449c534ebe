//! Raft messages that are well formed, with fields near those of a real cluster or far from them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::impls::leader_id_std::LeaderId;
use openraft::vote::RaftLeaderId;

use super::choices::Choices;
use crate::codec::encode;
use crate::consensus::types::{Membership, StoredMembership};
use crate::consensus::{Appended, Ballot, Entry, LogId, Message, Payload, Peer, RpcId};
use crate::consensus::{SnapshotMeta, TransferRefused, Vote};
use crate::id::NodeId;
use crate::jobs::State;
use crate::time::Wall;

/// What is known of the cluster in which the messages are said.
pub(super) struct Shape<'a> {
    /// Nodes that have a part in it.
    pub(super) known: &'a [NodeId],
    /// Who speaks.
    pub(super) speaker: NodeId,
    /// The term, as far as it is known.
    pub(super) term: u64,
    /// The entries that a correct leader has sent, in order from the first.
    pub(super) log: &'a [LogId],
    /// The number of the request that may be answered.
    pub(super) rpc: u64,
    /// The cluster's clock.
    pub(super) wall: Wall,
}

/// The vote of a leader, or of a candidate, which is not `committed`.
pub(super) fn vote(term: u64, node: NodeId, committed: bool) -> Vote {
    Vote { leader_id: LeaderId { term, voted_for: node }, committed }
}

/// The position of an entry.
pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId { term, voted_for: NodeId(0) }.to_committed(), index }
}

/// A membership in which all of `voters` vote.
pub(super) fn membership(voters: &[NodeId]) -> Membership {
    Membership::new(vec![voters.iter().copied().collect()], peers(voters))
        .expect("voters that are listed are a membership")
}

fn peers(ids: &[NodeId]) -> BTreeMap<NodeId, Peer> {
    let peer = |id: &NodeId| (*id, Peer { name: id.to_string(), addr: "10.0.0.2:6868".into() });
    ids.iter().map(peer).collect()
}

impl Shape<'_> {
    fn last(&self) -> Option<LogId> {
        self.log.last().copied()
    }

    fn next_index(&self) -> u64 {
        self.last().map_or(0, |id| id.index + 1)
    }

    fn vote(&self, choices: &mut Choices<'_>, committed: bool) -> Vote {
        match choices.byte() {
            0..=127 => vote(self.term, self.speaker, committed),
            128..=191 => vote(choices.number(self.term), self.speaker, committed),
            192.. => {
                let node = choices.node_id(self.known);
                vote(choices.number(self.term), node, choices.coin())
            }
        }
    }

    fn log_id(&self, choices: &mut Choices<'_>) -> Option<LogId> {
        match choices.byte() {
            0..=127 => self.last(),
            128..=191 => {
                Some(choices.place(self.log.len())).and_then(|at| self.log.get(at).copied())
            }
            192..=199 => None,
            200.. => Some(log_id(choices.number(self.term), choices.number(self.next_index()))),
        }
    }

    fn entries(&self, choices: &mut Choices<'_>, prev: Option<LogId>) -> Vec<Entry> {
        let count = u64::from(choices.byte() % 4);
        let first = prev.map_or(0, |prev| prev.index.saturating_add(1));
        let near = |at: u64| first.saturating_add(at);
        (0..count)
            .map(|at| {
                let id = match choices.byte() {
                    0..=223 => log_id(self.term, near(at)),
                    224.. => log_id(choices.number(self.term), choices.number(near(at))),
                };
                Entry { log_id: id, payload: self.payload(choices) }
            })
            .collect()
    }

    /// What an entry may hold: mostly a command.
    pub(super) fn payload(&self, choices: &mut Choices<'_>) -> EntryPayload<Payload, NodeId, Peer> {
        match choices.byte() {
            0..=31 => EntryPayload::Blank,
            32..=63 => EntryPayload::Membership(self.membership(choices)),
            64..=79 => EntryPayload::Normal(Payload(Bytes::copy_from_slice(choices.bytes()))),
            80.. => {
                let stamped = choices.stamped(self.wall, self.next_index(), self.known);
                EntryPayload::Normal(Payload(encode(&stamped)))
            }
        }
    }

    /// Any membership, also one that no correct node makes.
    fn membership(&self, choices: &mut Choices<'_>) -> Membership {
        let wrong = choices.byte().is_multiple_of(8);
        let configs: Vec<BTreeSet<NodeId>> = (0..1 + choices.byte() % 2)
            .map(|_| {
                let bits = choices.byte();
                let bits = if bits.is_multiple_of(8) && !wrong { 7 } else { bits };
                let chosen = |at: &usize| bits & 1 << (at % 8) != 0;
                (0..self.known.len()).filter(chosen).map(|at| self.known[at]).collect()
            })
            .collect();
        let listed: Vec<NodeId> =
            self.known.iter().copied().filter(|_| !wrong || choices.coin()).collect();
        // Written and read back, because only so can it be made wrong.
        let bytes = encode(&(configs, peers(&listed)));
        crate::codec::decode("membership", &bytes).unwrap_or_else(|_| membership(self.known))
    }

    fn appended(&self, choices: &mut Choices<'_>) -> Appended {
        match choices.byte() {
            0..=159 => Appended::Success,
            160..=207 => Appended::Conflict,
            208.. => Appended::HigherVote(self.vote(choices, true)),
        }
    }

    fn meta(&self, choices: &mut Choices<'_>) -> SnapshotMeta {
        let last_log_id = self.log_id(choices);
        let at = match choices.coin() {
            true => self.log.first().copied(),
            false => self.log_id(choices),
        };
        let last_membership = StoredMembership::new(at, self.membership(choices));
        SnapshotMeta { last_log_id, last_membership }
    }

    fn rpc(&self, choices: &mut Choices<'_>) -> RpcId {
        match choices.byte() {
            0..=191 => RpcId(self.rpc),
            192.. => RpcId(choices.number(self.rpc)),
        }
    }

    /// One message.
    pub(super) fn message(&self, choices: &mut Choices<'_>) -> Message {
        let rpc = self.rpc(choices);
        match choices.byte() % 16 {
            0 => Message::Vote {
                rpc,
                ballot: choices.one_of(&[Ballot::Pre, Ballot::Binding]),
                vote: self.vote(choices, false),
                last: self.log_id(choices),
                transfer: choices.coin(),
            },
            1 => Message::VoteReply {
                rpc,
                vote: self.vote(choices, false),
                granted: choices.coin(),
                last: self.log_id(choices),
            },
            2 => Message::Transfer {
                rpc,
                vote: self.vote(choices, true),
                to: choices.node_id(self.known),
                last: self.log_id(choices),
            },
            3 => Message::TransferReply { rpc, refused: self.refused(choices) },
            4 | 5 => Message::Heartbeat {
                rpc,
                vote: self.vote(choices, true),
                prev: self.log_id(choices),
                commit: self.log_id(choices),
            },
            6 => Message::HeartbeatReply { rpc, outcome: self.appended(choices) },
            7..=9 => {
                let (vote, prev) = (self.vote(choices, true), self.log_id(choices));
                let entries = self.entries(choices, prev);
                let commit = match (choices.coin(), entries.last()) {
                    (true, Some(last)) => Some(last.log_id),
                    (_, _) => self.log_id(choices),
                };
                Message::Append { rpc, vote, prev, entries, commit }
            }
            10 | 11 => Message::AppendReply { rpc, outcome: self.appended(choices) },
            12 => self.snapshot_begin(choices, rpc),
            13 => {
                let data = match choices.coin() {
                    true => encode(&State::default()),
                    false => Bytes::copy_from_slice(choices.bytes()),
                };
                Message::SnapshotChunk { rpc, offset: choices.number(3), data }
            }
            14 => Message::SnapshotAck { rpc, received: choices.number(0) },
            15.. => {
                let installed = choices.coin().then(|| self.vote(choices, true));
                Message::SnapshotReply { rpc, installed }
            }
        }
    }

    fn snapshot_begin(&self, choices: &mut Choices<'_>, rpc: RpcId) -> Message {
        let data = encode(&State::default());
        let (len, crc) = match choices.byte() {
            0..=159 => (data.len() as u64, crc32c::crc32c(&data)),
            160..=175 => (0, 0),
            176.. => (choices.number(data.len() as u64), crc32c::crc32c(&data)),
        };
        let (vote, meta) = (self.vote(choices, true), self.meta(choices));
        Message::SnapshotBegin { rpc, vote, meta, len, crc }
    }

    fn refused(&self, choices: &mut Choices<'_>) -> Option<TransferRefused> {
        match choices.byte() % 3 {
            0 => None,
            1 => Some(TransferRefused::VoteChanged {
                expected: self.vote(choices, true),
                actual: self.vote(choices, true),
            }),
            2.. => Some(TransferRefused::LogNotFlushed {
                expected: self.log_id(choices),
                actual: self.log_id(choices),
            }),
        }
    }
}
