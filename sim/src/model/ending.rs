//! The end of a run: the workload is over, everything is healed, and all servers come to hold the
//! same within a time. Then the checkers look at what is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cronclave::codec::record::Recovered;
use cronclave::id::LogIndex;
use cronclave::jobs::State;
use cronclave::jobs::history::change::{Order, Query, Select, Sort};
use cronclave::jobs::job::Execution;
use cronclave::time::Mono;

use super::{Event, Sim};
use crate::check::seen::Ending;
use crate::plan::Action;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// At least so long, so that what ended last is booked and states are compared.
const SETTLES_MIN: Duration = Duration::from_secs(3);

/// Servers that have not come to the same by then never will.
const SETTLES_MAX: Duration = Duration::from_secs(60);

/// After so long servers need not be at the same entry, which a busy cluster may never be.
const TOGETHER_MAX: Duration = Duration::from_secs(15);

/// The rows of ended executions on one server, with the entry up to which they go.
type Rows = (Option<LogIndex>, Vec<Arc<Execution>>);

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Settling {
    since: Option<Mono>,
    states: BTreeMap<usize, State>,
    histories: BTreeMap<usize, Rows>,
}

impl Sim {
    pub(super) fn on_settle(&mut self) {
        if self.settling.since.is_none() {
            // Whatever a plan has left broken: an end is judged when all is well.
            self.act(&Action::HealAll);
        }
        let since = *self.settling.since.get_or_insert(self.now);
        self.is_settling = true;
        let passed = self.now.saturating_since(since);
        let missing = self.what_is_missing(passed);
        match missing {
            None => self.is_over = true,
            Some(missing) if passed >= SETTLES_MAX => {
                self.violated("settles", &format!("{SETTLES_MAX:?} after the end {missing}"));
                self.is_over = true;
            }
            Some(_) => self.after(LOOK_EVERY, Event::Settle),
        }
        if self.is_over {
            self.promises.compared("settles", 1);
            self.promises.compared("spins", self.spins.compared());
            self.judge_workload();
        }
    }

    /// A run whose clients were granted next to nothing has tested next to nothing.
    fn judge_workload(&mut self) {
        self.promises.compared("workload", 1);
        if !self.clients.is_enough() {
            let counts = self.counts();
            self.violated("workload", &format!("too little was granted: {counts:?}"));
        }
        if self.layer.complains_of(self.options.seed) {
            self.violated("canary", "it sings");
        }
    }

    /// The servers that are to be there in the end.
    fn members(&self) -> Vec<usize> {
        let is_member = |&host: &usize| {
            let machine = &self.machines[host];
            self.options.is_server(host) && machine.boots > 0 && !machine.has_left
        };
        (0..self.machines.len()).filter(is_member).collect()
    }

    /// What is not as it has to be in the end; takes note of states and histories where it is.
    fn what_is_missing(&mut self, passed: Duration) -> Option<String> {
        if !self.clients_rest() || self.probes.is_busy() {
            return Some("requests are open".to_owned());
        }
        let members = self.members();
        let mut ids = std::collections::BTreeSet::new();
        for &index in &members {
            let name = index + 1;
            let Some(host) = &self.machines[index].host else {
                return Some(format!("n{name} does not run"));
            };
            let status = host.status();
            if status.leader.is_none() {
                return Some(format!("n{name} knows no leader"));
            }
            if status.doubt.is_some() {
                return Some(format!("n{name} is in doubt of its log"));
            }
            ids.insert(host.id);
        }
        for &index in &members {
            let Some(host) = &self.machines[index].host else { continue };
            let status = host.status();
            if *status.voters != ids {
                let voters = status.voters.len();
                let name = index + 1;
                return Some(format!("n{name} knows {voters} voters, not the {}", ids.len()));
            }
        }
        if let Some(overdue) = self.checkers.overdue(self.since_begin(), self.wall()) {
            return Some(overdue);
        }
        self.take_states(&members, passed)
    }

    fn take_states(&mut self, members: &[usize], passed: Duration) -> Option<String> {
        let applied: Vec<Option<LogIndex>> = members
            .iter()
            .map(|&index| self.machines[index].host.as_ref()?.status().applied)
            .collect();
        if passed < SETTLES_MIN {
            return Some("what ended last may not be booked".to_owned());
        }
        let together = applied.windows(2).all(|pair| pair[0] == pair[1]);
        if passed < TOGETHER_MAX && !together {
            return Some("not all are at the same entry".to_owned());
        }
        if passed < TOGETHER_MAX {
            // All together or none.
            self.settling.states.clear();
            self.settling.histories.clear();
        }
        for &index in members {
            if self.settling.states.contains_key(&index) {
                continue;
            }
            let Some(host) = &self.machines[index].host else { continue };
            let Some(state) = host.view().state() else { continue };
            if !host.archive.is_idle() {
                return Some(format!("the history of n{} is behind", index + 1));
            }
            match self.rows(index, &state) {
                Ok(rows) => {
                    self.settling.histories.insert(index, (state.applied(), rows));
                    self.settling.states.insert(index, state);
                }
                Err(reason) => return Some(reason),
            }
        }
        None
    }

    /// The rows of all jobs on one server.
    fn rows(&self, index: usize, state: &State) -> Result<Vec<Arc<Execution>>, String> {
        let store = self.machines[index].store.as_ref();
        let store = store.ok_or_else(|| format!("n{} has no history", index + 1))?;
        let mut rows = Vec::new();
        for job in state.jobs() {
            let select = Select::Part {
                sort: Sort::Id,
                order: Order::Ascending,
                skip: 0,
                limit: u64::MAX,
                output_len_max: 64,
            };
            let query = Query { job: job.spec.name.clone(), open: Vec::new(), select };
            let page = store.page(&query).map_err(|error| {
                format!("the history of n{} cannot be read: {error}", index + 1)
            })?;
            rows.extend(page.rows);
        }
        Ok(rows)
    }

    /// What is there in the end.
    pub(crate) fn ending(&mut self) -> Ending {
        let disks = self.machines.iter_mut().enumerate();
        let disks: BTreeMap<usize, Recovered> = disks
            .filter_map(|(index, machine)| Some((index, machine.read_disk_without_power()?)))
            .collect();
        let lost = self.machines.iter().enumerate().filter(|(_, machine)| machine.lost_disks > 0);
        let lost_disks: BTreeMap<usize, u32> =
            lost.map(|(index, machine)| (index, machine.lost_disks)).collect();
        let servers = self.options.servers;
        let lost_servers = lost_disks.keys().filter(|&&host| host < servers).count();
        Ending {
            at: self.since_begin(),
            wall: self.wall(),
            disks,
            may_lose: lost_servers > servers - (servers / 2 + 1),
            lost_disks,
            states: std::mem::take(&mut self.settling.states),
            histories: std::mem::take(&mut self.settling.histories),
        }
    }
}
