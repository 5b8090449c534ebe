//! A run is a pure function of its seed.

use std::rc::Rc;
use std::time::Duration;

use cronclave_sim::client::{hammer, job, put_surely};
use cronclave_sim::cluster::{Cluster, Shape, Traced};
use cronclave_sim::seed::run;
use madsim::time::sleep;

/// Fewer inputs and outputs than this would mean that the cluster did nothing.
const TRACE_LEN_MIN: u64 = 2_000;

async fn story(seed: u64) -> (u64, u64) {
    let shape = Shape { seed, servers: 3, agents: 1, traced: Traced::Yes };
    let cluster = Rc::new(Cluster::start(shape));
    let leader = cluster.await_leader(Duration::from_secs(20)).await;
    put_surely(&cluster, &job("tick", "@every 1s")).await;
    hammer(&cluster, &[0, 1, 2], 20, Duration::from_millis(50), "before").await;
    cluster.kill(leader);
    cluster.await_leader(Duration::from_secs(5)).await;
    let live = cluster.live_servers();
    hammer(&cluster, &live, 20, Duration::from_millis(50), "after").await;
    cluster.restart(leader);
    sleep(Duration::from_secs(3)).await;
    cluster.trace().expect("the run is traced")
}

fn trace(seed: u64) -> (u64, u64) {
    run("determinism", seed, move || story(seed))
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let first = trace(7);
    assert!(first.1 >= TRACE_LEN_MIN, "{} inputs and outputs", first.1);
    assert_eq!(trace(7), first);
    assert_ne!(trace(8).0, first.0);
}
