//! A cluster made of observations: [`Cluster`], for tests of checkers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cronclave::codec::encode;
use cronclave::codec::record::{Record, Recovered, Snapshot};
use cronclave::codec::snapshot::SnapshotFile;
use cronclave::consensus::{Content, LogId, Role, Status, Vote};
use cronclave::id::{Boot, CommandId, ExecutionId, JobName, LogIndex, NodeId, NodeName, Term};
use cronclave::jobs::command::{Command, Stamped, Timing};
use cronclave::jobs::job::{Concurrency, JobSpec, Outcome, RunResult, Target};
use cronclave::time::{Mono, Wall};

use super::seen::{Ending, OpId, Seen, Start};
use super::{Checkers, Setup, Verdict};

/// When every test begins, in seconds since 1970.
pub(super) const BEGIN: i64 = 1_795_399_200;

/// A job of this name and schedule that runs anywhere.
pub(super) fn spec(name: &str, schedule: &str) -> JobSpec {
    JobSpec {
        name: JobName::new(name).unwrap(),
        displayname: String::new(),
        schedule: schedule.to_owned(),
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
    }
}

pub(super) fn wall(secs: i64) -> Wall {
    Wall::from_secs(BEGIN + secs)
}

pub(super) fn result(outcome: Outcome) -> RunResult {
    RunResult {
        outcome,
        reason: String::new(),
        exit_code: None,
        output: String::new(),
        output_truncated: false,
    }
}

pub(super) fn stamped(secs: i64, command: Command) -> Stamped {
    Stamped { stamp: wall(secs), id: None, command }
}

/// The command of write `op`, put by the node 1 in its first boot.
pub(super) fn put(op: u64, secs: i64, spec: &JobSpec, next: Option<i64>) -> Stamped {
    let spec = Arc::new(JobSpec { displayname: format!("op-{op}"), ..spec.clone() });
    let timing = Timing { anchor: wall(secs), next: next.map(wall) };
    let id = CommandId { node: NodeId(1), boot: Boot(1), seq: op };
    Stamped { id: Some(id), ..stamped(secs, Command::PutJob { spec, timing }) }
}

pub(super) fn target(host: usize) -> Target {
    Target { id: id(host), name: NodeName::new(format!("n{host}")).unwrap() }
}

/// The id of the first node on a machine.
pub(super) fn id(host: usize) -> NodeId {
    NodeId(host as u64 + 1)
}

pub(super) fn execution(claim: u64, slot: u32) -> ExecutionId {
    ExecutionId { claim: LogIndex(claim), slot }
}

/// An entry, ready to be written.
pub(super) fn entry(index: u64, term: u64, content: &Content) -> Record {
    let (index, term) = (LogIndex(index), Term(term));
    Record::Entry { index, term, body: content.write(index, term).unwrap() }
}

/// A record of the vote of a term for the node on `host`.
pub(super) fn vote(term: u64, host: usize) -> Record {
    Record::Vote(encode(&Vote::new(term, id(host))))
}

pub(super) fn snapshot(index: u64) -> Snapshot {
    let file = SnapshotFile { index: LogIndex(index), ..SnapshotFile::default() };
    Snapshot { file, meta: Bytes::new(), data: Bytes::new() }
}

pub(super) fn log_id(term: u64, index: u64) -> Bytes {
    encode(&LogId::new_term_index(term, index))
}

/// Servers whose every deed is made up. Each record is written to all of them.
pub(super) struct Cluster {
    pub(super) checkers: Checkers,
    pub(super) size: usize,
    pub(super) now: Mono,
    pub(super) secs: i64,
    pub(super) next: u64,
    pub(super) term: u64,
    writes: u64,
    /// What each disk would give back.
    pub(super) disks: BTreeMap<usize, Recovered>,
}

impl Cluster {
    /// Founded: entry 0 is the membership, the server 0 leads in term 1.
    pub(super) fn new(size: usize) -> Self {
        Self::with_setup(size, Setup { machines: size, ..Setup::default() })
    }

    pub(super) fn with_setup(size: usize, setup: Setup) -> Self {
        let mut cluster = Self {
            checkers: Checkers::new(setup),
            size,
            now: Mono::from_micros(1_000_000),
            secs: 0,
            next: 0,
            term: 1,
            writes: 0,
            disks: BTreeMap::new(),
        };
        for host in 0..size {
            cluster.disks.insert(host, Recovered::default());
            cluster.boot(host, id(host));
        }
        for host in 0..size {
            cluster.write(host, &[vote(1, 0)]);
        }
        let halves = vec![(0..size).map(id).collect()];
        let learners = BTreeSet::new();
        cluster.status(0, Role::Leader, None);
        cluster.append(&Content::Membership { halves, learners });
        cluster.commit();
        cluster
    }

    pub(super) fn see(&mut self, seen: &Seen<'_>) {
        self.checkers.observe(self.now, wall(self.secs), seen);
    }

    /// Time passes.
    pub(super) fn pass(&mut self, secs: u32) {
        self.now = self.now + Duration::from_secs(u64::from(secs));
        self.secs += i64::from(secs);
    }

    pub(super) fn boot(&mut self, host: usize, id: NodeId) {
        let recovered = self.disks[&host].clone();
        self.see(&Seen::Boot { host, id, is_server: true, recovered: &recovered });
    }

    pub(super) fn down(&mut self, host: usize) {
        let durable = self.disks[&host].clone();
        self.see(&Seen::Down { host, durable: Some(&durable), is_wiped: false });
    }

    pub(super) fn wipe(&mut self, host: usize) {
        self.disks.insert(host, Recovered::default());
        self.see(&Seen::Down { host, durable: None, is_wiped: true });
    }

    /// Records go to one disk and are not synced.
    pub(super) fn write_unsynced(&mut self, host: usize, records: &[Record]) -> u64 {
        self.writes += 1;
        let write = self.writes;
        self.see(&Seen::Written { host, write, records });
        write
    }

    /// Records go to one disk and are synced.
    pub(super) fn write(&mut self, host: usize, records: &[Record]) {
        let write = self.write_unsynced(host, records);
        self.see(&Seen::Synced { host, write });
        let disk = self.disks.get_mut(&host).unwrap();
        for record in records {
            match record {
                Record::Vote(body) => disk.vote = Some(body.clone()),
                Record::Entry { index, term, body } => {
                    disk.entries.push((*index, *term, body.clone()));
                }
                Record::Truncate { from } => disk.entries.retain(|entry| entry.0 < *from),
                Record::Purge { upto, body } => {
                    disk.entries.retain(|entry| entry.0 > *upto);
                    disk.purged = Some(body.clone());
                }
                Record::Reset { .. }
                | Record::Committed(_)
                | Record::Local(_)
                | Record::Checkpoint(_)
                | Record::Doubt(_)
                | Record::Settled => {}
            }
        }
    }

    /// All vote for a server in the next term. It does not say yet that it leads.
    pub(super) fn elect(&mut self, host: usize) {
        self.term += 1;
        for voter in 0..self.size {
            self.write(voter, &[vote(self.term, host)]);
        }
    }

    /// The next entry goes to all disks. Gives its index.
    pub(super) fn append(&mut self, content: &Content) -> u64 {
        let record = entry(self.next, self.term, content);
        for host in 0..self.size {
            self.write(host, std::slice::from_ref(&record));
        }
        self.next += 1;
        self.next - 1
    }

    /// A command is appended and committed. Gives its index.
    pub(super) fn apply(&mut self, stamped: &Stamped) -> u64 {
        let index = self.append(&Content::Command(encode(stamped)));
        self.commit();
        index
    }

    /// All servers say that everything is committed and applied.
    pub(super) fn commit(&mut self) {
        let committed = self.next.checked_sub(1);
        self.status(0, Role::Leader, committed);
        for host in 1..self.size {
            self.status(host, Role::Follower, committed);
        }
    }

    pub(super) fn status_of(&self, role: Role, committed: Option<u64>) -> Status {
        Status {
            role,
            term: Term(self.term),
            voters: Arc::new((0..self.size).map(id).collect()),
            committed: committed.map(LogIndex),
            applied: committed.map(LogIndex),
            ..Status::default()
        }
    }

    pub(super) fn status(&mut self, host: usize, role: Role, committed: Option<u64>) {
        let status = self.status_of(role, committed);
        self.say(host, &status);
    }

    pub(super) fn say(&mut self, host: usize, status: &Status) {
        let own = self.disks[&host].entries.iter();
        let committed_term =
            own.filter(|entry| Some(entry.0) == status.committed).map(|entry| entry.1).next_back();
        self.see(&Seen::Status { host, id: id(host), status, committed_term });
    }

    pub(super) fn start(&mut self, id: ExecutionId, job: &str, due: i64, host: usize) {
        let start = Start {
            execution: id,
            job: JobName::new(job).unwrap(),
            due: wall(due),
            host,
            node: self::id(host),
            at: self.now,
            wall: wall(self.secs),
        };
        self.see(&Seen::Started(&start));
    }

    pub(super) fn end(&mut self, execution: ExecutionId, host: usize, outcome: Outcome) {
        let result = &result(outcome);
        self.see(&Seen::Ended { execution, host, result, is_heard: true });
    }

    pub(super) fn ask(&mut self, op: u64, request: &cronclave::node::request::Request) {
        self.see(&Seen::Asked { op: OpId(op), via: 0, request });
    }

    pub(super) fn answer(&mut self, op: u64, answer: &super::seen::Answer) {
        self.see(&Seen::Answered { op: OpId(op), answer });
    }

    /// What the checker of this name has against the run so far.
    pub(super) fn found(&self, checker: &str) -> Vec<String> {
        let mine = self.checkers.violations().iter().filter(|it| it.checker == checker);
        mine.map(|violation| violation.text.clone()).collect()
    }

    /// Nothing at all is wrong.
    pub(super) fn assert_healthy(&self) {
        assert_eq!(self.checkers.violations(), []);
    }

    pub(super) fn finish(&mut self, ending: Ending) -> Vec<Verdict> {
        let ending = Ending { at: self.now, wall: wall(self.secs), ..ending };
        self.checkers.finish(&ending)
    }
}
