//! The run ledger, while a simulation runs: what starts, what falls due, what is given up.
//!
//! - An execution starts at most once, anywhere, and not before the entry that opened it is
//!   committed; it is started by the node, for the job and for the instant that this entry says,
//!   and not before it is due.
//! - The instants of a job are claimed one after the other, as an [`Oracle`] has them: none twice,
//!   none left out, none invented. What a change of its job makes void leaves a row.
//! - An execution is given up as lost only if something befell its node.
//!
//! What has to hold in the end is in [`runs_end`](super::runs_end).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cronclave::id::{ExecutionId, JobName, LogIndex, NodeId};
use cronclave::jobs::job::{JobSpec, Outcome, RunResult};
use cronclave::time::{Mono, Wall};

use super::model::{Model, Step};
use super::oracle::{Next, Oracle};
use super::seen::Start;
use super::tally::{Count, Judge};
use super::{Setup, Verdict};

/// So long after something befell a node an execution there may be given up: the leader's patience
/// of a minute, and a new leader begins it anew.
const GIVEN_UP_MAX: Duration = Duration::from_secs(180);

/// How many void instants of one job are looked at.
const VOID_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Runs {
    pub(super) count: Count,
    plans: BTreeMap<JobName, Plan>,
    pub(super) starts: BTreeMap<ExecutionId, (usize, Mono)>,
    pub(super) ends: BTreeMap<ExecutionId, End>,
    /// When each open execution was opened.
    pub(super) opened: BTreeMap<ExecutionId, Mono>,
    /// The node that runs on each machine, and since when.
    pub(super) up: BTreeMap<usize, (NodeId, Mono)>,
    /// Where each node ran.
    hosts: BTreeMap<NodeId, usize>,
    /// Machines to which something is happening now.
    troubled: BTreeSet<usize>,
    /// When something last befell each machine.
    trouble: BTreeMap<usize, Mono>,
    /// When each machine's node died, ascending.
    pub(super) downs: BTreeMap<usize, Vec<Mono>>,
    pub(super) wipes: BTreeMap<usize, Vec<Mono>>,
}

/// The times of an enabled job.
#[derive(Debug)]
pub(super) struct Plan {
    spec: Arc<JobSpec>,
    anchor: Wall,
    oracle: Oracle,
    pub(super) next: Next,
    /// By the zone that the cluster had before: a claim may be under way that was worked out so.
    before: Option<(Oracle, Next)>,
}

/// The end of a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) host: usize,
    pub(super) at: Mono,
    pub(super) outcome: Outcome,
    pub(super) is_heard: bool,
}

impl Runs {
    pub(super) fn new() -> Self {
        Self {
            count: Count::new("run ledger"),
            plans: BTreeMap::new(),
            starts: BTreeMap::new(),
            ends: BTreeMap::new(),
            opened: BTreeMap::new(),
            up: BTreeMap::new(),
            hosts: BTreeMap::new(),
            troubled: BTreeSet::new(),
            trouble: BTreeMap::new(),
            downs: BTreeMap::new(),
            wipes: BTreeMap::new(),
        }
    }

    pub(super) fn on_boot(&mut self, judge: &Judge, host: usize, id: NodeId) {
        self.hosts.insert(id, host);
        self.up.insert(host, (id, judge.at));
        self.trouble.insert(host, judge.at);
    }

    pub(super) fn on_down(&mut self, judge: &Judge, host: usize, is_wiped: bool) {
        self.trouble.insert(host, judge.at);
        self.downs.entry(host).or_default().push(judge.at);
        self.up.remove(&host);
        if is_wiped {
            self.wipes.entry(host).or_default().push(judge.at);
        }
    }

    /// Something befalls a machine that may cut it off or hold it up.
    pub(super) fn disturb(&mut self, at: Mono, host: usize) {
        self.trouble.insert(host, at);
        self.troubled.insert(host);
    }

    /// That is over.
    pub(super) fn calm(&mut self, at: Mono, host: usize) {
        self.trouble.insert(host, at);
        self.troubled.remove(&host);
    }

    /// A process starts. `model` is given if the whole log is known, which is replayed up to
    /// `upto`.
    pub(super) fn on_start(
        &mut self,
        judge: &mut Judge,
        setup: &Setup,
        start: &Start,
        model: Option<(&Model, Option<LogIndex>)>,
    ) {
        let id = start.execution;
        let again = self.starts.insert(id, (start.host, start.at));
        self.count.check(judge, again.is_none(), || {
            let (host, at) = again.unwrap_or_default();
            let now = start.host + 1;
            format!("execution {id} starts on n{now}, and has on n{} at {at}", host + 1)
        });
        let early = start.wall + setup.early_max < start.due;
        self.count.check(judge, !early, || {
            format!("{id} of {} starts at {}, and is due at {}", start.job, start.wall, start.due)
        });
        let Some((model, upto)) = model else { return };
        let is_committed = Some(id.claim) <= upto;
        if !self.count.check(judge, is_committed, || {
            format!("{id} of {} starts, and only {upto:?} is committed", start.job)
        }) {
            return;
        }
        let row = model.rows.get(id);
        let fits = row.is_some_and(|row| {
            row.node == Some(start.node)
                && row.job == start.job
                && row.due == start.due
                && start.wall + setup.early_max >= row.not_before
        });
        self.count.check(judge, fits, || {
            format!("{start:?} is not what its claim says, which is {row:?}")
        });
    }

    pub(super) fn on_end(
        &mut self,
        judge: &mut Judge,
        (id, host): (ExecutionId, usize),
        result: &RunResult,
        is_heard: bool,
    ) {
        let started = self.starts.get(&id).map(|(host, _)| *host);
        self.count.check(judge, started == Some(host), || {
            format!("{id} ends on n{}, and started on {started:?}", host + 1)
        });
        let (at, outcome) = (judge.at, result.outcome);
        self.ends.insert(id, End { host, at, outcome, is_heard });
    }

    /// An entry was replayed.
    pub(super) fn on_steps(&mut self, judge: &mut Judge, model: &Model, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Timed { spec, anchor, from } => {
                    let oracle = Oracle::new(spec, &model.zone);
                    let next = oracle.next(*from, *anchor);
                    let (spec, anchor) = (Arc::clone(spec), *anchor);
                    let name = spec.name.clone();
                    self.plans.insert(name, Plan { spec, anchor, oracle, next, before: None });
                }
                Step::Stopped { job, until, missed, is_deleted } => {
                    self.on_stopped(judge, job, *until, *missed, *is_deleted);
                }
                Step::Zoned => self.on_zone(&model.zone),
                Step::Instant { job, due, has_reason, outcome } => {
                    self.on_instant(judge, job, *due);
                    self.count.check(judge, *has_reason, || {
                        format!("{job} is {} at {due} for no reason", outcome.as_str())
                    });
                }
                Step::Opened(id) => {
                    self.opened.insert(*id, judge.at);
                }
                Step::Closed { id, has_row, .. } => self.on_closed(judge, model, *id, *has_row),
                Step::Write { .. } | Step::Defined { .. } => {}
            }
        }
    }

    fn on_zone(&mut self, zone: &str) {
        for plan in self.plans.values_mut().filter(|plan| plan.spec.timezone.is_empty()) {
            let oracle = Oracle::new(&plan.spec, zone);
            let before = std::mem::replace(&mut plan.oracle, oracle);
            plan.before = Some((before, plan.next));
        }
    }

    fn on_instant(&mut self, judge: &mut Judge, job: &JobName, due: Wall) {
        let Some(plan) = self.plans.get_mut(job) else {
            self.count.check(judge, false, || format!("{job} is claimed for {due}, and is off"));
            return;
        };
        let expected = plan.next;
        let by_old_zone = plan.before.as_ref().is_some_and(|(_, next)| *next == Next::At(due));
        if expected != Next::Unjudged {
            let fits = expected == Next::At(due) || by_old_zone;
            self.count.check(judge, fits, || {
                format!("{job} is claimed for {due}, and the next of its instants is {expected:?}")
            });
        }
        plan.next = plan.oracle.next(due, plan.anchor);
        plan.before = plan.before.take().filter(|_| by_old_zone).map(|(oracle, _)| {
            let next = oracle.next(due, plan.anchor);
            (oracle, next)
        });
    }

    fn on_stopped(
        &mut self,
        judge: &mut Judge,
        job: &JobName,
        until: Wall,
        missed: Option<Wall>,
        is_deleted: bool,
    ) {
        let Some(plan) = self.plans.remove(job) else { return };
        if is_deleted || plan.before.is_some() {
            return;
        }
        let mut void = Vec::new();
        let mut next = plan.next;
        while let Next::At(due) = next
            && due <= until
            && void.len() < VOID_MAX
        {
            void.push(due);
            next = plan.oracle.next(due, plan.anchor);
        }
        if next == Next::Unjudged {
            return;
        }
        let booked: Vec<Wall> = missed.into_iter().collect();
        self.count.check(judge, void == booked, || {
            let (first, count) = (void.first(), void.len());
            format!(
                "{job} was changed at {until}: {count} of its instants, from {first:?} on, were \
                 not claimed by then, and rows say {booked:?}"
            )
        });
    }

    fn on_closed(&mut self, judge: &mut Judge, model: &Model, id: ExecutionId, has_row: bool) {
        let opened = self.opened.remove(&id);
        let (Some(row), Some(opened), true) = (model.rows.get(id), opened, has_row) else { return };
        if row.outcome != Outcome::Lost {
            return;
        }
        let host = row.node.and_then(|node| self.hosts.get(&node).copied());
        let excused = host.is_some_and(|host| {
            let last = self.trouble.get(&host);
            self.troubled.contains(&host) || last.is_some_and(|at| *at + GIVEN_UP_MAX >= opened)
        });
        self.count.check(judge, excused, || {
            format!("{row:?} is given up as lost, and nothing befell host {host:?}")
        });
    }

    /// The enabled jobs.
    pub(super) fn plans(&self) -> impl Iterator<Item = (&JobName, &Plan)> {
        self.plans.iter()
    }

    pub(super) fn verdict(&self, judge: &Judge) -> Verdict {
        self.count.verdict(judge)
    }
}
