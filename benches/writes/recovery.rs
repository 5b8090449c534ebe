//! How long a server takes to start on a log of 1 GiB, and how much memory.
//!
//! The log is one that a server began: this bench goes on with it through the code that servers
//! write with, and starts the server again.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cronclave::codec::record::Record;
use cronclave::codec::{decode, encode};
use cronclave::consensus::{Entry, Payload};
use cronclave::id::{LogIndex, NodeName, Term, WriteId};
use cronclave::jobs::command::Stamped;
use cronclave::shell::disk::{DataDir, Disk, DiskEvent};

use super::apply::Entries;
use super::cluster::{Cluster, poll};
use super::{load, sample};

/// The length of the log, without what frames its entries.
const LOG_LEN: u64 = 1 << 30;
/// The entries of one group.
const GROUP_LEN: u64 = 16_384;
/// How long the start may take.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) fn measure() {
    let mut cluster = Cluster::start(1, 0);
    let job = serde_json::from_str(&load::job(0)).expect("the load's jobs are JSON");
    cluster.put_job(0, &job);
    cluster.kill(0);
    let data = cluster.nodes[0].dir.join("data");
    let name = NodeName::new(cluster.nodes[0].name.clone()).expect("servers have valid names");
    let entries = fill(&data, &name);
    let log_len = dir_len(&data.join("log"));
    let start = Instant::now();
    cluster.spawn(0);
    poll(PATIENCE, || cluster.get(0, "/health")).expect("the server answers");
    let answers = start.elapsed();
    let last = load::job_name(entries - 1);
    let read = poll(PATIENCE, || {
        let job = cluster.get(0, &format!("/v1/jobs/{last}"))?;
        (job.status == 200).then_some(())
    });
    read.expect("the server has the last job");
    let reads = start.elapsed();
    let memory = sample::peak_memory(cluster.pid(0));
    println!(
        "\na log of {:.2} GiB with {entries} entries: answers after {:.1} s, linearizable reads \
         after {:.1} s, peak memory {:.0} MiB",
        log_len as f64 / f64::from(1 << 30),
        answers.as_secs_f64(),
        reads.as_secs_f64(),
        memory as f64 / f64::from(1 << 20),
    );
}

/// Writes entries behind those in `data` until the log is long enough; how many there are.
fn fill(data: &Path, name: &NodeName) -> u64 {
    let dir = DataDir::open(data, name).expect("the server is gone");
    let (recovered, files) = dir.recover().expect("the log is whole");
    let (_, term, body) = recovered.entries.last().expect("a job was stored");
    let (term, mut entry) = (*term, decode::<Entry>("log entry", body).expect("it is an entry"));
    let (done, completions) = mpsc::channel();
    let done = Box::new(move |event| done.send(event).expect("this bench listens"));
    let disk = Disk::start(files, done).expect("the system gives a thread");
    let entries = Entries::new();
    let (mut len, mut number) = (0, 0);
    while len < LOG_LEN {
        let mut group = Vec::new();
        for _ in 0..GROUP_LEN {
            let record = next_record(&mut entry, term, &entries.entry(number));
            number += 1;
            if let Record::Entry { body, .. } = &record {
                len += body.len() as u64;
            }
            group.push(record);
        }
        disk.submit(WriteId(number), group).expect("one write waits at a time");
        let completion = completions.recv().expect("the disk's thread lives");
        let DiskEvent::Written(written) = completion else { panic!("the disk is full") };
        written.result.expect("the disk works");
    }
    disk.stop();
    number
}

/// Turns `entry` into the one that follows it.
fn next_record(entry: &mut Entry, term: Term, command: &Stamped) -> Record {
    entry.log_id.index += 1;
    entry.payload = openraft::EntryPayload::Normal(Payload(encode(command)));
    Record::Entry { index: LogIndex(entry.log_id.index), term, body: encode(&*entry) }
}

fn dir_len(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).expect("the server made it").flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}
