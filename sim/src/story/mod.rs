//! What happened in a run, for people: [`Story`]. A short log and a page are made from it.
//!
//! | module | what |
//! |---|---|
//! | [`log`] | one line per moment, with a column per machine, while the run goes on |
//! | [`page`] | an HTML page of the whole run |
//! | `faults` | from when until when a fault of the plan holds, and on which machines |
//! | `standing` | how each machine stands at a moment |
//! | `telling` | what happened, in a sentence |
//! | `data` | the moments, packed for the page's script |

pub mod log;
pub mod page;

mod data;
mod faults;
mod standing;
mod telling;

use cronclave::consensus::Role;
use cronclave::id::{LogIndex, Term};
use cronclave::time::Mono;

/// A run as it is told. A short story has no messages.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// The machines' names, in the order of their numbers: servers, agents, spare servers.
    pub hosts: Vec<String>,
    /// How many of them are servers.
    pub servers: usize,
    /// How many after those are agents. What is left are spare servers.
    pub agents: usize,
    /// The first line that is printed: seed and options, each `name value`.
    pub options: Vec<(String, String)>,
    /// Everything that happened, by time.
    pub moments: Vec<Moment>,
}

/// The option that holds the command that replays the run: a telling shows it by itself.
pub const REPLAY: &str = "replay";

impl Story {
    /// The command that replays the run, if [`Story::options`] has one under [`REPLAY`].
    pub fn replay(&self) -> Option<&str> {
        let mut options = self.options.iter();
        options.find(|(name, _)| name == REPLAY).map(|(_, command)| command.as_str())
    }

    /// What was found, in order.
    pub fn violations(&self) -> impl Iterator<Item = &Moment> {
        let found = |moment: &&Moment| matches!(moment.what, What::Violation { .. });
        self.moments.iter().filter(found)
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When, by the simulation's clock.
    pub at: Mono,
    /// On which machine; `None` for what befalls the whole cluster.
    pub host: Option<usize>,
    /// What.
    pub what: What,
}

impl What {
    /// Whether a short story leaves it out.
    pub fn is_detail(&self) -> bool {
        matches!(self, Self::Client(_) | Self::Message { .. })
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The node boots.
    Up {
        /// Which start of it.
        boot: u64,
    },
    /// The node is dead, or has stopped.
    Down {
        /// Why.
        why: String,
    },
    /// How a server stands, when its role, term or leader has changed.
    Stands {
        /// What it is.
        role: Role,
        /// Its term.
        term: Term,
        /// The machine that leads, as far as it knows.
        leader: Option<usize>,
        /// The last entry in its log.
        last: Option<LogIndex>,
        /// The last one committed.
        committed: Option<LogIndex>,
        /// The last one applied.
        applied: Option<LogIndex>,
    },
    /// A fault of the plan befalls it, or ends: the line of the plan. `faults` reads from it until
    /// when the fault holds: `pause for=2`, or `pause` and later `end pause` or `resume`.
    Fault(String),
    /// The node says something.
    Event(String),
    /// A process starts or ends, and says so in that word.
    Process(String),
    /// A client asks, or is answered; then the text has one of the words acknowledged, refused,
    /// unknown.
    Client(String),
    /// A message is sent from this machine.
    Message {
        /// To which machine.
        to: usize,
        /// What, in one word: `append`, `vote`, `gossip`, ...
        label: String,
        /// When it arrives, or `None` if it is lost.
        arrives: Option<Mono>,
    },
    /// A checker found something.
    Violation {
        /// Which checker.
        checker: String,
        /// What does not hold.
        text: String,
    },
}
