//! What a plan does to the cluster.

use std::time::Duration;

use cronclave::codec::log::Step as DiskStep;
use cronclave::codec::record::Recovered;
use cronclave::consensus::Role;
use cronclave::node::io::Input;
use cronclave::node::request::Request;

use super::host::Afterwards;
use super::{Control, Event, Rebirth, Sim};
use crate::check::seen::Seen;
use crate::plan::{Action, Clock, Disk, During, Keep, Place, Target, Way};
use crate::story::What;

/// How long a node that is told to stop waits for its processes.
const DRAIN: Duration = Duration::from_secs(1);

impl Sim {
    /// Steps of one time are done in the order of the plan, whichever of them a world has come
    /// first.
    pub(super) fn on_step(&mut self, number: usize) {
        while self.steps_done <= number {
            self.steps_done += 1;
            self.step(self.steps_done - 1);
        }
    }

    fn step(&mut self, number: usize) {
        let step = self.steps[number].clone();
        if self.layer.spares_faults() && step.action.is_fault() {
            return;
        }
        let targets = step.action.targets();
        let first = targets.first().map(|&target| self.target(target));
        self.tell_fault(first, &step.action);
        if step.action.befalls_machines() {
            self.something_befalls();
        }
        self.note_step(&step.action);
        self.act(&step.action);
    }

    /// The machine that a target names.
    pub(super) fn target(&self, target: Target) -> usize {
        match target {
            Target::Host(host) => host,
            Target::After(place) => (self.mark.leader.unwrap_or(0) + place) % self.options.servers,
        }
    }

    fn hosts(&self, targets: &[Target]) -> Vec<usize> {
        targets.iter().map(|&target| self.target(target)).collect()
    }

    pub(super) fn act(&mut self, action: &Action) {
        match action {
            Action::Mark => self.mark(),
            Action::Crash(target, keep) => self.crash(self.target(*target), *keep),
            Action::Ambush(during, keep) => self.ambush = Some((*during, *keep)),
            Action::Kill(target) => self.exit(self.target(*target), "it is killed"),
            Action::Stop(target) => {
                let host = self.target(*target);
                if let Some(host) = &mut self.machines[host].host {
                    host.stops = Some(Afterwards::Rests);
                }
                self.give(host, Input::Shutdown { drain: DRAIN });
            }
            Action::Restart(target) => self.boot(self.target(*target)),
            Action::Config(target, setting) => {
                let host = self.target(*target);
                self.machines[host].configure(*setting);
            }
            Action::Wipe(target) => self.wipe(self.target(*target)),
            Action::Image(target) => {
                let host = self.target(*target);
                self.machines[host].take_image();
            }
            Action::SetBack(target) => self.set_back(self.target(*target)),
            Action::Detach(target) => self.detach(self.target(*target)),
            Action::Attach(target) => self.attach(self.target(*target)),
            Action::Rot(target, place) => self.rot(self.target(*target), *place),
            Action::Disk(target, disk) => self.spoil(self.target(*target), *disk),
            Action::Cut(from, to) => self.cut(self.target(*from), self.target(*to)),
            Action::Mend(from, to) => self.mend(self.target(*from), self.target(*to)),
            Action::Partition(blocks) => self.partition(blocks),
            Action::Isolate(target, way) => self.isolate(self.target(*target), *way),
            Action::Rejoin(target) => self.rejoin(self.target(*target)),
            Action::Lag(from, to, by) => {
                let (from, to) = (self.target(*from), self.target(*to));
                self.net.set_lag(from, to, *by);
            }
            Action::Hang(from, to) => {
                let (from, to) = (self.target(*from), self.target(*to));
                self.hung[to][from] = true;
                self.hang_links_of(to);
            }
            Action::Break(a, b) => self.break_sessions(self.target(*a), self.target(*b)),
            Action::Loss(ppm) => self.net.set_loss(*ppm),
            Action::Rest(rest) => self.options.rest = *rest,
            Action::Burst(target, count) => self.burst(self.target(*target), *count),
            Action::Pause(target) => {
                let host = self.target(*target);
                self.machines[host].is_paused = self.machines[host].host.is_some();
            }
            Action::Resume(target) => self.resume(self.target(*target)),
            Action::Clock(target, clock) => self.set_clock(self.target(*target), *clock),
            Action::Leave(target) => self.leave(self.target(*target)),
            Action::Heal(targets) => {
                let hosts = self.hosts(targets);
                self.heal(&hosts);
            }
            Action::HealAll => {
                let all: Vec<usize> = (0..self.machines.len()).collect();
                self.net.set_loss(self.options.loss);
                self.heal(&all);
            }
            Action::Expect(expect) => self.expect(expect),
        }
    }

    /// The power fails.
    fn crash(&mut self, host: usize, keep: Keep) {
        self.bury(host, "its power fails");
        self.lose_power(host, keep);
        let recovered = self.machines[host].read_disk();
        self.show_disk(host, recovered.as_ref(), false);
    }

    /// Strikes the server on `host` if it is in the middle of what the plan waits for.
    pub(super) fn spring_ambush(&mut self, host: usize) {
        let Some((during, keep)) = self.ambush else { return };
        let machine = &self.machines[host];
        let Some(node) = &machine.host else { return };
        let status = node.status();
        let is_met = match during {
            During::Write => status.role == Role::Leader && node.writer.is_writing(),
            During::Joint => status.role == Role::Leader && status.is_joint,
            During::Truncate => node.writer.has_cut(),
        };
        if is_met {
            let life = machine.life;
            self.ambush = None;
            self.after(Duration::ZERO, Event::Ambush { host, life, keep });
        }
    }

    pub(super) fn on_ambush(&mut self, host: usize, keep: Keep) {
        let action = Action::Crash(Target::Host(host), keep);
        self.tell_fault(Some(host), &action);
        self.note_step(&action);
        self.act(&action);
    }

    fn lose_power(&mut self, host: usize, keep: Keep) {
        let machine = &mut self.machines[host];
        machine.processes.clear();
        let draws = &mut self.draws.crash;
        machine.disk.crash(|unsynced| match keep {
            Keep::None => 0..0,
            Keep::All => 0..unsynced,
            Keep::Torn => match draws.number(0..=3) {
                0 => 0..0,
                1 => 0..draws.index(unsynced + 1),
                _ => 0..unsynced,
            },
        });
        // The file is the next node's before the store lets go of it: closing it writes.
        let found = machine.history.crash(|unsynced| match keep {
            Keep::None => 0,
            Keep::All => unsynced,
            Keep::Torn => draws.index(unsynced + 1),
        });
        machine.history = found;
        drop(machine.store.take());
        machine.snapshots.crash();
        if let Some(before) = machine.snapshots_at_boot.take()
            && self.layer.loses_snapshots()
        {
            machine.snapshots = before;
        }
    }

    /// The node's process ends, and what the system holds for its disk lives on.
    pub(super) fn exit(&mut self, host: usize, why: &str) {
        if self.machines[host].host.is_none() {
            return;
        }
        self.bury(host, why);
        let machine = &mut self.machines[host];
        // The store is closed as the system closes a file: what was written is there.
        let found = machine.history.crash(|unsynced| unsynced);
        machine.history = found;
        drop(machine.store.take());
        machine.snapshots.crash();
        let recovered = machine.read_disk_without_power();
        self.show_disk(host, recovered.as_ref(), false);
    }

    fn show_disk(&mut self, host: usize, recovered: Option<&Recovered>, is_wiped: bool) {
        self.see(&Seen::Down { host, durable: recovered, is_wiped });
    }

    fn wipe(&mut self, host: usize) {
        self.bury(host, "its disk is lost");
        let incarnation = self.draws.boot.any();
        let machine = &mut self.machines[host];
        machine.processes.clear();
        let (old, boots) = (machine.config.incarnation, machine.boots);
        machine.wipe(&self.options, incarnation);
        if self.layer.keeps_identity() {
            machine.keep_identity(&self.options, old, boots);
        }
        self.show_disk(host, None, true);
    }

    fn set_back(&mut self, host: usize) {
        self.bury(host, "its disk is set back");
        self.machines[host].processes.clear();
        if self.machines[host].set_back() {
            self.show_disk(host, None, true);
        }
    }

    fn detach(&mut self, host: usize) {
        self.crash(host, Keep::None);
        let incarnation = self.draws.boot.any();
        self.machines[host].detach(&self.options, incarnation);
    }

    fn attach(&mut self, host: usize) {
        if self.machines[host].detached.is_none() {
            return;
        }
        self.bury(host, "its own disk is put back");
        self.machines[host].processes.clear();
        // What a node has put on the disk in its place is gone.
        if self.machines[host].boots > 0 {
            self.show_disk(host, None, true);
        }
        self.machines[host].attach();
    }

    /// The node found that its disk was set back, and begins a new life on an empty one.
    pub(super) fn reborn(&mut self, host: usize, life: Rebirth) {
        let Rebirth { incarnation, cluster, join } = life;
        if self.machines[host].host.is_some() {
            return;
        }
        self.machines[host].reincarnate(&self.options, incarnation, cluster, join);
        self.show_disk(host, None, true);
        self.boot(host);
    }

    fn rot(&mut self, host: usize, place: Place) {
        let machine = &mut self.machines[host];
        let Ok(recovery) = machine.disk.read() else { return };
        let place = match place {
            // Recovery goes on where the log ends.
            Place::End => recovery.repairs.iter().find_map(|step| match step {
                DiskStep::Write { segment, at, .. } => Some((*segment, at.checked_sub(1)?)),
                DiskStep::Create { .. }
                | DiskStep::Sync { .. }
                | DiskStep::SyncDir
                | DiskStep::Remove { .. } => None,
            }),
            Place::Middle => {
                let first = machine.disk.segments().next();
                first.map(|(segment, len)| (segment, len as u64 / 2))
            }
        };
        if let Some((segment, at)) = place {
            let at = usize::try_from(at).expect("an offset in memory");
            machine.disk.rot(segment, at, 1 << self.draws.crash.number(0..=7));
            machine.ill.is_rotten = true;
            let recovered = self.machines[host].read_disk();
            // What rotted is lost here; whether it is missed is for the others to say.
            self.show_disk(host, recovered.as_ref(), true);
        }
    }

    fn spoil(&mut self, host: usize, disk: Disk) {
        let ill = &mut self.machines[host].ill;
        match disk {
            Disk::Full => ill.is_full = true,
            Disk::Slow(factor) => ill.slow = factor,
            Disk::Hang => ill.hangs = true,
            Disk::FailSync => ill.fails_sync = true,
            Disk::FailRead => ill.fails_read = true,
            Disk::Well => self.cure(host),
        }
    }

    fn cure(&mut self, host: usize) {
        let machine = &mut self.machines[host];
        let failed = machine.ill.fails_sync && machine.host.is_none();
        let is_rotten = machine.ill.is_rotten;
        machine.ill = super::machine::Illness { is_rotten, ..Default::default() };
        if failed {
            // The system dropped what could not be synced.
            self.lose_power(host, Keep::Torn);
            let recovered = self.machines[host].read_disk();
            self.show_disk(host, recovered.as_ref(), false);
        }
        self.disk_is_well(host);
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.net.cut(from, to);
        self.control.push(Control::Link(from, to));
    }

    fn mend(&mut self, from: usize, to: usize) {
        self.net.mend(from, to);
        self.control.push(Control::Link(from, to));
        if std::mem::take(&mut self.hung[to][from])
            && let Some(host) = &mut self.machines[to].host
        {
            let inputs = host.links.unhang(from);
            self.give_all(to, inputs);
        }
    }

    fn partition(&mut self, blocks: &[Vec<Target>]) {
        let blocks: Vec<Vec<usize>> = blocks.iter().map(|block| self.hosts(block)).collect();
        let place = |host: usize| blocks.iter().position(|block| block.contains(&host));
        let place = |host: usize| place(host).unwrap_or(0);
        let count = self.machines.len();
        for from in 0..count {
            for to in (0..count).filter(|&to| place(from) != place(to)) {
                self.cut(from, to);
            }
        }
    }

    fn isolate(&mut self, host: usize, way: Way) {
        for other in (0..self.machines.len()).filter(|&other| other != host) {
            if way != Way::Out {
                self.cut(other, host);
            }
            if way != Way::In {
                self.cut(host, other);
            }
        }
    }

    fn rejoin(&mut self, host: usize) {
        for other in (0..self.machines.len()).filter(|&other| other != host) {
            self.mend(host, other);
            self.mend(other, host);
        }
    }

    /// A boot of a node begins with the sessions that hang as they did.
    pub(super) fn hang_links_of(&mut self, host: usize) {
        let hung = self.hung[host].clone();
        if let Some(host) = &mut self.machines[host].host {
            let from = hung.iter().enumerate().filter(|(_, hangs)| **hangs);
            from.for_each(|(from, _)| host.links.hang(from));
        }
    }

    fn break_sessions(&mut self, a: usize, b: usize) {
        for (one, other) in [(a, b), (b, a)] {
            if let Some(host) = &mut self.machines[one].host {
                let inputs = host.links.break_with(other);
                self.give_all(one, inputs);
                self.send_all(one);
            }
        }
    }

    fn resume(&mut self, host: usize) {
        if std::mem::take(&mut self.machines[host].is_paused) {
            self.turn_soon(host);
        }
    }

    fn set_clock(&mut self, host: usize, clock: Clock) {
        let now = self.now;
        let machine = &mut self.machines[host];
        match clock {
            Clock::Jump(ms) => machine.clock.jump(ms.saturating_mul(1_000)),
            Clock::Drift(ppm) => machine.clock.set_drift(now, ppm),
            Clock::Well => machine.clock.set_right(now),
        }
        self.clock_was_set(host);
    }

    fn leave(&mut self, host: usize) {
        if self.machines[host].host.is_some() {
            self.machines[host].has_left = true;
            self.ask_for_nobody(host, Request::Leave);
        }
    }

    /// These machines are well among each other.
    fn heal(&mut self, hosts: &[usize]) {
        self.ambush = None;
        for &host in hosts {
            self.resume(host);
            self.cure(host);
            self.set_clock(host, Clock::Well);
            for &other in hosts.iter().filter(|&&other| other != host) {
                self.mend(host, other);
            }
        }
        for &host in hosts {
            self.attach(host);
            let is_founder = host < self.options.servers + self.options.agents;
            let was_started = self.machines[host].boots > 0;
            if is_founder || was_started {
                self.refuses_to_start(host);
                self.boot(host);
            }
        }
    }

    /// A server whose log has rotted below its end refuses to start. An operator lets go of its
    /// disk then.
    fn refuses_to_start(&mut self, host: usize) {
        let machine = &self.machines[host];
        if machine.host.is_none() && machine.ill.is_rotten && machine.disk.read().is_err() {
            self.wipe(host);
        }
    }

    /// The line of an action with the machines' numbers in it.
    fn in_numbers(&self, action: &Action) -> String {
        let numbered = |word: &str| match word.parse::<Target>() {
            Ok(target) => Target::Host(self.target(target)).to_string(),
            Err(_) => word.to_owned(),
        };
        let words = |part: &str| part.split(',').map(numbered).collect::<Vec<_>>().join(",");
        action.to_string().split(' ').map(words).collect::<Vec<_>>().join(" ")
    }

    fn tell_fault(&mut self, host: Option<usize>, action: &Action) {
        let text = self.in_numbers(action);
        self.tell_at(host, || What::Fault(text));
    }
}
