//! The leader's half of dispatch: what is due, where it runs, what has to be ordered, what is lost.
//!
//! Everything is derived from the replicated state and from who answers now, so a new leader goes
//! on where the old one stopped, and a replayed log repeats nothing. What the leader remembers
//! itself (which order went into which session, since when a node is silent) may be lost at any
//! time.
//!
//! **Invariants**
//! - An order goes out only for an execution that stands open in applied state.
//! - A due instant with no node to run it waits for one, and is claimed as missed when it has
//!   waited long enough; none is dropped.
//! - One batch of claims is under way at a time; the next one is worked out from its result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::launch::LaunchSpec;
use super::message::{Order, Progress, Report};
use super::timing::Schedules;
use crate::dispatch::agent::lost;
use crate::id::{ExecutionId, NodeId, NodeName, SessionId, Term};
use crate::jobs::State;
use crate::jobs::command::{Claim, Command, Plan};
use crate::jobs::job::{Execution, Job, JobSpec, Outcome, RunResult, Target, Trigger};
use crate::time::{Mono, Now, Wall};

/// The most claims in one log entry.
pub const CLAIMS_MAX: usize = 512;

/// The most orders handed out in one step; the rest follows in the next.
pub const ORDERS_MAX: usize = 1_024;

/// An order whose start is not known after this long is repeated; its node starts it once.
const ORDER_REPEAT: Duration = Duration::from_secs(5);

/// The leader's patience. Every duration is measured from what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A due instant runs late up to this long after it was due, and is missed beyond.
    pub misfire_grace: Duration,
    /// A due instant that no node matches waits this long, from when it was due or from the
    /// beginning of the leadership, whichever is later.
    pub target_wait: Duration,
    /// After its start a node waits this long for the others to connect before it picks any.
    pub settle: Duration,
    /// An execution whose node is silent for this long is lost.
    pub lost_after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            misfire_grace: Duration::from_secs(3_600),
            target_wait: Duration::from_secs(30),
            settle: Duration::from_secs(1),
            lost_after: Duration::from_secs(60),
        }
    }
}

/// A node that could run something, as the leader sees it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its tags, the reserved ones included.
    pub tags: BTreeMap<String, String>,
    /// The session to it, or `None` if there is none: then it runs nothing new.
    pub session: Option<SessionId>,
    /// Whether its disk is full: then it starts nothing before there is space.
    pub disk_full: bool,
}

/// What the leader wants done after a look at the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// To be proposed in one entry, and followed by [`Leader::on_claimed`]. Empty for none.
    pub claims: Vec<Claim>,
    /// Executions to be given up as lost, each followed by [`Leader::on_reported`].
    pub lost: Vec<(ExecutionId, RunResult)>,
    /// To be sent, each to its node.
    pub orders: Vec<(NodeId, Order)>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Mono>,
}

/// The leader's memory for one term. See the [module](self).
#[derive(Debug)]
pub struct Leader {
    term: Term,
    since: Now,
    booted: Mono,
    patience: Patience,
    rng: StdRng,
    schedules: Schedules,
    claiming: bool,
    reporting: BTreeSet<(ExecutionId, bool)>,
    sent: BTreeMap<ExecutionId, (SessionId, Mono)>,
    silent_since: BTreeMap<NodeId, Mono>,
}

impl Leader {
    /// The leader of `term`, from `since` (its wall clock is the cluster's) on.
    pub fn new(term: Term, since: Now, booted: Mono, patience: Patience, seed: u64) -> Self {
        Self {
            term,
            since,
            booted,
            patience,
            rng: StdRng::seed_from_u64(seed),
            schedules: Schedules::default(),
            claiming: false,
            reporting: BTreeSet::new(),
            sent: BTreeMap::new(),
            silent_since: BTreeMap::new(),
        }
    }

    /// Which term it leads.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Looks at the state at `now` (its wall clock is the cluster's) and says what has to be done.
    pub fn step(&mut self, now: Now, state: &State, nodes: &[NodeView]) -> Step {
        let mut step = Step::default();
        self.claim_due(now, state, nodes, &mut step);
        self.order_open(now, state, nodes, &mut step);
        step
    }

    /// The claims under way were applied, or were refused by the log.
    pub fn on_claimed(&mut self) {
        self.claiming = false;
    }

    fn claim_due(&mut self, now: Now, state: &State, nodes: &[NodeView], step: &mut Step) {
        if self.claiming {
            return;
        }
        let settled = self.booted + self.patience.settle;
        if now.mono < settled {
            wake_at(step, settled);
            return;
        }
        let mut claims = Vec::new();
        for (_, name) in state.due_until(now.wall) {
            if claims.len() >= CLAIMS_MAX {
                break;
            }
            if let Some(job) = state.job(name) {
                self.claim_job(now, state, job, nodes, &mut claims, step);
            }
        }
        if !claims.is_empty() {
            self.claiming = true;
            step.claims = claims;
        }
        if let Some(due) = state.next_due_after(now.wall) {
            wake_at(step, now.mono + due.saturating_since(now.wall));
        }
    }

    /// Claims every instant of `job` that is due, oldest first, as far as nodes are there for it.
    fn claim_job(
        &mut self,
        now: Now,
        state: &State,
        job: &Job,
        nodes: &[NodeView],
        claims: &mut Vec<Claim>,
        step: &mut Step,
    ) {
        let mut next = job.next;
        while let Some(due) = next.filter(|&due| due <= now.wall) {
            if claims.len() >= CLAIMS_MAX {
                return;
            }
            let Some(plan) = self.plan(now, &job.spec, due, nodes, step) else { return };
            next = self.schedules.next_after(state, job, due);
            let (job, revision) = (job.spec.name.clone(), job.revision);
            claims.push(Claim { job, revision, trigger: Trigger::Schedule, due, next, plan });
        }
    }

    /// The claims of every instant of `job` that is due, for before its times are changed: what
    /// waits for a node does not wait longer. `None` if they have to be made one batch after the
    /// other, or nothing is claimed yet; then the change has to wait.
    pub fn claim_before_change(
        &mut self,
        now: Now,
        state: &State,
        job: &Job,
        nodes: &[NodeView],
    ) -> Option<Vec<Claim>> {
        let mut claims = Vec::new();
        let mut next = job.next.filter(|_| !job.spec.disabled);
        while let Some(due) = next.filter(|&due| due <= now.wall) {
            if claims.len() >= CLAIMS_MAX || now.mono < self.booted + self.patience.settle {
                return None;
            }
            let plan = self.plan(now, &job.spec, due, nodes, &mut Step::default());
            let changed = || Plan::Miss("the job was changed before it could run".to_owned());
            let plan = plan.unwrap_or_else(changed);
            next = self.schedules.next_after(state, job, due);
            let (job, revision) = (job.spec.name.clone(), job.revision);
            claims.push(Claim { job, revision, trigger: Trigger::Schedule, due, next, plan });
        }
        Some(claims)
    }

    /// What becomes of one due instant, or `None` if it is to wait for a node.
    fn plan(
        &mut self,
        now: Now,
        spec: &JobSpec,
        due: Wall,
        nodes: &[NodeView],
        step: &mut Step,
    ) -> Option<Plan> {
        let late = now.wall.saturating_since(due);
        if late > self.patience.misfire_grace {
            return Some(Plan::Miss(format!(
                "{} s late, more than the misfire grace of {} s",
                late.as_secs(),
                self.patience.misfire_grace.as_secs()
            )));
        }
        let targets = self.choose(&spec.tags, nodes);
        if !targets.is_empty() {
            return Some(Plan::Run(targets));
        }
        let since = due.max(self.since.wall);
        let patience = since + self.patience.target_wait;
        if now.wall < patience {
            wake_at(step, now.mono + patience.saturating_since(now.wall));
            return None;
        }
        Some(Plan::Miss(no_match(&spec.tags)))
    }

    /// A client asks to run a job now. The claim, or the reason why nothing can run.
    ///
    /// # Errors
    /// If no node that answers matches the job's tags.
    pub fn claim_manual(
        &mut self,
        stamp: Wall,
        job: &Job,
        nodes: &[NodeView],
    ) -> Result<Claim, String> {
        let targets = self.choose(&job.spec.tags, nodes);
        if targets.is_empty() {
            return Err(no_match(&job.spec.tags));
        }
        Ok(Claim {
            job: job.spec.name.clone(),
            revision: job.revision,
            trigger: Trigger::Manual,
            due: stamp,
            next: None,
            plan: Plan::Run(targets),
        })
    }

    /// Dkron's rule (its `tags.go`): all tags must match, the smallest count holds, fewer matches
    /// than that are all taken, and without a count every match is.
    fn choose(&mut self, tags: &BTreeMap<String, String>, nodes: &[NodeView]) -> Vec<Target> {
        let wanted: Vec<(&str, &str, Option<usize>)> =
            tags.iter().map(|(key, value)| split_count(key, value)).collect();
        let matches = |node: &&NodeView| {
            let has = |key: &str, value: &str| node.tags.get(key).is_some_and(|v| v == value);
            node.session.is_some() && wanted.iter().all(|(key, value, _)| has(key, value))
        };
        let mut found: Vec<&NodeView> = nodes.iter().filter(matches).collect();
        // Where no other is there, the order waits for space on a full disk.
        if found.iter().any(|node| !node.disk_full) {
            found.retain(|node| !node.disk_full);
        }
        if let Some(count) = wanted.iter().filter_map(|(_, _, count)| *count).min() {
            found.shuffle(&mut self.rng);
            found.truncate(count);
            found.sort_by_key(|node| node.id);
        }
        let target = |node: &NodeView| Target { id: node.id, name: node.name.clone() };
        found.into_iter().map(target).collect()
    }

    fn order_open(&mut self, now: Now, state: &State, nodes: &[NodeView], step: &mut Step) {
        let sessions: BTreeMap<NodeId, SessionId> =
            nodes.iter().filter_map(|node| Some((node.id, node.session?))).collect();
        self.silent_since.retain(|node, _| !sessions.contains_key(node));
        self.sent.retain(|id, _| state.open_execution(*id).is_some());
        for execution in state.open() {
            if step.orders.len() >= ORDERS_MAX || step.lost.len() >= ORDERS_MAX {
                wake_at(step, now.mono);
                return;
            }
            let Some(target) = &execution.node else { continue };
            match sessions.get(&target.id) {
                Some(&session) => self.order(now, state, execution, target, session, step),
                None => self.consider_lost(now, execution, target, nodes, step),
            }
        }
    }

    fn order(
        &mut self,
        now: Now,
        state: &State,
        execution: &Execution,
        target: &Target,
        session: SessionId,
        step: &mut Step,
    ) {
        if execution.outcome != Outcome::Claimed {
            return;
        }
        if let Some(&(to, at)) = self.sent.get(&execution.id)
            && to == session
            && now.mono < at + ORDER_REPEAT
        {
            wake_at(step, at + ORDER_REPEAT);
            return;
        }
        if execution.not_before > now.wall {
            wake_at(step, now.mono + execution.not_before.saturating_since(now.wall));
            return;
        }
        let created = |job: &&Arc<Job>| job.created == execution.job_created;
        let Some(job) = state.job(&execution.job).filter(created) else {
            self.give_up(execution.id, "its job was deleted before it started", step);
            return;
        };
        self.sent.insert(execution.id, (session, now.mono));
        let spec = LaunchSpec {
            execution: execution.id,
            job: execution.job.clone(),
            due: execution.due,
            attempt: execution.attempt,
            executor: job.spec.executor.clone(),
            config: job.spec.executor_config.clone(),
        };
        step.orders.push((target.id, Order { term: self.term, spec }));
    }

    fn consider_lost(
        &mut self,
        now: Now,
        execution: &Execution,
        target: &Target,
        nodes: &[NodeView],
        step: &mut Step,
    ) {
        let reborn = |node: &NodeView| node.name == target.name && node.id != target.id;
        if nodes.iter().any(|node| node.session.is_some() && reborn(node)) {
            let reason = "its node came back without its disk";
            return self.give_up(execution.id, reason, step);
        }
        let since = *self.silent_since.entry(target.id).or_insert(now.mono);
        let end = since + self.patience.lost_after;
        if now.mono < end {
            wake_at(step, end);
            return;
        }
        let secs = self.patience.lost_after.as_secs();
        self.give_up(execution.id, &format!("its node did not answer for {secs} s"), step);
    }

    fn give_up(&mut self, execution: ExecutionId, reason: &str, step: &mut Step) {
        if self.reporting.insert((execution, true)) {
            step.lost.push((execution, lost(reason)));
        }
    }

    /// A node reports on an execution. The command to propose, unless one is under way.
    pub fn on_report(&mut self, report: Report) -> Option<Command> {
        let Report { execution, progress } = report;
        let ended = matches!(progress, Progress::Finished(_));
        if !self.reporting.insert((execution, ended)) {
            return None;
        }
        Some(match progress {
            Progress::Started(at) => Command::Started { execution, at },
            Progress::Finished(result) => Command::Finished { execution, result },
        })
    }

    /// A report that was proposed is applied, or was refused by the log.
    pub fn on_reported(&mut self, execution: ExecutionId) {
        self.reporting.remove(&(execution, false));
        self.reporting.remove(&(execution, true));
    }
}

fn wake_at(step: &mut Step, at: Mono) {
    step.wake = Some(step.wake.map_or(at, |wake| wake.min(at)));
}

fn split_count<'a>(key: &'a str, value: &'a str) -> (&'a str, &'a str, Option<usize>) {
    match value.split_once(':') {
        None => (key, value, None),
        // A count that is no number, or is below 1, matches no node, as in Dkron.
        Some((value, count)) => (key, value, Some(count.parse().unwrap_or(0))),
    }
}

fn no_match(tags: &BTreeMap<String, String>) -> String {
    if tags.is_empty() {
        return "no node answers".to_owned();
    }
    let tags: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("no node that answers matches the tags {}", tags.join(", "))
}

#[cfg(test)]
mod tests;
