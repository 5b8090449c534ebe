//! The verdicts on a cluster under faults: it works, it stands still, it has lost nothing.

use std::rc::Rc;
use std::time::Duration;

use cronclave::node::io::Event;
use cronclave::time::Mono;
use madsim::time::sleep;

use crate::check::{self, Verdict};
use crate::client::{self, Tally, hammer, job, read_surely, total};
use crate::cluster::{Cluster, Happened};

/// Ten times the longest election timeout: in that time a quorum elects.
pub const ELECTED_MAX: Duration = Duration::from_millis(2_500);

/// The lease, and the time that messages under way take: after it a leader without quorum is none.
pub const LEASE_OVER: Duration = Duration::from_millis(1_000);

/// A cold start: gossip, pledges, the first election.
pub const FOUNDED_MAX: Duration = Duration::from_secs(20);

/// How often the job of [`TICK`] is due.
pub const PERIOD: Duration = Duration::from_secs(1);

/// The name of the job that is due every [`PERIOD`].
pub const TICK: &str = "tick";

/// Cluster time follows the median of clocks that are some milliseconds apart.
pub const EARLY_MAX: Duration = Duration::from_millis(20);

/// How many writes and reads must be granted for a cluster to count as working.
const GRANTED_MIN: usize = 50;

/// How many attempts each server gets while nothing may be granted.
const ATTEMPTS: usize = 100;

/// `hosts` have a quorum: they elect in time, acknowledge, and answer reads, and what is due runs.
///
/// # Panics
/// If they do not.
pub async fn progresses(cluster: &Rc<Cluster>, hosts: &[usize], label: &str) {
    let since = cluster.now();
    cluster.await_leader(ELECTED_MAX).await;
    let count = (3 * GRANTED_MIN).div_ceil(hosts.len());
    let pause = Duration::from_secs(3) / u32::try_from(count).expect("a small number");
    let tallies = hammer(cluster, hosts, count, pause, label).await;
    let Tally { written, read, silent, .. } = total(&tallies);
    let told = format!("{label}: {tallies:?}");
    assert!(written >= GRANTED_MIN, "at least {GRANTED_MIN} writes are acknowledged: {told}");
    assert!(read >= GRANTED_MIN, "at least {GRANTED_MIN} reads are answered: {told}");
    assert_eq!(silent, 0, "every request is answered: {told}");
    sleep(PERIOD * 2).await;
    let starts = cluster.ledger().starts_since(since).count();
    assert!(starts >= 3, "{label}: {starts} starts in 5 s of a job that is due every second");
}

/// `hosts` are without a quorum, and their lease is over: they name no leader, acknowledge nothing,
/// and answer no fresh read.
///
/// # Panics
/// If they do.
pub async fn grants_nothing(cluster: &Rc<Cluster>, hosts: &[usize], label: &str) {
    for &host in hosts {
        let status = cluster.status(host).await.expect("a live node answers");
        assert_eq!(status.leader, None, "{label}: host-{} names no leader", host + 1);
    }
    let pause = Duration::from_millis(50);
    let tallies = hammer(cluster, hosts, ATTEMPTS, pause, label).await;
    for (host, tally) in &tallies {
        let told = format!("{label}: host-{} {tally:?}", host + 1);
        assert_eq!(tally.attempts(), ATTEMPTS, "{told}");
        assert_eq!((tally.written, tally.read), (0, 0), "nothing is granted: {told}");
        assert_eq!(tally.silent, 0, "every request is answered: {told}");
    }
}

/// No server has a quorum: none grants anything, and no process starts anywhere.
///
/// # Panics
/// If one does.
pub async fn stands_still(cluster: &Rc<Cluster>, label: &str) {
    sleep(LEASE_OVER).await;
    let since = cluster.now();
    grants_nothing(cluster, &cluster.live_servers(), label).await;
    if cluster.live_servers().is_empty() {
        sleep(PERIOD * 5).await;
    }
    let started = cluster.ledger().starts_since(since).count();
    assert_eq!(started, 0, "{label}: nothing starts without a quorum");
}

/// Judges a whole run in which no agent died: nothing acknowledged is lost, nothing refused is
/// there, and [`TICK`] has run for each of its instants exactly once.
///
/// # Panics
/// If anything does not hold.
#[expect(clippy::print_stdout, reason = "the test harness shows it if the test fails")]
pub async fn judge(cluster: &Rc<Cluster>, begun: Mono) {
    // What ended last is booked by then.
    sleep(PERIOD * 2).await;
    let state = read_surely(cluster).await.state;
    let ledger = cluster.ledger();
    let tick = state.job(&job(TICK, "").name).expect("the job is there").clone();
    let lag = cluster.wall().saturating_since(tick.cursor);
    assert!(lag < PERIOD * 2, "the cursor is {lag:?} behind");
    let span = cluster.now().saturating_since(begun);
    assert!(span > PERIOD * 10, "the run was only {span:?} long");
    let rows = client::rows(cluster, &tick.spec.name, tick.cursor).await;
    let won = cluster.events().into_iter().filter_map(|Happened { host, event, .. }| {
        if let Event::LeadershipWon(term) = event { Some((term, host)) } else { None }
    });
    // Later starts have their rows in a later state.
    let mut starts = ledger.starts.clone();
    starts.retain(|start| start.due <= tick.cursor);
    let mut verdicts = vec![
        check::durability(&ledger.acknowledged, &ledger.refused, &client::present(&state)),
        check::started_once(&ledger.starts),
        check::nothing_early(&ledger.starts, EARLY_MAX),
        check::one_row_an_instant(&rows, tick.anchor, PERIOD, tick.cursor),
        check::rows_match_starts(&rows, &starts),
        check::one_leader_a_term(won),
    ];
    if cluster.servers().len() > 1 {
        let samples = client::sample_states(cluster, 10, Duration::from_millis(170)).await;
        verdicts.push(check::equal_states(&samples));
        let samples = client::sample_histories(cluster, 10, Duration::from_millis(170)).await;
        verdicts.push(check::equal_histories(&samples));
    }
    let mut complaints = check::complaints(&verdicts);
    let halts = cluster.halts();
    complaints.extend(halts.iter().map(|(host, why)| format!("host-{} halted: {why}", host + 1)));
    if !complaints.is_empty() {
        cluster.tell();
    }
    for Verdict { checker, comparisons, .. } in &verdicts {
        println!("{checker}: {comparisons} comparisons");
    }
    assert_eq!(complaints, Vec::<String>::new());
}
