//! Snapshots on real files: made under load, brought to a server that lags, killed in the middle.

use std::fs;
use std::path::PathBuf;

use crate::cluster::{Cluster, lines, ticking, wait};
use crate::load::{Client, Load};

/// A snapshot after a few jobs of [`TEXT_LEN`] bytes, and next to no log behind it.
const SMALL: [&str; 8] = [
    "--snapshot-after",
    "64KiB",
    "--log-keep-size",
    "16KiB",
    "--log-keep-entries",
    "20",
    "--log-max-size",
    "1MiB",
];

/// The text of each job that a client writes.
const TEXT_LEN: usize = 2_000;

fn load(cluster: &Cluster, servers: &[usize]) -> Load {
    let urls: Vec<String> = servers.iter().map(|&s| cluster.url(s, "/v1/jobs")).collect();
    Load::of((0..2).map(|number| Client { number, urls: urls.clone(), text_len: TEXT_LEN }))
}

fn snapshot_dir(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.nodes[node].dir.join("data/snapshots")
}

/// The names of the files in a server's directory of snapshots.
fn snapshots(cluster: &Cluster, node: usize) -> Vec<String> {
    let Ok(files) = fs::read_dir(snapshot_dir(cluster, node)) else { return Vec::new() };
    let mut names: Vec<String> =
        files.filter_map(|file| file.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The index of the newest snapshot of a server.
fn newest(cluster: &Cluster, node: usize) -> Option<u64> {
    let index = |name: &String| name.strip_suffix(".snap")?.parse().ok();
    snapshots(cluster, node).iter().filter_map(index).max()
}

fn await_snapshot_beyond(cluster: &Cluster, node: usize, index: u64) {
    wait("a snapshot", || newest(cluster, node).filter(|newest| *newest > index));
}

#[test]
fn a_server_that_lags_is_brought_a_snapshot_with_the_history_whoever_is_killed_meanwhile() {
    let mut cluster = Cluster::start_with(3, 1, &SMALL);
    let file = cluster.path("dues");
    cluster.put_job(0, &ticking("tick", &file, ("kind", "agent")));
    let mut load = load(&cluster, &[0, 1, 2]);
    for round in 0..4 {
        let leader = cluster.leader();
        let (late, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let before = newest(&cluster, late).unwrap_or(0);
        cluster.kill(late);
        let base = newest(&cluster, leader).unwrap_or(0).max(before);
        await_snapshot_beyond(&cluster, leader, base);
        // Once more, so that what the late one needs is gone from the log.
        await_snapshot_beyond(&cluster, leader, newest(&cluster, leader).unwrap_or(0));
        cluster.spawn(late);
        let victim = [None, Some(late), Some(leader), Some(other)][round];
        wait("the snapshot to come in", || {
            let names = snapshots(&cluster, late);
            let begun = names.iter().any(|name| name.starts_with("incoming"));
            (begun || newest(&cluster, late) > Some(before)).then_some(())
        });
        if let Some(victim) = victim {
            cluster.kill(victim);
            cluster.spawn(victim);
        }
        await_snapshot_beyond(&cluster, late, base);
        wait("a leader of all three", || cluster.agreed_leader(3));
        load.await_more(1);
        load.check_beside(&cluster, late, &["tick"]);
    }
    load.stop();
    load.check_beside(&cluster, 0, &["tick"]);
    assert!(load.acknowledged() > 100, "{} writes were acknowledged", load.acknowledged());
    let ran = lines(&file).len();
    wait("two more runs", || (lines(&file).len() > ran + 1).then_some(()));
    let leader = cluster.leader();
    let rows = cluster.finish_job(leader, "tick");
    // Every server has every row: those that it applied, and those that came in a snapshot.
    for server in 0..3 {
        let held = wait("its rows", || cluster.rows(server, "tick"));
        assert_eq!(held.len(), rows.len(), "s{server}");
    }
    assert!(rows.len() >= lines(&file).len(), "each run has its row");
}

#[test]
fn a_server_that_is_killed_while_it_makes_snapshots_starts_again_with_all_it_had() {
    let mut cluster = Cluster::start_with(1, 0, &SMALL);
    let mut load = load(&cluster, &[0]);
    for _ in 0..8 {
        let before = newest(&cluster, 0).unwrap_or(0);
        // In the middle of one, if that can be seen, or right after it.
        wait("a snapshot to be made", || {
            let names = snapshots(&cluster, 0);
            let begun = names.iter().any(|name| name.starts_with("build"));
            (begun || newest(&cluster, 0) > Some(before)).then_some(())
        });
        cluster.kill(0);
        cluster.spawn(0);
        wait("a leader", || cluster.agreed_leader(1));
        load.check(&cluster, 0);
        let names = snapshots(&cluster, 0);
        assert!(names.len() <= 3, "no leftovers pile up: {names:?}");
        load.await_more(20);
    }
    load.stop();
    load.check(&cluster, 0);
}

#[test]
fn a_history_that_was_moved_away_is_made_anew_from_the_snapshot() {
    let mut cluster = Cluster::start_with(1, 1, &SMALL);
    let file = cluster.path("dues");
    cluster.put_job(0, &ticking("tick", &file, ("kind", "agent")));
    wait("three runs", || (lines(&file).len() >= 3).then_some(()));
    let mut load = load(&cluster, &[0]);
    await_snapshot_beyond(&cluster, 0, newest(&cluster, 0).unwrap_or(0));
    await_snapshot_beyond(&cluster, 0, newest(&cluster, 0).unwrap_or(0));
    load.stop();
    let before = cluster.finish_job(0, "tick").len();
    cluster.kill(0);
    let history = cluster.nodes[0].dir.join("data/history");
    fs::rename(&history, cluster.path("history-moved-away")).unwrap();
    cluster.spawn(0);
    wait("a leader", || cluster.agreed_leader(1));
    let after = wait("its rows", || cluster.rows(0, "tick")).len();
    assert_eq!(after, before, "{}", cluster.log(0));
    assert!(cluster.log(0).contains("made anew"), "it says so");
}
