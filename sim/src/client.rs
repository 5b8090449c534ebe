//! What clients ask, and what they make of the answers.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cronclave::id::{JobName, LogIndex};
use cronclave::jobs::State;
use cronclave::jobs::history::change::{Order, Select, Sort};
use cronclave::jobs::history::store::Digest;
use cronclave::jobs::job::{Concurrency, Execution, JobSpec};
use cronclave::node::request::{Consistency, Reply, Request, RequestError, View, Write};
use cronclave::time::Wall;
use madsim::task::spawn_local;
use madsim::time::sleep;

use crate::check::Row;
use crate::cluster::{Cluster, Outcome, POOL};
use crate::mailbox::Mailbox;

/// A job that is due as `schedule` says, on one agent.
pub fn job(name: &str, schedule: &str) -> JobSpec {
    let (key, value) = POOL;
    JobSpec {
        name: JobName::new(name).expect("tests name their jobs well"),
        displayname: String::new(),
        schedule: schedule.to_owned(),
        timezone: String::new(),
        owner: String::new(),
        owner_email: String::new(),
        disabled: false,
        tags: BTreeMap::from([(key.to_owned(), format!("{value}:1"))]),
        metadata: BTreeMap::new(),
        retries: 0,
        concurrency: Concurrency::Allow,
        executor: "shell".to_owned(),
        executor_config: BTreeMap::new(),
        ephemeral: false,
        starts_at: None,
        expires_at: None,
    }
}

/// What a client knows of its write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was acknowledged.
    Done,
    /// It was not carried out, for this reason.
    Refused(String),
    /// It may or may not be carried out.
    Unknown,
    /// Nobody answered in time, which a node promises never to let happen.
    Silence,
}

/// Writes a job through a host, once, and books what the client is told.
pub async fn put(cluster: &Cluster, via: usize, spec: JobSpec) -> Fate {
    let name = spec.name.clone();
    let request = Request::Write(Write::PutJob(Arc::new(spec)));
    let fate = match cluster.ask(via, request).await {
        Outcome::Answered(Reply::Written(_)) => Fate::Done,
        Outcome::Answered(Reply::Failed(
            RequestError::Unknown | RequestError::UnknownDiskFull(_),
        ))
        | Outcome::Lost => Fate::Unknown,
        Outcome::Answered(Reply::Failed(error)) => Fate::Refused(error.to_string()),
        Outcome::Answered(other) => panic!("a write was answered with {other:?}"),
        Outcome::Refused => Fate::Refused("nobody listens".to_owned()),
        Outcome::TimedOut => Fate::Silence,
    };
    cluster.book(|ledger| {
        let told = match fate {
            Fate::Done => &mut ledger.acknowledged,
            Fate::Refused(_) => &mut ledger.refused,
            Fate::Unknown | Fate::Silence => &mut ledger.unknown,
        };
        told.insert(name);
    });
    fate
}

/// Writes a job through one live server after the other until it is acknowledged.
///
/// # Panics
/// If it is not acknowledged in 20 attempts.
pub async fn put_surely(cluster: &Cluster, spec: &JobSpec) {
    let mut last = Vec::new();
    for _ in 0..20 {
        for via in cluster.live_servers() {
            match put(cluster, via, spec.clone()).await {
                Fate::Done => {
                    let name = &spec.name;
                    cluster.book(|ledger| {
                        ledger.refused.remove(name);
                        ledger.unknown.remove(name);
                    });
                    return;
                }
                fate @ (Fate::Refused(_) | Fate::Unknown | Fate::Silence) => last.push(fate),
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    cluster.tell();
    panic!("{} was not acknowledged: {last:?}", spec.name);
}

/// What came of a linearizable read.
#[derive(Clone, Debug)]
pub enum Seen {
    /// This.
    View(Box<View>),
    /// Nothing, for this reason.
    Refused(String),
    /// Nobody answered in time.
    Silence,
}

/// Reads through a host and compares with what was acknowledged before.
///
/// # Panics
/// If a write that was acknowledged before the read began is not there.
pub async fn read(cluster: &Cluster, via: usize) -> Seen {
    let before = cluster.ledger().acknowledged;
    match cluster.ask(via, Request::Read(Consistency::Linearizable)).await {
        Outcome::Answered(Reply::View(view)) => {
            let missing = before.iter().find(|name| view.state.job(name).is_none());
            if let Some(name) = missing {
                cluster.tell();
                panic!("host-{} read without {name}, acknowledged before", via + 1);
            }
            Seen::View(view)
        }
        Outcome::Answered(Reply::Failed(error)) => Seen::Refused(error.to_string()),
        Outcome::Answered(other) => panic!("a read was answered with {other:?}"),
        Outcome::Refused => Seen::Refused("nobody listens".to_owned()),
        Outcome::Lost => Seen::Refused("the node died".to_owned()),
        Outcome::TimedOut => Seen::Silence,
    }
}

/// Reads through the live servers until one answers.
///
/// # Panics
/// If none does in 20 rounds.
pub async fn read_surely(cluster: &Cluster) -> View {
    for _ in 0..20 {
        for via in cluster.live_servers() {
            if let Seen::View(view) = read(cluster, via).await {
                return *view;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    cluster.tell();
    panic!("no server answered a read");
}

/// What came of many attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes that were acknowledged.
    pub written: usize,
    /// Linearizable reads that were answered.
    pub read: usize,
    /// Attempts that were answered with an error.
    pub refused: usize,
    /// Writes of unknown fate.
    pub unknown: usize,
    /// Attempts that nobody answered in time.
    pub silent: usize,
}

impl Tally {
    /// How many attempts there were.
    pub fn attempts(&self) -> usize {
        self.written + self.read + self.refused + self.unknown + self.silent
    }

    fn add(&mut self, other: &Self) {
        self.written += other.written;
        self.read += other.read;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.silent += other.silent;
    }
}

/// Asks each of `hosts` `count` times, writes and linearizable reads in turn, `pause` apart and
/// without waiting for the answers; gives what came of them, by host.
pub async fn hammer(
    cluster: &Rc<Cluster>,
    hosts: &[usize],
    count: usize,
    pause: Duration,
    label: &str,
) -> BTreeMap<usize, Tally> {
    let done = Rc::new(Mailbox::default());
    for number in 0..count {
        for &via in hosts {
            let (cluster, done) = (Rc::clone(cluster), Rc::clone(&done));
            let name = format!("{label}-{via}-{number}");
            spawn_local(async move {
                let tally = match number % 2 {
                    0 => attempt_write(&cluster, via, &name).await,
                    _ => attempt_read(&cluster, via).await,
                };
                done.push((via, tally));
            });
        }
        sleep(pause).await;
    }
    let mut tallies: BTreeMap<usize, Tally> = BTreeMap::new();
    for _ in 0..count * hosts.len() {
        let (via, tally) = done.pop().await;
        tallies.entry(via).or_default().add(&tally);
    }
    tallies
}

async fn attempt_write(cluster: &Cluster, via: usize, name: &str) -> Tally {
    match put(cluster, via, job(name, "@manually")).await {
        Fate::Done => Tally { written: 1, ..Tally::default() },
        Fate::Refused(_) => Tally { refused: 1, ..Tally::default() },
        Fate::Unknown => Tally { unknown: 1, ..Tally::default() },
        Fate::Silence => Tally { silent: 1, ..Tally::default() },
    }
}

async fn attempt_read(cluster: &Cluster, via: usize) -> Tally {
    match read(cluster, via).await {
        Seen::View(_) => Tally { read: 1, ..Tally::default() },
        Seen::Refused(_) => Tally { refused: 1, ..Tally::default() },
        Seen::Silence => Tally { silent: 1, ..Tally::default() },
    }
}

/// The sum over all hosts.
pub fn total(tallies: &BTreeMap<usize, Tally>) -> Tally {
    let mut sum = Tally::default();
    tallies.values().for_each(|tally| sum.add(tally));
    sum
}

/// The rows of a job that were due up to and with `until`, for the checkers. Read through the live
/// servers until one answers.
///
/// # Panics
/// If none does in 20 rounds.
pub async fn rows(cluster: &Cluster, name: &JobName, until: Wall) -> Vec<Row> {
    let row = |execution: &Arc<Execution>| Row {
        execution: execution.id,
        due: execution.due,
        outcome: execution.outcome,
    };
    let (sort, order) = (Sort::Id, Order::Ascending);
    let limit = u64::MAX;
    let select = Select::Part { sort, order, skip: 0, limit, output_len_max: 0 };
    for _ in 0..20 {
        for via in cluster.live_servers() {
            let (job, consistency) = (name.clone(), Consistency::Linearizable);
            let request = Request::Executions { job, select, consistency };
            if let Outcome::Answered(Reply::Executions(page)) = cluster.ask(via, request).await {
                assert_eq!(page.rows.len() as u64, page.total, "the page holds all rows");
                return page.rows.iter().map(row).filter(|row| row.due <= until).collect();
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    cluster.tell();
    panic!("no server shows the executions of {name}");
}

/// The names of all jobs.
pub fn present(state: &State) -> BTreeSet<JobName> {
    state.jobs().map(|job| job.spec.name.clone()).collect()
}

/// What every live server holds now, some times in a row, `pause` apart.
pub async fn sample_states(
    cluster: &Rc<Cluster>,
    times: usize,
    pause: Duration,
) -> Vec<(usize, LogIndex, State)> {
    let samples = RefCell::new(Vec::new());
    for _ in 0..times {
        for host in cluster.live_servers() {
            let answer = cluster.ask(host, Request::Read(Consistency::Stale)).await;
            if let Outcome::Answered(Reply::View(view)) = answer
                && let Some(applied) = view.state.applied()
            {
                samples.borrow_mut().push((host, applied, view.state));
            }
        }
        sleep(pause).await;
    }
    samples.into_inner()
}

/// The histories of all live servers, some times, each with the last entry that its state shows.
pub async fn sample_histories(
    cluster: &Rc<Cluster>,
    times: usize,
    pause: Duration,
) -> Vec<(usize, LogIndex, Digest)> {
    let mut samples = Vec::new();
    for _ in 0..times {
        for host in cluster.live_servers() {
            let before = applied(cluster, host).await;
            // What is applied meanwhile may be with the store or on its way.
            let digest = cluster.history(host);
            if let (Some(before), Some(digest)) = (before, digest)
                && applied(cluster, host).await == Some(before)
            {
                samples.push((host, before, digest));
            }
        }
        sleep(pause).await;
    }
    samples
}

/// The last entry that the state of a server shows.
async fn applied(cluster: &Rc<Cluster>, host: usize) -> Option<LogIndex> {
    match cluster.ask(host, Request::Read(Consistency::Stale)).await {
        Outcome::Answered(Reply::View(view)) => view.state.applied(),
        Outcome::Answered(_) | Outcome::Refused | Outcome::Lost | Outcome::TimedOut => None,
    }
}
