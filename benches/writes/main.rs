//! What a write costs: three real servers with real sockets and real syncs, and clients that store
//! one job per `POST /v1/jobs` over connections that are kept alive.
//!
//! - `cargo bench --bench writes` measures 1, 16 and 256 clients, at the leader and at a follower,
//!   then what applying an entry costs, how fast the disk syncs, and how long a server takes to
//!   start on a log of 1 GiB.
//! - `-- --peers` measures etcd with the same load as well: three members, puts of 256 bytes.
//! - `-- --only load` (or `disk`, `recovery`) does one part; `-- --clients 256` and
//!   `-- --at leader` do one step of the load, and `-- --seconds 60` makes each step that long.

#![expect(clippy::print_stdout, reason = "a bench prints what it measures")]
#![expect(clippy::print_stderr, reason = "the shared harness shows logs of a failed run")]

mod apply;
#[path = "../../tests/processes/cluster.rs"]
#[allow(dead_code, reason = "the tests use what this bench does not")]
mod cluster;
mod disk;
mod etcd;
mod load;
mod recovery;
mod sample;

use std::net::SocketAddr;
use std::time::Duration;

use cluster::Cluster;
use load::{BODY_LEN, Http, Seen};
use sample::{Part, Sample, Used};

/// How long each number of clients is measured, unless the command line says so.
const SECONDS_DEFAULT: u64 = 5;
/// How many clients write at a time.
const CLIENTS: [usize; 3] = [1, 16, 256];
/// Where they do.
const PATHS: [&str; 2] = ["leader", "follower"];
/// The servers of the cluster.
const SERVERS: usize = 3;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        Some(args.get(at + 1).unwrap_or_else(|| panic!("{name} takes a value")).clone())
    };
    let seconds = value("--seconds").map(|text| text.parse().expect("--seconds takes a number"));
    let length = Duration::from_secs(seconds.unwrap_or(SECONDS_DEFAULT));
    let only = value("--only");
    let wants = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let clients = value("--clients").map(|text| text.parse().expect("--clients takes a number"));
    let clients = clients.map_or(CLIENTS.to_vec(), |clients| vec![clients]);
    let paths = value("--at").map_or(PATHS.map(String::from).to_vec(), |path| vec![path]);
    println!("{}", machine());
    if wants("load") {
        let apply = apply::micros_per_entry();
        let steps = cronclave(&paths, &clients, length, apply);
        if args.iter().any(|arg| arg == "--peers") {
            peers(&steps, length);
        }
    }
    if wants("disk") {
        disk::measure();
    }
    if wants("recovery") {
        recovery::measure();
    }
}

/// One line about the machine, so that numbers are not compared across machines.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    format!(
        "{cores} cores ({}), Linux {}, load {load} before the run",
        model.map_or("unknown", |(_, model)| model),
        read("/proc/sys/kernel/osrelease").trim(),
    )
}

/// What one step of the load showed.
struct Step {
    path: String,
    seen: Seen,
    /// What each server used, that at which the clients wrote first.
    used: Vec<Used>,
}

fn cronclave(paths: &[String], clients: &[usize], length: Duration, apply: f64) -> Vec<Step> {
    let cluster = Cluster::start(SERVERS, 0);
    let mut number = 0;
    let mut steps = Vec::new();
    for path in paths {
        for &clients in clients {
            steps.push(step(&cluster, path, clients, length, &mut number));
        }
    }
    println!("\nPOST /v1/jobs, {BODY_LEN}-byte jobs, {SERVERS} servers, {length:?} each");
    print_rates(&steps);
    println!("\nCPU microseconds per write, all servers together, and the load generator");
    print_cpu(&steps, apply);
    println!("\nthe log");
    print_log(&steps);
    steps
}

/// etcd beside what the leader showed.
fn peers(steps: &[Step], length: Duration) {
    let version = etcd::version().unwrap_or_else(|reason| panic!("{reason}"));
    let ours: Vec<&Step> = steps.iter().filter(|step| step.path == PATHS[0]).collect();
    let clients: Vec<usize> = ours.iter().map(|step| step.seen.clients).collect();
    let theirs = etcd::measure(&clients, length);
    println!("\netcd {version}, puts of {BODY_LEN} bytes over gRPC to the leader of 3 members");
    println!(
        "{:>7} {:>9} {:>8} {:>8} {:>8} {:>14} {:>10} {:>18}",
        "clients",
        "puts/s",
        "refused",
        "p50 ms",
        "p99 ms",
        "CPU us per put",
        "generator",
        "Cronclave to etcd"
    );
    for (ours, theirs) in ours.into_iter().zip(theirs) {
        let etcd::Step { seen, cpu_micros } = theirs;
        let writes = seen.writes() as f64;
        println!(
            "{:>7} {:>9.0} {:>8} {:>8.2} {:>8.2} {:>14.1} {:>10.1} {:>17.2}x",
            seen.clients,
            seen.rate(),
            seen.refused,
            seen.quantile(0.50),
            seen.quantile(0.99),
            cpu_micros / writes,
            seen.cpu_micros / writes,
            ours.seen.rate() / seen.rate(),
        );
    }
}

fn step(cluster: &Cluster, path: &str, clients: usize, length: Duration, number: &mut u64) -> Step {
    let leader = cluster.leader();
    let target = if path == "leader" { leader } else { (leader + 1) % SERVERS };
    let http = |node: usize| SocketAddr::from((cluster.addr_of(node), 8080));
    let order: Vec<usize> = (0..SERVERS).map(|step| (target + step) % SERVERS).collect();
    let sample = || -> Vec<Sample> {
        let take = |&node: &usize| Sample::take(cluster.pid(node), Some(http(node)));
        order.iter().map(take).collect()
    };
    let (seen, before, after) = load::run::<Http, _>(http(target), clients, length, number, sample);
    assert_eq!(cluster.leader(), leader, "the leader changed under load");
    let used = before.into_iter().zip(after).map(|(a, b)| Used::between(a, b)).collect();
    Step { path: path.to_owned(), seen, used }
}

fn print_rates(steps: &[Step]) {
    println!(
        "{:<9} {:>7} {:>9} {:>8} {:>8} {:>8} {:>14} {:>12}",
        "at",
        "clients",
        "writes/s",
        "refused",
        "p50 ms",
        "p99 ms",
        "entries/append",
        "syncs/s each"
    );
    for Step { path, seen, used } in steps {
        let entries: u64 = used.iter().map(|used| used.counted("log.entries")).sum();
        let groups: u64 = used.iter().map(|used| used.counted("log.groups")).sum();
        let syncs: u64 = used.iter().map(|used| used.counted("log.syncs")).sum();
        println!(
            "{path:<9} {:>7} {:>9.0} {:>8} {:>8.2} {:>8.2} {:>14.1} {:>12.0}",
            seen.clients,
            seen.rate(),
            seen.refused,
            seen.quantile(0.50),
            seen.quantile(0.99),
            entries as f64 / groups as f64,
            syncs as f64 / seen.seconds / used.len() as f64,
        );
    }
}

fn print_cpu(steps: &[Step], apply: f64) {
    println!(
        "{:<9} {:>7} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "at", "clients", "generator", "HTTP", "engine", "apply", "sockets", "sync", "other", "all"
    );
    for Step { path, seen, used } in steps {
        let writes = seen.writes() as f64;
        let per_write = |part| used.iter().map(|u| u.cpu_micros(part)).sum::<f64>() / writes;
        let sockets = |u: &Used| u.cpu_micros(Part::Engine) * u.engine_kernel_share();
        let sockets = used.iter().map(sockets).sum::<f64>() / writes;
        let apply = apply * used.len() as f64;
        let generator = seen.cpu_micros / writes;
        let all = used.iter().map(Used::cpu_micros_all).sum::<f64>() / writes + generator;
        println!(
            "{path:<9} {:>7} {generator:>10.1} {:>8.1} {:>8.1} {apply:>8.1} {sockets:>8.1} \
             {:>8.1} {:>8.1} {all:>8.1}",
            seen.clients,
            per_write(Part::Http),
            per_write(Part::Engine) - apply - sockets,
            per_write(Part::Disk),
            per_write(Part::Other),
        );
    }
    println!(
        "(sockets: those between the servers, and waking other threads)\n\
         waits per write of each server: engine, HTTP, sync"
    );
    for Step { path, seen, used } in steps {
        let waits = |used: &Used| {
            let per_write = |part| used.waits(part) as f64 / seen.writes() as f64;
            let parts = [Part::Engine, Part::Http, Part::Disk];
            parts.map(|part| format!("{:.2}", per_write(part))).join(" ")
        };
        let each: Vec<String> = used.iter().map(waits).collect();
        println!("{path:<9} {:>7}   {}", seen.clients, each.join("   "));
    }
}

fn print_log(steps: &[Step]) {
    println!(
        "{:<9} {:>7} {:>17} {:>17} {:>18} {:>16}",
        "at", "clients", "log bytes/byte", "to device/byte", "log bytes/write", "turns/write"
    );
    for Step { path, seen, used } in steps {
        let (writes, servers) = (seen.writes() as f64, used.len() as f64);
        let bytes: u64 = used.iter().map(|used| used.counted("log.bytes")).sum();
        let device: u64 = used.iter().map(Used::device_bytes).sum();
        let turns: u64 = used.iter().map(|used| used.counted("node.turns")).sum();
        let user = writes * BODY_LEN as f64;
        println!(
            "{path:<9} {:>7} {:>17.2} {:>17.2} {:>18.0} {:>16.2}",
            seen.clients,
            bytes as f64 / servers / user,
            device as f64 / servers / user,
            bytes as f64 / servers / writes,
            turns as f64 / writes,
        );
    }
    println!("(of each server; a byte is one of a request's body)");
}
