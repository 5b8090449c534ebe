//! The other direction: experiments with a known fault planted, which have to be red where theory
//! says that it does harm, and green where it says that it cannot.

use std::path::Path;

use super::{Experiment, Kind, SIZE_MAX, Slice, disks, experiments, hash};
use crate::mutants::build::Workshop;
use crate::mutants::patch::Patch;
use crate::mutants::program::Program;

/// A fault that is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Planted {
    /// A layer: a server whose disk was lost comes back as who it was, and votes.
    OldIdentity,
    /// A patch of openraft: a quorum is floor(n/2).
    QuorumTooSmall,
    /// A patch of openraft: a quorum is floor(n/2) + 2.
    QuorumTooLarge,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OldIdentity, Self::QuorumTooSmall, Self::QuorumTooLarge];

    /// The name of the mutant that it is.
    pub fn name(self) -> &'static str {
        match self {
            Self::OldIdentity => "old-identity",
            Self::QuorumTooSmall => "quorum-too-small",
            Self::QuorumTooLarge => "quorum-too-large",
        }
    }

    /// The checkers that may notice it; that any other does is not what is to be shown.
    pub fn killers(self) -> &'static [&'static str] {
        match self {
            Self::OldIdentity => &[
                "stands still",
                "election",
                "committed on quorum",
                "committed entries immutable",
                "leader completeness",
                "durability",
            ],
            Self::QuorumTooSmall => &["stands still", "election", "committed on quorum"],
            Self::QuorumTooLarge => &["progress", "leader at the fault"],
        }
    }

    /// Builds the simulator with it inside, if it is a patch.
    ///
    /// # Errors
    /// If it cannot be built, with the reason.
    pub(super) fn program(self, workspace: &Path) -> Result<Option<Program>, String> {
        if self == Self::OldIdentity {
            return Ok(None);
        }
        let failed = |reason: String| format!("{} cannot be built: {reason}", self.name());
        let workshop = Workshop::new(workspace).map_err(|error| failed(error.to_string()))?;
        let path = workshop.patches().join(format!("{}.patch", self.name()));
        let patch = Patch::load(&path).map_err(|error| failed(error.to_string()))?;
        let program = workshop.build(&patch).map_err(|error| failed(error.to_string()))?;
        Ok(Some(Program::new(program)))
    }

    /// The experiments that show it, each with whether it must be red. Their ids begin with its
    /// name.
    pub(super) fn experiments(self, slice: Slice) -> Vec<(Experiment, bool)> {
        let all = match self {
            Self::OldIdentity => with_old_identity(),
            // Half of the servers are enough for it: of one server none would be.
            Self::QuorumTooSmall => {
                let is_shown = |it: &Experiment| matches!(it.kind, Kind::C2 | Kind::P2);
                must_be_red(|it| is_shown(it) && it.size >= 2)
            }
            Self::QuorumTooLarge => must_be_red(|it| it.kind == Kind::C1),
        };
        let mut all: Vec<(Experiment, bool)> = match slice {
            Slice::Whole => all,
            Slice::Test => few(&all),
        };
        for (experiment, _) in &mut all {
            experiment.id = format!("{}/{}", self.name(), experiment.id);
        }
        all
    }
}

fn must_be_red(is_shown: impl Fn(&Experiment) -> bool) -> Vec<(Experiment, bool)> {
    let all = experiments(Slice::Whole).into_iter().filter(is_shown);
    all.map(|experiment| (experiment, true)).collect()
}

/// One of three servers and one of four.
fn few(all: &[(Experiment, bool)]) -> Vec<(Experiment, bool)> {
    let first = |size: usize| {
        let of_size = all.iter().filter(move |(experiment, _)| experiment.size == size);
        of_size.min_by_key(|(experiment, _)| hash(&experiment.id)).cloned()
    };
    [3, 4].into_iter().filter_map(first).collect()
}

/// What is lost by forgetful servers can be told in advance: together with those who never had the
/// entry they have to be a quorum. Of four servers, with one that forgets, they never are.
fn with_old_identity() -> Vec<(Experiment, bool)> {
    let of_size = |size| {
        disks::holders(size).map(move |(held, lost)| {
            let mut experiment = disks::wiped_holders(size, held, lost);
            experiment.plan.options.mutant = Some(Planted::OldIdentity.name().to_owned());
            (experiment, disks::would_forget(size, lost))
        })
    };
    (1..=SIZE_MAX).flat_map(of_size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgetful_holder_harms_at_every_odd_size_two_at_six_and_none_at_four() {
        let all = Planted::OldIdentity.experiments(Slice::Whole);
        let harms = |size: usize| {
            let of_size = all.iter().filter(|(experiment, _)| experiment.size == size);
            let is_red: Vec<bool> = of_size.map(|(_, is_red)| *is_red).collect();
            (is_red.iter().filter(|is_red| **is_red).count(), is_red.len())
        };
        assert_eq!((harms(1), harms(2)), ((0, 0), (0, 0)));
        assert_eq!((harms(3), harms(4), harms(5)), ((4, 4), (0, 9), (36, 36)));
        assert_eq!((harms(6), harms(7)), ((60, 100), (280, 280)));
    }

    #[test]
    fn planted_faults_are_known_by_the_names_of_mutants_that_are_there() {
        let patches = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants");
        for planted in Planted::ALL {
            let name = planted.name();
            let is_patch = patches.join(format!("{name}.patch")).exists();
            assert_ne!(is_patch, name.parse::<crate::mutant::Mutant>().is_ok(), "{name}");
            assert!(!planted.experiments(Slice::Test).is_empty(), "{name}");
        }
    }
}
