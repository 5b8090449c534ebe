//! What is committed: [`Commits`], one entry for each index, once and for all.

use cronclave::id::{LogIndex, Term};

use super::entries::Mark;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// The index of the first of `marks`.
    start: u64,
    /// `None` where snapshots alone stand for the entry, so that nobody knows it.
    marks: Vec<Option<Mark>>,
    /// In which term which index was the last that was committed; terms ascend.
    terms: Vec<(Term, LogIndex)>,
}

impl Commits {
    /// The last entry that is committed.
    pub(super) fn watermark(&self) -> Option<LogIndex> {
        (self.start + self.marks.len() as u64).checked_sub(1).map(LogIndex)
    }

    /// The first index that is not committed.
    pub(super) fn next(&self) -> LogIndex {
        LogIndex(self.start + self.marks.len() as u64)
    }

    /// Whether every entry is known from the first on.
    pub(super) fn is_whole(&self) -> bool {
        self.start == 0
    }

    /// Whether the entry at `index` is committed.
    pub(super) fn has(&self, index: LogIndex) -> bool {
        index < self.next()
    }

    /// The committed entry at `index`, if it is known.
    pub(super) fn at(&self, index: LogIndex) -> Option<Mark> {
        let offset = index.0.checked_sub(self.start)?;
        self.marks.get(usize::try_from(offset).ok()?).copied().flatten()
    }

    /// A leader of `term`, or one who heard of it, has the entry at [`Commits::next`] committed.
    pub(super) fn push(&mut self, mark: Option<Mark>, term: Term) {
        let index = self.next();
        self.marks.push(mark);
        match self.terms.last_mut() {
            Some((known, upto)) if *known >= term => *upto = index,
            Some(_) | None => self.terms.push((term, index)),
        }
    }

    /// A disk was found on which a snapshot covers everything up to `index`, of which nothing was
    /// seen.
    pub(super) fn skip_to(&mut self, index: LogIndex) {
        if index >= self.next() {
            self.start = index.0 + 1;
            self.marks.clear();
        }
    }

    /// The last entry that was committed in a term below `term`.
    pub(super) fn last_before(&self, term: Term) -> Option<LogIndex> {
        let earlier = self.terms.iter().rev().find(|(known, _)| *known < term);
        earlier.map(|(_, upto)| *upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_before_a_term_is_found_by_terms() {
        let mark = |hash| Some(Mark { term: Term(1), hash });
        let mut commits = Commits::default();
        assert_eq!(commits.watermark(), None);
        commits.push(mark(1), Term(1));
        commits.push(mark(2), Term(1));
        commits.push(mark(3), Term(4));
        assert_eq!(commits.watermark(), Some(LogIndex(2)));
        assert_eq!(commits.last_before(Term(1)), None);
        assert_eq!(commits.last_before(Term(3)), Some(LogIndex(1)));
        assert_eq!(commits.last_before(Term(4)), Some(LogIndex(1)));
        assert_eq!(commits.last_before(Term(5)), Some(LogIndex(2)));
        assert_eq!(commits.at(LogIndex(1)), mark(2));
        assert!(commits.has(LogIndex(2)) && !commits.has(LogIndex(3)));
    }

    #[test]
    fn what_only_a_snapshot_knows_is_passed_over() {
        let mut commits = Commits::default();
        commits.skip_to(LogIndex(9));
        assert_eq!((commits.next(), commits.at(LogIndex(4))), (LogIndex(10), None));
        assert!(!commits.is_whole() && commits.has(LogIndex(4)));
        commits.skip_to(LogIndex(3));
        assert_eq!(commits.next(), LogIndex(10));
    }
}
