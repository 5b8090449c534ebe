//! Logs whose unsealed ends are torn or rot: the cluster goes on once it can know that nothing
//! acknowledged is lost by it, or that nobody can know better.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cronclave::node::io::Event;
use cronclave_sim::client::{hammer, job, put_surely};
use cronclave_sim::cluster::{Cluster, Happened, Shape, Traced};
use cronclave_sim::seed::simulate;
use cronclave_sim::verdict::{ELECTED_MAX, FOUNDED_MAX, TICK, judge, progresses};
use madsim::task::spawn_local;
use madsim::time::sleep;

/// How many logs were found torn, in all runs.
static TORN: AtomicUsize = AtomicUsize::new(0);

/// How many requests are made around a loss of power, and in what time; it comes in the middle.
const LOAD: usize = 200;
const LOAD_SPAN: Duration = Duration::from_millis(600);

async fn start(seed: u64, servers: usize) -> Rc<Cluster> {
    let cluster = Rc::new(Cluster::start(Shape { seed, servers, agents: 1, traced: Traced::No }));
    cluster.await_leader(FOUNDED_MAX).await;
    put_surely(&cluster, &job(TICK, "@every 1s")).await;
    cluster
}

/// Takes the power of all servers at once, in the middle of many writes.
async fn black_out(cluster: &Rc<Cluster>, label: &'static str) {
    let (loaded, live) = (Rc::clone(cluster), cluster.live_servers());
    let requests = LOAD.div_ceil(live.len());
    let pause = LOAD_SPAN / u32::try_from(requests).expect("a small number");
    let hosts = live.clone();
    spawn_local(async move { hammer(&loaded, &hosts, requests, pause, label).await });
    sleep(LOAD_SPAN / 2 + cluster.draw(Duration::ZERO..pause * 2)).await;
    live.into_iter().for_each(|host| cluster.kill(host));
}

async fn light_up(cluster: &Rc<Cluster>, label: &'static str) {
    cluster.servers().for_each(|host| cluster.restart(host));
    sleep(Duration::from_millis(500)).await;
    progresses(cluster, &cluster.live_servers(), label).await;
    let undecided = cluster.servers().filter(|host| cluster.is_in_doubt(*host)).count();
    assert_eq!(undecided, 0, "{label}: a leader settles every doubt");
}

fn doubts(cluster: &Cluster) -> usize {
    let is_doubt = |told: &&Happened| matches!(told.event, Event::InDoubt(_));
    cluster.events().iter().filter(is_doubt).count()
}

async fn torn(seed: u64, servers: usize) {
    let cluster = start(seed, servers).await;
    let begun = cluster.now();
    progresses(&cluster, &cluster.live_servers(), "whole").await;
    for label in ["first", "second", "third"] {
        black_out(&cluster, label).await;
        light_up(&cluster, label).await;
    }
    TORN.fetch_add(doubts(&cluster), Ordering::Relaxed);
    judge(&cluster, begun).await;
}

/// Of one server the last group rots, which it had acknowledged and not sealed.
async fn rotten(seed: u64, servers: usize) {
    let cluster = start(seed, servers).await;
    let begun = cluster.now();
    progresses(&cluster, &cluster.live_servers(), "whole").await;
    for label in ["first", "second"] {
        black_out(&cluster, label).await;
        let victim = usize::try_from(seed).expect("small") % servers;
        cluster.rot_end(victim);
        let before = doubts(&cluster);
        light_up(&cluster, label).await;
        assert!(doubts(&cluster) > before, "{label}: the rot is noticed");
    }
    judge(&cluster, begun).await;
}

#[test]
fn after_a_power_cut_of_all_servers_with_torn_logs_they_elect_and_lose_nothing() {
    simulate("doubt", &[1], |seed| torn(seed, 3));
    simulate("doubt", &[3], |seed| torn(seed, 5));
    simulate("doubt", &[4], |seed| torn(seed, 1));
    assert!(TORN.load(Ordering::Relaxed) > 0, "no log was torn: nothing was tested");
}

#[test]
fn rot_in_the_unsealed_end_of_one_log_loses_nothing_acknowledged() {
    simulate("doubt", &[11], |seed| rotten(seed, 3));
    simulate("doubt", &[14], |seed| rotten(seed, 5));
}

#[test]
fn a_follower_with_a_rotten_end_is_healed_by_the_live_leader() {
    simulate("doubt", &[21], |seed| async move {
        let cluster = start(seed, 3).await;
        let begun = cluster.now();
        let leader = cluster.await_leader(ELECTED_MAX).await;
        let follower = (leader + 1) % 3;
        progresses(&cluster, &cluster.live_servers(), "whole").await;
        cluster.kill(follower);
        cluster.rot_end(follower);
        cluster.restart(follower);
        progresses(&cluster, &cluster.live_servers(), "healed").await;
        assert!(doubts(&cluster) > 0, "the rot is noticed");
        assert!(!cluster.is_in_doubt(follower), "the leader has settled it");
        judge(&cluster, begun).await;
    });
}
