//! Leader completeness (Raft thesis, figure 3.2): a server that leads in a term has every entry
//! that was committed in an earlier one.
//!
//! It is enough to look for the last of these entries: log matching says the rest. What the
//! leader's log has is what was handed to its disk; its own vote, which had to be durable before
//! it could lead, was handed over after it.

use cronclave::id::{LogIndex, NodeId, Term};

use super::Verdict;
use super::commits::Commits;
use super::mirror::Image;
use super::tally::{Count, Judge};

#[derive(Debug)]
pub(super) struct Completeness {
    count: Count,
}

impl Completeness {
    pub(super) fn new() -> Self {
        Self { count: Count::new("leader completeness") }
    }

    /// A server begins to lead in `term`, with this log.
    pub(super) fn on_leader(
        &mut self,
        judge: &mut Judge,
        commits: &Commits,
        id: NodeId,
        term: Term,
        log: &Image,
    ) {
        let Some(index) = commits.last_before(term) else { return };
        let mark = commits.at(index);
        self.count.check(judge, log.holds(index, mark), || {
            let has = log.at(index);
            format!(
                "{id} leads in term {term} without entry {index}, committed as {mark:?}; its log \
                 has {has:?} there and ends at {:?}",
                log.last()
            )
        });
    }

    /// The leader of `term` says that more is committed, up to `index`, an entry of `entry_term`.
    /// Only an entry of its own term is committed by counting who has it; what lies before it is
    /// committed with it (Raft thesis, section 3.6.2 and figure 3.7).
    pub(super) fn on_advance(
        &mut self,
        judge: &mut Judge,
        (id, term): (NodeId, Term),
        index: LogIndex,
        entry_term: Term,
    ) {
        self.count.check(judge, entry_term == term, || {
            format!(
                "{id}, leader of term {term}, says that all up to {index} is committed, an entry \
                 of term {entry_term} that it can only have counted"
            )
        });
    }

    pub(super) fn verdict(&self, judge: &Judge) -> Verdict {
        self.count.verdict(judge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::entries::Mark;
    use crate::check::mirror::Op;

    const ID: NodeId = NodeId(1);

    fn mark(term: u64) -> Mark {
        Mark { term: Term(term), hash: term }
    }

    fn log(terms: &[u64]) -> Image {
        let mut image = Image::default();
        for (index, term) in (0..).map(LogIndex).zip(terms) {
            image.apply(&Op::Entry { index, mark: mark(*term) });
        }
        image
    }

    fn lead(term: u64, log: &Image) -> Verdict {
        let (mut judge, mut completeness) = (Judge::default(), Completeness::new());
        let mut commits = Commits::default();
        for term in [1, 1, 2, 4] {
            commits.push(Some(mark(term)), Term(term));
        }
        completeness.on_leader(&mut judge, &commits, ID, Term(term), log);
        completeness.verdict(&judge)
    }

    #[test]
    fn a_leader_with_all_that_was_committed_before_is_well() {
        assert!(lead(5, &log(&[1, 1, 2, 4, 4])).is_green());
        assert!(lead(3, &log(&[1, 1, 2])).is_green(), "what a later leader commits is not asked");
        let covered = Image::bare(Some(LogIndex(3)), None);
        assert!(lead(5, &covered).is_green(), "a snapshot stands for entries");
        assert_eq!(lead(1, &log(&[])).comparisons, 0, "nothing was committed before");
    }

    #[test]
    fn a_leader_that_commits_an_entry_of_an_earlier_term_by_itself_is_found() {
        let (mut judge, mut completeness) = (Judge::default(), Completeness::new());
        completeness.on_advance(&mut judge, (ID, Term(4)), LogIndex(3), Term(4));
        assert!(completeness.verdict(&judge).is_green());
        completeness.on_advance(&mut judge, (ID, Term(5)), LogIndex(3), Term(4));
        assert_eq!(completeness.verdict(&judge).violations.len(), 1);
    }

    #[test]
    fn a_leader_that_lacks_an_entry_or_has_another_is_found() {
        assert_eq!(lead(5, &log(&[1, 1, 2])).violations.len(), 1);
        assert_eq!(lead(5, &log(&[1, 1, 2, 3])).violations.len(), 1);
        let covered = Image::bare(Some(LogIndex(2)), None);
        assert_eq!(lead(5, &covered).violations.len(), 1);
    }
}
