//! Servers that lag behind the log and are brought a snapshot, while servers die in the middle of
//! it: nothing is lost, and all hold the same in the end.

use std::rc::Rc;
use std::time::Duration;

use cronclave::consensus::LogBounds;
use cronclave::jobs::job::JobSpec;
use cronclave_sim::client::{job, put_surely};
use cronclave_sim::cluster::{Cluster, Shape, SnapshotCounts, Traced};
use cronclave_sim::seed::simulate;
use cronclave_sim::verdict::{ELECTED_MAX, FOUNDED_MAX, TICK, judge, progresses};
use madsim::time::sleep;

/// A snapshot comes after a few jobs of [`large`], and the log behind it goes.
const LOG: LogBounds = LogBounds {
    snapshot_after_bytes: 100_000,
    keep_bytes: 20_000,
    keep_entries: 50,
    bytes_max: 4 << 20,
};

/// A chunk of a snapshot has to come within this time.
const CHUNK_MAX: Duration = Duration::from_secs(5);

/// Who dies while a snapshot is on its way.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Receiver,
    Sender,
    Nobody,
}

/// A job of 50 kB, so that a few make a snapshot of several chunks.
fn large(name: &str) -> JobSpec {
    let mut spec = job(name, "@manually");
    spec.executor_config.insert("command".to_owned(), "x".repeat(50_000));
    spec
}

/// Cuts a follower off until its log is gone elsewhere, then lets it back.
async fn lag(cluster: &Rc<Cluster>, round: usize) -> (usize, usize) {
    let leader = cluster.await_leader(ELECTED_MAX).await;
    let late = cluster.servers().find(|&host| host != leader).expect("there are three servers");
    cluster.isolate(late);
    let before = cluster.snapshots().built;
    for number in 0..12 {
        // The servers that run include the one that is cut off, and it refuses.
        put_surely(cluster, &large(&format!("large-{round}-{number}"))).await;
    }
    assert!(cluster.snapshots().built > before, "the leader has a new snapshot");
    cluster.reconnect(late);
    (leader, late)
}

async fn await_chunk(cluster: &Rc<Cluster>, before: SnapshotCounts) {
    let until = cluster.now() + CHUNK_MAX;
    while cluster.snapshots().received == before.received {
        assert!(cluster.now() < until, "no chunk of a snapshot has come in");
        sleep(Duration::from_millis(1)).await;
    }
}

async fn run(seed: u64) {
    let shape = Shape { seed, servers: 3, agents: 1, traced: Traced::No };
    let cluster = Rc::new(Cluster::start_with(shape, LOG));
    cluster.await_leader(FOUNDED_MAX).await;
    let begun = cluster.now();
    put_surely(&cluster, &job(TICK, "@every 1s")).await;
    for (round, victim) in
        [Victim::Receiver, Victim::Sender, Victim::Nobody].into_iter().enumerate()
    {
        let before = cluster.snapshots();
        let (leader, late) = lag(&cluster, round).await;
        await_chunk(&cluster, before).await;
        let struck = match victim {
            Victim::Receiver => Some(late),
            Victim::Sender => Some(leader),
            Victim::Nobody => None,
        };
        if let Some(host) = struck {
            cluster.kill(host);
            sleep(cluster.draw(Duration::ZERO..Duration::from_secs(2))).await;
            cluster.restart(host);
        }
        sleep(Duration::from_secs(3)).await;
        progresses(&cluster, &cluster.live_servers(), &format!("round-{round}")).await;
        assert!(cluster.snapshots().installed > before.installed, "{victim:?}: it is installed");
    }
    judge(&cluster, begun).await;
}

#[test]
fn a_server_that_lags_is_brought_a_snapshot_whoever_dies_meanwhile() {
    simulate("snapshots", &[1, 2], run);
}
