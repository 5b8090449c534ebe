//! Snapshots on their way: interrupted, damaged, slow, and late.

use std::time::Duration;

use super::world::{Note, World};
use crate::consensus::sending::{CHUNK_BYTES, CHUNK_WINDOW};
use crate::consensus::*;
use crate::id::{LogIndex, NodeId};

const WINDOW: u64 = CHUNK_WINDOW * CHUNK_BYTES as u64;

fn small(config: &mut EngineConfig) {
    config.log.snapshot_after_bytes = 20_000;
    config.log.keep_bytes = 10_000;
    config.log.keep_entries = 100;
}

/// A leader with a snapshot of about 3 MB, and a follower that is cut off and needs it.
fn lagging(seed: u64) -> (World, NodeId, NodeId) {
    let mut world = World::with(3, seed, small);
    world.found();
    let leader = world.await_leader();
    let late = world.servers.keys().copied().find(|node| *node != leader).unwrap();
    world.isolate(late);
    for seq in 1..=500 {
        world.commit(leader, seq, &[7; 6_000]);
    }
    world.run_for(Duration::from_secs(1));
    assert!(world.status(leader).purged > world.status(late).last);
    (world, leader, late)
}

fn await_equal(world: &mut World, leader: NodeId, late: NodeId, seq: u64) {
    let index = world.commit(leader, seq, b"after");
    world.until("it applies", |w| (w.status(late).applied >= Some(index)).then_some(()));
    assert_eq!(world.tally(late), world.tally(leader));
}

fn snapshot_len(world: &World, leader: NodeId) -> u64 {
    world.servers[&leader].snapshots.newest().unwrap().file.len
}

#[test]
fn a_transfer_goes_on_where_it_was_when_its_session_was_lost() {
    let (mut world, leader, late) = lagging(31);
    let len = snapshot_len(&world, leader);
    assert!(len > WINDOW, "{len}");
    world.task_micros = 20_000;
    let mut interruptions = 0;
    world.heal();
    while world.installed == 0 {
        let before = world.received;
        world.until("a chunk comes in", |w| {
            (w.received > before + 200_000 || w.installed > 0).then_some(())
        });
        if world.installed == 0 && world.received < len {
            interruptions += 1;
            world.isolate(late);
            world.run_for(Duration::from_millis(300));
            world.heal();
        }
    }
    assert!(interruptions >= 3, "{interruptions}");
    // What was on its way when a session ended is sent again, and no more.
    assert!(world.chunk_bytes_sent <= len + interruptions * WINDOW, "{}", world.chunk_bytes_sent);
    assert_eq!(world.received, len, "no chunk is written twice");
    await_equal(&mut world, leader, late, 1_000);
    world.assert_no_trouble();
}

#[test]
fn a_chunk_that_is_damaged_costs_one_more_transfer() {
    let (mut world, leader, late) = lagging(32);
    let len = snapshot_len(&world, leader);
    world.spoil = 1;
    world.heal();
    await_equal(&mut world, leader, late, 1_000);
    let refused = (late, Note::Rejected(leader, Inadmissible::DamagedSnapshot));
    let count = world.log.iter().filter(|note| **note == refused).count();
    assert_eq!(count, 1, "{:?}", world.log);
    assert!(world.received >= 2 * len);
    assert_eq!(world.installed, 1);
}

#[test]
fn another_leader_brings_the_snapshot_when_the_first_dies_in_the_middle() {
    let (mut world, leader, late) = lagging(33);
    world.task_micros = 20_000;
    world.heal();
    world.until("chunks come in", |w| (w.received > 500_000).then_some(()));
    assert_eq!(world.installed, 0);
    world.kill(leader);
    let next = world.await_leader();
    assert_ne!(next, late, "it has not got what is committed");
    await_equal(&mut world, next, late, 1_000);
    assert_eq!(world.installed, 1);
    world.start(leader);
    await_equal(&mut world, next, leader, 1_001);
    world.assert_no_trouble();
}

#[test]
fn a_receiver_that_dies_in_the_middle_begins_again() {
    let (mut world, leader, late) = lagging(34);
    world.task_micros = 20_000;
    world.heal();
    world.until("chunks come in", |w| (w.received > 500_000).then_some(()));
    world.kill(late);
    world.start(late);
    await_equal(&mut world, leader, late, 1_000);
    world.kill(late);
    world.start(late);
    assert!(world.status(late).snapshot.is_some(), "it starts from what it was sent");
    await_equal(&mut world, leader, late, 1_001);
    world.assert_no_trouble();
}

#[test]
fn a_follower_catches_up_while_snapshots_are_made_faster_than_they_are_sent() {
    let (mut world, leader, late) = lagging(35);
    world.task_micros = 120_000;
    world.heal();
    let begun = world.status(leader).snapshot;
    let mut seq = 2_000;
    while world.installed == 0 {
        seq += 1;
        world.commit(leader, seq, &[8; 6_000]);
        assert!(seq < 4_000, "it never catches up");
    }
    assert!(world.status(leader).snapshot > begun, "newer ones were made meanwhile");
    world.task_micros = 2_000;
    await_equal(&mut world, leader, late, 10_000);
    world.assert_no_trouble();
}

#[test]
fn a_sender_waits_for_a_receiver_whose_disk_is_slow() {
    let (mut world, leader, late) = lagging(36);
    world.heal();
    world.until("chunks come in", |w| (w.received > 300_000).then_some(()));
    world.stuck_tasks.insert(late);
    world.run_for(Duration::from_secs(8));
    let ahead = world.chunk_bytes_sent - world.received;
    assert!(ahead <= WINDOW, "{ahead} bytes are ahead of the disk");
    assert_eq!(world.snapshots_sent, 1, "it waits, and does not begin again");
    // Past the limit it gives up, and goes on where it was later.
    world.run_for(Duration::from_secs(30));
    assert!(world.snapshots_sent > 1);
    world.stuck_tasks.clear();
    await_equal(&mut world, leader, late, 1_000);
    let len = snapshot_len(&world, leader);
    assert!(world.chunk_bytes_sent <= len + 10 * WINDOW, "{}", world.chunk_bytes_sent);
    world.assert_no_trouble();
}

#[test]
fn a_snapshot_that_a_slow_disk_installs_does_not_time_out() {
    let (mut world, leader, late) = lagging(37);
    let len = snapshot_len(&world, leader);
    world.heal();
    world.until("all has come in", |w| (w.received == len).then_some(()));
    world.stuck_tasks.insert(late);
    world.run_for(Duration::from_secs(60));
    assert_eq!((world.snapshots_sent, world.installed), (1, 0));
    world.stuck_tasks.clear();
    await_equal(&mut world, leader, late, 1_000);
    assert_eq!((world.snapshots_sent, world.installed), (1, 1));
    world.assert_no_trouble();
}

#[test]
fn a_log_that_no_snapshot_bounds_takes_no_more_until_one_is_durable() {
    let mut world = World::with(3, 38, |config| {
        small(config);
        config.log.bytes_max = 60_000;
    });
    world.found();
    let leader = world.await_leader();
    world.stuck_tasks.insert(leader);
    let mut refused = 0;
    for seq in 1..=300 {
        let command = world.propose(leader, seq, &[7; 1_000]);
        let fate = world.until("its fate", |w| w.fate(command));
        refused += u64::from(fate == Err(ProposeError::LogFull));
    }
    assert!((200..280).contains(&refused), "{refused}");
    assert!(world.status(leader).log_bytes < 70_000);
    world.stuck_tasks.clear();
    world.until("a snapshot", |w| w.status(leader).snapshot);
    world.run_for(Duration::from_millis(100));
    for seq in 1_001..=1_200 {
        world.commit(leader, seq, &[7; 1_000]);
    }
    assert!(world.status(leader).log_bytes < 100_000);
    world.assert_no_trouble();
}

#[test]
fn a_snapshot_larger_than_the_bound_of_the_log_does_not_stop_it() {
    let mut world = World::with(1, 39, |config| {
        small(config);
        config.log.bytes_max = 60_000;
    });
    world.found();
    let leader = world.await_leader();
    for seq in 1..=400 {
        world.commit(leader, seq, &[7; 1_000]);
    }
    assert!(snapshot_len(&world, leader) > 300_000);
    assert!(world.status(leader).snapshot > Some(LogIndex(350)));
    assert!(world.status(leader).log_bytes < 100_000);
    world.assert_no_trouble();
}
