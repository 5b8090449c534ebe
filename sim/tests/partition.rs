//! A cut through the cluster: the side with a quorum works, the other grants nothing, and when the
//! cut is mended nothing is lost, invented or done twice.

use std::rc::Rc;
use std::time::Duration;

use cronclave_sim::client::{job, put_surely};
use cronclave_sim::cluster::{Cluster, Shape, Traced};
use cronclave_sim::seed::simulate;
use cronclave_sim::verdict::{
    ELECTED_MAX, FOUNDED_MAX, LEASE_OVER, TICK, grants_nothing, judge, progresses, stands_still,
};
use madsim::time::sleep;

/// The leader and `count - 1` others on one side; the rest, and the agent, on the other.
async fn sides(cluster: &Cluster, count: usize) -> (Vec<usize>, Vec<usize>) {
    let leader = cluster.await_leader(ELECTED_MAX).await;
    let others = cluster.servers().filter(|&host| host != leader);
    let mut order = std::iter::once(leader).chain(others);
    let with_leader = order.by_ref().take(count).collect();
    (with_leader, order.collect())
}

fn all_pairs(a: &[usize], b: &[usize]) -> Vec<(usize, usize)> {
    a.iter().flat_map(|&a| b.iter().map(move |&b| (a, b))).collect()
}

async fn cut_and_mend(seed: u64, size: usize, with_leader: usize) {
    let shape = Shape { seed, servers: size, agents: 1, traced: Traced::No };
    let cluster = Rc::new(Cluster::start(shape));
    cluster.await_leader(FOUNDED_MAX).await;
    let begun = cluster.now();
    put_surely(&cluster, &job(TICK, "@every 1s")).await;
    progresses(&cluster, &cluster.live_servers(), "whole").await;

    let (near, far) = sides(&cluster, with_leader).await;
    let agent = size;
    let far_and_agent: Vec<usize> = far.iter().copied().chain([agent]).collect();
    let pairs = all_pairs(&near, &far_and_agent);
    pairs.iter().for_each(|&(a, b)| cluster.cut(a, b));
    sleep(LEASE_OVER).await;
    if far.len() > size / 2 {
        grants_nothing(&cluster, &near, "near").await;
        progresses(&cluster, &far, "far").await;
    } else {
        stands_still(&cluster, "halves").await;
    }
    pairs.iter().for_each(|&(a, b)| cluster.mend(a, b));
    sleep(Duration::from_secs(5)).await;
    progresses(&cluster, &cluster.live_servers(), "mended").await;
    judge(&cluster, begun).await;
}

#[test]
fn two_servers_are_cut_in_halves() {
    simulate("partition", &[1], |seed| cut_and_mend(seed, 2, 1));
}

#[test]
fn the_leader_of_three_is_cut_off() {
    simulate("partition", &[1], |seed| cut_and_mend(seed, 3, 1));
}

#[test]
fn four_servers_are_cut_in_halves() {
    simulate("partition", &[1], |seed| cut_and_mend(seed, 4, 2));
}

#[test]
fn the_leader_of_five_is_cut_off_with_one_more() {
    simulate("partition", &[1], |seed| cut_and_mend(seed, 5, 2));
}
