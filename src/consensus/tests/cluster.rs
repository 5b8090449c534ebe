//! Clusters at work and in trouble.

use std::time::Duration;

use super::world::{World, id};
use crate::consensus::*;

#[test]
fn three_servers_elect_and_commit() {
    let (mut world, leader) = World::founded(3, 1);
    let index = world.commit(leader, 1, b"one");
    let follower = id(leader.0 % 3 + 1);
    world.until("the follower applies", |w| {
        (w.status(follower).applied >= Some(index)).then_some(())
    });
    assert_eq!(world.tally(follower).0, [&b"one"[..]]);
    assert_eq!(world.status(follower).leader, Some(leader));
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
    world.commit(next, 30, b"after");
    assert_eq!(world.tally(next).0.len(), 21);
    world.assert_no_trouble();
}
