//! Random faults: what was acknowledged stays, and all servers agree.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::{Note, World, id};
use crate::consensus::*;

fn small(config: &mut EngineConfig) {
    config.log.snapshot_after_bytes = 3_000;
    config.log.keep_bytes = 1_000;
    config.log.keep_entries = 20;
    config.batch_bytes = 300;
}

/// Servers die, come back, are cut off and get stuck, under load; then all is healed.
fn survive(seed: u64) {
    let mut world = World::with(3 + (seed % 2) * 2, seed, small);
    world.found();
    world.await_leader();
    let count = world.servers.len() as u64;
    let mut sent = BTreeMap::new();
    for seq in 1..=200 {
        let (node, other) = (id(world.draw(count) + 1), id(world.draw(count) + 1));
        match world.draw(20) {
            0 => world.kill_if_up(node),
            1 => world.isolate(node),
            2 => drop(world.stuck.insert(node)),
            3 => drop(world.mute.insert((node, other))),
            4..=6 => {
                world.heal();
                world.start_all();
            }
            _ => {}
        }
        for n in 1..=count {
            if world.servers[&id(n)].engine.is_some() {
                let payload = format!("{seq}/{n}");
                let command = world.propose(id(n), seq * 10 + n, payload.as_bytes());
                sent.insert(command, payload);
            }
        }
        let pause = 1_000 + world.draw(150_000);
        world.run_for(Duration::from_micros(pause));
    }
    world.heal();
    world.start_all();
    let leader = world.await_leader();
    world.commit(leader, 100_000, b"last");
    world.run_for(Duration::from_secs(10));
    let leader = world.await_leader();
    let tally = world.tally(leader);
    for n in 1..=count {
        assert_eq!(world.tally(id(n)), tally, "server {n} differs, seed {seed}");
    }
    let kept: std::collections::BTreeSet<_> = tally.0.iter().map(|b| b.to_vec()).collect();
    let mut acknowledged = 0;
    for (_, note) in &world.log {
        match note {
            Note::Proposed(command, Ok(_)) => {
                acknowledged += 1;
                let payload = sent.get(command).map_or("last", String::as_str);
                assert!(kept.contains(payload.as_bytes()), "{payload} is lost, seed {seed}");
            }
            Note::Halt(reason) => panic!("seed {seed}: {reason}"),
            Note::Rejected(peer, reason) => panic!("seed {seed}: {peer}: {reason}"),
            Note::Proposed(..) | Note::Read(..) | Note::Change(..) | Note::Settled(_) => {}
        }
    }
    assert!(acknowledged > 20, "only {acknowledged} were acknowledged, seed {seed}");
}

#[test]
fn what_was_acknowledged_survives_random_faults() {
    (1..=4).for_each(survive);
}
