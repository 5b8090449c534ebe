//! Promise 5 under more than two hundred `kill -9`: what was acknowledged is there, as it was sent.
//!
//! Lone servers are killed most, because they start fast and have nobody to get anything back from:
//! whatever they acknowledged has to be on their own disk.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::{Cluster, poll};
use crate::load::{Client, Load};

/// The variable that repeats a run's choices, as far as the machine repeats its timing.
const SEED: &str = "CRONCLAVE_TEST_SEED";

/// How many lone servers are killed side by side, and how often each. With [`CLUSTER_KILLS`] these
/// are more than 200.
const LONE_SERVERS: usize = 4;
const LONE_KILLS: usize = 42;

/// How many servers of a cluster of three are killed.
const CLUSTER_KILLS: usize = 40;

/// Segments so small that kills meet the begin of new ones.
const SMALL_SEGMENTS: [&str; 2] = ["--log-segment-size", "64KiB"];

/// After so many kills everything is read back.
const CHECK_EVERY: usize = 10;

/// How many writes are acknowledged between two kills, if the second one waits for any.
const WRITES: usize = 3;

const _: () = assert!(LONE_SERVERS * LONE_KILLS + CLUSTER_KILLS >= 200);

/// The seed of this run, which is told.
fn seed() -> u64 {
    let given = std::env::var(SEED).ok().map(|text| text.parse().expect("a seed is a number"));
    let drawn = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        u64::from(now.subsec_nanos())
    };
    let seed = given.unwrap_or_else(drawn);
    eprintln!("{SEED}={seed}");
    seed
}

#[test]
fn lone_servers_keep_what_they_acknowledged_through_many_kills() {
    let seed = seed();
    std::thread::scope(|scope| {
        for number in 0..LONE_SERVERS {
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(seed + number as u64);
                let more: &[&str] = if number % 2 == 0 { &[] } else { &SMALL_SEGMENTS };
                kill_a_lone_server(&mut rng, more);
            });
        }
    });
}

fn kill_a_lone_server(rng: &mut StdRng, more: &[&str]) {
    let mut cluster = Cluster::start_with(1, 0, more);
    // Some writes are as long as a tenth of a small segment.
    let url = cluster.url(0, "/v1/jobs");
    let lens = [200, 200, 2_000, 6_000].into_iter().enumerate();
    let client = |(number, text_len)| Client { number, urls: vec![url.clone()], text_len };
    let mut load = Load::of(lens.map(client));
    load.await_more(WRITES);
    for kill in 1..=LONE_KILLS {
        // One in four dies at any moment of its start, the others in the middle of writes.
        if rng.random_range(0..4) > 0 {
            load.await_more(WRITES);
            pass(rng, 50);
        } else {
            pass(rng, 600);
        }
        cluster.kill(0);
        cluster.spawn(0);
        if kill % CHECK_EVERY == 0 {
            load.check(&cluster, 0);
        }
    }
    load.await_more(WRITES);
    load.stop();
    load.check(&cluster, 0);
    eprintln!("{LONE_KILLS} kills, {} writes acknowledged", load.acknowledged());
}

#[test]
fn a_cluster_keeps_what_it_acknowledged_through_kills_of_any_of_its_servers() {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut cluster = Cluster::start_with(3, 0, &SMALL_SEGMENTS);
    let mut load = Load::start(&cluster, &[0, 1, 2], 4);
    load.await_more(WRITES);
    let (mut killed, mut checked) = (0, 0);
    while killed < CLUSTER_KILLS {
        let count = match rng.random_range(0..10_u8) {
            0 => 3,
            1..=3 => 2,
            4.. => 1,
        };
        let first = rng.random_range(0..3);
        let struck: Vec<usize> = (first..first + count).map(|server| server % 3).collect();
        struck.iter().for_each(|&server| cluster.kill(server));
        killed += count;
        // Meanwhile those that are left elect, if they can.
        pass(&mut rng, 600);
        struck.iter().for_each(|&server| cluster.spawn(server));
        load.await_more(WRITES);
        if killed >= checked + CHECK_EVERY {
            checked = killed;
            load.check(&cluster, rng.random_range(0..3));
        }
    }
    load.stop();
    cluster.settle(3, 0);
    (0..3).for_each(|server| load.check(&cluster, server));
    eprintln!("{killed} kills, {} writes acknowledged", load.acknowledged());
}

/// Lets any time up to `most` milliseconds pass: faults have to meet every moment.
fn pass(rng: &mut StdRng, most: u64) {
    let time = Duration::from_millis(rng.random_range(0..=most));
    poll(time, || None::<()>);
}
