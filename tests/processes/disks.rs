//! What a server does about its disk: one that is full, and one that has changed what it holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cluster::{Cluster, PATIENCE, assert_every_second, lines, poll, ticking, wait};
use crate::load::{Client, Load, all_jobs, job};
use crate::small_disk::{SmallDisk, has_own_mounts};

/// Segments so small that a test sees many of them.
const SMALL_SEGMENTS: [&str; 2] = ["--log-segment-size", "1MiB"];

/// The size of a small disk, in mebibytes.
const DISK_LEN: usize = 24;

/// The text of a job that soon fills what is left of a segment.
const TEXT_LEN: usize = 60_000;

/// How many such jobs fill the space that was given to segments before a disk was full.
const WRITES_MAX: usize = 200;

/// How long a refusal may take: it needs no disk.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);

/// How long a server without space may take to stop.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// Jobs that were acknowledged, and those of which that is not known: text by name.
#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<String, String>,
    unknown: BTreeMap<String, String>,
}

impl Told {
    /// Stores jobs until the server says that its disk is full.
    fn write_until_refused(&mut self, cluster: &Cluster, label: &str) {
        for number in 0..WRITES_MAX {
            let name = format!("{label}-{number}");
            let text = format!("{name} {}", "x".repeat(TEXT_LEN));
            let body = job(&name, &text).to_string();
            let answer = cluster.post(0, "/v1/jobs", &body).expect("the server answers");
            match answer.status {
                201 => drop(self.acknowledged.insert(name, text)),
                // It was on its way to the disk when that was full.
                503 => {
                    assert_eq!(answer.json()["code"], "outcome_unknown", "{answer:?}");
                    assert!(answer.text.contains("the disk of server s0 is full"), "{answer:?}");
                    self.unknown.insert(name, text);
                }
                507 => return assert_names_the_disk(&answer.json()),
                _ => panic!("{answer:?}"),
            }
        }
        panic!("{WRITES_MAX} jobs of {TEXT_LEN} bytes are stored on a full disk");
    }

    /// All that was acknowledged is there, and nothing that nobody sent. What was under way counts
    /// as acknowledged from when it was seen.
    fn check(&self, cluster: &Cluster) {
        let found = all_jobs(cluster, 0);
        for (name, text) in &self.acknowledged {
            assert_eq!(found.get(name), Some(text), "{name} was acknowledged");
        }
        for (name, text) in found.iter().filter(|(name, _)| *name != "tick") {
            let sent = self.acknowledged.get(name).or(self.unknown.get(name));
            assert_eq!(sent, Some(text), "{name}");
        }
    }
}

fn assert_names_the_disk(answer: &Value) {
    assert_eq!(answer["code"], "disk_full", "{answer}");
    let text = answer["error"].as_str().unwrap_or_default();
    for part in ["server s0 cannot write", "free space on its disk"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn a_full_disk_refuses_writes_and_goes_on_when_there_is_space() {
    if !has_own_mounts("disks::a_full_disk_refuses_writes_and_goes_on_when_there_is_space") {
        return;
    }
    let mut cluster = Cluster::prepare(1, 0, &SMALL_SEGMENTS);
    let disk = SmallDisk::mount(&cluster.nodes[0].dir.join("data"), DISK_LEN);
    cluster.spawn(0);
    cluster.settle(1, 0);
    let file = cluster.path("dues");
    cluster.put_job(0, &ticking("tick", &file, ("dc", "dc1")));
    wait("a run", || (!lines(&file).is_empty()).then_some(()));
    let process = cluster.pid(0);

    let mut told = Told::default();
    disk.fill();
    told.write_until_refused(&cluster, "first");
    // What was claimed before may still run; nothing is claimed any more.
    poll(Duration::from_secs(1), || None::<()>);
    let ran = lines(&file).len();
    for number in 0..20 {
        let asked = Instant::now();
        let body = job(&format!("refused-{number}"), "").to_string();
        let answer = cluster.post(0, "/v1/jobs", &body).expect("the server answers");
        assert_eq!(answer.status, 507, "{answer:?}");
        assert_names_the_disk(&answer.json());
        assert!(asked.elapsed() <= REFUSED_WITHIN, "{:?}", asked.elapsed());
    }
    told.check(&cluster);
    let status = wait("its status", || cluster.status(0));
    let shown = status["agent"]["disk"].as_str().unwrap_or_default();
    assert!(shown.starts_with("full: "), "{status}");
    assert_eq!(cluster.get(0, "/health").map(|answer| answer.status), Some(200));
    assert!(cluster.log(0).contains("the disk is full"));
    poll(Duration::from_secs(3), || None::<()>);
    assert_eq!(lines(&file).len(), ran, "nothing starts that is not in the log");

    disk.free();
    wait("a write to be taken again", || {
        let answer = cluster.post(0, "/v1/jobs", &job("after", "after").to_string())?;
        assert!([201, 503, 507].contains(&answer.status), "{answer:?}");
        (answer.status == 201).then_some(())
    });
    told.acknowledged.insert("after".into(), "after".into());
    assert_eq!((cluster.pid(0), cluster.has_process(0)), (process, true), "it was not restarted");
    wait("a run", || (lines(&file).len() > ran).then_some(()));
    told.check(&cluster);

    disk.fill();
    told.write_until_refused(&cluster, "second");
    cluster.kill(0);
    disk.free();
    cluster.spawn(0);
    cluster.settle(1, 0);
    told.check(&cluster);
    cluster.put_job(0, &job("last", "last"));
    told.acknowledged.insert("last".into(), "last".into());
    // A change of the job may overtake what is due at that time: first what is late has to run.
    let ran = lines(&file).len();
    wait("two more runs", || (lines(&file).len() > ran + 1).then_some(()));
    // What fell due while there was no space ran late, and has its row like any other.
    let rows = cluster.finish_job(0, "tick");
    assert_every_second(&rows.iter().map(|row| row.due.clone()).collect::<Vec<_>>());
    let known = ["succeeded", "lost"];
    let other: Vec<_> = rows.iter().filter(|row| !known.contains(&&*row.outcome)).collect();
    assert!(other.is_empty(), "{other:?}");
    let mut ran = lines(&file);
    let all = ran.len();
    ran.sort_unstable();
    ran.dedup();
    assert_eq!(ran.len(), all, "nothing ran twice");
}

#[test]
fn a_server_without_space_stops_when_it_is_told_to_and_starts_when_there_is_some() {
    let name = "a_server_without_space_stops_when_it_is_told_to_and_starts_when_there_is_some";
    if !has_own_mounts(&format!("disks::{name}")) {
        return;
    }
    let mut cluster = Cluster::prepare(1, 0, &SMALL_SEGMENTS);
    let disk = SmallDisk::mount(&cluster.nodes[0].dir.join("data"), DISK_LEN);
    cluster.spawn(0);
    cluster.settle(1, 0);
    let mut told = Told::default();
    disk.fill();
    told.write_until_refused(&cluster, "job");
    cluster.signal(0, Signal::SIGTERM);
    let asked = Instant::now();
    assert_eq!(cluster.wait_exit(0).code(), Some(0));
    assert!(asked.elapsed() <= STOPPED_WITHIN, "{:?}", asked.elapsed());
    cluster.spawn(0);
    assert_eq!(cluster.wait_exit(0).code(), Some(1));
    let log = cluster.log(0);
    assert!(log.contains("No space left on device"), "{log}");
    disk.free();
    cluster.spawn(0);
    cluster.settle(1, 0);
    told.check(&cluster);
}

#[test]
fn a_cluster_goes_on_without_the_leader_whose_disk_is_full() {
    if !has_own_mounts("disks::a_cluster_goes_on_without_the_leader_whose_disk_is_full") {
        return;
    }
    let mut cluster = Cluster::prepare(3, 0, &SMALL_SEGMENTS);
    let disks: Vec<SmallDisk> = (0..3)
        .map(|server| SmallDisk::mount(&cluster.nodes[server].dir.join("data"), 2 * DISK_LEN))
        .collect();
    (0..3).for_each(|server| cluster.spawn(server));
    cluster.settle(3, 0);
    let mut load = Load::of((0..3).map(|number| Client {
        number,
        urls: vec![cluster.url(number, "/v1/jobs")],
        text_len: 4_000,
    }));
    load.await_more(20);
    let full = cluster.leader();
    disks[full].fill();
    let others = [(full + 1) % 3, (full + 2) % 3];
    let successor = wait("a leader with space", || {
        let status = cluster.status(others[0])?;
        let leader = status["raft"]["leader"].as_str()?;
        let leader = cluster.nodes.iter().position(|node| node.name == leader)?;
        (leader != full).then_some(leader)
    });
    let elected = Instant::now();
    let acknowledged = |server: usize| load.acknowledged_to(server);
    let before = [0, 1, 2].map(acknowledged);
    // The full one passes its clients' writes on.
    let all = || (0..3).all(|server| acknowledged(server) > before[server] + 4).then_some(());
    assert!(poll(PATIENCE, all).is_some(), "{before:?}, then {:?}", [0, 1, 2].map(acknowledged));
    eprintln!("every server acknowledged writes {:?} after the election", elected.elapsed());
    assert_ne!(successor, full);
    let members = wait("the members", || cluster.members(successor));
    let shown = members.iter().find(|member| member["Name"] == cluster.nodes[full].name.as_str());
    assert_eq!(shown.map(|member| &member["disk"]), Some(&Value::from("full")), "{members:?}");
    load.check(&cluster, successor);

    disks[full].free();
    load.stop();
    wait("a fresh read on the server that has space again", || {
        (cluster.get(full, "/v1/jobs?_end=1")?.status == 200).then_some(())
    });
    cluster.settle(3, 0);
    (0..3).for_each(|server| load.check(&cluster, server));
}

#[test]
fn a_segment_that_has_rotted_is_refused_with_the_way_out_and_nothing_is_changed() {
    let mut cluster = Cluster::start_with(1, 0, &SMALL_SEGMENTS);
    let dir = cluster.nodes[0].dir.join("data");
    let mut number = 0;
    wait("four segments that hold something", || {
        let name = format!("job-{number}");
        number += 1;
        cluster.put_job(0, &job(&name, &"x".repeat(TEXT_LEN)));
        (written_segments(&dir).len() >= 4).then_some(())
    });
    cluster.signal(0, Signal::SIGTERM);
    assert_eq!(cluster.wait_exit(0).code(), Some(0));
    let segments = written_segments(&dir);
    let rotten = &segments[segments.len() / 2];
    let mut bytes = fs::read(rotten).expect("the directory is ours");
    let whole = bytes.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(rotten, &bytes).expect("the directory is ours");

    let before = contents(&dir);
    cluster.spawn(0);
    assert_eq!(cluster.wait_exit(0).code(), Some(3));
    assert_eq!(contents(&dir), before, "a directory that is refused is not touched");
    let log = cluster.log(0);
    let stem = rotten.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let segment: u64 = stem.parse().expect("a segment is named by its number");
    let said = format!("log segment {segment} is damaged at byte ");
    let (_, rest) = log.split_once(&said).unwrap_or_else(|| panic!("no {said:?} in {log}"));
    let offset: usize = rest.split(':').next().and_then(|text| text.parse().ok()).expect("a byte");
    assert!(offset <= middle, "{offset} is behind the damage at {middle}");
    assert!(middle - offset <= 2 * TEXT_LEN, "{offset} is far before the damage at {middle}");
    let repair = format!("`cronclave log repair {}`", dir.display());
    assert!(log.contains(&repair), "no {repair} in {log}");

    // The bit as it was is all that was missing.
    fs::write(rotten, &whole).expect("the directory is ours");
    cluster.spawn(0);
    cluster.settle(1, 0);
    assert_eq!(all_jobs(&cluster, 0).len(), number);
}

/// The segments that hold more than what was set aside for them, the oldest first.
fn written_segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("log")).expect("the directory is ours");
    let paths = entries.map(|entry| entry.expect("the directory is ours").path());
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "log");
    let is_written = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes[bytes.len() / 2..].iter().any(|&byte| byte != 0)
    };
    let mut segments: Vec<PathBuf> = paths.filter(is_segment).filter(is_written).collect();
    segments.sort();
    segments
}

/// Every file below `dir` but the lock, which names the process that asked last.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("the directory is ours") {
        let path = entry.expect("the directory is ours").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if path.file_name().is_some_and(|name| name != "lock") {
            let bytes = fs::read(&path).expect("the directory is ours");
            found.insert(path, bytes);
        }
    }
    found
}
