//! Clusters at work and in trouble.

use std::collections::BTreeSet;
use std::time::Duration;

use super::world::{Note, World, id};
use crate::consensus::*;
use crate::id::{LogIndex, NodeId};
use crate::time::Mono;

fn await_applied(world: &mut World, node: NodeId, index: LogIndex) {
    world.until("it applies", |w| (w.status(node).applied >= Some(index)).then_some(()));
}

fn others(world: &World, leader: NodeId) -> Vec<NodeId> {
    world.servers.keys().copied().filter(|node| *node != leader).collect()
}

#[test]
fn three_servers_elect_and_commit() {
    let (mut world, leader) = World::founded(3, 1);
    let index = world.commit(leader, 1, b"one");
    for follower in others(&world, leader) {
        await_applied(&mut world, follower, index);
        assert_eq!(world.tally(follower).0, [&b"one"[..]]);
        assert_eq!(world.status(follower).leader, Some(leader));
    }
    world.assert_no_trouble();
}

#[test]
fn a_single_server_leads_and_stays_alive() {
    let (mut world, leader) = World::founded(1, 3);
    world.run_for(Duration::from_secs(5));
    world.commit(leader, 1, b"one");
    assert_eq!(world.status(leader).leader, Some(leader));
    world.assert_no_trouble();
}

#[test]
fn an_idle_cluster_keeps_its_leader() {
    let (mut world, leader) = World::founded(3, 4);
    let term = world.status(leader).term;
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.status(leader).term, term);
    assert_eq!(world.leader(), Some(leader));
    world.assert_no_trouble();
}

#[test]
fn the_clock_of_a_follower_rests_while_its_leader_lives_and_wakes_it_in_time() {
    let (mut world, leader) = World::founded(3, 4);
    world.run_for(Duration::from_secs(1));
    let followers = others(&world, leader);
    for &follower in &followers {
        let wakes = world.engine(follower).poll_timeout().unwrap();
        // Heard at most a heartbeat and a tick ago: the lease of 250 ms less that.
        let rests = wakes.saturating_since(Mono::from_micros(world.now));
        assert!(rests > Duration::from_millis(120), "{follower}: {rests:?}");
    }
    let ticks = world.engine(leader).poll_timeout().unwrap();
    assert!(ticks.saturating_since(Mono::from_micros(world.now)) <= Duration::from_millis(20));
    world.kill(leader);
    world.run_for(Duration::from_millis(800));
    let next = world.leader();
    assert!(next.is_some_and(|next| followers.contains(&next)), "{next:?}");
    world.assert_no_trouble();
}

#[test]
fn a_killed_leader_is_replaced_within_a_second_and_nothing_is_lost() {
    let (mut world, leader) = World::founded(3, 2);
    for seq in 1..=20 {
        world.commit(leader, seq, &[u8::try_from(seq).unwrap()]);
    }
    world.kill(leader);
    let killed = world.now;
    let next = world.await_leader();
    assert!(world.now - killed < 1_000_000, "it took {} us", world.now - killed);
    assert_ne!(next, leader);
    let index = world.commit(next, 30, b"after");
    assert_eq!(world.tally(next).0.len(), 21);
    world.start(leader);
    await_applied(&mut world, leader, index);
    assert_eq!(world.tally(leader), world.tally(next));
    world.assert_no_trouble();
}

#[test]
fn everything_committed_survives_the_death_of_all_servers() {
    let (mut world, leader) = World::founded(3, 5);
    for seq in 1..=30 {
        world.commit(leader, seq, &[u8::try_from(seq).unwrap()]);
    }
    let before = world.tally(leader);
    for n in 1..=3 {
        world.kill(id(n));
    }
    for n in 1..=3 {
        world.start(id(n));
    }
    let next = world.await_leader();
    world.commit(next, 40, b"after");
    assert_eq!(world.tally(next).0[..30], before.0);
    world.assert_no_trouble();
}

#[test]
fn a_leader_cut_off_knows_it_and_takes_nothing() {
    let (mut world, leader) = World::founded(3, 6);
    let pending = world.propose(leader, 1, b"lost?");
    world.run_for(Duration::from_micros(100));
    world.isolate(leader);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.status(leader).leader, None);
    assert_eq!(world.status(leader).role, Role::Leader);
    let refused = world.propose(leader, 2, b"refused");
    assert_eq!(world.fate(refused), None);
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.fate(refused), Some(Err(ProposeError::LeaseExpired)));
    world.heal();
    let _fate = world.until("its fate", |w| w.fate(pending));
    let next = world.await_leader();
    let index = world.commit(next, 3, b"after");
    await_applied(&mut world, leader, index);
    assert_eq!(world.tally(leader), world.tally(next));
    world.assert_no_trouble();
}

fn with_small_log(config: &mut EngineConfig) {
    config.log.snapshot_after_bytes = 20_000;
    config.log.keep_bytes = 10_000;
    config.log.keep_entries = 100;
}

#[test]
fn a_follower_that_lags_gets_a_snapshot_and_the_log_stays_bounded() {
    let mut world = World::with(3, 7, with_small_log);
    world.found();
    let leader = world.await_leader();
    let late = others(&world, leader)[0];
    world.isolate(late);
    // Incompressible, and large enough that a snapshot takes several chunks.
    let payload = vec![7; 6_000];
    for seq in 1..=200 {
        world.commit(leader, seq, &payload);
    }
    assert!(world.status(leader).purged > Some(LogIndex(100)));
    assert!(world.status(leader).log_bytes < 1_500_000);
    world.heal();
    let index = world.commit(leader, 500, b"after");
    await_applied(&mut world, late, index);
    assert_eq!(world.tally(late), world.tally(leader));
    assert!(world.snapshots_sent > 0);
    world.kill(late);
    world.start(late);
    let index = world.commit(leader, 501, b"again");
    await_applied(&mut world, late, index);
    assert_eq!(world.tally(late), world.tally(leader));
    world.assert_no_trouble();
}

#[test]
fn a_follower_that_swallows_appends_is_served_again_when_it_answers() {
    let (mut world, leader) = World::founded(3, 8);
    let late = others(&world, leader)[0];
    // The session stays up, but nothing comes back: only the stream's own limit can notice.
    world.mute.insert((leader, late));
    for seq in 1..=40 {
        world.commit(leader, seq, b"x");
    }
    world.run_for(Duration::from_secs(3));
    world.mute.clear();
    let index = world.status(leader).last.unwrap();
    await_applied(&mut world, late, index);
    assert_eq!(world.tally(late), world.tally(leader));
    world.assert_no_trouble();
}

#[test]
fn leadership_is_handed_over_at_once() {
    let (mut world, leader) = World::founded(3, 9);
    world.commit(leader, 1, b"x");
    let next = others(&world, leader)[1];
    world.run_for(Duration::from_secs(1));
    let begun = world.now;
    world.engine(leader).transfer(next).unwrap();
    world.touch(leader);
    world.until("the handover", |w| (w.leader() == Some(next)).then_some(()));
    assert!(world.now - begun < 200_000, "it took {} us", world.now - begun);
    world.commit(next, 2, b"y");
    world.assert_no_trouble();
}

#[test]
fn a_handover_that_fails_leaves_a_leader_that_takes_proposals() {
    let (mut world, leader) = World::founded(3, 10);
    let next = others(&world, leader)[1];
    world.run_for(Duration::from_secs(1));
    for follower in others(&world, leader) {
        world.mute.insert((leader, follower));
    }
    world.engine(leader).transfer(next).unwrap();
    world.touch(leader);
    world.run_for(Duration::from_millis(100));
    world.mute.clear();
    let refused = world.propose(leader, 1, b"x");
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.fate(refused), Some(Err(ProposeError::NotLeader { leader: Some(next) })));
    let next = world.await_leader();
    world.commit(next, 2, b"y");
    world.assert_no_trouble();
}

#[test]
fn a_leader_whose_disk_hangs_hands_over() {
    let (mut world, leader) = World::founded(3, 11);
    world.run_for(Duration::from_secs(1));
    world.stuck.insert(leader);
    world.propose(leader, 1, b"x");
    world.until("another leads", |w| w.leader().filter(|now| *now != leader));
    world.assert_no_trouble();
}

#[test]
fn a_server_joins_learns_and_votes_and_another_leaves() {
    let (mut world, leader) = World::founded(3, 12);
    world.commit(leader, 1, b"x");
    world.add(4);
    world.engine(leader).add_learner(id(4), Peer::default());
    world.touch(leader);
    world.until("it learns", |w| {
        let status = w.status(leader);
        let matched = status.followers.get(&id(4))?.matched;
        (status.learners.contains(&id(4)) && matched == status.last).then_some(())
    });
    let gone = others(&world, leader)[0];
    let voters: BTreeSet<_> = (1..=4).map(id).filter(|node| *node != gone).collect();
    world.engine(leader).change_voters(voters.clone());
    world.touch(leader);
    let change = Change::Voters(voters.clone());
    world.until("the change", |w| {
        w.log.contains(&(leader, Note::Change(change.clone(), Ok(())))).then_some(())
    });
    let status = world.status(leader);
    assert_eq!((&*status.voters, status.is_joint), (&voters, false));
    assert!(status.learners.is_empty());
    world.commit(leader, 2, b"y");
    world.assert_no_trouble();
}

#[test]
fn a_change_of_voters_is_finished_by_the_next_leader() {
    let (mut world, leader) = World::founded(3, 13);
    world.add(4);
    world.engine(leader).add_learner(id(4), Peer::default());
    world.touch(leader);
    world.until("it learns", |w| w.status(leader).learners.contains(&id(4)).then_some(()));
    world.run_for(Duration::from_secs(1));
    world.engine(leader).change_voters((1..=4).map(id).collect());
    world.touch(leader);
    let witness = others(&world, leader)[0];
    world.until("the joint membership spreads", |w| w.status(witness).is_joint.then_some(()));
    world.kill(leader);
    let next = world.await_leader();
    world.until("it is finished", |w| {
        let status = w.status(next);
        (!status.is_joint && status.is_settled && status.voters.len() == 4).then_some(())
    });
    world.assert_no_trouble();
}

#[test]
fn a_read_is_answered_by_the_leader_and_refused_by_followers() {
    let (mut world, leader) = World::founded(3, 14);
    let index = world.commit(leader, 1, b"x");
    let follower = others(&world, leader)[0];
    world.run_for(Duration::from_secs(1));
    world.engine(leader).read_index(1);
    world.engine(follower).read_index(2);
    world.touch(leader);
    world.touch(follower);
    world.run_for(Duration::from_millis(50));
    let read = |w: &World, n| {
        let answer = |note: &Note| {
            if let Note::Read(read, result) = note { (*read == n).then_some(*result) } else { None }
        };
        w.log.iter().find_map(|(_, note)| answer(note))
    };
    assert!(read(&world, 1).unwrap().unwrap() >= index);
    assert_eq!(read(&world, 2), Some(Err(NotLeader { leader: Some(leader) })));
    world.assert_no_trouble();
}

#[test]
fn a_handover_that_nobody_takes_restarts_raft() {
    let (mut world, leader) = World::founded(2, 15);
    let other = others(&world, leader)[0];
    world.commit(leader, 1, b"x");
    world.run_for(Duration::from_secs(1));
    world.mute.extend([(leader, other), (other, leader)]);
    let pending = world.propose(leader, 2, b"lost?");
    world.run_for(Duration::from_millis(1));
    world.engine(leader).transfer(other).unwrap();
    world.touch(leader);
    world.run_for(Duration::from_millis(700));
    assert_ne!(world.status(leader).role, Role::Leader);
    assert_eq!(world.fate(pending), Some(Err(ProposeError::Unknown)));
    world.mute.clear();
    let next = world.await_leader();
    world.commit(next, 3, b"y");
    assert_eq!(world.tally(next).0.first().unwrap(), &b"x"[..]);
    world.assert_no_trouble();
}
