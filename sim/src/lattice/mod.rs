//! The quorum lattice: every crash set, partition and lost disk of clusters of 1 to 7 servers, in
//! both directions. With as many lost as may be the cluster works, with one more it stops, and when
//! that one is back it works again, without losing or inventing anything.
//!
//! Each experiment is a [`Plan`] with what has to hold in it, so that it can be printed, replayed,
//! made smaller, and run in both worlds. Four verdicts are given, all from outside:
//!
//! - **P**, progress: within ten election timeouts, of 150 requests in 3 s at least 50 writes are
//!   acknowledged and 50 linearizable reads answered, and due jobs start;
//! - **Z**, zero: from two election timeouts after the fault on each server without a quorum is
//!   asked 100 times in 5 s; none names a leader, acknowledges a write or answers a read, and
//!   nothing starts;
//! - **R**, recovers: with so much back that the voters are exactly a quorum, P holds;
//! - **L**, loses nothing: at the end of every run all is healed, all servers come to one state,
//!   and every checker has looked at the whole history.
//!
//! **Places.** Sets are enumerated relative to the leader, which each plan marks at the instant of
//! the fault; a run in which nobody leads then is red. `@0` is the leader and `@k` the k-th server
//! after it, around. Servers differ in nothing but their numbers, so that a set together with the
//! place of the leader is the same experiment as its rotation that puts the leader first: the 2^n
//! sets of places stand for all n 2^n of them.
//!
//! | part | what |
//! |---|---|
//! | `sets` | sets of places, partitions |
//! | `script` | how an experiment is written down |
//! | `crash`, `partition`, `shapes`, `disks` | the experiments |
//! | `planted` | the same with a known fault, which has to be noticed where theory says so |
//! | `run` | runs them: [`run()`] |
//! | `page` | what was seen, for people: [`page()`] |

mod crash;
mod disks;
mod page;
mod partition;
mod planted;
mod run;
mod script;
mod sets;
mod shapes;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use self::page::page;
pub use self::planted::Planted;
pub use self::run::{Failure, Options, Row, Seen, Summary, run};
use self::script::{Script, hash};
use crate::plan::Plan;

/// The largest cluster of the lattice.
pub const SIZE_MAX: usize = 7;

/// What befalls the cluster of an experiment; the names are those of the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// As many as may be lost crash at once.
    C1,
    /// They crash one after the other; all do, rolling.
    C1Staggered,
    /// One more crashes.
    C2,
    /// All crash at once.
    C2All,
    /// Every other set crashes.
    C3,
    /// Every partition.
    P1,
    /// Halves.
    P2,
    /// Splits in one direction.
    P3,
    /// One server is isolated.
    P4,
    /// Chains, stars, bridges.
    P5,
    /// Links are cut one by one and mended in another order.
    P6,
    /// Crashes and partitions together.
    P7,
    /// Disks are lost or set back.
    D1,
    /// Disks are taken out and put back.
    D2,
    /// Logs rot.
    D4,
    /// Disks are full, or fail.
    D5,
    /// Disks hang.
    D6,
}

impl Kind {
    /// All of them, in the order of the design.
    pub const ALL: [Self; 17] = [
        Self::C1,
        Self::C1Staggered,
        Self::C2,
        Self::C2All,
        Self::C3,
        Self::P1,
        Self::P2,
        Self::P3,
        Self::P4,
        Self::P5,
        Self::P6,
        Self::P7,
        Self::D1,
        Self::D2,
        Self::D4,
        Self::D5,
        Self::D6,
    ];

    /// Its name, with which the ids of its experiments begin.
    pub fn name(self) -> &'static str {
        match self {
            Self::C1 => "C1",
            Self::C1Staggered => "C1s",
            Self::C2 => "C2",
            Self::C2All => "C2a",
            Self::C3 => "C3",
            Self::P1 => "P1",
            Self::P2 => "P2",
            Self::P3 => "P3",
            Self::P4 => "P4",
            Self::P5 => "P5",
            Self::P6 => "P6",
            Self::P7 => "P7",
            Self::D1 => "D1",
            Self::D2 => "D2",
            Self::D4 => "D4",
            Self::D5 => "D5",
            Self::D6 => "D6",
        }
    }

    /// What it is, for people.
    pub fn about(self) -> &'static str {
        match self {
            Self::C1 => "as many servers as may be lost lose power at one instant, logs torn",
            Self::C1Staggered => {
                "the same one after the other, 1 to 500 ms apart; and all servers, rolling"
            }
            Self::C2 => "one more loses power; each of them alone comes back",
            Self::C2All => "the power fails everywhere at once; each quorum of them comes back",
            Self::C3 => "every other set of servers loses power",
            Self::P1 => "every partition of the servers",
            Self::P2 => "even numbers in halves; each server alone goes over to the other half",
            Self::P3 => "every split in two, cut in one direction",
            Self::P4 => "each server hears nothing, is not heard, or both",
            Self::P5 => {
                "chain, star and bridge with the leader in each position; hub that is behind"
            }
            Self::P6 => "all links cut one by one, and mended in another order",
            Self::P7 => {
                "some servers dead and others cut off, so that a quorum or one less is left"
            }
            Self::D1 => "disks of tolerated numbers wiped or set back; holders of an entry wiped",
            Self::D2 => "one disk more is taken out, servers start on empty ones; one is put back",
            Self::D4 => "logs rot, at their ends and below",
            Self::D5 => "disks are full; syncs fail",
            Self::D6 => "disks hang",
        }
    }
}

/// One experiment.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its name, which stays the same: kind, size, and what is special, as `C2/n5/...`.
    pub id: String,
    /// How many servers the cluster has.
    pub size: usize,
    /// What befalls it.
    pub kind: Kind,
    /// Whether more is lost than may be.
    pub beyond: bool,
    /// What is done, and what has to hold.
    pub plan: Plan,
}

impl Experiment {
    /// Not more is lost than may be.
    fn within(kind: Kind, size: usize, script: Script) -> Self {
        let id = script.id().to_owned();
        Self { id, size, kind, beyond: false, plan: script.into_plan() }
    }

    /// More is lost than may be.
    fn beyond(kind: Kind, size: usize, script: Script) -> Self {
        Self { beyond: true, ..Self::within(kind, size, script) }
    }
}

/// How much of the lattice is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// All of it.
    Whole,
    /// So little that it is run with every test: every kind, and every size, is in it.
    Test,
}

/// The experiments of a slice, always the same in the same order.
pub fn experiments(slice: Slice) -> Vec<Experiment> {
    let of_size =
        |size| crash::all(size).into_iter().chain(partition::all(size)).chain(disks::all(size));
    let all: Vec<Experiment> = (1..=SIZE_MAX).flat_map(of_size).collect();
    match slice {
        Slice::Whole => all,
        Slice::Test => {
            let chosen = choose(&all);
            all.into_iter().filter(|experiment| chosen.contains(&experiment.id)).collect()
        }
    }
}

/// What is run with every test: of each kind one within and one beyond what may be lost, where
/// there are such, and of each size one at least. Small clusters come first, since they are fast.
fn choose(all: &[Experiment]) -> BTreeSet<String> {
    let mut chosen: BTreeSet<String> = BTreeSet::new();
    let first = |wanted: &dyn Fn(&&Experiment) -> bool| {
        let found = all.iter().filter(wanted).min_by_key(|experiment| hash(&experiment.id));
        found.map(|experiment| experiment.id.clone())
    };
    for kind in Kind::ALL {
        for beyond in [false, true] {
            let is_of = |it: &&Experiment| it.kind == kind && it.beyond == beyond;
            chosen.extend(first(&|it| is_of(it) && (3..=4).contains(&it.size)));
        }
    }
    for size in [1, 2, 5, 6, 7] {
        chosen.extend(first(&|it| it.size == size));
    }
    chosen
}
