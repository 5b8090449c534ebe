//! What a process has used so far, as the kernel and the process itself count it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

/// The parts of a server, by its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The thread that owns the node: Raft, the codecs, applying entries, and the sockets to the
    /// other servers.
    Engine,
    /// HTTP.
    Http,
    /// Writing and syncing the log.
    Disk,
    /// All else: the history's store, snapshots.
    Other,
}

/// One process at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Nanoseconds of CPU by part.
    cpu: BTreeMap<Part, u64>,
    /// Ticks of CPU that the thread of the node took, and those of them inside the kernel.
    engine_ticks: [u64; 2],
    /// How often threads of each part waited.
    waits: BTreeMap<Part, u64>,
    /// Bytes that the process had the kernel write to the disk, in whole pages.
    device_bytes: u64,
    /// The server's own counters.
    counters: BTreeMap<String, u64>,
}

/// What a process used between two moments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used {
    before: Sample,
    after: Sample,
}

impl Sample {
    /// Of the process `pid`; with the counters of the server at `http`, if it is one.
    pub(crate) fn take(pid: u32, http: Option<SocketAddr>) -> Self {
        let mut sample = Self::default();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
        for task in tasks.flatten() {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let is_main = task.file_name().to_str() == Some(&pid.to_string());
            let part = part(is_main, read("comm").trim());
            if is_main {
                sample.engine_ticks = ticks(&read("stat"));
            }
            let nanos = read("schedstat").split(' ').next().and_then(|text| text.parse().ok());
            *sample.cpu.entry(part).or_default() += nanos.unwrap_or(0);
            *sample.waits.entry(part).or_default() +=
                field(&read("status"), "voluntary_ctxt_switches:");
        }
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        sample.device_bytes = field(&io, "write_bytes:");
        if let Some(http) = http {
            sample.counters = counters(http);
        }
        sample
    }
}

impl Used {
    pub(crate) fn between(before: Sample, after: Sample) -> Self {
        Self { before, after }
    }

    /// Microseconds of CPU of one part.
    pub(crate) fn cpu_micros(&self, part: Part) -> f64 {
        let nanos = |sample: &Sample| sample.cpu.get(&part).copied().unwrap_or(0) as f64;
        (nanos(&self.after) - nanos(&self.before)) / 1_000.0
    }

    /// Microseconds of CPU of the whole process.
    pub(crate) fn cpu_micros_all(&self) -> f64 {
        let parts = [Part::Engine, Part::Http, Part::Disk, Part::Other];
        parts.into_iter().map(|part| self.cpu_micros(part)).sum()
    }

    /// The share of the node's thread that was spent inside the kernel: on sockets, mostly.
    pub(crate) fn engine_kernel_share(&self) -> f64 {
        let rose = |at: usize| self.after.engine_ticks[at] - self.before.engine_ticks[at];
        rose(1) as f64 / rose(0).max(1) as f64
    }

    /// How often threads of one part waited for something.
    pub(crate) fn waits(&self, part: Part) -> u64 {
        let waits = |sample: &Sample| sample.waits.get(&part).copied().unwrap_or(0);
        waits(&self.after).saturating_sub(waits(&self.before))
    }

    pub(crate) fn device_bytes(&self) -> u64 {
        self.after.device_bytes.saturating_sub(self.before.device_bytes)
    }

    /// By how much a counter of the server rose.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        let count = |sample: &Sample| sample.counters.get(name).copied();
        let after = count(&self.after).unwrap_or_else(|| panic!("the server counts {name}"));
        after.saturating_sub(count(&self.before).unwrap_or(0))
    }
}

/// The most memory that the process ever had, in bytes.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "VmHWM:") * 1_024
}

fn part(is_main: bool, name: &str) -> Part {
    match name {
        _ if is_main => Part::Engine,
        "cronclave-http" => Part::Http,
        "cronclave-disk" => Part::Disk,
        _ => Part::Other,
    }
}

/// The ticks of CPU in a thread's `stat`, and those of them inside the kernel.
fn ticks(stat: &str) -> [u64; 2] {
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th
    // field after it.
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let at = |field: usize| {
        let text = rest.split(' ').nth(field).unwrap_or_default();
        text.parse::<u64>().unwrap_or(0)
    };
    [at(11) + at(12), at(12)]
}

/// The number behind `name` at the beginning of a line.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// `GET /debug/vars`, flat: `log.syncs` is the field `syncs` of the object `log`.
fn counters(addr: SocketAddr) -> BTreeMap<String, u64> {
    let mut stream = TcpStream::connect(addr).expect("the server takes connections");
    let request = "GET /debug/vars HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a body");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let mut counters = BTreeMap::new();
    for (group, fields) in body.as_object().into_iter().flatten() {
        for (name, value) in fields.as_object().into_iter().flatten() {
            if let Some(value) = value.as_u64() {
                counters.insert(format!("{group}.{name}"), value);
            }
        }
    }
    counters
}
