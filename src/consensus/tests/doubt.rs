//! Servers that cut the end of their logs: who votes then, and what that saves.

use std::collections::BTreeSet;
use std::time::Duration;

use super::world::{Note, World, id};
use crate::codec::record::Doubt;
use crate::consensus::*;
use crate::id::{LogIndex, NodeId};

fn others(world: &World, leader: NodeId) -> Vec<NodeId> {
    world.servers.keys().copied().filter(|node| *node != leader).collect()
}

/// What recovery does to the disk of a dead server whose last `count` entries it cannot read.
fn cut(world: &mut World, node: NodeId, count: usize) {
    let disk = &mut world.servers.get_mut(&node).unwrap().disk;
    let kept = disk.entries.len() - count;
    let next = disk.entries[kept].0;
    disk.entries.truncate(kept);
    // The hint stood behind the entries that it is about.
    disk.committed = None;
    disk.doubt = Some(Doubt { next, segment: 1, offset: 4_096, len: 512 });
}

/// The same without saying so.
fn lose(world: &mut World, node: NodeId, count: usize) {
    cut(world, node, count);
    world.servers.get_mut(&node).unwrap().disk.doubt = None;
}

fn kill_all(world: &mut World) {
    let all: Vec<NodeId> = world.servers.keys().copied().collect();
    all.into_iter().for_each(|node| world.kill_if_up(node));
}

fn is_in_doubt(world: &World, node: NodeId) -> bool {
    world.status(node).doubt.is_some()
}

fn settled(world: &World, node: NodeId) -> Option<Settled> {
    world.log.iter().find_map(|(by, note)| match note {
        Note::Settled(how) if *by == node => Some(*how),
        Note::Settled(_)
        | Note::Proposed(..)
        | Note::Read(..)
        | Note::Change(..)
        | Note::Rejected(..)
        | Note::Halt(_) => None,
    })
}

fn await_settled(world: &mut World, node: NodeId) -> Settled {
    world.until("the doubt's end", |w| settled(w, node))
}

fn await_everywhere(world: &mut World, index: LogIndex) {
    world.until("all hold it", |w| {
        let holds = |node: &NodeId| w.status(*node).applied >= Some(index);
        w.servers.keys().all(holds).then_some(())
    });
}

#[test]
fn the_others_elect_and_the_one_in_doubt_settles_when_it_has_caught_up() {
    for (count, seed) in [(3, 1), (5, 2), (3, 3), (5, 4)] {
        let (mut world, leader) = World::founded(count, seed);
        for seq in 1..=20 {
            world.commit(leader, seq, b"x");
        }
        world.run_for(Duration::from_millis(300));
        kill_all(&mut world);
        let victim = others(&world, leader)[0];
        cut(&mut world, victim, 7);
        world.start(victim);
        world.run_for(Duration::from_secs(3));
        assert!(is_in_doubt(&world, victim));
        let term = world.status(victim).term;
        world.run_for(Duration::from_secs(3));
        assert_eq!(world.status(victim).term, term, "it does not campaign");
        world.start_all();
        let next = world.await_leader();
        assert_ne!(next, victim);
        assert_eq!(await_settled(&mut world, victim), Settled::ByLeader);
        assert_eq!(world.servers[&victim].disk.doubt, None, "durably");
        let index = world.commit(next, 30, b"after");
        await_everywhere(&mut world, index);
        assert_eq!(world.tally(victim), world.tally(next));
        assert_eq!(world.tally(next).0.len(), 21);
        world.assert_no_trouble();
    }
}

#[test]
fn under_a_live_leader_it_settles_and_gets_back_what_it_had_confirmed() {
    for (count, seed) in [(3, 5), (5, 6), (3, 7), (3, 8), (5, 9)] {
        let (mut world, leader) = World::founded(count, seed);
        for seq in 1..=20 {
            world.commit(leader, seq, b"x");
        }
        world.run_for(Duration::from_millis(300));
        let term = world.status(leader).term;
        let victim = others(&world, leader)[1];
        world.kill(victim);
        cut(&mut world, victim, 9);
        world.start(victim);
        assert_eq!(await_settled(&mut world, victim), Settled::ByLeader);
        let index = world.commit(leader, 30, b"after");
        await_everywhere(&mut world, index);
        assert_eq!(world.tally(victim), world.tally(leader));
        assert_eq!(world.status(leader).term, term, "the leader stays");
        world.assert_no_trouble();
        // It votes again: with it and without the leader there is a quorum.
        world.kill(leader);
        let next = world.await_leader();
        world.commit(next, 31, b"later");
    }
}

#[test]
fn when_all_are_in_doubt_they_elect_once_all_answer() {
    for (count, seed) in [(1, 10), (2, 11), (3, 12), (5, 13)] {
        let (mut world, leader) = World::founded(count, seed);
        for seq in 1..=5 {
            world.commit(leader, seq, b"x");
        }
        world.run_for(Duration::from_millis(300));
        kill_all(&mut world);
        for n in 1..=count {
            cut(&mut world, id(n), 2);
        }
        for n in 1..count {
            world.start(id(n));
        }
        world.run_for(Duration::from_secs(2));
        assert_eq!(world.leader(), None);
        for n in 1..count {
            let missing = BTreeSet::from([id(count)]);
            assert_eq!(world.engine(id(n)).waiting(), Some(Waiting::Voters(missing)));
        }
        world.start(id(count));
        let next = world.await_leader();
        let index = world.commit(next, 30, b"after");
        await_everywhere(&mut world, index);
        for n in 1..=count {
            await_settled(&mut world, id(n));
        }
        assert!((1..=count).any(|n| settled(&world, id(n)) == Some(Settled::WithoutQuorum)));
        world.assert_no_trouble();
    }
}

#[test]
fn two_of_three_in_doubt_wait_for_the_third() {
    let (mut world, leader) = World::founded(3, 14);
    for seq in 1..=5 {
        world.commit(leader, seq, b"x");
    }
    world.run_for(Duration::from_millis(300));
    kill_all(&mut world);
    let [a, b] = others(&world, leader)[..] else { panic!("three servers") };
    cut(&mut world, a, 3);
    cut(&mut world, b, 4);
    world.start(a);
    world.start(b);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.leader(), None);
    let waiting = Some(Waiting::Voters(BTreeSet::from([leader])));
    assert_eq!(world.engine(a).waiting(), waiting);
    assert_eq!(world.engine(b).waiting(), waiting);
    world.start(leader);
    let next = world.await_leader();
    assert_eq!(next, leader, "only it has everything");
    assert_eq!(await_settled(&mut world, a), Settled::WithoutQuorum);
    let index = world.commit(next, 30, b"after");
    await_everywhere(&mut world, index);
    assert_eq!(world.tally(a).0.len(), 6);
    world.assert_no_trouble();
}

#[test]
fn a_restart_does_not_end_a_doubt() {
    let (mut world, leader) = World::founded(3, 15);
    world.commit(leader, 1, b"x");
    world.run_for(Duration::from_millis(300));
    kill_all(&mut world);
    let victim = others(&world, leader)[0];
    cut(&mut world, victim, 1);
    for _ in 0..3 {
        world.start(victim);
        world.run_for(Duration::from_secs(2));
        assert!(is_in_doubt(&world, victim));
        world.kill(victim);
    }
    world.start_all();
    assert_eq!(await_settled(&mut world, victim), Settled::ByLeader);
    world.kill(victim);
    world.start(victim);
    assert!(!is_in_doubt(&world, victim));
}

#[test]
fn leadership_is_not_handed_to_a_server_in_doubt() {
    let (mut world, leader) = World::founded(3, 16);
    world.commit(leader, 1, b"x");
    world.run_for(Duration::from_millis(300));
    let [a, b] = others(&world, leader)[..] else { panic!("three servers") };
    world.kill(a);
    cut(&mut world, a, 1);
    // Without an answer of the leader's it stays in doubt, and its own answers arrive.
    world.mute.insert((leader, a));
    world.start(a);
    world.run_for(Duration::from_millis(500));
    assert!(is_in_doubt(&world, a));
    assert!(world.engine(leader).is_in_doubt(a));
    let refused = world.engine(leader).transfer(a);
    assert!(matches!(refused, Err(TransferError::InDoubt | TransferError::NotReachable)));
    world.mute.clear();
    world.engine(leader).transfer(b).unwrap();
    world.touch(leader);
    world.until("the handover", |w| (w.leader() == Some(b)).then_some(()));
    assert_eq!(await_settled(&mut world, a), Settled::ByLeader);
}

/// An entry is acknowledged on A and B. A loses its copy, and C, which never had it, stands with
/// A's vote.
fn lose_a_copy(seed: u64, lost: fn(&mut World, NodeId, usize)) -> (World, [NodeId; 3]) {
    let (mut world, b) = World::founded(3, seed);
    let [a, c] = others(&world, b)[..] else { panic!("three servers") };
    world.commit(b, 1, b"before");
    world.run_for(Duration::from_millis(300));
    world.isolate(c);
    world.commit(b, 2, b"acknowledged");
    kill_all(&mut world);
    lost(&mut world, a, 1);
    world.heal();
    world.start(a);
    world.start(c);
    (world, [a, b, c])
}

#[test]
fn without_the_rule_an_acknowledged_entry_is_lost() {
    let (mut world, [_, b, _]) = lose_a_copy(17, lose);
    let next = world.await_leader();
    let index = world.commit(next, 3, b"instead");
    world.start(b);
    await_everywhere(&mut world, index);
    for tally in world.servers.keys().map(|node| world.tally(*node)) {
        assert_eq!(tally.0, [&b"before"[..], b"instead"]);
    }
}

#[test]
fn with_the_rule_an_acknowledged_entry_waits_for_who_has_it() {
    let (mut world, [a, b, c]) = lose_a_copy(17, cut);
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.leader(), None);
    assert_eq!(world.engine(a).waiting(), Some(Waiting::Voters(BTreeSet::from([b]))));
    assert!(!is_in_doubt(&world, c));
    world.start(b);
    let next = world.await_leader();
    assert_eq!(next, b);
    let index = world.commit(next, 3, b"after");
    await_everywhere(&mut world, index);
    for tally in world.servers.keys().map(|node| world.tally(*node)) {
        assert_eq!(tally.0, [&b"before"[..], b"acknowledged", b"after"]);
    }
    world.assert_no_trouble();
}

/// Of five, any two lose some of what they confirmed while the rest goes up and down: nothing that
/// was committed is lost, and in the end a leader is there.
#[test]
fn chaos_with_cuts_loses_nothing_that_a_quorum_of_whole_logs_has() {
    for seed in 100..110 {
        let (mut world, mut leader) = World::founded(5, seed);
        let mut seq = 0;
        for _ in 0..6 {
            for _ in 0..1 + world.draw(5) {
                seq += 1;
                world.commit(leader, seq, &seq.to_le_bytes());
            }
            let first = id(1 + world.draw(5));
            let second = id(1 + world.draw(5));
            for victim in BTreeSet::from([first, second]) {
                world.kill(victim);
                // Raft's first entries, by which the cluster was founded, are sealed for long.
                let spare = world.servers[&victim].disk.entries.len().saturating_sub(2) as u64;
                let count = world.draw(4).min(spare);
                if count > 0 && world.servers[&victim].disk.doubt.is_none() {
                    cut(&mut world, victim, usize::try_from(count).unwrap());
                }
            }
            let pause = world.draw(600);
            world.run_for(Duration::from_millis(pause));
            world.start_all();
            // As many may lose a copy again only when those before have theirs back.
            world.until("no doubt is left", |w| {
                w.servers.keys().all(|node| !is_in_doubt(w, *node)).then_some(())
            });
            leader = world.await_leader();
        }
        let index = world.commit(leader, 1_000, b"end");
        await_everywhere(&mut world, index);
        let expected: Vec<Vec<u8>> = (1..=seq).map(|seq| seq.to_le_bytes().to_vec()).collect();
        let found = world.tally(leader).0;
        assert_eq!(found[..found.len() - 1], expected[..], "seed {seed}");
        world.assert_no_trouble();
    }
}
