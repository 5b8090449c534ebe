//! A run: a plan in a world, and its verdict.

use cronclave::time::Mono;
use std::time::Duration;

use crate::check::coverage::Coverage;
use crate::heap::Heap;
use crate::model::Sim;
pub use crate::model::{Counts, Telling};
use crate::plan::Plan;
use crate::story::{Moment, Story, What};

/// In which world a plan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// A bare heap of events, which is fast.
    Heap,
    /// madsim: its scheduler, its links, its kills.
    #[cfg(all(feature = "sim", madsim))]
    Madsim,
}

/// How a run is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// How much of it is told.
    pub telling: Telling,
    /// Whether everything that enters and leaves the nodes is hashed, which takes time.
    pub traced: bool,
    /// Whether the checkers are shown anything. A run without them says how fast the rest is, and
    /// proves nothing.
    pub watched: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self { telling: Telling::Nothing, traced: false, watched: true }
    }
}

/// What kind of promise was broken, for exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A node halted or the simulator itself unwound.
    Crash,
    /// Something that has to happen did not.
    Liveness,
    /// Something happened that must not.
    Correctness,
}

impl Class {
    /// The class of what a checker finds.
    pub fn of(checker: &str) -> Self {
        match checker {
            "halts" | "unwinds" => Self::Crash,
            "progress" | "settles" | "answers" | "writes" | "workload" | "spins" => Self::Liveness,
            _ => Self::Correctness,
        }
    }

    /// The exit code of a run that ends so (TigerBeetle's, its `src/vopr.zig`).
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Crash => 127,
            Self::Liveness => 128,
            Self::Correctness => 129,
        }
    }
}

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which checker says so.
    pub checker: String,
    /// When, from the start of the run.
    pub at: Duration,
    /// What.
    pub text: String,
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// What does not hold, the first first.
    pub violations: Vec<Violation>,
    /// How much each checker compared.
    pub comparisons: Vec<(String, u64)>,
    /// Which situations there were.
    pub coverage: Coverage,
    /// What was counted.
    pub counts: Counts,
    /// How long the run was, in simulated time.
    pub simulated: Duration,
    /// A hash of everything that was drawn, and of all inputs and outputs if the run was traced.
    pub hash: u64,
    /// What happened, as far as it was told.
    pub story: Story,
}

impl Report {
    /// The first thing that does not hold.
    pub fn violation(&self) -> Option<&Violation> {
        self.violations.first()
    }
}

/// Runs a plan.
///
/// # Panics
/// If the simulator itself does; what a node does wrong is in the report.
pub fn run(plan: &Plan, world: World, look: Look) -> Report {
    match world {
        World::Heap => on_heap(plan, look),
        #[cfg(all(feature = "sim", madsim))]
        World::Madsim => crate::madsim_world::run(plan, look),
    }
}

fn on_heap(plan: &Plan, look: Look) -> Report {
    let mut sim = Sim::new(plan, look);
    let mut heap = Heap::default();
    while !sim.is_finished() && heap.advance(&mut sim) {}
    finish(sim)
}

impl Sim {
    /// Whether nothing more is to be seen: the end has come, or something does not hold.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_over || !self.checkers.violations().is_empty() || !self.promises.broken().is_empty()
    }
}

/// Has the checkers look at the end.
pub(crate) fn finish(mut sim: Sim) -> Report {
    let since = |at: Mono| at.saturating_since(Mono::ZERO);
    let mut violations: Vec<Violation> = Vec::new();
    let broken =
        sim.promises.broken().iter().map(|broken| (broken.checker, broken.at, &broken.text));
    let found = sim.checkers.violations();
    let found = found.iter().map(|found| (found.checker, found.at, &found.text));
    for (checker, at, text) in broken.chain(found) {
        let (checker, text) = (checker.to_owned(), text.clone());
        violations.push(Violation { checker, at: since(at), text });
    }
    let mut comparisons: Vec<(String, u64)> =
        sim.promises.comparisons().map(|(checker, count)| (checker.to_owned(), count)).collect();
    let now = sim.since_begin();
    // What ends early was never brought to rest, and says nothing about its end.
    if violations.is_empty() && sim.is_watched {
        let ending = sim.ending();
        for verdict in sim.checkers.finish(&ending) {
            comparisons.push((verdict.checker.to_owned(), verdict.comparisons as u64));
            violations.extend(verdict.violations.into_iter().map(|text| Violation {
                checker: verdict.checker.to_owned(),
                at: since(now),
                text,
            }));
        }
    }
    let (counts, hash) = (sim.counts(), sim.hash());
    let coverage = sim.checkers.coverage().clone();
    let names = sim.names();
    for found in &mut violations {
        found.text = in_names(&found.text, &names);
    }
    let mut story = sim.into_story();
    for Violation { checker, at, text } in &violations {
        let (checker, text) = (checker.clone(), text.clone());
        let what = What::Violation { checker, text };
        story.moments.push(Moment { at: Mono::ZERO + *at, host: None, what });
    }
    let simulated = since(now);
    Report { violations, comparisons, coverage, counts, simulated, hash, story }
}

/// A text with the names of machines in the place of their nodes' ids.
fn in_names(text: &str, names: &[(String, String)]) -> String {
    names.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id, name))
}
