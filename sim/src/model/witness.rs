//! What the checkers and the story are told of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::Sim;
use super::clock::{MONO_BEGIN, true_wall};
use super::host::Host;
use super::machine::{Machine, host_name};
use crate::check::coverage::Situation;
use crate::check::seen::{Load, Seen};
use crate::check::{Checkers, Setup};
use crate::mutant::Layer;
use crate::plan::{Action, Clock, Disk, Plan, Target, Way};
use crate::story::{Moment, Story, What};
use cronclave::time::{Mono, Wall};

use super::links::Packet;

/// How far a leader follows a clock that is off before it notices.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(4);

/// With most clocks off the cluster's is anything.
const CLOCK_FREE: Duration = Duration::from_secs(3 * 3_600);

/// Faults have to last so long to count as held.
const HELD: u32 = 10;

/// How much of a run is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Telling {
    /// Nothing, which is fast.
    Nothing,
    /// Everything but messages and clients.
    Short,
    /// Everything.
    Full,
}

/// The promises that the world itself watches: what was compared, and what does not hold.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    compared: BTreeMap<&'static str, u64>,
    broken: Vec<Broken>,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) checker: &'static str,
    pub(crate) at: Mono,
    pub(crate) text: String,
}

impl Promises {
    pub(crate) fn compared(&mut self, checker: &'static str, count: u64) {
        *self.compared.entry(checker).or_default() += count;
    }

    pub(crate) fn broken(&self) -> &[Broken] {
        &self.broken
    }

    pub(crate) fn comparisons(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.compared.iter().map(|(&checker, &count)| (checker, count))
    }
}

pub(super) fn story(plan: &Plan) -> Story {
    Story {
        hosts: (0..plan.options.machines()).map(host_name).collect(),
        servers: plan.options.servers,
        agents: plan.options.agents,
        options: plan.options.pairs(),
        moments: Vec::new(),
    }
}

/// The layer that the plan's mutant is.
pub(super) fn layer(plan: &Plan) -> Layer {
    let mutant = plan.options.mutant.as_deref();
    Layer(mutant.map(|name| name.parse().expect("a plan is checked when it is read")))
}

pub(super) fn checkers(plan: &Plan) -> Checkers {
    let options = &plan.options;
    let actions = || plan.steps.iter().map(|step| &step.action);
    Checkers::new(Setup {
        machines: options.machines(),
        early_max: early_max(plan),
        lease: options.election_max(),
        may_rot: actions().any(|action| matches!(action, Action::Rot(..))),
        may_lose: may_lose(plan),
        // Nothing forges messages here.
        forbids_rejections: true,
        ..Setup::default()
    })
}

/// By how much the cluster's clock may be ahead of the true time: the median of a quorum is as good
/// as the best clocks, as long as most are well.
fn early_max(plan: &Plan) -> Duration {
    let options = &plan.options;
    let is_off =
        |action: &Action| matches!(action, Action::Clock(_, clock) if *clock != Clock::Well);
    let spoilt: BTreeSet<Target> = plan
        .steps
        .iter()
        .filter(|step| is_off(&step.action))
        .flat_map(|step| step.action.targets())
        .collect();
    let skew = Duration::from_millis(u64::from(options.skew) * 2 + 50);
    let tolerated = options.servers - (options.servers / 2 + 1);
    let changes = || plan.steps.iter().filter(|step| is_off(&step.action));
    let jumps_once = changes().count() == 1
        && changes().all(|step| matches!(step.action, Action::Clock(_, Clock::Jump(_))));
    match spoilt.len() {
        0 => skew,
        // The lower median of a quorum is one of the others', and a leader does not follow a jump.
        1 if jumps_once && tolerated >= 1 => skew,
        // A leader's clock that runs fast is followed until it is seen to be off.
        count if count <= tolerated => skew + CLOCK_OFF_MAX,
        _ => CLOCK_FREE,
    }
}

/// Whether so many disks may be lost in a run that what was acknowledged may be.
fn may_lose(plan: &Plan) -> bool {
    let loses =
        |action: &Action| matches!(action, Action::Wipe(_) | Action::SetBack(_) | Action::Rot(..));
    let steps = plan.steps.iter().filter(|step| loses(&step.action));
    let lost: BTreeSet<Target> = steps.flat_map(|step| step.action.targets()).collect();
    lost.len() > plan.options.servers - (plan.options.servers / 2 + 1)
}

impl Sim {
    /// Shows something to the checkers.
    pub(super) fn see(&mut self, seen: &Seen<'_>) {
        if self.is_watched {
            self.checkers.observe(self.since_begin(), self.wall(), seen);
        }
    }

    /// The simulation's clock as a plan counts it.
    pub(crate) fn since_begin(&self) -> Mono {
        Mono::ZERO + self.now.saturating_since(MONO_BEGIN)
    }

    /// The true civil time.
    pub(super) fn wall(&self) -> Wall {
        true_wall(self.now)
    }

    /// Something does not hold that no checker of its own watches.
    pub(super) fn violated(&mut self, checker: &'static str, text: &str) {
        let broken = Broken { checker, at: self.since_begin(), text: text.to_owned() };
        self.promises.broken.push(broken);
    }

    /// Tells people what happened on a machine.
    pub(super) fn tell(&mut self, host: usize, what: impl FnOnce() -> What) {
        self.tell_at(Some(host), what);
    }

    pub(super) fn tell_at(&mut self, host: Option<usize>, what: impl FnOnce() -> What) {
        if self.telling == Telling::Nothing {
            return;
        }
        let what = what();
        if !what.is_detail() || self.telling == Telling::Full {
            let at = self.since_begin();
            self.story.moments.push(Moment { at, host, what });
        }
    }

    /// Tells people of a packet, and of when it arrives.
    pub(crate) fn tell_packet(
        &mut self,
        from: usize,
        to: usize,
        packet: &Packet,
        arrives: Option<Mono>,
    ) {
        if self.telling == Telling::Full {
            let label = packet.label().to_owned();
            let arrives = arrives.map(|at| Mono::ZERO + at.saturating_since(MONO_BEGIN));
            self.tell(from, || What::Message { to, label, arrives });
        }
    }

    pub(super) fn trace(&mut self, host: usize, what: &impl fmt::Debug) {
        if let Some(trace) = &mut self.traced {
            trace.add(host, self.machines[host].clock.now(self.now), what);
        }
    }

    /// Notes if servers run that are configured otherwise than this one.
    pub(super) fn note_mixed(&mut self, host: usize) {
        let of = |host: usize| {
            let config = &self.machines[host].config;
            (config.raft_multiplier, config.log)
        };
        let servers = (0..self.machines.len()).filter(|&host| self.options.is_server(host));
        let mut running = servers.filter(|&other| self.machines[other].host.is_some());
        if self.options.is_server(host) && running.any(|other| of(other) != of(host)) {
            self.checkers.note(Situation::MixedConfiguration);
        }
    }

    /// What a step means for the list of situations that a campaign has to have seen, and whom it
    /// holds up. Called before it is carried out.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most actions are none of these")]
    pub(super) fn note_step(&mut self, action: &Action) {
        let targets: Vec<usize> =
            action.targets().into_iter().map(|target| self.target(target)).collect();
        let leader = self.leader();
        let note = match action {
            Action::Partition(blocks) => {
                let of_leader = leader.and_then(|leader| {
                    blocks
                        .iter()
                        .find(|block| block.iter().any(|&target| self.target(target) == leader))
                });
                let quorum = self.options.servers / 2 + 1;
                of_leader.map(|block| match block.len() >= quorum {
                    true => Situation::LeaderInMajority,
                    false => Situation::LeaderInMinority,
                })
            }
            Action::Isolate(_, Way::Both) if leader == targets.first().copied() => {
                Some(Situation::LeaderInMinority)
            }
            Action::Isolate(_, Way::In | Way::Out) => Some(Situation::OneWayPartition),
            Action::Cut(..) => Some(match self.options.servers {
                0..=2 => Situation::OneWayPartition,
                _ => Situation::PartialPartition,
            }),
            Action::Disk(_, Disk::Hang) => Some(Situation::SyncHung),
            Action::Disk(_, Disk::Full) => Some(Situation::DiskFull),
            Action::Disk(_, Disk::FailSync) => Some(Situation::SyncFailed),
            Action::Pause(_) => Some(Situation::Paused),
            Action::Hang(..) => Some(Situation::SessionHung),
            _ => None,
        };
        note.into_iter().for_each(|situation| self.checkers.note(situation));
        self.note_disturbance(action, &targets);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most actions are none of these")]
    fn note_disturbance(&mut self, action: &Action, targets: &[usize]) {
        let all = 0..self.machines.len();
        let now = self.since_begin();
        match action {
            Action::HealAll => all.for_each(|host| self.checkers.calm(now, host)),
            Action::Loss(_) | Action::Partition(_) | Action::Isolate(..) => {
                all.for_each(|host| self.checkers.disturb(now, host));
            }
            _ if action.is_fault() => {
                targets.iter().for_each(|&host| self.checkers.disturb(now, host));
            }
            _ => {}
        }
    }

    /// The machine that leads, by its own word.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |host: &Host| host.status().leader == Some(host.id);
        let leaders = self.machines.iter().enumerate().filter_map(|(index, machine)| {
            let host = machine.host.as_deref().filter(|host| host.is_at_rest() && leads(host))?;
            Some((host.status().term, index))
        });
        leaders.max().map(|(_, index)| index)
    }

    /// Counts for how long how many servers are lost.
    fn note_lost(&mut self) {
        let servers = self.options.servers;
        let is_lost = |machine: &Machine| machine.host.is_none() || machine.is_paused;
        let lost = self.machines[..servers].iter().filter(|machine| is_lost(machine)).count();
        let tolerated = servers - (servers / 2 + 1);
        for (at_least, place) in [(tolerated.max(1), 0), (tolerated + 1, 1)] {
            self.held[place] = if lost >= at_least { self.held[place] + 1 } else { 0 };
        }
        if self.held[0] == HELD && tolerated > 0 {
            self.checkers.note(Situation::ToleratedHeld);
        }
        if self.held[1] == HELD {
            self.checkers.note(Situation::BeyondToleratedHeld);
        }
    }

    /// Looks at how much every node holds.
    pub(super) fn on_sample(&mut self) {
        self.note_lost();
        for index in 0..self.machines.len() {
            let machine = &self.machines[index];
            let Some(host) = &machine.host else { continue };
            let load = Load {
                inputs: host.inbox.len(),
                log_bytes: host.status().log_bytes,
                disk_bytes: machine.disk.segments().map(|(_, len)| len as u64).sum(),
                requests: host.open.len(),
                frames: host.links.waiting(),
            };
            self.see(&Seen::Load { host: index, load });
        }
        if !self.is_over {
            self.after(super::SAMPLE_EVERY, super::Event::Sample);
        }
    }
}
