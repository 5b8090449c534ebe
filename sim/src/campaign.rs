//! Many seeds, and what they come to together: [`Campaign`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::check::coverage::{Coverage, Situation};
use crate::run::Report;

/// Fewer seeds than this need not have met every situation.
pub const SEEDS_FOR_COVERAGE: u64 = 300;

/// What clusters of one size have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Size {
    /// How many runs there were.
    pub runs: u64,
    /// How long they were together, in simulated time.
    pub simulated: Duration,
    /// What they took of a core.
    pub core: Duration,
}

impl Size {
    /// Adds others.
    pub fn add(&mut self, more: &Self) {
        self.runs += more.runs;
        self.simulated += more.simulated;
        self.core += more.core;
    }

    /// Simulated seconds per second of a core.
    pub fn speed(&self) -> f64 {
        self.simulated.as_secs_f64() / self.core.as_secs_f64().max(1e-9)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (simulated, core) = (self.simulated.as_secs_f64(), self.core.as_secs_f64());
        write!(f, "{:>8} {simulated:>14.0} {core:>12.1} {:>10.0}", self.runs, self.speed())
    }
}

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// Who complained.
    pub checker: String,
    /// What was said.
    pub text: String,
}

/// What many runs have come to together.
#[derive(Clone, Debug, Default)]
pub struct Campaign {
    /// By the number of servers.
    pub sizes: BTreeMap<usize, Size>,
    /// How often each situation was met.
    pub coverage: Coverage,
    /// How much each checker compared.
    pub comparisons: BTreeMap<String, u64>,
    /// What failed.
    pub failures: Vec<Failure>,
    /// How many runs were made twice, and gave the same.
    pub repeated: u64,
    /// How many runs were made by a build with debug assertions.
    pub with_assertions: u64,
    /// How often a seed of the bare world was run in madsim's too.
    pub in_both_worlds: u64,
    /// What was counted in all runs: turns of nodes, writes acknowledged, processes started.
    pub turns: u64,
    /// Writes that were acknowledged.
    pub acked: u64,
    /// Processes that were started.
    pub starts: u64,
}

impl Campaign {
    /// Adds a run.
    pub fn add(&mut self, seed: u64, servers: usize, report: &Report, core: Duration) {
        let run = Size { runs: 1, simulated: report.simulated, core };
        self.sizes.entry(servers).or_default().add(&run);
        self.coverage.add(&report.coverage);
        for (checker, count) in &report.comparisons {
            *self.comparisons.entry(checker.clone()).or_default() += count;
        }
        self.turns += report.counts.turns;
        self.acked += report.counts.acked;
        self.starts += report.counts.starts;
        if let Some(found) = report.violation() {
            let (checker, text) = (found.checker.clone(), found.text.clone());
            self.failures.push(Failure { seed, checker, text });
        }
    }

    /// Adds what another thread has come to.
    pub fn merge(&mut self, other: &Self) {
        for (servers, more) in &other.sizes {
            self.sizes.entry(*servers).or_default().add(more);
        }
        self.coverage.add(&other.coverage);
        for (checker, count) in &other.comparisons {
            *self.comparisons.entry(checker.clone()).or_default() += count;
        }
        self.failures.extend(other.failures.iter().cloned());
        self.repeated += other.repeated;
        self.with_assertions += other.with_assertions;
        self.in_both_worlds += other.in_both_worlds;
        self.turns += other.turns;
        self.acked += other.acked;
        self.starts += other.starts;
    }

    /// How many runs there were.
    pub fn runs(&self) -> u64 {
        self.sizes.values().map(|size| size.runs).sum()
    }

    /// What does not let this campaign count as a proof, besides its failures: checkers that had
    /// nothing to compare, and situations that never came up.
    pub fn gates(&self) -> Vec<String> {
        let idle = self.comparisons.iter().filter(|(_, count)| **count == 0);
        let mut gates: Vec<String> =
            idle.map(|(checker, _)| format!("comparisons: {checker} had none")).collect();
        if self.runs() >= SEEDS_FOR_COVERAGE {
            let missing = self.coverage.missing().into_iter();
            gates.extend(missing.map(|situation| format!("coverage: {}", situation.as_str())));
        }
        gates
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>8} {:>8} {:>14} {:>12} {:>10}",
            "servers", "seeds", "simulated s", "core s", "speed"
        )?;
        let mut all = Size::default();
        for (servers, size) in &self.sizes {
            writeln!(f, "{servers:>8} {size}")?;
            all.add(size);
        }
        writeln!(f, "{:>8} {all}", "all")?;
        writeln!(
            f,
            "turns {}, writes acknowledged {}, processes started {}",
            self.turns, self.acked, self.starts
        )?;
        writeln!(
            f,
            "run again in another process {}, with debug assertions {}, in both worlds {}",
            self.repeated, self.with_assertions, self.in_both_worlds
        )?;
        writeln!(f, "\ncomparisons")?;
        for (checker, count) in &self.comparisons {
            writeln!(f, "{count:>14}  {checker}")?;
        }
        writeln!(f, "\nsituations")?;
        for &situation in Situation::ALL {
            writeln!(f, "{:>14}  {}", self.coverage.count(situation), situation.as_str())?;
        }
        Ok(())
    }
}
