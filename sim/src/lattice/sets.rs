//! Sets of places, and all ways to part them.

use crate::plan::Target;

/// A set of places after the marked leader, one bit each; bit 0 is the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Places(u8);

impl Places {
    /// No place.
    pub(super) const NONE: Self = Self(0);

    /// All places of a cluster of `size` servers, at most 7.
    pub(super) fn all(size: usize) -> Self {
        assert!(size <= 7, "a lattice has at most 7 servers");
        Self((1 << size) - 1)
    }

    /// One place.
    pub(super) fn one(place: usize) -> Self {
        assert!(place < 7, "a lattice has at most 7 servers");
        Self(1 << place)
    }

    /// How many there are.
    pub(super) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }

    /// Those of one or the other.
    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in the other.
    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The first `count` of them.
    pub(super) fn first(self, count: usize) -> Self {
        self.iter().take(count).collect()
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..7).filter(move |&place| self.has(place))
    }

    /// All subsets of these, the empty one among them.
    pub(super) fn subsets(self) -> impl Iterator<Item = Self> {
        (0..=self.0).map(Self).filter(move |set| set.without(self).is_empty())
    }

    /// All subsets of so many of these.
    pub(super) fn subsets_of(self, len: usize) -> impl Iterator<Item = Self> {
        self.subsets().filter(move |set| set.len() == len)
    }

    /// As a plan names them.
    pub(super) fn targets(self) -> Vec<Target> {
        self.iter().map(Target::After).collect()
    }
}

impl FromIterator<usize> for Places {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        places.into_iter().fold(Self::NONE, |set, place| set.or(Self::one(place)))
    }
}

/// As in the names of experiments.
impl std::fmt::Display for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (number, place) in self.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}@{place}")?;
        }
        Ok(())
    }
}

/// How many voters a quorum has.
pub(super) fn quorum(size: usize) -> usize {
    size / 2 + 1
}

/// How many servers may be lost.
pub(super) fn tolerated(size: usize) -> usize {
    size - quorum(size)
}

/// All ways to part `size` places into blocks that are not empty, the whole as one block among
/// them. The leader's block comes first.
pub(super) fn partitions(size: usize) -> Vec<Vec<Places>> {
    let mut all: Vec<Vec<Places>> = vec![Vec::new()];
    for place in 0..size {
        let mut longer = Vec::new();
        for blocks in all {
            for at in 0..blocks.len() {
                let mut joined = blocks.clone();
                joined[at] = joined[at].or(Places::one(place));
                longer.push(joined);
            }
            let mut alone = blocks;
            alone.push(Places::one(place));
            longer.push(alone);
        }
        all = longer;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_sets_as_the_table_of_the_design_says() {
        let count = |size: usize, len| Places::all(size).subsets_of(len).count();
        let of = |more: usize| (1..=7).map(|n| count(n, tolerated(n) + more)).sum::<usize>();
        assert_eq!((of(0), of(1)), (69, 77));
        let all: usize = (1..=7).map(|size| Places::all(size).subsets().count()).sum();
        assert_eq!(all, 254);
    }

    #[test]
    fn there_are_as_many_partitions_as_the_table_of_the_design_says() {
        let mut counts = (0, 0);
        for size in 1..=7 {
            let all = partitions(size);
            let has_quorum =
                |blocks: &&Vec<Places>| blocks.iter().any(|block| block.len() >= quorum(size));
            let with = all.iter().filter(has_quorum).count();
            counts = (counts.0 + with, counts.1 + all.len() - with);
            for blocks in &all {
                assert_eq!(blocks.iter().map(|block| block.len()).sum::<usize>(), size);
                assert!(blocks[0].has(0), "the leader's block comes first");
            }
        }
        assert_eq!(counts, (299, 856));
    }

    #[test]
    fn places_are_told_as_plans_tell_them() {
        let set: Places = [2, 0].into_iter().collect();
        assert_eq!(set.to_string(), "@0,@2");
        assert_eq!(set.targets(), [Target::After(0), Target::After(2)]);
        assert_eq!(Places::NONE.to_string(), "none");
        assert_eq!(Places::all(3).without(set), Places::one(1));
        assert_eq!(Places::all(4).first(2), [0, 1].into_iter().collect());
    }
}
