//! Probes: requests that find out whether servers work or stand still, as a plan expects of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cronclave::node::request::{Consistency, Reply, Request, RequestError, Write};
use cronclave::time::Mono;

use super::clients::{Asker, PATIENCE};
use super::{Event, Sim};
use crate::check::liveness::{Probed, STILL_ATTEMPTS, Tally, Wanted};
use crate::check::seen::Answer;
use crate::plan::Target;

/// How many requests are made of a cluster that is to work, over all its servers.
const PROGRESS_ATTEMPTS: usize = 150;

/// For how long they are made.
const PROGRESS_SPAN: Duration = Duration::from_secs(3);

/// How far apart they are.
const STILL_EVERY: Duration = Duration::from_millis(50);

/// Probes write jobs of so many names, so that they do not fill the state.
const NAMES: usize = 40;

#[derive(Debug)]
struct Probe {
    wanted: Wanted,
    hosts: Vec<usize>,
    since: Mono,
    made: usize,
    wants: usize,
    every: Duration,
    tallies: BTreeMap<usize, Tally>,
    /// How many processes had started before.
    starts: u64,
    /// How many had when the plan's next fault came, or the end of one: what starts or is granted
    /// after that says nothing of this moment.
    starts_over: Option<u64>,
    judged_at: Option<Mono>,
}

/// All probes of a run, and how often each kind was judged.
#[derive(Debug, Default)]
pub(super) struct Probes {
    all: Vec<Probe>,
}

impl Probes {
    /// Whether one is not over yet.
    pub(super) fn is_busy(&self) -> bool {
        self.all.iter().any(|probe| probe.judged_at.is_none())
    }

    /// Whether others were asked meanwhile who may have worked.
    fn works_elsewhere(&self, than: usize) -> bool {
        let since = self.all[than].since;
        let may_work = |wanted| !matches!(wanted, Wanted::Still | Wanted::Full | Wanted::ReadOnly);
        let meanwhile = |probe: &Probe| probe.judged_at.is_none_or(|at| at > since);
        let works = |probe: &Probe| may_work(probe.wanted) && meanwhile(probe);
        self.all.iter().enumerate().any(|(at, probe)| at != than && works(probe))
    }
}

impl Sim {
    pub(super) fn begin_probe(&mut self, wanted: Wanted, targets: &[Target]) {
        let hosts: Vec<usize> = targets.iter().map(|&target| self.target(target)).collect();
        let (wants, every) = match wanted {
            Wanted::Still | Wanted::Full | Wanted::ReadOnly | Wanted::Writes => {
                (STILL_ATTEMPTS * hosts.len(), STILL_EVERY / count(&hosts))
            }
            Wanted::Progress | Wanted::Either => {
                let each = u32::try_from(PROGRESS_ATTEMPTS).expect("a small number");
                (PROGRESS_ATTEMPTS, PROGRESS_SPAN / each)
            }
        };
        let (since, starts) = (self.since_begin(), self.starts);
        let tallies = BTreeMap::new();
        let probe = Probe {
            wanted,
            hosts,
            since,
            made: 0,
            wants,
            every,
            tallies,
            starts,
            starts_over: None,
            judged_at: None,
        };
        if wanted == Wanted::Still {
            probe.hosts.iter().for_each(|&host| self.ask_for_leader(host));
        }
        self.probes.all.push(probe);
        self.after(Duration::ZERO, Event::Probe(self.probes.all.len() - 1));
    }

    /// A server without a quorum, whose lease is over, names no leader.
    fn ask_for_leader(&mut self, index: usize) {
        self.promises.compared("stands still", 1);
        self.ask(Asker::Leaderless, index, |_, _| Request::Status);
    }

    pub(super) fn status_answered(&mut self, index: usize, answer: &Answer) {
        let Answer::Reply(Reply::Status(status)) = answer else { return };
        if let Some(leader) = &status.leader {
            let text = format!("n{} names {leader} leader, without a quorum", index + 1);
            self.violated("stands still", &text);
        }
    }

    pub(super) fn on_probe(&mut self, number: usize) {
        let probe = &mut self.probes.all[number];
        if probe.made == probe.wants {
            return self.judge(number);
        }
        let made = probe.made;
        probe.made += 1;
        let via = probe.hosts[made % probe.hosts.len()];
        let every = probe.every;
        let is_last = probe.made == probe.wants;
        let (round, asker) = (made / probe.hosts.len(), Asker::Probe(number));
        match round % 2 {
            0 => self.ask(asker, via, |sim, op| {
                let name = format!("probe-{}", made % NAMES);
                let spec = sim.job(&name, "@manually".to_owned(), op);
                Request::Write(Write::PutJob(Arc::new(spec)))
            }),
            _ => self.ask(asker, via, |_, _| Request::Read(Consistency::Linearizable)),
        }
        let next = if is_last { PATIENCE + Duration::from_millis(100) } else { every };
        self.after(next, Event::Probe(number));
    }

    /// The plan does something else to the machines: see [`Probe::starts_over`].
    pub(super) fn something_befalls(&mut self) {
        for probe in self.probes.all.iter_mut().filter(|probe| probe.judged_at.is_none()) {
            probe.starts_over.get_or_insert(self.starts);
        }
    }

    pub(super) fn probe_answered(
        &mut self,
        number: usize,
        via: usize,
        is_write: bool,
        answer: &Answer,
    ) {
        let is_full = matches!(answer, Answer::Reply(Reply::Failed(RequestError::DiskFull(text)))
            if self.names_a_full_disk(text));
        let probe = &mut self.probes.all[number];
        let is_late = probe.wanted == Wanted::Progress && probe.starts_over.is_some();
        let tally = probe.tallies.entry(via).or_default();
        let of = match answer {
            Answer::Reply(Reply::Failed(
                RequestError::Unknown | RequestError::UnknownDiskFull(_),
            ))
            | Answer::Lost => &mut tally.unknown,
            Answer::Reply(Reply::Failed(_)) if is_full => &mut tally.full,
            Answer::Reply(Reply::Failed(_)) | Answer::Unheard => &mut tally.refused,
            Answer::Silence => &mut tally.silent,
            Answer::Reply(_) if is_late => &mut tally.late,
            Answer::Reply(_) if is_write => &mut tally.written,
            Answer::Reply(_) => &mut tally.read,
        };
        *of += 1;
    }

    fn judge(&mut self, number: usize) {
        let works_elsewhere = self.probes.works_elsewhere(number);
        let can_start = self.agents_work(&self.probes.all[number].hosts);
        let (now, starts) = (self.since_begin(), self.starts);
        let probe = &mut self.probes.all[number];
        probe.judged_at = Some(now);
        let wanted = probe.wanted;
        let starts_over = probe.starts_over.filter(|_| wanted == Wanted::Progress);
        let starts = starts_over.unwrap_or(starts);
        let probed = Probed {
            wanted,
            hosts: &probe.hosts,
            since: probe.since,
            made: probe.made,
            tallies: &probe.tallies,
            started: starts - probe.starts,
            can_start,
            works_elsewhere,
        };
        let complaints = probed.complaints();
        self.promises.compared("answers", 1);
        if let Some(checker) = wanted.checker() {
            self.promises.compared(checker, 1);
        }
        for (checker, text) in complaints {
            self.violated(checker, &text);
        }
    }
}

impl Sim {
    /// Whether a refusal names a server that has no space.
    fn names_a_full_disk(&self, text: &str) -> bool {
        self.machines.iter().enumerate().any(|(index, machine)| {
            machine.ill.is_full && text.starts_with(&format!("server n{} cannot write", index + 1))
        })
    }

    /// Whether every agent runs, can write and is reached by these servers; without agents,
    /// whether there are none, since servers run the jobs then.
    fn agents_work(&self, hosts: &[usize]) -> bool {
        let servers = self.options.servers;
        (servers..servers + self.options.agents).all(|agent| {
            let machine = &self.machines[agent];
            let cut = |&host: &usize| self.net.is_cut(host, agent) || self.net.is_cut(agent, host);
            let is_ill = machine.is_paused || machine.ill.is_full || machine.ill.hangs;
            machine.host.is_some() && !is_ill && !hosts.iter().any(cut)
        })
    }
}

fn count(hosts: &[usize]) -> u32 {
    u32::try_from(hosts.len()).expect("a small number").max(1)
}
