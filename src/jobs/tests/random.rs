//! Properties over random sequences of commands.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::codec;

const NAMES: [&str; 3] = ["foo", "foobar", "b"];

/// A step, made into a command by what the state holds when it comes to it.
#[derive(Clone, Debug)]
enum Step {
    Wait(u8),
    Put {
        job: usize,
        variant: u8,
    },
    Delete {
        job: usize,
    },
    Toggle {
        job: usize,
        stale: bool,
    },
    /// Everything that is due, and once more what the last claim claimed.
    ClaimDue {
        nodes: u8,
        repeat: bool,
    },
    Run {
        job: usize,
        nodes: u8,
    },
    Start {
        pick: usize,
    },
    Finish {
        pick: usize,
        end: u8,
    },
    /// An end for an execution that has ended before.
    FinishAgain {
        pick: usize,
        end: u8,
    },
    /// The last command under the same id.
    Repeat,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let job = 0..NAMES.len();
    let step = prop_oneof![
        3 => (1..25_u8).prop_map(Step::Wait),
        2 => (job.clone(), 0..16_u8).prop_map(|(job, variant)| Step::Put { job, variant }),
        1 => job.clone().prop_map(|job| Step::Delete { job }),
        1 => (job.clone(), any::<bool>()).prop_map(|(job, stale)| Step::Toggle { job, stale }),
        4 => (0..3_u8, any::<bool>()).prop_map(|(nodes, repeat)| Step::ClaimDue { nodes, repeat }),
        1 => (job, 0..3_u8).prop_map(|(job, nodes)| Step::Run { job, nodes }),
        2 => any::<usize>().prop_map(|pick| Step::Start { pick }),
        4 => (any::<usize>(), 0..3_u8).prop_map(|(pick, end)| Step::Finish { pick, end }),
        1 => (any::<usize>(), 0..3_u8).prop_map(|(pick, end)| Step::FinishAgain { pick, end }),
        1 => Just(Step::Repeat),
    ];
    prop::collection::vec(step, 1..120)
}

fn end(end: u8) -> Outcome {
    [Outcome::Succeeded, Outcome::Failed, Outcome::Lost][usize::from(end % 3)]
}

fn targets(nodes: u8) -> Vec<Target> {
    (0..nodes).map(|n| target(&format!("n{n}"))).collect()
}

/// The bench, and what the state is checked against.
#[derive(Default)]
struct Model {
    bench: Bench,
    seq: u64,
    last_claims: Vec<Claim>,
    /// Every end that was booked for a job that was there: the job's creation, and the outcome.
    ends: BTreeMap<ExecutionId, (LogIndex, Outcome)>,
    /// Every due instant that has a row by schedule.
    instants: BTreeSet<(LogIndex, Wall)>,
}

impl Model {
    fn command(&self, step: &Step) -> Option<Command> {
        let state = &self.bench.state;
        let now = self.bench.now;
        let pick = |pick: usize, of: Vec<ExecutionId>| of.get(pick % of.len().max(1)).copied();
        let open = || state.open().map(|row| row.id).collect::<Vec<_>>();
        match *step {
            Step::Wait(_) | Step::Repeat => None,
            Step::Put { job, variant } => {
                let spec = JobSpec {
                    retries: u32::from(variant % 2),
                    disabled: variant == 7,
                    ephemeral: variant == 8,
                    schedule: format!("@every {}s", 5 + variant / 10),
                    concurrency: [Concurrency::Allow, Concurrency::Forbid]
                        [usize::from(variant % 3 == 0)],
                    ..spec(NAMES[job])
                };
                let anchor = state.anchor_for(&spec, now);
                let next = Some(secs(now.as_secs() + 5));
                let timing = Timing { anchor, next };
                Some(Command::PutJob { spec: Arc::new(spec), timing })
            }
            Step::Delete { job } => Some(Command::DeleteJob { name: name(NAMES[job]) }),
            Step::Toggle { job, stale } => {
                let revision = state.job(&name(NAMES[job]))?.revision;
                let revision = Revision(revision.0 - u64::from(stale));
                let next = Some(secs(now.as_secs() + 5));
                Some(Command::ToggleJob { name: name(NAMES[job]), revision, next })
            }
            Step::ClaimDue { nodes, repeat } => {
                let again = self.last_claims.iter().filter(|_| repeat).cloned();
                Some(Command::Claim(self.due(nodes).into_iter().chain(again).collect()))
            }
            Step::Run { job, nodes } => {
                state.job(&name(NAMES[job]))?;
                let plan = Plan::Run(targets(nodes));
                Some(Command::Claim(vec![self.bench.claim_of(NAMES[job], Trigger::Manual, plan)]))
            }
            Step::Start { pick: n } => {
                let execution = pick(n, open())?;
                Some(Command::Started { execution, at: now })
            }
            Step::Finish { pick: n, end: e } => {
                let execution = pick(n, open())?;
                Some(Command::Finished { execution, result: result(end(e)) })
            }
            Step::FinishAgain { pick: n, end: e } => {
                let execution = pick(n, self.ends.keys().copied().collect())?;
                Some(Command::Finished { execution, result: result(end(e)) })
            }
        }
    }

    fn due(&self, nodes: u8) -> Vec<Claim> {
        let due = self.bench.state.due_until(self.bench.now);
        due.map(|(_, job)| {
            let plan = Plan::Run(targets(nodes));
            self.bench.claim_of(job.as_str(), Trigger::Schedule, plan)
        })
        .collect()
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Wait(seconds) => {
                let now = self.bench.now.as_secs() + i64::from(*seconds);
                self.bench.at(now);
            }
            Step::Repeat => self.repeat(),
            Step::Put { .. }
            | Step::Delete { .. }
            | Step::Toggle { .. }
            | Step::ClaimDue { .. }
            | Step::Run { .. }
            | Step::Start { .. }
            | Step::Finish { .. }
            | Step::FinishAgain { .. } => {
                if let Some(command) = self.command(step) {
                    self.run(command);
                }
            }
        }
    }

    fn run(&mut self, command: Command) {
        self.seq += 1;
        let id = CommandId { node: NodeId(1), boot: Boot(1), seq: self.seq };
        let (before, history) = (self.bench.state.clone(), self.bench.history.clone());
        if let Command::Claim(claims) = &command {
            self.last_claims.clone_from(claims);
        }
        let mut known = None;
        if let Command::Finished { execution, .. } = &command {
            known = self.bench.find(*execution).cloned();
        }
        let applied = self.bench.run_as(Some(id), command.clone());
        if let (Command::Finished { result, .. }, Applied::Finished { .. }, Some(row)) =
            (&command, applied, known)
        {
            let job = before.job(&row.job).filter(|job| job.created == row.job_created);
            let awaits = row.outcome.is_open() || row.outcome == Outcome::Lost;
            assert_eq!(before.awaits_end(row.id), awaits, "{row:?}");
            if job.is_some() && awaits {
                self.ends.insert(row.id, (row.job_created, result.outcome));
            }
        }
        self.check_claims(&before, &history);
        self.check_cursors(&before);
        self.check_rows(&before, &history);
    }

    /// What was open and is not has a row, if its job is there; a row changes only if it was lost.
    fn check_rows(&self, before: &State, history: &History) {
        let (state, rows) = (&self.bench.state, &self.bench.history.0);
        for row in before.open().filter(|row| state.open_execution(row.id).is_none()) {
            let job = state.job(&row.job).filter(|job| job.created == row.job_created);
            assert_eq!(rows.contains_key(&row.id), job.is_some(), "{row:?}");
        }
        for (id, row) in &history.0 {
            let is_kept = rows.get(id).is_none_or(|after| after == row);
            assert!(is_kept || row.outcome == Outcome::Lost, "{row:?}");
            assert!(rows.contains_key(id) || !has_job_of(state, row), "{row:?}");
        }
    }

    /// Each instant has rows of one entry only.
    fn check_claims(&mut self, before: &State, history: &History) {
        let rows = self.bench.state.open().chain(self.bench.history.0.values());
        let is_new =
            |id: ExecutionId| before.open_execution(id).is_none() && !history.0.contains_key(&id);
        let fresh = rows.filter(|row| row.trigger == Trigger::Schedule && is_new(row.id));
        let fresh: BTreeSet<_> = fresh.map(|row| (row.job_created, row.due)).collect();
        for instant in fresh {
            assert!(self.instants.insert(instant), "{instant:?} was claimed twice");
        }
    }

    fn check_cursors(&self, before: &State) {
        for job in self.bench.state.jobs() {
            let old = before.job(&job.spec.name).filter(|old| old.created == job.created);
            assert!(old.is_none_or(|old| old.cursor <= job.cursor), "a cursor went back");
        }
    }

    /// A write that was carried out is repeated: only index and stamp may move.
    fn repeat(&self) {
        let Some(last) = self.bench.log.last().cloned() else { return };
        let index = LogIndex(self.bench.log.len() as u64 + 1);
        let before = self.bench.state.clone();
        let mut after = before.clone();
        let (answer, changes) = after.apply(index, &last);
        if last.id.is_some() || !matches!(answer, Applied::Rejected(_)) {
            after.applied = before.applied;
            assert_eq!(changes, [], "a repeated write was booked again");
            assert_eq!(after, before, "a repeated write was done again");
        }
    }

    fn check(&self) {
        let state = &self.bench.state;
        for job in state.jobs() {
            let ends = self.ends.values().filter(|(created, _)| *created == job.created);
            let ends: Vec<bool> = ends.map(|(_, end)| *end == Outcome::Succeeded).collect();
            let good = ends.iter().filter(|good| **good).count();
            let counts = (job.success_count, job.error_count);
            assert_eq!(counts, (good as u64, (ends.len() - good) as u64), "{job:?}");
        }
        let due: BTreeSet<_> = state.due_until(Wall::from_micros(i64::MAX)).collect();
        let enabled = state.jobs().filter(|job| !job.spec.disabled);
        let derived = enabled.filter_map(|job| Some((job.next?, &job.spec.name))).collect();
        assert_eq!(due, derived);
        let mut members: BTreeMap<ExecutionId, u32> = BTreeMap::new();
        for row in state.open() {
            assert!(row.outcome.is_open() && row.node.is_some());
            *members.entry(row.group).or_default() += 1;
        }
        let open = state.groups.values().map(|group| (group.id, group.open)).collect();
        assert_eq!(members, open);
        let rows = &self.bench.history.0;
        assert!(rows.values().all(|row| has_job_of(state, row)));
        assert!(rows.values().all(|row| !row.outcome.is_open()));
        let lost = rows.values().filter(|row| row.outcome == Outcome::Lost);
        let lost: Vec<ExecutionId> = lost.map(|row| row.id).collect();
        assert_eq!(lost, state.lost.keys().copied().collect::<Vec<_>>());
    }

    /// Applies the same log elsewhere, with a restart from a snapshot on the way.
    fn check_replay(&self, snapshot_at: usize) {
        let (mut other, mut history) = (State::default(), History::default());
        for (n, entry) in self.bench.log.iter().enumerate() {
            if n == snapshot_at % self.bench.log.len() {
                let bytes = codec::encode(&other);
                let restored: State = codec::decode("snapshot", &bytes).unwrap();
                assert_eq!(restored, other);
                other = restored;
            }
            history.carry_out(other.apply(LogIndex(n as u64 + 1), entry).1);
        }
        assert_eq!((&other, &history), (&self.bench.state, &self.bench.history));
        assert_eq!(codec::encode(&other), codec::encode(&self.bench.state));
    }
}

fn has_job_of(state: &State, row: &Execution) -> bool {
    state.job(&row.job).is_some_and(|job| job.created == row.job_created)
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_state_keeps_its_invariants_whatever_is_written(
        steps in steps(),
        snapshot_at in any::<usize>(),
    ) {
        let mut model = Model::default();
        for step in &steps {
            model.take(step);
            model.check();
        }
        model.check_replay(snapshot_at);
    }

    #[test]
    fn no_snapshot_however_damaged_makes_the_state_panic(
        steps in steps(),
        at in any::<usize>(),
        byte in any::<u8>(),
    ) {
        let mut model = Model::default();
        for step in &steps {
            model.take(step);
        }
        let mut bytes = codec::encode(&model.bench.state).to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(mut state) = codec::decode::<State>("snapshot", &bytes) {
            for (n, entry) in model.bench.log.iter().enumerate() {
                state.apply(LogIndex(n as u64 + 1_000), entry);
            }
        }
    }
}
