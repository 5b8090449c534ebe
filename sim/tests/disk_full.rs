//! Disks without space: whoever has some leads, who has none starts and acknowledges nothing, and
//! when there is space again all go on where they stood, without a restart.

use std::rc::Rc;
use std::time::Duration;

use cronclave::node::io::Event;
use cronclave::node::request::RequestError;
use cronclave_sim::client::{Fate, Seen, Tally, hammer, job, put, put_surely, read};
use cronclave_sim::cluster::{Cluster, Shape, Traced};
use cronclave_sim::seed::simulate;
use cronclave_sim::verdict::{ELECTED_MAX, FOUNDED_MAX, PERIOD, TICK, judge, progresses};
use madsim::time::sleep;

/// How many requests are made of a server with a full disk, half of them writes.
const REQUESTS: usize = 40;

/// How long a full disk may go unnoticed: until something is due and written, and it is told.
const NOTICED_MAX: Duration = Duration::from_secs(3);

async fn start(seed: u64, servers: usize) -> Rc<Cluster> {
    let shape = Shape { seed, servers, agents: 1, traced: Traced::No };
    let cluster = Rc::new(Cluster::start(shape));
    cluster.await_leader(FOUNDED_MAX).await;
    put_surely(&cluster, &job(TICK, "@every 1s")).await;
    progresses(&cluster, &cluster.live_servers(), "whole").await;
    cluster
}

/// Waits until the node on `host` says that its disk is full.
async fn noticed(cluster: &Rc<Cluster>, host: usize) {
    let until = cluster.now() + NOTICED_MAX;
    loop {
        let status = cluster.status(host).await.expect("a live node answers");
        if status.disk_full.is_some() {
            return;
        }
        assert!(cluster.now() < until, "host-{} has not noticed its full disk", host + 1);
        sleep(Duration::from_millis(50)).await;
    }
}

/// The server stays leader: it refuses writes by name, whoever passes them on, and serves reads,
/// and nothing starts.
async fn refuses(cluster: &Rc<Cluster>, leader: usize, via: &[usize], label: &str) {
    // A claim that was under way when the disk was full is not booked, and may still run.
    sleep(PERIOD).await;
    let since = cluster.now();
    let text = RequestError::DiskFull(format!("server host-{} cannot write", leader + 1));
    for &host in via {
        let fate = put(cluster, host, job(&format!("{label}-refused-{host}"), "@manually")).await;
        let is_named = matches!(&fate, Fate::Refused(why) if why.starts_with(&text.to_string()));
        assert!(is_named, "{label}: through host-{}: {fate:?}", host + 1);
    }
    let pause = Duration::from_millis(50);
    let tallies = hammer(cluster, via, REQUESTS, pause, label).await;
    let half = REQUESTS / 2;
    let wanted = Tally { read: half, refused: half, ..Tally::default() };
    for host in via {
        assert_eq!(tallies[host], wanted, "{label}: reads go on and writes are refused");
    }
    assert_eq!(cluster.leader().await, Some(leader), "{label}: it leads on");
    let started = cluster.ledger().starts_since(since).count();
    assert_eq!(started, 0, "{label}: nothing is claimed");
}

async fn free(cluster: &Rc<Cluster>, hosts: &[usize]) {
    hosts.iter().for_each(|&host| cluster.free_disk(host));
    sleep(Duration::from_secs(1)).await;
    for &host in hosts {
        let status = cluster.status(host).await.expect("a live node answers");
        assert_eq!(status.disk_full, None, "host-{} has space", host + 1);
    }
}

async fn a_leader_without_space(seed: u64, servers: usize) {
    let cluster = start(seed, servers).await;
    let begun = cluster.now();
    let full = cluster.await_leader(ELECTED_MAX).await;
    cluster.fill_disk(full);
    noticed(&cluster, full).await;
    sleep(ELECTED_MAX).await;
    let successor = cluster.await_leader(ELECTED_MAX).await;
    assert_ne!(successor, full, "one with space leads");
    let others: Vec<usize> = cluster.servers().filter(|&host| host != full).collect();
    progresses(&cluster, &others, "others").await;
    // Clients of the full one are served through it.
    let pause = Duration::from_millis(50);
    let tallies = hammer(&cluster, &[full], REQUESTS, pause, "through").await;
    assert_eq!(tallies[&full].written, REQUESTS / 2, "{tallies:?}");
    assert_eq!(tallies[&full].silent, 0, "{tallies:?}");
    free(&cluster, &[full]).await;
    progresses(&cluster, &cluster.live_servers(), "free").await;
    judge(&cluster, begun).await;
}

/// `count` disks are full, that of the leader among them, and no quorum is left without them.
async fn no_quorum_with_space(seed: u64, servers: usize, count: usize) {
    let cluster = start(seed, servers).await;
    let begun = cluster.now();
    let leader = cluster.await_leader(ELECTED_MAX).await;
    let others = cluster.servers().filter(|&host| host != leader);
    // The others first: the leader must never see a quorum that could do without it.
    let full: Vec<usize> = others.take(count - 1).chain([leader]).collect();
    for &host in &full {
        cluster.fill_disk(host);
        noticed(&cluster, host).await;
    }
    let has_space = |host: &usize| !full.contains(host);
    let via: Vec<usize> = cluster.servers().filter(has_space).chain([leader]).collect();
    refuses(&cluster, leader, &via, "full").await;
    sleep(Duration::from_secs(30)).await;
    refuses(&cluster, leader, &via, "still").await;
    free(&cluster, &full).await;
    progresses(&cluster, &cluster.live_servers(), "free").await;
    judge(&cluster, begun).await;
}

#[test]
fn a_lone_server_refuses_writes_and_goes_on_when_there_is_space() {
    simulate("disk_full", &[1, 2], |seed| no_quorum_with_space(seed, 1, 1));
}

#[test]
fn a_full_leader_of_two_is_not_replaced_since_nobody_could_elect_another() {
    simulate("disk_full", &[1], |seed| no_quorum_with_space(seed, 2, 1));
}

#[test]
fn two_full_disks_of_three_leave_no_quorum_to_hand_over_to() {
    simulate("disk_full", &[1], |seed| no_quorum_with_space(seed, 3, 2));
}

#[test]
fn three_full_disks_of_five_leave_no_quorum_to_hand_over_to() {
    simulate("disk_full", &[1], |seed| no_quorum_with_space(seed, 5, 3));
}

#[test]
fn a_full_leader_of_three_hands_over_and_passes_its_clients_on() {
    simulate("disk_full", &[1, 2], |seed| a_leader_without_space(seed, 3));
}

#[test]
fn a_full_leader_of_five_hands_over_and_passes_its_clients_on() {
    simulate("disk_full", &[1], |seed| a_leader_without_space(seed, 5));
}

#[test]
fn with_one_full_and_the_leader_dead_a_cluster_of_three_waits_for_space_or_for_the_dead() {
    simulate("disk_full", &[1], |seed| async move {
        let cluster = start(seed, 3).await;
        let begun = cluster.now();
        let leader = cluster.await_leader(ELECTED_MAX).await;
        let full = (leader + 1) % 3;
        cluster.fill_disk(full);
        noticed(&cluster, full).await;
        progresses(&cluster, &[leader, (leader + 2) % 3], "one-full").await;
        cluster.kill(leader);
        sleep(ELECTED_MAX * 2).await;
        assert_eq!(cluster.leader().await, None, "a full server cannot vote");
        free(&cluster, &[full]).await;
        progresses(&cluster, &cluster.live_servers(), "free").await;
        cluster.restart(leader);
        progresses(&cluster, &cluster.live_servers(), "healed").await;
        judge(&cluster, begun).await;
    });
}

#[test]
fn an_agent_without_space_starts_nothing_and_reports_what_ended_meanwhile() {
    simulate("disk_full", &[1], |seed| async move {
        let cluster = start(seed, 3).await;
        let begun = cluster.now();
        let agent = 3;
        cluster.fill_disk(agent);
        noticed(&cluster, agent).await;
        let since = cluster.now();
        sleep(Duration::from_secs(10)).await;
        let started = cluster.ledger().starts_since(since).count();
        assert_eq!(started, 0, "nothing starts that is not in its journal");
        let leader = cluster.await_leader(ELECTED_MAX).await;
        assert!(matches!(read(&cluster, leader).await, Seen::View(_)));
        free(&cluster, &[agent]).await;
        // The leader repeats an order after 5 s.
        sleep(Duration::from_secs(6)).await;
        progresses(&cluster, &cluster.live_servers(), "free").await;
        let told = |wanted: &Event| cluster.events().iter().any(|told| told.event == *wanted);
        assert!(told(&Event::DiskFree), "it says that it goes on");
        judge(&cluster, begun).await;
    });
}
