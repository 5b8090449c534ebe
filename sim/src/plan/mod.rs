//! A run as data: [`Plan`]. Options, and faults with their times, as a text that can be printed,
//! edited, replayed and made smaller.
//!
//! A seed makes a plan ([`generate()`]), and from there on the seed is only the name of the chance
//! that is left: latencies, the workload's choices, elections. So a plan that failed is replayed as
//! it is, whatever later versions would draw from its seed.
//!
//! ```text
//! plan 1
//! seed 42
//! servers 3
//! agents 1
//! t=12.403 crash n3 keep=torn
//! t=14.000 restart n3
//! t=30.000 end
//! ```
//!
//! Machines are `n1`, `n2`, ... (servers first, then agents, then spares); `@0` is the leader at
//! the last `mark`, `@1` the server after it, and so on around.

mod action;
mod expect;
mod generate;
mod options;
mod text;

use std::fmt;
use std::time::Duration;

pub use self::action::{Action, Clock, Disk, During, Keep, Place, Setting, Target, Way};
pub use self::expect::Expect;
pub use self::generate::generate;
pub use self::options::{Options, Range};
pub use self::text::ParseError;

/// One thing that is done to a simulated cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// When, from the start of the run.
    pub at: Duration,
    /// What.
    pub action: Action,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What does not change in the run.
    pub options: Options,
    /// What happens, by time.
    pub steps: Vec<Step>,
    /// When the workload ends. What is broken is healed by then; the run takes a little longer.
    pub end: Duration,
}

impl Plan {
    /// How many of the steps are faults, and not their end or an expectation.
    pub fn faults(&self) -> usize {
        self.steps.iter().filter(|step| step.action.is_fault()).count()
    }
}

/// Seconds with as many decimals as are needed, at least three.
pub(crate) struct Seconds(pub(crate) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.subsec_micros();
        match micros % 1_000 {
            0 => write!(f, "{}.{:03}", self.0.as_secs(), micros / 1_000),
            _ => write!(f, "{}.{micros:06}", self.0.as_secs()),
        }
    }
}
