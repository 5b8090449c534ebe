//! Servers that stand still for a while (SIGSTOP) under load: the others go on, and when the paused
//! one wakes up it follows, and nothing that was acknowledged is missing.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cluster::{Cluster, poll, wait};
use crate::load::{Client, Load};

/// How long a server stands still.
const PAUSE: Duration = Duration::from_secs(5);

/// How long it may take until all servers serve again, once the paused one goes on.
const RECOVERED_WITHIN: Duration = Duration::from_secs(10);

/// Two clients for each server; a client's number tells which one it asks: its half.
fn load_on_each(cluster: &Cluster) -> Load {
    Load::of((0..6).map(|number| Client {
        number,
        urls: vec![cluster.url(number / 2, "/v1/jobs")],
        text_len: 200,
    }))
}

/// How many writes each server has acknowledged.
fn acknowledged_by(load: &Load) -> [usize; 3] {
    [0, 1, 2].map(|server| load.acknowledged_to(2 * server) + load.acknowledged_to(2 * server + 1))
}

/// Stops `paused` for [`PAUSE`] under load, and lets it go on.
fn pause(cluster: &Cluster, load: &Load, paused: usize) {
    cluster.signal(paused, Signal::SIGSTOP);
    let stopped = Instant::now();
    let before = acknowledged_by(load);
    let others = [(paused + 1) % 3, (paused + 2) % 3];
    // Whatever comes back in the first moments may have been under way; half of the time is left.
    let first = poll(PAUSE, || {
        let after = acknowledged_by(load);
        others.iter().all(|&server| after[server] > before[server] + 4).then(|| stopped.elapsed())
    });
    let first = first.expect("the others acknowledge writes while one stands still");
    poll(PAUSE.saturating_sub(stopped.elapsed()), || None::<()>);
    let after = acknowledged_by(load);
    cluster.signal(paused, Signal::SIGCONT);
    let went_on = Instant::now();
    wait("the paused server to acknowledge writes", || {
        (acknowledged_by(load)[paused] > after[paused] + 4).then_some(())
    });
    wait("a leader that all three know", || cluster.agreed_leader(3));
    let recovered = went_on.elapsed();
    assert!(recovered <= RECOVERED_WITHIN, "{recovered:?}");
    eprintln!(
        "the others went on after {first:?} and acknowledged {} writes in {PAUSE:?}; \
         all went on {recovered:?} after the pause",
        others.iter().map(|&server| after[server] - before[server]).sum::<usize>(),
    );
}

#[test]
fn a_follower_that_stands_still_holds_nobody_up_and_catches_up() {
    let cluster = Cluster::start(3, 0);
    let mut load = load_on_each(&cluster);
    load.await_more(20);
    let leader = cluster.leader();
    pause(&cluster, &load, (leader + 1) % 3);
    load.stop();
    (0..3).for_each(|server| load.check(&cluster, server));
}

#[test]
fn a_leader_that_stands_still_is_replaced_and_steps_down_when_it_goes_on() {
    let cluster = Cluster::start(3, 0);
    let mut load = load_on_each(&cluster);
    load.await_more(20);
    for _ in 0..2 {
        let paused = cluster.leader();
        let term = term(&cluster, (paused + 1) % 3);
        pause(&cluster, &load, paused);
        // It may lead again, and then in a term that it was elected in anew.
        assert!(self::term(&cluster, paused) > term, "another was elected");
    }
    load.stop();
    (0..3).for_each(|server| load.check(&cluster, server));
}

/// The Raft term as `server` knows it.
fn term(cluster: &Cluster, server: usize) -> u64 {
    let status = wait("its status", || cluster.status(server));
    let term = status["raft"]["term"].as_str().unwrap_or_default();
    term.parse().unwrap_or_else(|error| panic!("{term}: {error}"))
}
