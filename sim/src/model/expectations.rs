//! What a plan expects at a moment: who leads, and what has happened since its last mark.

use std::collections::BTreeSet;

use cronclave::node::io::Event;

use super::Sim;
use crate::check::coverage::{Coverage, Situation};
use crate::check::liveness::Wanted;
use crate::plan::{Action, Expect, Plan, Step, Target};

/// The name of the checker.
const CHECKER: &str = "expectations";

/// What was there at the last mark of the plan, or at the start.
#[derive(Debug, Default)]
pub(super) struct Mark {
    /// Who led.
    pub(super) leader: Option<usize>,
    starts: u64,
    coverage: Coverage,
    /// What nodes have told since: each machine, and an event's name.
    told: BTreeSet<(usize, String)>,
}

/// Whether an expectation speaks of what nodes tell.
pub(super) fn hears_events(plan: &Plan) -> bool {
    let is_event = |step: &Step| matches!(step.action, Action::Expect(Expect::Event(..)));
    plan.steps.iter().any(is_event)
}

impl Sim {
    /// Takes note of the leader (the one of the highest term that says it leads), and of what has
    /// happened so far.
    pub(super) fn mark(&mut self) {
        let leader = self.leader().filter(|&index| index < self.options.servers);
        self.mark = Mark {
            // A plan that a seed made marks whoever leads, if anybody does.
            leader: leader.or(self.mark.leader),
            starts: self.starts,
            coverage: self.checkers.coverage().clone(),
            told: BTreeSet::new(),
        };
        if leader.is_none() && self.marked_is_needed() {
            self.violated("leader at the fault", "no server leads, and the plan marks one");
        }
    }

    /// Whether an expectation speaks of the marked leader.
    fn marked_is_needed(&self) -> bool {
        self.steps.iter().any(|step| {
            let is_after = |target: &Target| matches!(target, Target::After(_));
            matches!(step.action, Action::Expect(_)) && step.action.targets().iter().any(is_after)
        })
    }

    /// Remembers what a node tells.
    pub(super) fn note_told(&mut self, index: usize, event: &Event) {
        if self.hears_events {
            self.mark.told.insert((index, name_of(event)));
        }
    }

    pub(super) fn expect(&mut self, expect: &Expect) {
        match expect {
            Expect::Progress(targets) => self.begin_probe(Wanted::Progress, targets),
            Expect::Still(targets) => self.begin_probe(Wanted::Still, targets),
            Expect::Either(targets) => self.begin_probe(Wanted::Either, targets),
            Expect::Full(targets) => self.begin_probe(Wanted::Full, targets),
            Expect::ReadOnly(targets) => self.begin_probe(Wanted::ReadOnly, targets),
            Expect::Writes(targets) => self.begin_probe(Wanted::Writes, targets),
            Expect::Leader(targets) => {
                let leader = self.leader();
                let is_one = targets.iter().any(|&target| Some(self.target(target)) == leader);
                let leader = leader.map_or("nobody".to_owned(), |index| format!("n{}", index + 1));
                self.expected(is_one, expect, || format!("{leader} leads"));
            }
            Expect::Event(target, name) => {
                let index = self.target(*target);
                let is_told = self.mark.told.contains(&(index, name.clone()));
                self.expected(is_told, expect, || format!("n{} has told no such thing", index + 1));
            }
            Expect::Starts(count) => {
                let starts = self.starts - self.mark.starts;
                self.expected(starts >= *count, expect, || format!("{starts} processes started"));
            }
            Expect::NoStarts => {
                let starts = self.starts - self.mark.starts;
                self.expected(starts == 0, expect, || format!("{starts} processes started"));
            }
            Expect::Situation(situation) => {
                let count = self.met(*situation);
                self.expected(count > 0, expect, || "it has not happened".to_owned());
            }
            Expect::NoSituation(situation) => {
                let count = self.met(*situation);
                self.expected(count == 0, expect, || format!("it has happened {count} times"));
            }
        }
    }

    /// How often something has happened since the mark.
    fn met(&self, situation: Situation) -> u64 {
        self.checkers.coverage().count(situation) - self.mark.coverage.count(situation)
    }

    fn expected(&mut self, holds: bool, expect: &Expect, is: impl FnOnce() -> String) {
        self.promises.compared(CHECKER, 1);
        if !holds {
            self.violated(CHECKER, &format!("{expect} was expected, but {}", is()));
        }
    }
}

/// The name of the variant.
fn name_of(event: &Event) -> String {
    let text = format!("{event:?}");
    let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::Heap;
    use crate::run::Look;

    /// The complaints about the expectations of a lone server that runs for 8 s and stops.
    fn complaints(expects: &[&str]) -> Vec<String> {
        let steps: Vec<String> = expects.iter().map(|text| format!("t=8 expect {text}")).collect();
        let text = format!("plan 1\nservers 1\nagents 0\nt=5 mark\n{}\nt=9 end", steps.join("\n"));
        let plan: Plan = text.parse().unwrap();
        let mut sim = Sim::new(&plan, Look::default());
        let mut heap = Heap::default();
        while sim.now() < sim.end && heap.advance(&mut sim) {}
        sim.promises.broken().iter().map(|broken| broken.text.clone()).collect()
    }

    #[test]
    fn what_holds_at_a_moment_is_no_complaint() {
        assert_eq!(complaints(&["leader n1", "starts 2", "no situation leader crash"]), [""; 0]);
    }

    #[test]
    fn what_does_not_hold_is_told() {
        let found = complaints(&[
            "event n1 DiskFull",
            "starts 1000",
            "no starts",
            "situation disk full",
            "event n1 LeadershipWon",
        ]);
        assert_eq!(found.len(), 5, "what was told before the mark does not count: {found:?}");
        assert!(found[0].starts_with("event n1 DiskFull was expected, but n1 has told"));
    }

    #[test]
    fn an_event_is_called_by_its_variant() {
        assert_eq!(name_of(&Event::DiskFree), "DiskFree");
        assert_eq!(name_of(&Event::DiskFull("no space".to_owned())), "DiskFull");
        assert_eq!(name_of(&Event::ClockOff { ms: 4 }), "ClockOff");
    }
}
