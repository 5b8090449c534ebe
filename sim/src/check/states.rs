//! State machine safety (Raft thesis, figure 3.2): equal states and equal histories at equal index.
//!
//! Two states are compared with that of a server. One is the product's own, replayed from the
//! committed log entry by entry; that of a server has to equal it in everything. The other is the
//! [`Model`]'s, compared with the first after each entry in what the entry touched.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cronclave::id::{JobName, LogIndex};
use cronclave::jobs::State;
use cronclave::jobs::command::Stamped;
use cronclave::jobs::job::Execution;

use super::Verdict;
use super::model::{Model, Step};
use super::tally::{Count, Judge};

/// How many states back a server may be to be compared. Clones share what they have in common.
const RECENT_MAX: usize = 256;

/// How many states that are ahead of all that is known to be committed wait to be compared.
const WAITING_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct States {
    states: Count,
    histories: Count,
    /// The state after each of the last entries; the last one is the newest. Without the whole log
    /// there is none, and states are compared with each other.
    recent: VecDeque<State>,
    is_whole: bool,
    waiting: VecDeque<(usize, State)>,
    samples: BTreeMap<LogIndex, (usize, State)>,
}

impl States {
    pub(super) fn new() -> Self {
        Self {
            states: Count::new("equal states"),
            histories: Count::new("equal histories"),
            recent: VecDeque::from([State::default()]),
            is_whole: true,
            waiting: VecDeque::new(),
            samples: BTreeMap::new(),
        }
    }

    /// The log is not known from its beginning.
    pub(super) fn give_up_replay(&mut self) {
        self.is_whole = false;
        self.recent.clear();
    }

    /// An entry is committed; `model` has replayed it, and `steps` is what it did.
    pub(super) fn on_entry(
        &mut self,
        judge: &mut Judge,
        (index, entry): (LogIndex, &Stamped),
        model: &Model,
        steps: &[Step],
    ) {
        let Some(mut state) = self.recent.back().cloned() else { return };
        state.apply(index, entry);
        for step in steps {
            match step {
                Step::Defined { job, .. } | Step::Instant { job, .. } => {
                    self.compare_job(judge, index, &state, model, job);
                }
                Step::Opened(_) | Step::Closed { .. } => {
                    let (theirs, ours) = (state.open_count(), model.rows.open_count());
                    self.states.check(judge, theirs == ours, || {
                        format!("{theirs} executions are open after entry {index}, not {ours}")
                    });
                }
                Step::Write { .. } | Step::Timed { .. } | Step::Stopped { .. } | Step::Zoned => {}
            }
        }
        self.recent.push_back(state);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        while self.waiting.front().is_some_and(|(_, state)| state.applied() <= Some(index)) {
            if let Some((host, state)) = self.waiting.pop_front() {
                self.on_state(judge, host, &state);
            }
        }
    }

    fn compare_job(
        &mut self,
        judge: &mut Judge,
        index: LogIndex,
        state: &State,
        model: &Model,
        name: &JobName,
    ) {
        let theirs = state.job(name).map(|job| {
            (job.created, job.revision, job.spec.disabled, job.anchor, job.cursor, job.next)
        });
        let ours = model.jobs.get(name).map(|job| {
            (job.created, job.revision, job.spec.disabled, job.anchor, job.cursor, job.next)
        });
        self.states.check(judge, theirs == ours, || {
            format!("after entry {index} {name} is {theirs:?}, and by the rules {ours:?}")
        });
    }

    /// The state of the server on `host` at the moment.
    pub(super) fn on_state(&mut self, judge: &mut Judge, host: usize, state: &State) {
        let Some(index) = state.applied() else { return };
        if !self.is_whole {
            return self.compare_samples(judge, host, index, state);
        }
        let newest = self.recent.back().and_then(State::applied);
        if Some(index) > newest {
            if self.waiting.len() < WAITING_MAX {
                self.waiting.push_back((host, state.clone()));
            }
            return;
        }
        let found = self.recent.binary_search_by_key(&Some(index), State::applied);
        let Some(known) = found.ok().and_then(|at| self.recent.get(at)) else { return };
        let same = known == state;
        self.states.check(judge, same, || {
            let known = found.ok().and_then(|at| self.recent.get(at));
            let differs = known.map(|known| difference(known, state)).unwrap_or_default();
            format!("n{} differs from the log at entry {index}: {differs}", host + 1)
        });
    }

    fn compare_samples(&mut self, judge: &mut Judge, host: usize, index: LogIndex, state: &State) {
        match self.samples.get(&index) {
            None => {
                self.samples.insert(index, (host, state.clone()));
                if self.samples.len() > RECENT_MAX {
                    self.samples.pop_first();
                }
            }
            Some((other, known)) => {
                self.states.check(judge, known == state, || {
                    let differs = difference(known, state);
                    let (other, host) = (other + 1, host + 1);
                    format!("n{other} and n{host} differ at entry {index}: {differs}")
                });
            }
        }
    }

    /// All is over.
    pub(super) fn on_end(
        &mut self,
        judge: &mut Judge,
        states: &BTreeMap<usize, State>,
        histories: &BTreeMap<usize, (Option<LogIndex>, Vec<Arc<Execution>>)>,
    ) {
        for (host, state) in states {
            self.on_state(judge, *host, state);
        }
        for (host, state) in std::mem::take(&mut self.waiting) {
            self.states.check(judge, false, || {
                let applied = state.applied();
                format!("n{} has applied {applied:?}, which nobody has committed", host + 1)
            });
        }
        type History<'a> = (usize, &'a Vec<Arc<Execution>>);
        let mut first: BTreeMap<Option<LogIndex>, History<'_>> = BTreeMap::new();
        for (host, (upto, rows)) in histories {
            let (other, known) = *first.entry(*upto).or_insert((*host, rows));
            if other != *host {
                self.histories.check(judge, known == rows, || {
                    let (other, host) = (other + 1, host + 1);
                    format!("the histories of n{other} and n{host} differ at {upto:?}")
                });
            }
        }
    }

    pub(super) fn verdicts(&self, judge: &Judge) -> [Verdict; 2] {
        [self.states.verdict(judge), self.histories.verdict(judge)]
    }
}

/// Where two states differ, for people.
fn difference(one: &State, two: &State) -> String {
    let job = one.jobs().find(|job| two.job(&job.spec.name) != Some(job));
    if let Some(job) = job {
        return format!("{job:?} is {:?} there", two.job(&job.spec.name));
    }
    if one.job_count() != two.job_count() {
        return format!("{} jobs are {} there", one.job_count(), two.job_count());
    }
    let open = one.open().find(|row| two.open_execution(row.id) != Some(row));
    if let Some(row) = open {
        return format!("{row:?} is {:?} there", two.open_execution(row.id));
    }
    let brief = |state: &State| (state.last_stamp(), state.cluster(), state.open_count());
    format!("stamp, cluster and open executions are {:?} and {:?}", brief(one), brief(two))
}
