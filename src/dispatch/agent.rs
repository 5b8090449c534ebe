//! The agent's half of dispatch: a journal of what was started, and an outbox of what came of it.
//!
//! An order is journaled, and the journal synced, before its process starts; an id that stands in
//! the journal is never started again. A result is synced before it is reported, and reported again
//! and again until the leader says that the cluster has committed it. Every node has an [`Agent`],
//! servers included, because a job without tags runs everywhere.
//!
//! **Invariants**
//! - An execution is launched at most once in the life of a data directory.
//! - A result that was synced is reported until it is acknowledged, whoever leads by then.
//! - An order of a lower term than the highest seen is refused: its leader was deposed.
//!
//! **Left out on purpose**
//! - Moving a claimed execution to another node: an agent that stops leaves the order unanswered
//!   and gets it again when it is back.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::launch::LaunchSpec;
use super::message::{Order, Progress, Report};
use crate::id::{ExecutionId, Term};
use crate::jobs::job::{Outcome, RunResult};
use crate::time::Wall;

/// How many acknowledged ids an agent still remembers, to refuse them. Fencing by term refuses them
/// too once a later leader has spoken; this covers an order that was under way meanwhile.
const FORGOTTEN_MAX: usize = 4_096;

/// How many executions may stand in the journal. Orders beyond it wait with the leader.
pub const JOURNAL_LEN_MAX: usize = 16_384;

/// A durable fact of the agent, replayed at start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// This execution is about to start, ordered in this term.
    Starting {
        /// The term of the order.
        term: Term,
        /// Which one.
        execution: ExecutionId,
        /// When, by the node's clock.
        at: Wall,
    },
    /// This execution ended so.
    Ended {
        /// Which one.
        execution: ExecutionId,
        /// How.
        result: RunResult,
    },
    /// The cluster has committed the end of this execution.
    Acknowledged(ExecutionId),
}

/// What the agent wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable; for [`Fact::Starting`] and [`Fact::Ended`], call [`Agent::on_persisted`]
    /// with it afterwards.
    Persist(Fact),
    /// Start the process.
    Launch(LaunchSpec),
    /// Tell the leader.
    Report(Report),
    /// An order was refused, for this reason.
    Refused {
        /// Which one.
        execution: ExecutionId,
        /// Why.
        reason: &'static str,
    },
}

/// The agent's journal and outbox. See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Agent {
    journal: BTreeMap<ExecutionId, Entry>,
    forgotten: VecDeque<ExecutionId>,
    term_max: Term,
    stopping: bool,
    held: bool,
    effects: VecDeque<Effect>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    at: Wall,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Its `Starting` is being synced.
    Starting(LaunchSpec),
    /// Its process runs.
    Running,
    /// Its `Ended` is being synced.
    Ending(RunResult),
    /// Its end is durable and not acknowledged.
    Ended(RunResult),
}

/// The journal as it stands in a checkpoint of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    term_max: Term,
    entries: Vec<(ExecutionId, Wall, Option<RunResult>)>,
    forgotten: Vec<ExecutionId>,
}

impl Agent {
    /// The agent as its data directory remembers it. What was started and has no end is lost: its
    /// process died with the node, or outlived it unwatched.
    pub fn recover(checkpoint: Checkpoint, facts: impl IntoIterator<Item = Fact>) -> Self {
        let mut agent = Self { term_max: checkpoint.term_max, ..Self::default() };
        agent.forgotten = checkpoint.forgotten.into();
        for (execution, at, result) in checkpoint.entries {
            let stage = result.map_or(Stage::Running, Stage::Ended);
            agent.journal.insert(execution, Entry { at, stage });
        }
        for fact in facts {
            agent.replay(fact);
        }
        let open: Vec<ExecutionId> = agent
            .journal
            .iter()
            .filter(|(_, entry)| entry.stage == Stage::Running)
            .map(|(&execution, _)| execution)
            .collect();
        for execution in open {
            agent.on_finished(execution, lost("its node stopped while it ran"));
        }
        agent
    }

    fn replay(&mut self, fact: Fact) {
        match fact {
            Fact::Starting { term, execution, at } => {
                self.term_max = self.term_max.max(term);
                self.journal.insert(execution, Entry { at, stage: Stage::Running });
            }
            Fact::Ended { execution, result } => {
                if let Some(entry) = self.journal.get_mut(&execution) {
                    entry.stage = Stage::Ended(result);
                }
            }
            Fact::Acknowledged(execution) => self.forget(execution),
        }
    }

    /// All that has to be remembered, for a checkpoint of the log.
    pub fn checkpoint(&self) -> Checkpoint {
        let entry = |(&execution, entry): (&ExecutionId, &Entry)| {
            let result = match &entry.stage {
                Stage::Starting(_) | Stage::Running => None,
                Stage::Ending(result) | Stage::Ended(result) => Some(result.clone()),
            };
            (execution, entry.at, result)
        };
        Checkpoint {
            term_max: self.term_max,
            entries: self.journal.iter().map(entry).collect(),
            forgotten: self.forgotten.iter().copied().collect(),
        }
    }

    /// A leader orders an execution.
    pub fn on_order(&mut self, now: Wall, order: Order) {
        let execution = order.spec.execution;
        if let Some(entry) = self.journal.get(&execution) {
            let report = report_of(execution, entry);
            self.effects.extend(report.map(Effect::Report));
            return;
        }
        let refusal = if order.term < self.term_max {
            Some("its leader was deposed")
        } else if self.forgotten.contains(&execution) {
            Some("it ended and was acknowledged")
        } else if self.stopping {
            Some("the node is stopping")
        } else if self.held {
            Some("the disk is full")
        } else if self.journal.len() >= JOURNAL_LEN_MAX {
            Some("the journal is full")
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.effects.push_back(Effect::Refused { execution, reason });
            return;
        }
        self.term_max = order.term;
        let fact = Fact::Starting { term: order.term, execution, at: now };
        self.journal.insert(execution, Entry { at: now, stage: Stage::Starting(order.spec) });
        self.effects.push_back(Effect::Persist(fact));
    }

    /// A fact that was handed out by [`Effect::Persist`] is durable.
    pub fn on_persisted(&mut self, fact: Fact) {
        match fact {
            Fact::Starting { execution, .. } => self.on_journaled(execution),
            Fact::Ended { execution, .. } => {
                let Some(entry) = self.journal.get_mut(&execution) else { return };
                if let Stage::Ending(result) = &entry.stage {
                    entry.stage = Stage::Ended(result.clone());
                    let report = report_of(execution, entry);
                    self.effects.extend(report.map(Effect::Report));
                }
            }
            Fact::Acknowledged(_) => {}
        }
    }

    fn on_journaled(&mut self, execution: ExecutionId) {
        let stopping = self.stopping;
        let Some(entry) = self.journal.get_mut(&execution) else { return };
        let stage = std::mem::replace(&mut entry.stage, Stage::Running);
        match stage {
            Stage::Starting(spec) if !stopping => {
                let report = report_of(execution, entry);
                self.effects.push_back(Effect::Launch(spec));
                self.effects.extend(report.map(Effect::Report));
            }
            Stage::Starting(_) => {
                let reason = "its node was told to stop before it started";
                self.on_finished(execution, RunResult { outcome: Outcome::Failed, ..lost(reason) });
            }
            running @ (Stage::Running | Stage::Ending(_) | Stage::Ended(_)) => {
                entry.stage = running
            }
        }
    }

    /// A process ended, or could not be started.
    pub fn on_finished(&mut self, execution: ExecutionId, result: RunResult) {
        let Some(entry) = self.journal.get_mut(&execution) else { return };
        if entry.stage == Stage::Running {
            entry.stage = Stage::Ending(result.clone());
            self.effects.push_back(Effect::Persist(Fact::Ended { execution, result }));
        }
    }

    /// The leader says that the cluster has committed the end of this execution.
    pub fn on_ack(&mut self, execution: ExecutionId) {
        if matches!(self.journal.get(&execution), Some(Entry { stage: Stage::Ended(_), .. })) {
            self.forget(execution);
            self.effects.push_back(Effect::Persist(Fact::Acknowledged(execution)));
        }
    }

    fn forget(&mut self, execution: ExecutionId) {
        self.journal.remove(&execution);
        self.forgotten.push_back(execution);
        if self.forgotten.len() > FORGOTTEN_MAX {
            self.forgotten.pop_front();
        }
    }

    /// Report everything that stands in the journal: there is a new leader, or time has passed.
    pub fn report_all(&mut self) {
        let reports = self.journal.iter().filter_map(|(&id, entry)| report_of(id, entry));
        self.effects.extend(reports.map(Effect::Report).collect::<Vec<_>>());
    }

    /// Take no more orders, and start nothing that is not started yet.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Take no order until [`Agent::go_on`]: it could not be journaled, and its leader repeats it.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Take orders again.
    pub fn go_on(&mut self) {
        self.held = false;
    }

    /// The executions whose process runs.
    pub fn running(&self) -> impl Iterator<Item = ExecutionId> + '_ {
        let runs = |entry: &Entry| matches!(entry.stage, Stage::Running);
        self.journal.iter().filter(move |(_, entry)| runs(entry)).map(|(&execution, _)| execution)
    }

    /// Whether everything that was started has a durable end.
    pub fn is_settled(&self) -> bool {
        self.journal.values().all(|entry| matches!(entry.stage, Stage::Ended(_)))
    }

    /// Whether anything waits to be acknowledged.
    pub fn has_unreported(&self) -> bool {
        !self.journal.is_empty()
    }

    /// The next thing to be done; drain to `None`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}

fn report_of(execution: ExecutionId, entry: &Entry) -> Option<Report> {
    let progress = match &entry.stage {
        Stage::Starting(_) | Stage::Ending(_) => return None,
        Stage::Running => Progress::Started(entry.at),
        Stage::Ended(result) => Progress::Finished(result.clone()),
    };
    Some(Report { execution, progress })
}

/// The result of an execution whose end nobody saw.
pub fn lost(reason: &str) -> RunResult {
    RunResult {
        outcome: Outcome::Lost,
        reason: reason.to_owned(),
        exit_code: None,
        output: String::new(),
        output_truncated: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{JobName, LogIndex};
    use std::collections::BTreeMap;

    const ID: ExecutionId = ExecutionId { claim: LogIndex(7), slot: 0 };

    fn order(term: u64) -> Order {
        let spec = LaunchSpec {
            execution: ID,
            job: JobName::new("backup").unwrap(),
            due: Wall::from_secs(60),
            attempt: 1,
            executor: "shell".into(),
            config: BTreeMap::new(),
        };
        Order { term: Term(term), spec }
    }

    fn done() -> RunResult {
        RunResult { outcome: Outcome::Succeeded, exit_code: Some(0), ..lost("") }
    }

    fn drain(agent: &mut Agent) -> Vec<Effect> {
        std::iter::from_fn(|| agent.poll_effect()).collect()
    }

    /// The one fact that the agent wants durable.
    fn persisted(agent: &mut Agent) -> Fact {
        match drain(agent).as_slice() {
            [Effect::Persist(fact)] => fact.clone(),
            effects => panic!("{effects:?}"),
        }
    }

    fn started(agent: &mut Agent) -> Fact {
        agent.on_order(Wall::from_secs(61), order(3));
        let fact = persisted(agent);
        agent.on_persisted(fact.clone());
        fact
    }

    #[test]
    fn an_order_is_journaled_before_it_is_launched_and_never_launched_twice() {
        let mut agent = Agent::default();
        agent.on_order(Wall::from_secs(61), order(3));
        let effects = drain(&mut agent);
        let [Effect::Persist(fact)] = effects.as_slice() else { panic!("{effects:?}") };
        agent.on_order(Wall::from_secs(61), order(3));
        assert_eq!(drain(&mut agent), []);
        agent.on_persisted(fact.clone());
        assert!(matches!(drain(&mut agent)[..], [Effect::Launch(_), Effect::Report(_)]));
        agent.on_order(Wall::from_secs(62), order(4));
        assert!(matches!(drain(&mut agent)[..], [Effect::Report(_)]));
    }

    #[test]
    fn what_ran_when_the_node_died_is_lost_and_not_started_again() {
        let mut agent = Agent::default();
        let fact = started(&mut agent);
        let mut agent = Agent::recover(Checkpoint::default(), [fact]);
        let effects = drain(&mut agent);
        let [Effect::Persist(Fact::Ended { result, .. })] = effects.as_slice() else { panic!() };
        assert_eq!(result.outcome, Outcome::Lost);
        agent.on_order(Wall::from_secs(99), order(9));
        assert!(!drain(&mut agent).iter().any(|effect| matches!(effect, Effect::Launch(_))));
    }

    #[test]
    fn a_result_is_reported_until_it_is_acknowledged_across_a_restart() {
        let mut agent = Agent::default();
        started(&mut agent);
        agent.on_finished(ID, done());
        drain(&mut agent);
        let ended = Fact::Ended { execution: ID, result: done() };
        agent.on_persisted(ended);
        assert!(matches!(drain(&mut agent)[..], [Effect::Report(_)]));
        let mut agent = Agent::recover(agent.checkpoint(), []);
        agent.report_all();
        let report = Report { execution: ID, progress: Progress::Finished(done()) };
        assert_eq!(drain(&mut agent), [Effect::Report(report)]);
        agent.on_ack(ID);
        assert_eq!(drain(&mut agent), [Effect::Persist(Fact::Acknowledged(ID))]);
        agent.report_all();
        agent.on_order(Wall::from_secs(99), order(3));
        assert!(matches!(drain(&mut agent)[..], [Effect::Refused { .. }]));
    }

    #[test]
    fn a_deposed_leader_is_refused() {
        let mut agent = Agent::default();
        started(&mut agent);
        drain(&mut agent);
        let mut late = order(2);
        late.spec.execution.slot = 1;
        agent.on_order(Wall::from_secs(62), late);
        assert!(matches!(drain(&mut agent)[..], [Effect::Refused { .. }]));
    }

    #[test]
    fn with_a_full_disk_nothing_is_taken_and_what_was_taken_starts_once_it_is_journaled() {
        let mut agent = Agent::default();
        agent.on_order(Wall::from_secs(61), order(3));
        let fact = persisted(&mut agent);
        agent.hold();
        let mut second = order(3);
        second.spec.execution.slot = 1;
        agent.on_order(Wall::from_secs(62), second.clone());
        assert!(matches!(drain(&mut agent)[..], [Effect::Refused { .. }]));
        agent.on_persisted(fact);
        assert!(matches!(drain(&mut agent)[..], [Effect::Launch(_), Effect::Report(_)]));
        agent.go_on();
        agent.on_order(Wall::from_secs(67), second);
        assert!(matches!(drain(&mut agent)[..], [Effect::Persist(Fact::Starting { .. })]));
    }

    #[test]
    fn a_stopping_node_starts_nothing_more() {
        let mut agent = Agent::default();
        agent.on_order(Wall::from_secs(61), order(3));
        let fact = persisted(&mut agent);
        agent.stop();
        agent.on_persisted(fact);
        assert!(matches!(drain(&mut agent)[..], [Effect::Persist(Fact::Ended { .. })]));
    }
}
