//! A peer that lies: it may stall a cluster, but nothing it says makes a server panic.
//!
//! What only a peer can know stays true, since no check can tell: whether it granted a vote,
//! whether it has entries, and whether it was elected.

use std::time::Duration;

use super::world::{Chance, Note, World, id};
use crate::consensus::*;
use crate::id::NodeId;

fn forge_number(chance: &mut Chance, number: &mut u64) {
    let near = chance.below(4);
    *number = match chance.below(6) {
        0 => number.saturating_add(near + 1),
        1 => number.saturating_sub(near + 1),
        2 => 0,
        3 if chance.below(20) == 0 => u64::MAX,
        _ => *number,
    };
}

fn forge_vote(chance: &mut Chance, vote: &mut Vote) {
    forge_number(chance, &mut vote.leader_id.term);
    if chance.below(3) == 0 {
        vote.leader_id.voted_for = NodeId(chance.below(4) + 1);
    }
    if chance.below(3) == 0 {
        vote.committed = !vote.committed;
    }
}

/// Changes a leader's vote, but not to that of a later term.
fn forge_leader(chance: &mut Chance, vote: &mut Vote) {
    let term = vote.leader_id.term;
    forge_vote(chance, vote);
    vote.leader_id.term = vote.leader_id.term.min(term);
}

fn forge_id(chance: &mut Chance, id: &mut Option<LogId>) {
    match id {
        Some(id) => {
            let mut term = *id.leader_id;
            forge_number(chance, &mut term);
            forge_number(chance, &mut id.index);
            *id = LogId::new_term_index(term, id.index);
        }
        None => {
            if chance.below(3) == 0 {
                *id = Some(LogId::new_term_index(chance.below(4), chance.below(40)));
            }
        }
    }
}

fn forge_entries(chance: &mut Chance, entries: &mut Vec<Entry>) {
    match chance.below(4) {
        0 => entries.reverse(),
        1 => {
            entries.pop();
        }
        2 => entries.extend(entries.clone()),
        _ => {
            for entry in entries {
                let mut id = Some(entry.log_id);
                forge_id(chance, &mut id);
                entry.log_id = id.unwrap_or(entry.log_id);
            }
        }
    }
}

fn forge_outcome(chance: &mut Chance, outcome: &mut Appended) {
    *outcome = if chance.below(2) == 0 {
        Appended::Conflict
    } else {
        let mut vote = Vote::new(chance.below(6), NodeId(chance.below(4) + 1));
        forge_vote(chance, &mut vote);
        Appended::HigherVote(vote)
    };
}

/// Changes something in `message`.
fn forge(chance: &mut Chance, message: &mut Message) {
    match message {
        Message::Vote { vote, last, transfer, .. } => {
            forge_vote(chance, vote);
            forge_id(chance, last);
            *transfer = chance.below(2) == 0;
        }
        Message::VoteReply { vote, granted, last, .. } => {
            *granted = false;
            forge_vote(chance, vote);
            forge_id(chance, last);
        }
        Message::Transfer { vote, to, last, .. } => {
            forge_leader(chance, vote);
            *to = NodeId(chance.below(4) + 1);
            forge_id(chance, last);
        }
        Message::Heartbeat { vote, prev, commit, .. } => {
            forge_leader(chance, vote);
            forge_id(chance, prev);
            forge_id(chance, commit);
        }
        Message::Append { vote, prev, entries, commit, .. } => {
            forge_leader(chance, vote);
            forge_id(chance, prev);
            forge_id(chance, commit);
            forge_entries(chance, entries);
        }
        Message::HeartbeatReply { outcome, .. } | Message::AppendReply { outcome, .. } => {
            forge_outcome(chance, outcome);
        }
        Message::SnapshotBegin { vote, meta, len, .. } => {
            forge_leader(chance, vote);
            forge_id(chance, &mut meta.last_log_id);
            forge_number(chance, len);
        }
        Message::SnapshotChunk { offset, .. } => forge_number(chance, offset),
        Message::SnapshotAck { received, .. } => forge_number(chance, received),
        Message::SnapshotReply { installed, .. } => *installed = None,
        Message::TransferReply { refused, .. } => {
            *refused = Some(TransferRefused::LogNotFlushed { expected: None, actual: None });
        }
    }
}

fn small(config: &mut EngineConfig) {
    config.log.snapshot_after_bytes = 3_000;
    config.log.keep_bytes = 1_000;
    config.log.keep_entries = 20;
}

fn lie(seed: u64) {
    let mut world = World::with(3, seed, small);
    world.found();
    world.await_leader();
    world.forge = Some(forge);
    for seq in 1..=100 {
        for n in 1..=3 {
            world.propose(id(n), seq * 10 + n, &[n as u8; 40]);
        }
        if seq % 20 == 0 {
            let node = id(world.draw(3) + 1);
            world.isolate(node);
        }
        if seq % 20 == 10 {
            world.heal();
        }
        world.run_for(Duration::from_millis(50));
    }
    let halted = world.log.iter().find(|(_, note)| matches!(note, Note::Halt(_)));
    assert_eq!(halted, None, "seed {seed}");
    let rejected = world.log.iter().filter(|(_, note)| matches!(note, Note::Rejected(..)));
    assert!(rejected.count() > 10, "seed {seed}");
}

#[test]
fn no_forged_message_makes_a_server_panic() {
    (1..=4).for_each(lie);
}
