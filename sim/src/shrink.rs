//! A plan that fails becomes a small one that fails in the same way: [`shrink`].
//!
//! Steps are taken out in ever smaller groups (delta debugging: Zeller and Hildebrandt, 2002), then
//! the run is shortened, machines go, and the options become those of a quiet cluster, each as long
//! as the same checker goes on to find something.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::plan::{Options, Plan, Range, Step, Target};
use crate::run::{Look, Report, World, run};

/// How far a plan is to be reduced, at the most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long it may take.
    pub time: Duration,
    /// How many runs it may take.
    pub runs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(300), runs: 2_000 }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest plan that was found.
    pub plan: Plan,
    /// Who complains of it, and with which words.
    pub checker: String,
    /// What is said.
    pub text: String,
    /// How many runs it took.
    pub runs: usize,
}

/// Runs a plan; an unwind of the simulator is a violation too.
pub fn run_safely(plan: &Plan, world: World, look: Look) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| run(plan, world, look))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("an unwind without a text").to_owned()
    })
}

/// Who complains of a plan first, and with which words.
pub fn complaint(plan: &Plan, world: World) -> Option<(String, String)> {
    match run_safely(plan, world, Look::default()) {
        Ok(report) => report.violation().map(|found| (found.checker.clone(), found.text.clone())),
        Err(text) => Some(("unwinds".to_owned(), text)),
    }
}

/// Makes a failing plan smaller. `None` if it does not fail.
pub fn shrink(plan: &Plan, world: World, limits: Limits) -> Option<Shrunk> {
    let (checker, text) = complaint(plan, world)?;
    let shrunk = Shrunk { plan: plan.clone(), checker, text, runs: 1 };
    let mut shrinker = Shrinker { shrunk, world, until: Instant::now() + limits.time, limits };
    loop {
        let before = shrinker.shrunk.plan.clone();
        shrinker.drop_steps();
        shrinker.shorten();
        shrinker.drop_machines();
        shrinker.quieten();
        if shrinker.is_over() || shrinker.shrunk.plan == before {
            return Some(shrinker.shrunk);
        }
    }
}

struct Shrinker {
    shrunk: Shrunk,
    world: World,
    until: Instant,
    limits: Limits,
}

impl Shrinker {
    fn is_over(&self) -> bool {
        self.shrunk.runs >= self.limits.runs || Instant::now() >= self.until
    }

    /// Takes a smaller plan if the same checker complains of it.
    fn try_plan(&mut self, plan: Plan) -> bool {
        if self.is_over() || plan == self.shrunk.plan {
            return false;
        }
        self.shrunk.runs += 1;
        match complaint(&plan, self.world) {
            Some((checker, text)) if checker == self.shrunk.checker => {
                self.shrunk.plan = plan;
                self.shrunk.text = text;
                true
            }
            Some(_) | None => false,
        }
    }

    fn drop_steps(&mut self) {
        let mut size = self.shrunk.plan.steps.len().div_ceil(2);
        while size > 0 && !self.is_over() {
            let mut at = 0;
            while at < self.shrunk.plan.steps.len() && !self.is_over() {
                let mut plan = self.shrunk.plan.clone();
                let end = (at + size).min(plan.steps.len());
                plan.steps.drain(at..end);
                if !self.try_plan(plan) {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    /// The run ends earlier: at once after the last step, or in the middle.
    fn shorten(&mut self) {
        for part in [2, 4, 8] {
            let plan = self.shrunk.plan.clone();
            let last = plan.steps.last().map_or(Duration::ZERO, |step| step.at);
            let end = last + (plan.end - last) / part;
            self.try_plan(Plan { end, ..plan });
        }
        // Pauses between steps become short.
        let mut number = 0;
        while number < self.shrunk.plan.steps.len() && !self.is_over() {
            let mut plan = self.shrunk.plan.clone();
            let before = if number == 0 { Duration::ZERO } else { plan.steps[number - 1].at };
            let pause = plan.steps[number].at - before;
            if pause > Duration::from_secs(1) {
                let less = pause / 2;
                plan.steps[number..].iter_mut().for_each(|step: &mut Step| step.at -= less);
                plan.end -= less;
                if self.try_plan(plan) {
                    continue;
                }
            }
            number += 1;
        }
    }

    /// Machines go that nobody names, the last first.
    fn drop_machines(&mut self) {
        type Less = fn(&mut Options) -> bool;
        let fewer: [Less; 3] = [
            |options| less(&mut options.spares, 0),
            // The numbers of the spares follow on those of the agents, and those on the servers'.
            |options| options.spares == 0 && less(&mut options.agents, 0),
            |options| options.spares == 0 && options.agents == 0 && less(&mut options.servers, 1),
        ];
        for fewer in fewer {
            loop {
                let mut plan = self.shrunk.plan.clone();
                let shrunk = fewer(&mut plan.options) && is_sound(&plan);
                if !shrunk || !self.try_plan(plan) {
                    break;
                }
            }
        }
    }

    /// Options become, one after the other, those of a quiet cluster.
    fn quieten(&mut self) {
        type Quiet = fn(&mut Options, &Options);
        let quieter: [Quiet; 18] = [
            |options, _| options.loss = 0,
            |options, _| options.duplicate = 0,
            |options, _| options.tail = 0,
            |options, _| options.skew = 0,
            |options, _| options.turn = Range::micros(0, 0),
            |options, quiet| options.latency = quiet.latency,
            |options, quiet| options.sync = quiet.sync,
            |options, quiet| options.run = quiet.run,
            |options, _| options.fails = 0,
            |options, _| options.clients = options.clients.min(1),
            |options, quiet| options.rest = quiet.rest,
            |options, _| options.jobs = 1,
            |options, _| options.stock /= 10,
            |options, _| options.stock = 0,
            |options, quiet| options.snapshot_kb = quiet.snapshot_kb,
            |options, quiet| options.segment_kb = quiet.segment_kb,
            |options, quiet| options.raft_multiplier = quiet.raft_multiplier,
            |options, quiet| options.grace = quiet.grace,
        ];
        let quiet = Options::default();
        for quieten in quieter {
            let mut plan = self.shrunk.plan.clone();
            quieten(&mut plan.options, &quiet);
            self.try_plan(plan);
        }
    }
}

/// Takes one away, if that leaves at least so many.
fn less(count: &mut usize, least: usize) -> bool {
    let is_more = *count > least;
    *count -= usize::from(is_more);
    is_more
}

/// Whether every machine that a plan names is there.
fn is_sound(plan: &Plan) -> bool {
    let machines = plan.options.machines();
    plan.steps.iter().flat_map(|step| step.action.targets()).all(|target| match target {
        Target::Host(host) => host < machines,
        Target::After(place) => place < plan.options.servers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The processes of this mutant start twice, whatever else happens.
    const FAILING: &str = "plan 1
servers 3
agents 2
clients 3
loss 100
mutant started-twice
t=7.000 pause n2
t=7.500 cut n1 n3
t=8.000 resume n2
t=8.500 mend n1 n3
t=9.000 kill n2
t=9.500 restart n2
t=10.000 heal all
t=20.000 end
";

    #[test]
    fn what_has_nothing_to_do_with_the_failure_goes() {
        let plan: Plan = FAILING.parse().unwrap();
        let limits = Limits { runs: 60, ..Limits::default() };
        let shrunk = shrink(&plan, World::Heap, limits).unwrap();
        assert_eq!(shrunk.checker, "run ledger");
        assert_eq!(shrunk.plan.steps, []);
        assert_eq!((shrunk.plan.options.servers, shrunk.plan.options.agents), (1, 0));
        assert!(shrunk.plan.options.loss == 0 && shrunk.plan.options.clients == 1);
        assert!(shrunk.runs <= 60);
    }

    #[test]
    fn a_plan_that_does_not_fail_is_not_made_smaller() {
        let plan: Plan = "plan 1\nservers 1\nagents 0\nt=8 end".parse().unwrap();
        assert!(shrink(&plan, World::Heap, Limits::default()).is_none());
    }
}
