//! One server alone, driven by hand: what it hands to the store of the history, and how it waits
//! for it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::config::NodeRole;
use super::*;
use crate::codec::memory_disk::MemoryDisk;
use crate::codec::memory_snapshots::MemorySnapshots;
use crate::codec::record::Record;
use crate::codec::snapshot::History;
use crate::consensus::{LogBounds, SnapshotTask, TaskId};
use crate::dispatch::leader::Patience;
use crate::id::{Boot, ExecutionId, Incarnation, JobName, LogIndex, NodeName, WriteId};
use crate::jobs::history::change::{Change, Order, Page, Query, Select, Sort};
use crate::jobs::job::{Concurrency, JobSpec, OUTPUT_LEN_MAX, Outcome, RunResult};
use crate::membership::Profile;
use crate::node::request::{Consistency, REQUEST_TIMEOUT, Reply, Request, RequestError, Write};
use crate::time::Wall;

/// 2026-01-01T00:00:00Z.
const START: Wall = Wall::from_secs(1_767_225_600);

const LIST: Select =
    Select::Part { sort: Sort::Id, order: Order::Descending, skip: 0, limit: 9, output_len_max: 9 };

/// A server that founded a cluster of its own, its disk, and what it has put out.
struct Bench {
    node: Node,
    now: Now,
    disk: MemoryDisk,
    writes: VecDeque<(WriteId, Vec<Record>)>,
    snapshots: MemorySnapshots,
    tasks: VecDeque<(TaskId, SnapshotTask)>,
    launched: VecDeque<ExecutionId>,
    history: Vec<(LogIndex, Vec<(LogIndex, Change)>)>,
    reads: VecDeque<(RequestId, Query)>,
    events: Vec<Event>,
    replies: BTreeMap<RequestId, Reply>,
    request_last: u64,
}

fn config(boot: u64) -> NodeConfig {
    NodeConfig {
        name: NodeName::new("n1").unwrap(),
        incarnation: Incarnation(1),
        boot: Boot(boot),
        role: NodeRole::Server { bootstrap_expect: 1 },
        gossip_addr: SocketAddr::from(([10, 0, 0, 1], 8_946)),
        peer_addr: SocketAddr::from(([10, 0, 0, 1], 6_868)),
        tags: BTreeMap::new(),
        join: Vec::new(),
        joins: None,
        retry_interval: Duration::from_secs(30),
        reconnect_timeout: Duration::from_secs(86_400),
        dead_server_grace: Duration::from_secs(60),
        profile: Profile::Lan,
        raft_multiplier: 1,
        // The store is what these tests are about: no snapshot is due.
        log: LogBounds { snapshot_after_bytes: 1 << 29, ..LogBounds::default() },
        patience: Patience::default(),
        timezone: "UTC".to_owned(),
        version: "0.0.0".to_owned(),
    }
}

fn name(text: &str) -> JobName {
    JobName::new(text).unwrap()
}

fn spec(job: &str) -> Arc<JobSpec> {
    Arc::new(JobSpec {
        name: name(job),
        displayname: String::new(),
        schedule: "@manually".to_owned(),
        timezone: String::new(),
        owner: String::new(),
        owner_email: String::new(),
        disabled: false,
        tags: BTreeMap::new(),
        metadata: BTreeMap::new(),
        retries: 0,
        concurrency: Concurrency::Allow,
        executor: "shell".to_owned(),
        executor_config: BTreeMap::new(),
        ephemeral: false,
        starts_at: None,
        expires_at: None,
    })
}

impl Bench {
    fn start() -> Self {
        let now = Now { mono: Mono::from_micros(1_000_000), wall: START };
        let disk = MemoryDisk::new(config(1).id());
        let node = Node::boot(config(1), 1, &Recovered::default(), now).unwrap();
        let mut bench = Self {
            node,
            now,
            disk,
            writes: VecDeque::new(),
            snapshots: MemorySnapshots::default(),
            tasks: VecDeque::new(),
            launched: VecDeque::new(),
            history: Vec::new(),
            reads: VecDeque::new(),
            events: Vec::new(),
            replies: BTreeMap::new(),
            request_last: 0,
        };
        bench.lead();
        bench
    }

    fn lead(&mut self) {
        self.settle();
        while !self.events.iter().any(|event| matches!(event, Event::LeadershipWon(_))) {
            assert!(self.now.mono < Mono::from_micros(3_600_000_000), "a server alone leads");
            self.pass(Duration::from_millis(50));
        }
        self.pass(Duration::from_secs(1));
    }

    /// The process dies, and starts again on what is durable.
    fn restart(&mut self) {
        self.disk.crash(|_| 0..0);
        self.snapshots.crash();
        self.tasks.clear();
        self.disk.set_snapshot(self.snapshots.newest());
        let recovered = self.disk.recover().unwrap();
        let boot = self.node.config.boot.0 + 1;
        self.node = Node::boot(config(boot), boot, &recovered, self.now).unwrap();
        self.writes.clear();
        self.launched.clear();
        self.history.clear();
        self.reads.clear();
        self.events.clear();
        self.replies.clear();
    }

    /// Runs the node until neither it nor its disk has anything to do.
    fn settle(&mut self) {
        loop {
            self.node.run(self.now);
            while let Some(output) = self.node.poll_output() {
                self.perform(output);
            }
            if let Some((write, records)) = self.writes.pop_front() {
                self.disk.write(&records, None).unwrap();
                self.disk.finish();
                self.node.push(self.now, Input::Persisted { write });
            } else if let Some((id, task)) = self.tasks.pop_front() {
                if let Some(done) = task.perform(&mut self.snapshots, &History::default()) {
                    self.node.push(self.now, Input::SnapshotDone { id, done });
                }
            } else {
                return;
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Persist { write, records } => self.writes.push_back((write, records)),
            Output::Snapshot { id, task } => self.tasks.push_back((id, task)),
            Output::Launch(spec) => self.launched.push_back(spec.execution),
            Output::History { upto, changes } => self.history.push((upto, changes)),
            Output::ReadHistory { id, query } => self.reads.push_back((id, query)),
            Output::Reply { id, reply } => drop(self.replies.insert(id, reply)),
            Output::Event(event) => self.events.push(event),
            Output::Halt { reason } => panic!("the node halts: {reason}"),
            Output::Dial { .. }
            | Output::Send { .. }
            | Output::Close { .. }
            | Output::Datagram { .. }
            | Output::Resolve { .. }
            | Output::Kill { .. }
            | Output::Reincarnate { .. }
            | Output::Stopped => {}
        }
    }

    fn input(&mut self, input: Input) {
        self.node.push(self.now, input);
        self.settle();
        // Raft does nothing at the instant of its last heartbeat.
        self.pass(Duration::from_millis(1));
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now { mono: self.now.mono + time, wall: self.now.wall + time };
        self.node.push(self.now, Input::Timeout);
        self.settle();
    }

    fn ask(&mut self, request: Request) -> RequestId {
        self.request_last += 1;
        let id = RequestId(self.request_last);
        self.input(Input::Request { id, request });
        id
    }

    fn write(&mut self, write: Write) -> Reply {
        let id = self.ask(Request::Write(write));
        self.replies.remove(&id).unwrap_or_else(|| panic!("{id} is answered at once"))
    }

    fn read(&mut self, job: &str, consistency: Consistency) -> RequestId {
        self.ask(Request::Executions { job: name(job), select: LIST, consistency })
    }

    fn error(&mut self, id: RequestId) -> Option<RequestError> {
        let reply = self.replies.remove(&id)?;
        let Reply::Failed(error) = reply else { panic!("{id} is answered with {reply:?}") };
        Some(error)
    }

    fn finish(&mut self, execution: ExecutionId, output_len: usize) {
        let result = RunResult {
            outcome: Outcome::Succeeded,
            reason: String::new(),
            exit_code: Some(0),
            output: "x".repeat(output_len),
            output_truncated: false,
        };
        self.input(Input::RunFinished { execution, result });
    }

    fn changes(&self) -> Vec<(LogIndex, Change)> {
        self.history.iter().flat_map(|(_, changes)| changes.clone()).collect()
    }

    fn ended(&self) -> usize {
        let is_row = |change: &&(LogIndex, Change)| matches!(change.1, Change::Put(_));
        self.changes().iter().filter(is_row).count()
    }

    /// The store has carried out everything.
    fn keep(&mut self) {
        if let Some(&(upto, _)) = self.history.last() {
            self.input(Input::HistoryKept { upto });
        }
    }
}

#[test]
fn what_no_snapshot_covers_is_handed_out_again_after_a_restart() {
    let mut bench = Bench::start();
    for job in ["a", "b"] {
        bench.write(Write::PutJob(spec(job)));
    }
    bench.write(Write::RunJob(name("a")));
    let execution = bench.launched.pop_front().unwrap();
    bench.finish(execution, 9);
    bench.write(Write::DeleteJob(name("b")));
    let before = bench.changes();
    let [(_, Change::Put(row)), (_, Change::Forget(job))] = before.as_slice() else {
        panic!("{before:?}")
    };
    assert_eq!((row.id, row.outcome, job), (execution, Outcome::Succeeded, &name("b")));
    bench.restart();
    bench.lead();
    assert_eq!(bench.changes(), before);
}

#[test]
fn executions_are_read_with_the_open_ones_after_what_was_handed_out_before() {
    let mut bench = Bench::start();
    bench.write(Write::PutJob(spec("a")));
    bench.write(Write::RunJob(name("a")));
    for consistency in [Consistency::Linearizable, Consistency::Stale] {
        let id = bench.read("a", consistency);
        let (asked, query) = bench.reads.pop_front().unwrap();
        assert_eq!((asked, &query.job, query.select), (id, &name("a"), LIST));
        assert!(query.open.iter().map(|row| row.id).eq(bench.launched.iter().copied()));
        let page = Page { rows: query.open, total: 1 };
        bench.input(Input::HistoryRead { id, page: Ok(page.clone()) });
        let Some(Reply::Executions(read)) = bench.replies.remove(&id) else { panic!() };
        assert_eq!(*read, page);
        let none = bench.read("b", consistency);
        assert_eq!(bench.error(none), Some(RequestError::JobNotFound(name("b"))));
    }
}

#[test]
fn a_read_that_the_store_does_not_answer_is_given_up_and_keeps_its_place() {
    let mut bench = Bench::start();
    bench.write(Write::PutJob(spec("a")));
    let ids: Vec<_> = (0..40).map(|_| bench.read("a", Consistency::Linearizable)).collect();
    assert_eq!(bench.reads.len(), 16);
    bench.pass(REQUEST_TIMEOUT);
    let late = RequestError::HistoryUnavailable("it was not read in time".to_owned());
    for id in ids {
        assert_eq!(bench.error(id), Some(late.clone()));
    }
    let next = bench.read("a", Consistency::Stale);
    assert_eq!(bench.reads.len(), 16);
    let (over, _) = bench.reads.pop_front().unwrap();
    bench.input(Input::HistoryRead { id: over, page: Ok(Page::default()) });
    assert_eq!(bench.reads.back().map(|(id, _)| *id), Some(next));
    bench.input(Input::HistoryRead { id: next, page: Err("no".to_owned()) });
    assert_eq!(bench.error(next), Some(RequestError::HistoryUnavailable("no".to_owned())));
    assert_eq!(bench.replies.len(), 0);
}

#[test]
fn a_leader_whose_store_is_behind_takes_no_results_until_it_has_caught_up() {
    const RUNS: usize = 300;
    let mut bench = Bench::start();
    bench.write(Write::PutJob(spec("a")));
    for _ in 0..RUNS {
        bench.write(Write::RunJob(name("a")));
    }
    while let Some(execution) = bench.launched.pop_front() {
        bench.finish(execution, OUTPUT_LEN_MAX);
    }
    let fit = usize::try_from(history::UNKEPT_BYTES_MAX).unwrap() / OUTPUT_LEN_MAX;
    let ended = bench.ended();
    assert!((fit - 2..=fit).contains(&ended), "{ended} of {RUNS} were taken");
    let behind = |event: &Event| matches!(event, Event::HistoryBehind { .. });
    assert_eq!(bench.events.iter().filter(|event| behind(event)).count(), 1);
    let Reply::Failed(RequestError::HistoryUnavailable(text)) =
        bench.write(Write::RunJob(name("a")))
    else {
        panic!("a leader that is behind runs nothing")
    };
    assert!(text.contains("behind"), "{text}");
    bench.pass(REPORT_EVERY);
    assert_eq!(bench.ended(), ended);

    bench.keep();
    assert!(bench.events.contains(&Event::HistoryCaughtUp));
    assert_eq!(bench.ended(), RUNS);
    assert!(matches!(bench.write(Write::RunJob(name("a"))), Reply::Written(_)));
    assert_eq!(bench.launched.len(), 1);
}

#[test]
fn a_server_that_stops_does_not_say_of_a_proposed_write_that_it_was_not_carried_out() {
    for (is_proposed, expected) in [(false, RequestError::Stopping), (true, RequestError::Unknown)]
    {
        let mut bench = Bench::start();
        let id = RequestId(99);
        let request = Request::Write(Write::PutJob(spec("a")));
        bench.node.push(bench.now, Input::Request { id, request });
        if is_proposed {
            bench.node.run(bench.now);
        }
        bench.node.push(bench.now, Input::Shutdown { drain: Duration::ZERO });
        bench.node.run(bench.now);
        while let Some(output) = bench.node.poll_output() {
            bench.perform(output);
        }
        assert_eq!(bench.error(id), Some(expected));
    }
}

/// What was due of a job leaves its rows before the job has other times.
#[test]
fn a_change_of_a_job_does_not_overtake_what_is_due() {
    let scheduled = |schedule: &str| {
        Arc::new(JobSpec { schedule: schedule.to_owned(), ..(*spec("a")).clone() })
    };
    let mut bench = Bench::start();
    bench.write(Write::PutJob(scheduled("@every 10s")));
    let clock = bench.now;
    let time = Duration::from_secs(35);
    bench.now = Now { mono: clock.mono + time, wall: clock.wall + time };
    // The change comes in the turn in which all of it falls due.
    let changed = bench.write(Write::PutJob(scheduled("@every 1h")));
    assert!(matches!(changed, Reply::Written(_)));
    assert_eq!(bench.launched.len(), 3);
    bench.pass(Duration::from_secs(20));
    assert_eq!(bench.launched.len(), 3);
}
