//! Clusters of 1 to 7 servers: with the tolerated number of them lost the cluster works, with one
//! more lost it stops, and when they return nothing is lost, invented or done twice.
//!
//! With n servers T = n - (n / 2 + 1) may be lost. Each run takes the power of T servers at once,
//! restarts them, takes the power of T + 1, restarts one (which is enough), then the rest.

use std::rc::Rc;
use std::time::Duration;

use cronclave::jobs::State;
use cronclave::node::io::Event;
use cronclave::time::{Mono, Wall};
use cronclave_sim::check::{self, Verdict};
use cronclave_sim::client::{self, Tally, hammer, job, put_surely, read_surely, total};
use cronclave_sim::cluster::{Cluster, Happened, Shape, Traced};
use cronclave_sim::seed::simulate;
use madsim::time::sleep;

/// Ten times the longest election timeout: in that time a quorum elects.
const ELECTED_MAX: Duration = Duration::from_millis(2_500);

/// The lease, and the time that messages under way take: after it a leader without quorum is none.
const LEASE_OVER: Duration = Duration::from_millis(1_000);

/// A cold start: gossip, pledges, the first election.
const FOUNDED_MAX: Duration = Duration::from_secs(20);

const PERIOD: Duration = Duration::from_secs(1);

/// Cluster time follows the median of clocks that are some milliseconds apart.
const TOLERANCE: Duration = Duration::from_millis(20);

/// Whether the leader is among the lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leader {
    Lost,
    Spared,
}

/// Takes the power of `count` servers at once, and asserts where the leader is at that instant.
async fn strike(cluster: &Cluster, count: usize, place: Leader) -> Vec<usize> {
    let leader = cluster.await_leader(ELECTED_MAX).await;
    let others = cluster.live_servers().into_iter().filter(|&host| host != leader);
    let struck: Vec<usize> = match place {
        Leader::Lost => std::iter::once(leader).chain(others).take(count).collect(),
        Leader::Spared => others.take(count).collect(),
    };
    assert_eq!(struck.len(), count, "enough servers of the wanted kind");
    assert_eq!(cluster.leader().await, Some(leader), "the leader at the instant of the fault");
    for &host in &struck {
        cluster.kill(host);
    }
    struck
}

/// The cluster works: it elects in time, acknowledges, answers reads, and what is due runs.
async fn progresses(cluster: &Rc<Cluster>, label: &str) {
    let since = cluster.now();
    cluster.await_leader(ELECTED_MAX).await;
    let live = cluster.live_servers();
    let count = 150_usize.div_ceil(live.len());
    let pause = Duration::from_millis(3_000) / u32::try_from(count).expect("a small number");
    let tallies = hammer(cluster, &live, count, pause, label).await;
    let Tally { written, read, silent, .. } = total(&tallies);
    let told = format!("{label}: {tallies:?}");
    assert!(written >= 50, "at least 50 writes are acknowledged: {told}");
    assert!(read >= 50, "at least 50 reads are answered: {told}");
    assert_eq!(silent, 0, "every request is answered: {told}");
    sleep(Duration::from_secs(2)).await;
    let starts = cluster.ledger().starts_since(since).count();
    assert!(starts >= 3, "{label}: {starts} starts in 5 s of a job that is due every second");
}

/// The cluster stands still: nothing is acknowledged, no fresh read is answered, nothing starts.
async fn stands_still(cluster: &Rc<Cluster>, label: &str) {
    sleep(LEASE_OVER).await;
    let since = cluster.now();
    let live = cluster.live_servers();
    for &host in &live {
        let status = cluster.status(host).await.expect("a live node answers");
        assert_eq!(status.leader, None, "host-{} names no leader", host + 1);
    }
    let tallies = hammer(cluster, &live, 100, Duration::from_millis(50), label).await;
    for (host, tally) in &tallies {
        let told = format!("{label}: host-{} {tally:?}", host + 1);
        assert_eq!(tally.attempts(), 100, "{told}");
        assert_eq!((tally.written, tally.read), (0, 0), "nothing is granted: {told}");
        assert_eq!(tally.silent, 0, "every request is answered: {told}");
    }
    if live.is_empty() {
        sleep(Duration::from_secs(5)).await;
    }
    let started = cluster.ledger().starts_since(since).count();
    assert_eq!(started, 0, "{label}: nothing starts without a quorum");
}

/// Every verdict on the whole run.
async fn judge(cluster: &Rc<Cluster>, begun: Mono) -> Vec<Verdict> {
    // What ended last is booked by then.
    sleep(Duration::from_secs(2)).await;
    let state = read_surely(cluster).await.state;
    let ledger = cluster.ledger();
    let tick = state.job(&job("tick", "").name).expect("the job is there").clone();
    assert!(cluster.wall().saturating_since(tick.cursor) < PERIOD * 2, "the cursor is up to date");
    assert!(cluster.now().saturating_since(begun) > PERIOD * 10, "the run was long enough");
    let rows = client::rows(&state, &tick.spec.name);
    let won = cluster.events().into_iter().filter_map(|Happened { host, event, .. }| match event {
        Event::LeadershipWon(term) => Some((term, host)),
        _ => None,
    });
    let starts = starts_with_rows(&state, cluster);
    let mut verdicts = vec![
        check::durability(&ledger.acknowledged, &ledger.refused, &client::present(&state)),
        check::started_once(&ledger.starts),
        check::nothing_early(&ledger.starts, TOLERANCE),
        check::one_row_an_instant(&rows, tick.anchor, PERIOD, tick.cursor),
        check::rows_match_starts(&rows, &starts),
        check::one_leader_a_term(won),
    ];
    if cluster.servers().len() > 1 {
        let samples = client::sample_states(cluster, 10, Duration::from_millis(170)).await;
        verdicts.push(check::equal_states(&samples));
    }
    verdicts
}

/// The starts up to the cursor of `state`; later ones have their rows in a later state.
fn starts_with_rows(state: &State, cluster: &Cluster) -> Vec<cronclave_sim::ledger::Start> {
    let cursor: Option<Wall> = state.jobs().map(|job| job.cursor).max();
    let starts = cluster.ledger().starts.into_iter();
    starts.filter(|start| Some(start.due) <= cursor).collect()
}

async fn lose_and_return(seed: u64, size: usize, place: Leader) {
    let shape = Shape { seed, servers: size, agents: 1, traced: Traced::No };
    let cluster = Rc::new(Cluster::start(shape));
    cluster.await_leader(FOUNDED_MAX).await;
    let begun = cluster.now();
    put_surely(&cluster, &job("tick", "@every 1s")).await;
    progresses(&cluster, "whole").await;

    let tolerated = size - (size / 2 + 1);
    let struck = strike(&cluster, tolerated, place).await;
    progresses(&cluster, "tolerated").await;
    struck.iter().for_each(|&host| cluster.restart(host));
    sleep(Duration::from_secs(2)).await;

    let struck = strike(&cluster, tolerated + 1, place).await;
    stands_still(&cluster, "beyond").await;
    let (first, rest) = struck.split_first().expect("at least one server was struck");
    cluster.restart(*first);
    sleep(Duration::from_millis(500)).await;
    progresses(&cluster, "returned").await;
    rest.iter().for_each(|&host| cluster.restart(host));
    progresses(&cluster, "healed").await;

    let verdicts = judge(&cluster, begun).await;
    println!(
        "{size} servers, leader {place:?}: until {}, {} turns",
        cluster.now(),
        cluster.turns()
    );
    for Verdict { checker, comparisons, .. } in &verdicts {
        println!("  {checker}: {comparisons} comparisons");
    }
    let mut complaints = check::complaints(&verdicts);
    complaints.extend(cluster.halts().iter().map(|(host, reason)| format!("{host}: {reason}")));
    if !complaints.is_empty() {
        cluster.tell();
    }
    assert_eq!(complaints, Vec::<String>::new());
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
