//! Clusters of 1 to 7 servers: with the tolerated number of them lost the cluster works, with one
//! more lost it stops, and when they return nothing is lost, invented or done twice.
//!
//! With n servers T = n - (n / 2 + 1) may be lost. Each run takes the power of T servers at once,
//! restarts them, takes the power of T + 1, restarts one (which is enough), then the rest.

use std::rc::Rc;
use std::time::Duration;

use cronclave_sim::client::{hammer, job, put_surely};
use cronclave_sim::cluster::{Cluster, Shape, Traced};
use cronclave_sim::seed::simulate;
use cronclave_sim::verdict::{ELECTED_MAX, FOUNDED_MAX, TICK, judge, progresses, stands_still};
use madsim::task::spawn_local;
use madsim::time::sleep;

/// How many requests are made around a loss of power, and in what time; it comes in the middle.
const LOAD: usize = 200;
const LOAD_SPAN: Duration = Duration::from_millis(600);

/// Whether the leader is among the lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leader {
    Lost,
    Spared,
}

/// Takes the power of `count` servers at once, in the middle of many writes, and asserts where the
/// leader is at that instant.
async fn strike(
    cluster: &Rc<Cluster>,
    count: usize,
    place: Leader,
    label: &'static str,
) -> Vec<usize> {
    let leader = cluster.await_leader(ELECTED_MAX).await;
    let (loaded, live) = (Rc::clone(cluster), cluster.live_servers());
    let requests = LOAD.div_ceil(live.len());
    let pause = LOAD_SPAN / u32::try_from(requests).expect("a small number");
    spawn_local(async move { hammer(&loaded, &live, requests, pause, label).await });
    sleep(LOAD_SPAN / 2 + cluster.draw(Duration::ZERO..pause * 2)).await;
    let others = cluster.live_servers().into_iter().filter(|&host| host != leader);
    let struck: Vec<usize> = match place {
        Leader::Lost => std::iter::once(leader).chain(others).take(count).collect(),
        Leader::Spared => others.take(count).collect(),
    };
    assert_eq!(struck.len(), count, "enough servers of the wanted kind");
    if cluster.leader().await != Some(leader) {
        cluster.tell();
    }
    assert_eq!(cluster.leader().await, Some(leader), "the leader at the instant of the fault");
    for &host in &struck {
        cluster.kill(host);
    }
    struck
}

async fn lose_and_return(seed: u64, size: usize, place: Leader) {
    let shape = Shape { seed, servers: size, agents: 1, traced: Traced::No };
    let cluster = Rc::new(Cluster::start(shape));
    cluster.await_leader(FOUNDED_MAX).await;
    let begun = cluster.now();
    put_surely(&cluster, &job(TICK, "@every 1s")).await;
    progresses(&cluster, &cluster.live_servers(), "whole").await;

    let tolerated = size - (size / 2 + 1);
    let struck = strike(&cluster, tolerated, place, "load").await;
    progresses(&cluster, &cluster.live_servers(), "tolerated").await;
    struck.iter().for_each(|&host| cluster.restart(host));
    sleep(Duration::from_secs(2)).await;

    let struck = strike(&cluster, tolerated + 1, place, "more").await;
    stands_still(&cluster, "beyond").await;
    let (first, rest) = struck.split_first().expect("at least one server was struck");
    cluster.restart(*first);
    sleep(Duration::from_millis(500)).await;
    // If its log was cut, one of those still dead may be the only one that has an entry: it votes
    // for nobody. A leader that is still there has all, and settles that.
    match (place, cluster.is_in_doubt(*first)) {
        (Leader::Lost, true) => stands_still(&cluster, "in-doubt").await,
        (Leader::Spared, _) | (Leader::Lost, false) => {
            progresses(&cluster, &cluster.live_servers(), "returned").await;
        }
    }
    rest.iter().for_each(|&host| cluster.restart(host));
    sleep(Duration::from_millis(500)).await;
    progresses(&cluster, &cluster.live_servers(), "healed").await;

    judge(&cluster, begun).await;
}

fn size(size: usize) {
    simulate("quorum", &[1], move |seed| async move {
        lose_and_return(seed, size, Leader::Lost).await;
    });
    if size > 1 {
        simulate("quorum", &[2], move |seed| async move {
            lose_and_return(seed, size, Leader::Spared).await;
        });
    }
}

#[test]
fn one_server() {
    size(1);
}

#[test]
fn two_servers() {
    size(2);
}

#[test]
fn three_servers() {
    size(3);
}

#[test]
fn four_servers() {
    size(4);
}

#[test]
fn five_servers() {
    size(5);
}

#[test]
fn six_servers() {
    size(6);
}

#[test]
fn seven_servers() {
    size(7);
}
