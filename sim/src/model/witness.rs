//! What the checkers and the story are told of a run.

use std::collections::BTreeMap;
use std::fmt;

use super::Sim;
use super::clock::true_wall;
use super::machine::host_name;
use crate::check::seen::{Load, Seen};
use crate::check::{Checkers, Setup};
use crate::plan::{Action, Plan};
use crate::story::{Moment, Story, What};
use cronclave::time::{Mono, Wall};

use super::links::Packet;

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
        options: plan.options.pairs(),
        moments: Vec::new(),
    }
}

pub(super) fn checkers(plan: &Plan) -> Checkers {
    let options = &plan.options;
    let servers = (0..options.machines()).filter(|&host| options.is_server(host));
    Checkers::new(Setup::new(options.machines(), servers.collect()))
}

impl Sim {
    /// Shows something to the checkers.
    pub(super) fn see(&mut self, seen: &Seen<'_>) {
        self.checkers.observe(self.now, self.wall(), seen);
    }

    /// The true civil time.
    pub(super) fn wall(&self) -> Wall {
        true_wall(self.now)
    }

    /// Something does not hold that no checker of its own watches.
    pub(super) fn violated(&mut self, checker: &'static str, text: &str) {
        let broken = Broken { checker, at: self.now, text: text.to_owned() };
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
        let is_detail = matches!(what, What::Client(_) | What::Message { .. });
        if !is_detail || self.telling == Telling::Full {
            self.story.moments.push(Moment { at: self.now, host, what });
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
            self.tell(from, || What::Message { to, label, arrives });
        }
    }

    pub(super) fn trace(&mut self, host: usize, what: &impl fmt::Debug) {
        if let Some(trace) = &mut self.traced {
            trace.add(host, self.machines[host].clock.now(self.now), what);
        }
    }

    /// What a step means for the list of situations that a campaign has to have seen.
    pub(super) fn note_step(&mut self, _action: &Action) {}

    /// Looks at how much every node holds.
    pub(super) fn on_sample(&mut self) {
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
