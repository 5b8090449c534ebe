//! Every entry that was ever on its way to a disk, once: [`Entries`].

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use cronclave::consensus::Content;
use cronclave::id::{LogIndex, NodeId, Term};

/// An entry at a known index: its term, and a hash of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) term: Term,
    pub(super) hash: u64,
}

/// What stands before an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prev {
    /// Nothing: it is the first of all.
    Start,
    /// An entry of this term.
    Term(Term),
    /// Purged, and not known.
    Unknown,
}

/// Who votes and who learns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) halves: Vec<BTreeSet<NodeId>>,
    pub(super) learners: BTreeSet<NodeId>,
}

impl Config {
    /// Whether these are its voters.
    pub(super) fn is_of(&self, voters: &BTreeSet<NodeId>, is_joint: bool) -> bool {
        match &self.halves[..] {
            [all] => !is_joint && all == voters,
            [one, two] => {
                is_joint
                    && voters.len() == one.union(two).count()
                    && one.union(two).all(|id| voters.contains(id))
            }
            _ => false,
        }
    }
}

/// What an entry does.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// Nothing that outlives it, or its work is done and forgotten.
    None,
    /// A command for the state machine.
    Command(Bytes),
    /// A change of the membership.
    Config(Arc<Config>),
    /// It cannot be read.
    Broken,
}

/// One entry, as it was first met.
#[derive(Clone, Debug)]
struct Variant {
    mark: Mark,
    prev: Prev,
    work: Work,
}

/// How an entry compares with the first of its index and term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// It is the first.
    New,
    /// It is the same.
    Same,
    /// The one before had another body.
    OtherBody,
    /// The one before followed on another entry.
    OtherPrev(Prev),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Entries {
    slots: Vec<Vec<Variant>>,
}

impl Entries {
    /// Takes in an entry. `committed` says whether nobody needs its work any more.
    pub(super) fn meet(
        &mut self,
        index: LogIndex,
        mark: Mark,
        prev: Prev,
        body: &[u8],
        is_done: bool,
    ) -> Meeting {
        let at = usize::try_from(index.0).expect("a simulated log fits into memory");
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, Vec::new);
        }
        let slot = &mut self.slots[at];
        let Some(known) = slot.iter_mut().find(|known| known.mark.term == mark.term) else {
            let work = match Content::read(body) {
                Ok(Content::Blank) => Work::None,
                Ok(Content::Command(_)) if is_done => Work::None,
                Ok(Content::Command(bytes)) => Work::Command(bytes),
                Ok(Content::Membership { halves, learners }) => {
                    Work::Config(Arc::new(Config { halves, learners }))
                }
                Err(_) => Work::Broken,
            };
            slot.push(Variant { mark, prev, work });
            return Meeting::New;
        };
        if known.mark != mark {
            return Meeting::OtherBody;
        }
        match (known.prev, prev) {
            (_, Prev::Unknown) => Meeting::Same,
            (Prev::Unknown, _) => {
                known.prev = prev;
                Meeting::Same
            }
            (before, _) if before == prev => Meeting::Same,
            (before, _) => Meeting::OtherPrev(before),
        }
    }

    fn find(&self, index: LogIndex, mark: Mark) -> Option<&Variant> {
        let slot = self.slots.get(usize::try_from(index.0).ok()?)?;
        slot.iter().find(|known| known.mark == mark)
    }

    /// The membership that this entry holds.
    pub(super) fn config(&self, index: LogIndex, mark: Mark) -> Option<&Arc<Config>> {
        match self.find(index, mark).map(|known| &known.work) {
            Some(Work::Config(config)) => Some(config),
            Some(Work::None | Work::Command(_) | Work::Broken) | None => None,
        }
    }

    /// All memberships at `index` and above that were ever on their way to a disk.
    pub(super) fn configs_from(&self, index: LogIndex) -> impl Iterator<Item = &Arc<Config>> {
        let from = usize::try_from(index.0).unwrap_or(usize::MAX).min(self.slots.len());
        self.slots[from..].iter().flatten().filter_map(|known| match &known.work {
            Work::Config(config) => Some(config),
            Work::None | Work::Command(_) | Work::Broken => None,
        })
    }

    /// What the committed entry does, once; `None` if it was never seen.
    pub(super) fn take_committed(&mut self, index: LogIndex, mark: Mark) -> Option<Work> {
        let slot = self.slots.get_mut(usize::try_from(index.0).ok()?)?;
        let mut found = None;
        for known in slot {
            let work = match &known.work {
                Work::Config(config) => Work::Config(Arc::clone(config)),
                Work::Broken => Work::Broken,
                Work::None | Work::Command(_) => std::mem::replace(&mut known.work, Work::None),
            };
            if known.mark == mark {
                found = Some(work);
            }
        }
        found
    }
}

/// A hash of an entry's body. Two bodies of one index and term that are not the same have, for all
/// that a simulation can do, two hashes.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(FACTOR);
        mixed ^ (mixed >> 29)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let hash =
        words.iter().fold(bytes.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let rest = rest.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte));
    mix(mix(hash, rest), FACTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: LogIndex = LogIndex(1);

    fn mark(term: u64, body: &[u8]) -> Mark {
        Mark { term: Term(term), hash: hash(body) }
    }

    #[test]
    fn an_entry_is_met_once_and_compared_from_then_on() {
        let mut entries = Entries::default();
        let body = Content::Command(Bytes::from_static(b"x")).write(ONE, Term(1)).unwrap();
        let mark = mark(1, &body);
        let mut meet = |mark, prev| entries.meet(ONE, mark, prev, &body, false);
        assert_eq!(meet(mark, Prev::Unknown), Meeting::New);
        assert_eq!(meet(mark, Prev::Term(Term(1))), Meeting::Same);
        assert_eq!(meet(mark, Prev::Unknown), Meeting::Same);
        let before = Prev::Term(Term(1));
        assert_eq!(meet(mark, Prev::Term(Term(2))), Meeting::OtherPrev(before));
        assert_eq!(meet(Mark { hash: 7, ..mark }, before), Meeting::OtherBody);
        assert_eq!(meet(Mark { term: Term(2), hash: 7 }, before), Meeting::New);
        assert!(matches!(entries.take_committed(ONE, mark), Some(Work::Command(_))));
        assert!(matches!(entries.take_committed(ONE, mark), Some(Work::None)));
    }

    #[test]
    fn bodies_that_differ_anywhere_have_other_hashes() {
        let body = [5_u8; 21];
        let mut hashes = BTreeSet::from([hash(&body), hash(&body[..20]), hash(&[])]);
        for at in 0..body.len() {
            let mut other = body;
            other[at] ^= 1;
            hashes.insert(hash(&other));
        }
        assert_eq!(hashes.len(), 24);
    }
}
