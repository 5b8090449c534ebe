//! How an experiment is written down: [`Script`], step by step, until it is a plan.

use std::time::Duration;

use super::sets::Places;
use crate::draws::Draws;
use crate::plan::{Action, Expect, Keep, Options, Plan, Range, Step, Target, Way};

/// By then a cluster is founded, and the load begins.
const LOADED: Duration = Duration::from_millis(2_000);

/// So long after it the fault comes: the load goes on, and enough of it has been acknowledged.
const LOAD: Duration = Duration::from_millis(2_700);

/// Ten times the longest election timeout: in that time a quorum elects.
pub(super) const ELECTED: Duration = Duration::from_millis(2_500);

/// Two election timeouts: a lease is over, and with it what was under way.
pub(super) const LEASE_OVER: Duration = Duration::from_millis(500);

/// One-way cuts have to be noticed by whoever hears nothing: sessions end after 2 s.
pub(super) const SILENCE: Duration = Duration::from_millis(5_000);

/// How long requests are made of servers that have to work.
const PROGRESS: Duration = Duration::from_millis(3_000);

/// How long requests are made of servers that have to stand still, and the last is waited for.
const STILL: Duration = Duration::from_millis(8_150);

/// An experiment as it is written down. Time passes only where it says so.
#[derive(Debug)]
pub(super) struct Script {
    id: String,
    size: usize,
    options: Options,
    steps: Vec<Step>,
    now: Duration,
    /// The experiment's own chance: orders, gaps.
    pub(super) draws: Draws,
}

impl Script {
    /// A loaded cluster of `size` servers and an agent at the instant of the fault, with its leader
    /// marked. The name is the source of all chance.
    pub(super) fn new(id: String, size: usize) -> Self {
        let seed = hash(&id);
        let mut draws = Draws::new(seed, "lattice");
        let options = Options {
            // Seeds of plans are read by people.
            seed: seed % 1_000_000,
            servers: size,
            agents: 1,
            clients: 1,
            rest: Range::micros(200_000, 600_000),
            jobs: 4,
            run: Range::micros(5_000, 100_000),
            ..Options::default()
        };
        let load = Expect::Progress((0..size).map(Target::Host).collect());
        let steps = vec![Step { at: LOADED, action: Action::Expect(load) }];
        // Requests come every 20 ms: this is before, in or after one.
        let now = LOADED + LOAD + Duration::from_micros(draws.number(0..=40_000));
        let mut script = Self { id, size, options, steps, now, draws };
        script.act(Action::Mark);
        script
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Time passes, in whole microseconds, as a plan's text has it.
    pub(super) fn wait(&mut self, by: Duration) {
        self.now += Duration::from_micros(u64::try_from(by.as_micros()).unwrap_or(u64::MAX));
    }

    /// Something is done now.
    pub(super) fn act(&mut self, action: Action) {
        self.steps.push(Step { at: self.now, action });
    }

    /// Something is done to each of them at the same instant.
    pub(super) fn each(&mut self, places: Places, action: impl Fn(Target) -> Action) {
        places.targets().into_iter().for_each(|target| self.act(action(target)));
    }

    pub(super) fn crash(&mut self, places: Places, keep: Keep) {
        self.each(places, |target| Action::Crash(target, keep));
    }

    pub(super) fn restart(&mut self, places: Places) {
        self.each(places, Action::Restart);
    }

    /// Only servers of one block reach each other; the agent is in the first.
    pub(super) fn part(&mut self, blocks: &[Places]) {
        let blocks: Vec<Vec<Target>> =
            blocks.iter().filter(|block| !block.is_empty()).map(|block| block.targets()).collect();
        if blocks.len() > 1 {
            self.act(Action::Partition(blocks));
        }
    }

    /// These servers, and the agent, are well and reach each other.
    pub(super) fn heal(&mut self, places: Places) {
        let agent = Target::Host(self.size);
        self.act(Action::Heal(places.targets().into_iter().chain([agent]).collect()));
    }

    /// Nothing gets from the one to the other.
    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.act(Action::Cut(Target::After(from), Target::After(to)));
    }

    /// Nothing gets from one to the other, either way.
    pub(super) fn cut_both(&mut self, a: usize, b: usize) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Ends [`Script::cut`].
    pub(super) fn mend(&mut self, from: usize, to: usize) {
        self.act(Action::Mend(Target::After(from), Target::After(to)));
    }

    /// Ends [`Script::cut_both`].
    pub(super) fn mend_both(&mut self, a: usize, b: usize) {
        self.mend(a, b);
        self.mend(b, a);
    }

    pub(super) fn isolate(&mut self, place: usize, way: Way) {
        self.act(Action::Isolate(Target::After(place), way));
    }

    /// P: they have a quorum. From here on they are given the time of an election, and then have to
    /// work. When this is over they have been asked, and faults may go on.
    pub(super) fn progress(&mut self, places: Places) {
        self.wait(ELECTED);
        self.works(places);
    }

    /// The same without the time of an election.
    pub(super) fn works(&mut self, places: Places) {
        self.act(Action::Expect(Expect::Progress(places.targets())));
        self.wait(PROGRESS);
    }

    /// Z: they have no quorum, and once the lease is over grant nothing.
    pub(super) fn still(&mut self, places: Places) {
        self.wait(LEASE_OVER);
        if !places.is_empty() {
            self.act(Action::Expect(Expect::Still(places.targets())));
        }
        self.wait(STILL);
    }

    /// Z and P at the same time, of servers that do not reach each other.
    pub(super) fn still_beside(&mut self, places: Places, working: Places) {
        self.wait(LEASE_OVER);
        if !places.is_empty() {
            self.act(Action::Expect(Expect::Still(places.targets())));
        }
        let begun = self.now;
        self.now += ELECTED - LEASE_OVER;
        self.works(working);
        if !places.is_empty() {
            self.now = self.now.max(begun + STILL);
        }
    }

    /// Z where leaders may be named and reads answered.
    pub(super) fn read_only(&mut self, places: Places) {
        self.act(Action::Expect(Expect::ReadOnly(places.targets())));
        self.wait(STILL);
    }

    /// They may work or not; only safety is judged.
    pub(super) fn either(&mut self, places: Places) {
        self.act(Action::Expect(Expect::Either(places.targets())));
        self.wait(PROGRESS);
    }

    /// Everything is healed; that the cluster then comes to one state is judged in every run (L).
    pub(super) fn into_plan(mut self) -> Plan {
        self.act(Action::HealAll);
        let end = self.now + Duration::from_millis(100);
        let Self { options, mut steps, .. } = self;
        steps.sort_by_key(|step| step.at);
        Plan { options, steps, end }
    }
}

/// A hash that is the same on every machine and in every version (FNV-1a, and a finalizer, since
/// names differ in their last letters).
pub(super) fn hash(text: &str) -> u64 {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}
