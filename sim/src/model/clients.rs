//! Clients: they create, change, toggle, delete, run and read jobs, one request at a time each, at
//! servers that may be dead, and learn what became of it or do not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cronclave::id::JobName;
use cronclave::jobs::history::change::{Order, Select, Sort};
use cronclave::jobs::job::{Concurrency, JobSpec};
use cronclave::node::io::Input;
use cronclave::node::request::{Consistency, Reply, Request, Write};

use super::clock::true_wall;
use super::machine::POOL;
use super::{Counts, Event, Sim};
use crate::check::seen::{Answer, OpId, Seen};
use crate::plan::Options;
use crate::story::What;

/// A node promises to answer within 2.5 s; a client that has heard nothing after this gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// The first requests come when servers may have found each other.
pub(super) const FIRST_AFTER: Duration = Duration::from_secs(1);

/// A client whose server was not there tries another so soon.
const TRY_NEXT: Duration = Duration::from_millis(50);

/// The job that is there in every run, so that something is due whatever else is.
pub(crate) const TICK: &str = "tick";

/// How many jobs a burst writes to, over and over.
const BURST_NAMES: u32 = 10;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client of the workload.
    Client(usize),
    /// Who puts the stock.
    Loader(usize),
    /// A probe.
    Probe(usize),
    /// Whoever expects a server to name no leader.
    Leaderless,
    /// Nobody.
    Nobody,
}

/// A request without an answer.
#[derive(Clone, Copy, Debug)]
struct Open {
    asker: Asker,
    is_write: bool,
    via: usize,
}

/// All clients.
#[derive(Debug)]
pub(super) struct Clients {
    count: usize,
    open: BTreeMap<OpId, Open>,
    op_last: u64,
    /// The write of [`TICK`] that is under way or was granted.
    tick: Option<OpId>,
    /// The writes of the workload, and how many of them were acknowledged.
    writes: u64,
    granted: u64,
    counts: Counts,
}

impl Clients {
    pub(super) fn new(options: &Options) -> Self {
        let counts = Counts::default();
        Self {
            count: options.clients,
            open: BTreeMap::new(),
            op_last: 0,
            tick: None,
            writes: 0,
            granted: 0,
            counts,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether enough of the workload was acknowledged for the run to have tested anything (etcd's
    /// rule of a minimum rate).
    pub(super) fn is_enough(&self) -> bool {
        self.count == 0 || self.granted >= (self.writes / 50).max(1)
    }

    /// How many requests have no answer yet.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }
}

impl Sim {
    pub(super) fn begin_clients(&mut self) {
        for client in 0..self.clients.count {
            let by = FIRST_AFTER + self.draws.load.span(self.options.rest);
            self.after(by, Event::Client(client));
        }
    }

    /// Asks a server something. `make` is given the attempt's name, which a job bears as a mark.
    pub(super) fn ask(
        &mut self,
        asker: Asker,
        via: usize,
        make: impl FnOnce(&mut Self, OpId) -> Request,
    ) {
        self.clients.op_last += 1;
        let op = OpId(self.clients.op_last);
        let request = make(self, op);
        let is_write = matches!(request, Request::Write(_));
        self.clients.counts.asked += 1;
        self.clients.open.insert(op, Open { asker, is_write, via });
        self.see(&Seen::Asked { op, via, request: &request });
        self.tell(via, || What::Client(format!("op-{}: {}", op.0, label(&request))));
        let Some(host) = &mut self.machines[via].host else {
            return self.answered(op, &Answer::Unheard);
        };
        let id = host.open(op);
        let request = self.layer.request(request);
        self.after(PATIENCE, Event::Patience(op));
        self.give(via, Input::Request { id, request });
    }

    pub(super) fn ask_for_nobody(&mut self, via: usize, request: Request) {
        self.ask(Asker::Nobody, via, |_, _| request);
    }

    /// Many writes at once, each of which is judged as those of the workload are.
    pub(super) fn burst(&mut self, via: usize, count: u32) {
        for number in 0..count {
            self.ask(Asker::Nobody, via, |sim, op| {
                let name = format!("burst-{}", number % BURST_NAMES);
                let spec = sim.job(&name, "@manually".to_owned(), op);
                Request::Write(Write::PutJob(Arc::new(spec)))
            });
        }
    }

    pub(super) fn on_patience(&mut self, op: OpId) {
        if self.clients.open.contains_key(&op) {
            self.answered(op, &Answer::Silence);
        }
    }

    /// What came of a request. An answer that comes after its client gave up is nobody's.
    pub(super) fn answered(&mut self, op: OpId, answer: &Answer) {
        let Some(Open { asker, is_write, via }) = self.clients.open.remove(&op) else { return };
        let hidden;
        let answer = match (asker, answer) {
            (Asker::Client(_), Answer::Reply(reply)) => {
                hidden = Answer::Reply(self.layer.reply(reply.clone()));
                &hidden
            }
            _ => answer,
        };
        let is_workload = matches!(asker, Asker::Client(_)) && is_write;
        self.clients.writes += u64::from(is_workload);
        self.see(&Seen::Answered { op, answer });
        self.tell(via, || What::Client(format!("op-{}: {}", op.0, told(answer))));
        let is_granted = match answer {
            Answer::Reply(Reply::Failed(_)) | Answer::Unheard | Answer::Lost | Answer::Silence => {
                false
            }
            Answer::Reply(_) => true,
        };
        if self.clients.tick == Some(op) && !is_granted {
            self.clients.tick = None;
        }
        if is_granted && is_write {
            self.clients.granted += u64::from(is_workload);
            self.clients.counts.acked += 1;
        } else if is_granted {
            self.clients.counts.read += 1;
        }
        match asker {
            Asker::Client(client) => {
                let rests = match answer {
                    Answer::Unheard => TRY_NEXT,
                    Answer::Reply(_) | Answer::Lost | Answer::Silence => {
                        self.draws.load.span(self.options.rest)
                    }
                };
                self.after(rests, Event::Client(client));
            }
            Asker::Loader(loader) => self.loader_answered(loader, is_granted),
            Asker::Probe(probe) => self.probe_answered(probe, via, is_write, answer),
            Asker::Leaderless => self.status_answered(via, answer),
            Asker::Nobody => {}
        }
    }

    /// A client has rested, and asks for something.
    pub(super) fn on_client(&mut self, client: usize) {
        if self.now >= self.end {
            return;
        }
        let via = self.some_server();
        let asker = Asker::Client(client);
        if self.clients.tick.is_none() {
            return self.ask(asker, via, |sim, op| {
                sim.clients.tick = Some(op);
                let spec = sim.job(TICK, "@every 1s".to_owned(), op);
                Request::Write(Write::PutJob(Arc::new(spec)))
            });
        }
        let is_read = self.draws.load.number(0..=99) < u64::from(self.options.reads);
        match is_read {
            true => self.ask(asker, via, |sim, _| sim.some_read()),
            false => self.ask(asker, via, |sim, op| Request::Write(sim.some_write(op))),
        }
    }

    /// One of the servers, mostly one that runs.
    pub(super) fn some_server(&mut self) -> usize {
        let servers: Vec<usize> =
            (0..self.machines.len()).filter(|&host| self.options.is_server(host)).collect();
        let is_up = |host: &usize| self.machines[*host].host.is_some();
        let live: Vec<usize> = servers.iter().copied().filter(is_up).collect();
        let of = if live.is_empty() || self.draws.load.chance(20_000) { servers } else { live };
        of[self.draws.load.index(of.len())]
    }

    fn some_name(&mut self) -> JobName {
        let number = self.draws.load.index(self.options.jobs);
        JobName::new(&format!("job-{number}")).expect("a good name")
    }

    fn some_read(&mut self) -> Request {
        if self.draws.load.chance(900_000) {
            return Request::Read(Consistency::Linearizable);
        }
        let select = Select::Part {
            sort: Sort::Id,
            order: Order::Descending,
            skip: 0,
            limit: 10,
            output_len_max: 0,
        };
        let job = self.some_name();
        Request::Executions { job, select, consistency: Consistency::Linearizable }
    }

    fn some_write(&mut self, op: OpId) -> Write {
        let name = self.some_name();
        match self.draws.load.number(0..=9) {
            0 => Write::DeleteJob(name),
            1 => Write::ToggleJob(name),
            2 | 3 => Write::RunJob(name),
            _ => {
                let schedule = self.some_schedule();
                let mut spec = self.job(name.as_str(), schedule, op);
                if self.options.job_bytes > 0 {
                    let command = "x".repeat(self.options.job_bytes as usize);
                    spec.executor_config.insert("command".to_owned(), command);
                }
                Write::PutJob(Arc::new(spec))
            }
        }
    }

    /// Seconds, minutes, `@every`, `@at` and zones, and never.
    fn some_schedule(&mut self) -> String {
        let period = u64::from(self.options.period);
        let draws = &mut self.draws.load;
        match draws.number(0..=9) {
            0..=3 => {
                let every = period * draws.number(1..=6);
                format!("@every {every}s")
            }
            4 | 5 => {
                let step = [2, 3, 5, 10, 15, 20, 30][draws.index(7)].max(period);
                format!("*/{step} * * * * *")
            }
            6 => "0 * * * * *".to_owned(),
            7 => {
                let second = draws.number(0..=59);
                format!("{second} * * * * *")
            }
            8 => {
                let by = Duration::from_secs(draws.number(1..=30));
                format!("@at {}", true_wall(self.now) + by)
            }
            _ => "@manually".to_owned(),
        }
    }

    /// A job whose display name tells which attempt wrote it.
    pub(super) fn job(&mut self, name: &str, schedule: String, op: OpId) -> JobSpec {
        let draws = &mut self.draws.load;
        let zones = ["", "", "", "UTC", "Europe/Berlin", "Asia/Kolkata"];
        let is_tick = name == TICK;
        let timezone = zones[draws.index(zones.len())].to_owned();
        let is_forbidden = !is_tick && draws.chance(250_000);
        let retries = if is_tick || !draws.chance(200_000) { 0 } else { 1 };
        let mut tags = BTreeMap::new();
        match self.options.agents {
            0 => tags.insert("server".to_owned(), "true:1".to_owned()),
            _ => tags.insert(POOL.0.to_owned(), format!("{}:1", POOL.1)),
        };
        JobSpec {
            name: JobName::new(name).expect("a good name"),
            displayname: format!("op-{}", op.0),
            schedule,
            timezone,
            owner: String::new(),
            owner_email: String::new(),
            disabled: false,
            tags,
            metadata: BTreeMap::new(),
            retries,
            concurrency: if is_forbidden { Concurrency::Forbid } else { Concurrency::Allow },
            executor: "shell".to_owned(),
            executor_config: BTreeMap::new(),
            ephemeral: false,
            starts_at: None,
            expires_at: None,
        }
    }

    /// Whether clients have nothing open any more.
    pub(super) fn clients_rest(&self) -> bool {
        self.clients.open() == 0
    }
}

fn label(request: &Request) -> String {
    match request {
        Request::Write(Write::PutJob(spec)) => format!("put {} {}", spec.name, spec.schedule),
        Request::Write(Write::DeleteJob(name)) => format!("delete {name}"),
        Request::Write(Write::ToggleJob(name)) => format!("toggle {name}"),
        Request::Write(Write::RunJob(name)) => format!("run {name}"),
        Request::Write(Write::SetTimezone(zone)) => format!("time zone {zone}"),
        Request::Read(_) => "read".to_owned(),
        Request::Executions { job, .. } => format!("executions of {job}"),
        Request::Members => "members".to_owned(),
        Request::Status => "status".to_owned(),
        Request::Leave => "leave".to_owned(),
    }
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Reply(Reply::Failed(error)) => format!("failed: {error}"),
        Answer::Reply(Reply::Written(_)) => "done".to_owned(),
        Answer::Reply(_) => "answered".to_owned(),
        Answer::Unheard => "nobody listens".to_owned(),
        Answer::Lost => "its server died".to_owned(),
        Answer::Silence => "no answer".to_owned(),
    }
}
