//! One seed gives one run.

use std::time::Duration;

use super::world::World;

/// Five servers elect, write, lose their leader and go on; a hash over all they did.
fn story(seed: u64) -> u64 {
    let (mut world, leader) = World::founded(5, seed);
    for seq in 1..=50 {
        world.propose(leader, seq, &seq.to_le_bytes());
        world.run_for(Duration::from_micros(700));
    }
    world.kill(leader);
    let next = world.await_leader();
    world.commit(next, 100, b"after");
    world.start(leader);
    world.run_for(Duration::from_secs(2));
    world.assert_no_trouble();
    world.hash
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_another() {
    let first = story(7);
    assert_eq!(first, story(7));
    assert_ne!(first, story(8));
}

#[test]
fn an_engine_can_move_to_another_thread() {
    fn check<T: Send>() {}
    check::<crate::consensus::Engine<super::world::Tally>>();
}
