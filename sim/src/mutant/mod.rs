//! Known faults that a simulation can be given on purpose, so that its checkers prove that they
//! find them: [`Mutant`], and the [`Layer`] that it is.
//!
//! A mutant of this kind is a layer around a node that is as it ships: the world of the node asks
//! it, at the places that are named by its methods, whether to do the wrong thing. Faults that lie
//! inside the node or inside openraft cannot be planted from outside; they are patches, in
//! `sim/mutants/`, and [`crate::mutants`] builds and runs them.
//!
//! Three of them are no faults of the product but of the simulator: without faults, without
//! acknowledgements, and with a checker that complains about a hundredth of all runs for nothing.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use cronclave::codec::record::Record;
use cronclave::codec::{decode, encode};
use cronclave::id::Term;
use cronclave::jobs::history::change::Change;
use cronclave::node::message::{Envelope, Message};
use cronclave::node::request::{Consistency, Reply, Request, RequestError};

/// A fault that is planted around a node, or in the simulator. The numbers in the docs of the
/// variants are those of the table of mutants in the design of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// Disk, 1: votes are never written, so a node that restarts has forgotten them.
    VotesForgotten,
    /// Disk, 2: a write is said to be durable as soon as it is handed over.
    EarlyCompletion,
    /// Disk, 8: a snapshot is said to be durable, and the log purged behind it, while it is in the
    /// cache; a crash loses it.
    SnapshotUnsynced,
    /// Disk, 9: a node whose disk was wiped comes back under its old identity, and nobody is told
    /// how far its log goes, by which the others would know.
    OldIdentity,
    /// Core's outputs, 22: every process is started twice.
    StartedTwice,
    /// Core's outputs: the row of an ended execution never reaches the history of a node.
    RowDropped,
    /// Clients: a linearizable read is carried out as a stale one.
    StaleReads,
    /// Simulator, X1: no fault of the plan is carried out.
    NoFaults,
    /// Simulator, X2: no client is ever told that its write was carried out.
    NoAcknowledgements,
    /// Simulator, X3: a checker that complains about a hundredth of all seeds, whatever happens.
    Canary,
}

/// What has to notice a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// One of these checkers, in a single run.
    Checkers(&'static [&'static str]),
    /// One of these gates, which judge a campaign of runs as a whole.
    Gates(&'static [&'static str]),
}

/// A name that no mutant has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMutant(pub String);

impl fmt::Display for UnknownMutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no mutant {:?}", self.0)
    }
}

impl std::error::Error for UnknownMutant {}

/// The canary complains about one in so many seeds.
const CANARY_PERIOD: u64 = 100;

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::VotesForgotten,
        Self::EarlyCompletion,
        Self::SnapshotUnsynced,
        Self::OldIdentity,
        Self::StartedTwice,
        Self::RowDropped,
        Self::StaleReads,
        Self::NoFaults,
        Self::NoAcknowledgements,
        Self::Canary,
    ];

    /// Its name, as in the plan of a run and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::VotesForgotten => "votes-forgotten",
            Self::EarlyCompletion => "early-completion",
            Self::SnapshotUnsynced => "snapshot-unsynced",
            Self::OldIdentity => "old-identity",
            Self::StartedTwice => "started-twice",
            Self::RowDropped => "row-dropped",
            Self::StaleReads => "stale-reads",
            Self::NoFaults => "no-faults",
            Self::NoAcknowledgements => "no-acknowledgements",
            Self::Canary => "canary",
        }
    }

    /// The row of the design's tables that it stands for: `M` and `X` number mutants.
    pub fn row(self) -> &'static str {
        match self {
            Self::VotesForgotten => "M01",
            Self::EarlyCompletion => "M02",
            Self::SnapshotUnsynced => "M08",
            Self::OldIdentity => "M09",
            Self::StartedTwice => "M22",
            Self::RowDropped | Self::StaleReads => "",
            Self::NoFaults => "X1",
            Self::NoAcknowledgements => "X2",
            Self::Canary => "X3",
        }
    }

    /// What has to notice it.
    pub fn watch(self) -> Watch {
        match self {
            // Peers let no vote through that is older than its candidate's log, so a cluster that
            // has forgotten its terms stands still before it elects twice.
            Self::VotesForgotten => Watch::Checkers(&["election", "progress"]),
            Self::EarlyCompletion => Watch::Checkers(&["committed on quorum", "durability"]),
            Self::SnapshotUnsynced => {
                Watch::Checkers(&["committed entries immutable", "halts", "durability"])
            }
            // A leader hears nothing that takes back what was confirmed, so the wiped server may as
            // well stay empty for ever.
            Self::OldIdentity => Watch::Checkers(&[
                "committed on quorum",
                "durability",
                "leader completeness",
                "committed entries immutable",
                "settles",
            ]),
            Self::StartedTwice => Watch::Checkers(&["run ledger"]),
            Self::RowDropped => Watch::Checkers(&["run ledger", "linearizability"]),
            Self::StaleReads => Watch::Checkers(&["linearizability"]),
            Self::NoFaults => Watch::Gates(&["coverage"]),
            Self::NoAcknowledgements => Watch::Checkers(&["workload"]),
            Self::Canary => Watch::Checkers(&["canary"]),
        }
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mutant {
    type Err = UnknownMutant;

    fn from_str(name: &str) -> Result<Self, UnknownMutant> {
        let found = Self::ALL.into_iter().find(|mutant| mutant.name() == name);
        found.ok_or_else(|| UnknownMutant(name.to_owned()))
    }
}

/// What surrounds the nodes of a simulation: a mutant, or nothing. A world asks it what to do, and
/// without a mutant each answer is the right thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layer(pub Option<Mutant>);

impl Layer {
    fn is(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }

    /// The disk: what reaches it of a group of records.
    pub fn records(self, mut records: Vec<Record>) -> Vec<Record> {
        if self.is(Mutant::VotesForgotten) {
            records.retain(|record| !matches!(record, Record::Vote(_)));
        }
        records
    }

    /// The disk: whether the node is told that a write is durable when it is handed over, and not
    /// when it is synced.
    pub fn completes_early(self) -> bool {
        self.is(Mutant::EarlyCompletion)
    }

    /// The disk: whether no snapshot is ever synced, so that a loss of power takes every one that
    /// was built or installed since the node's start, whatever the node was told.
    pub fn loses_snapshots(self) -> bool {
        self.is(Mutant::SnapshotUnsynced)
    }

    /// The disk: whether a node whose disk is wiped keeps its incarnation and the count of its
    /// boots, and so its id.
    pub fn keeps_identity(self) -> bool {
        self.is(Mutant::OldIdentity)
    }

    /// The network: what leaves a node of a frame.
    pub fn frame(self, payload: Bytes) -> Bytes {
        if !self.is(Mutant::OldIdentity) {
            return payload;
        }
        let Ok(mut envelope) = decode::<Envelope>("envelope", &payload) else { return payload };
        for message in &mut envelope.messages {
            if let Message::Hello(hello) = message {
                // Nothing goes back behind this.
                hello.footing.term = Term(u64::MAX);
            }
        }
        encode(&envelope)
    }

    /// The executor: how often it starts the process of one order.
    pub fn starts(self) -> usize {
        if self.is(Mutant::StartedTwice) { 2 } else { 1 }
    }

    /// The history: what reaches its store of the changes of one output.
    pub fn changes<I>(self, mut changes: Vec<(I, Change)>) -> Vec<(I, Change)> {
        if self.is(Mutant::RowDropped) {
            changes.retain(|(_, change)| !matches!(change, Change::Put(_)));
        }
        changes
    }

    /// The clients: what reaches the node of a request.
    pub fn request(self, request: Request) -> Request {
        if !self.is(Mutant::StaleReads) {
            return request;
        }
        match request {
            Request::Read(_) => Request::Read(Consistency::Stale),
            Request::Executions { job, select, .. } => {
                Request::Executions { job, select, consistency: Consistency::Stale }
            }
            other @ (Request::Write(_) | Request::Members | Request::Status | Request::Leave) => {
                other
            }
        }
    }

    /// The clients of the workload: what reaches them of a reply.
    pub fn reply(self, reply: Reply) -> Reply {
        let is_hidden = self.is(Mutant::NoAcknowledgements) && matches!(reply, Reply::Written(_));
        if is_hidden { Reply::Failed(RequestError::Unknown) } else { reply }
    }

    /// The simulator: whether the faults of the plan are left out.
    pub fn spares_faults(self) -> bool {
        self.is(Mutant::NoFaults)
    }

    /// The simulator: whether the checker `canary` complains about the run of this seed.
    pub fn complains_of(self, seed: u64) -> bool {
        // A plain remainder would strike at the same seeds in every campaign that counts from 1.
        let mixed = (seed ^ (seed >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.is(Mutant::Canary) && mixed.is_multiple_of(CANARY_PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cronclave::id::{JobName, LogIndex};
    use cronclave::jobs::command::Applied;
    use std::collections::BTreeSet;

    fn vote() -> Record {
        Record::Vote(Bytes::new())
    }

    #[test]
    fn every_name_leads_back_to_its_mutant_and_is_used_once() {
        let names: BTreeSet<&str> = Mutant::ALL.into_iter().map(Mutant::name).collect();
        assert_eq!(names.len(), Mutant::ALL.len());
        for mutant in Mutant::ALL {
            assert_eq!(mutant.to_string().parse(), Ok(mutant));
        }
        assert_eq!("nothing".parse::<Mutant>(), Err(UnknownMutant("nothing".to_owned())));
    }

    #[test]
    fn every_mutant_is_watched() {
        for mutant in Mutant::ALL {
            let (Watch::Checkers(names) | Watch::Gates(names)) = mutant.watch();
            assert!(!names.is_empty(), "{mutant}");
        }
    }

    #[test]
    fn each_does_one_thing_wrong_and_no_other_does_it() {
        let records = || vec![vote(), Record::Settled];
        let read = || Request::Read(Consistency::Linearizable);
        let written = || Reply::Written(Box::new(Applied::SettingsChanged));
        for mutant in Mutant::ALL.into_iter().map(Some).chain([None]) {
            let layer = Layer(mutant);
            let hides = matches!(layer.reply(written()), Reply::Failed(RequestError::Unknown));
            let wrongs = [
                (layer.records(records()) != records(), Mutant::VotesForgotten),
                (layer.completes_early(), Mutant::EarlyCompletion),
                (layer.loses_snapshots(), Mutant::SnapshotUnsynced),
                (layer.keeps_identity(), Mutant::OldIdentity),
                (layer.starts() != 1, Mutant::StartedTwice),
                (layer.request(read()) != read(), Mutant::StaleReads),
                (layer.spares_faults(), Mutant::NoFaults),
                (hides, Mutant::NoAcknowledgements),
                ((0..1_000).any(|seed| layer.complains_of(seed)), Mutant::Canary),
            ];
            for (is_wrong, culprit) in wrongs {
                assert_eq!(is_wrong, mutant == Some(culprit), "{mutant:?} and {culprit}");
            }
        }
    }

    #[test]
    fn forgotten_votes_leave_everything_else_in_its_order() {
        let layer = Layer(Some(Mutant::VotesForgotten));
        let entry = |index| Record::Truncate { from: LogIndex(index) };
        let records = vec![entry(1), vote(), entry(2)];
        assert_eq!(layer.records(records), [entry(1), entry(2)]);
    }

    #[test]
    fn a_dropped_row_takes_no_other_change_with_it() {
        let layer = Layer(Some(Mutant::RowDropped));
        let changes = vec![(1, Change::Forget(JobName::new("tick").unwrap()))];
        assert_eq!(layer.changes(changes.clone()), changes);
    }

    #[test]
    fn the_canary_sings_for_a_hundredth_of_the_seeds_and_early() {
        let layer = Layer(Some(Mutant::Canary));
        let sung = (1..=10_000).filter(|&seed| layer.complains_of(seed)).count();
        assert!((70..=130).contains(&sung), "{sung}");
        assert!((1..=200).any(|seed| layer.complains_of(seed)));
    }
}
