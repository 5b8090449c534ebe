//! What has to hold, judged from outside. Each checker counts its comparisons, since one that had
//! nothing to compare has proven nothing.

mod bounds;
mod checkers;
#[cfg(test)]
mod client_tests;
mod commits;
mod completeness;
pub mod coverage;
mod durability;
mod election;
mod entries;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod front_tests;
mod halts;
mod immutable;
mod linear;
pub(crate) mod liveness;
mod log_matching;
mod mirror;
mod model;
mod model_rows;
mod oracle;
mod quorum;
mod runs;
mod runs_end;
#[cfg(test)]
mod runs_tests;
pub mod seen;
pub(crate) mod spins;
mod states;
mod tally;
mod watch;

pub use checkers::{Checkers, Setup};
pub use tally::Violation;

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which checker.
    pub checker: &'static str,
    /// How much it compared.
    pub comparisons: usize,
    /// What does not hold, each as a sentence.
    pub violations: Vec<String>,
}

impl Verdict {
    /// Whether something was compared and all of it holds.
    pub fn is_green(&self) -> bool {
        self.comparisons > 0 && self.violations.is_empty()
    }
}
