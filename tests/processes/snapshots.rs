//! Kills that meet a snapshot while it is written, sent or installed: nothing that was acknowledged
//! is lost, and whoever lags behind the log gets there by the next attempt.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, PATIENCE, poll, wait};
use crate::load::{Client, Load};

/// Snapshots that are due after some dozens of writes, and no log behind them: a server that
/// misses those writes needs a snapshot.
const OFTEN: [&str; 6] =
    ["--snapshot-after", "64KiB", "--log-keep-size", "0", "--log-keep-entries", "0"];

/// How often the lagging server dies while it catches up, and how much later in it each time. Each
/// snapshot is about twice as long as the one before, since jobs are only added.
const KILLS: u32 = 6;
const STEP: Duration = Duration::from_millis(50);

/// How often the server that writes snapshots dies.
const WRITER_KILLS: u32 = 10;

/// Clients whose writes fill the log quickly: one for each server.
fn load(cluster: &Cluster, servers: &[usize]) -> Load {
    Load::of(servers.iter().enumerate().map(|(number, &server)| Client {
        number,
        urls: vec![cluster.url(server, "/v1/jobs")],
        text_len: 4_000,
    }))
}

/// The index that the newest snapshot of a server covers; 0 without one.
fn covered(cluster: &Cluster, server: usize) -> u64 {
    let index = |path: PathBuf| {
        path.extension().filter(|end| *end == "snap")?;
        path.file_stem()?.to_str()?.parse().ok()
    };
    files(cluster, server).into_iter().filter_map(index).max().unwrap_or_default()
}

/// Whether a server is writing a snapshot.
fn is_writing(cluster: &Cluster, server: usize) -> bool {
    let is_half = |path: PathBuf| path.extension().is_none_or(|end| end != "snap");
    files(cluster, server).into_iter().any(is_half)
}

fn files(cluster: &Cluster, server: usize) -> Vec<PathBuf> {
    let dir = cluster.nodes[server].dir.join("data/snapshots");
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// The last entry that a server has applied; 0 if it does not answer.
fn applied(cluster: &Cluster, server: usize) -> u64 {
    let status = cluster.status(server).unwrap_or_default();
    status["raft"]["applied_index"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[test]
fn a_server_that_dies_while_it_installs_snapshots_catches_up_in_the_end() {
    let mut cluster = Cluster::start_with(3, 0, &OFTEN);
    let leader = cluster.leader();
    let lagging = (leader + 1) % 3;
    let others = [leader, (leader + 2) % 3];
    let mut load = load(&cluster, &others);
    for kill in 0..KILLS {
        wait("the lagging server to be there", || cluster.status(lagging));
        poll(STEP * kill, || None::<()>);
        let newest = others.map(|other| covered(&cluster, other)).into_iter().max();
        let had = newest.max(Some(applied(&cluster, lagging))).unwrap_or_default();
        cluster.kill(lagging);
        // What it needs next is in no log any more.
        wait("snapshots beyond it", || {
            others.iter().all(|&other| covered(&cluster, other) > had).then_some(())
        });
        cluster.spawn(lagging);
    }
    load.stop();
    let wanted = applied(&cluster, others[0]);
    wait("the lagging server to catch up", || (applied(&cluster, lagging) >= wanted).then_some(()));
    assert!(covered(&cluster, lagging) > 0, "it has a snapshot of its own");
    cluster.settle(3, 0);
    (0..3).for_each(|server| load.check(&cluster, server));
    eprintln!("{KILLS} kills, {} writes acknowledged", load.acknowledged());
}

#[test]
fn a_server_that_dies_while_it_writes_snapshots_begins_with_the_last_whole_one() {
    let mut cluster = Cluster::start_with(1, 0, &OFTEN);
    let mut load = Load::of((0..3).map(|number| Client {
        number,
        urls: vec![cluster.url(0, "/v1/jobs")],
        text_len: 4_000,
    }));
    let (mut met, mut finished) = (0, 0);
    for kill in 0..WRITER_KILLS {
        let before = covered(&cluster, 0);
        let begun = Instant::now();
        // Half of the kills come while one is written, the others when it has its name. Without a
        // pause between two looks: it takes milliseconds.
        let is_time = || covered(&cluster, 0) > before || kill % 2 == 0 && is_writing(&cluster, 0);
        while !is_time() {
            assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for a snapshot");
            std::thread::yield_now();
        }
        cluster.kill(0);
        met += usize::from(is_writing(&cluster, 0));
        finished += usize::from(covered(&cluster, 0) > before);
        cluster.spawn(0);
        load.await_more(3);
    }
    load.stop();
    load.check(&cluster, 0);
    let written = load.acknowledged();
    eprintln!("{met} kills met a snapshot, {finished} came after; {written} writes acknowledged");
}
