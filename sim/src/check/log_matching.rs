//! Log matching (Raft thesis, figure 3.2): entries of one index and term are the same, and so are
//! the entries before them.
//!
//! Each entry that is on its way to a disk, or is read from one, is compared with the first of its
//! index and term: its body, and the term of what stands before it. The rest follows by induction.

use cronclave::id::{LogIndex, NodeId, Term};

use super::Verdict;
use super::entries::{Mark, Meeting};
use super::tally::{Count, Judge};

#[derive(Debug)]
pub(super) struct LogMatching {
    count: Count,
}

impl LogMatching {
    pub(super) fn new() -> Self {
        Self { count: Count::new("log matching") }
    }

    /// The log of `id` has an entry at `index`, which met those of others like this.
    pub(super) fn on_entry(
        &mut self,
        judge: &mut Judge,
        id: Option<NodeId>,
        index: LogIndex,
        mark: Mark,
        meeting: Meeting,
    ) {
        let name = || id.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
        let term = mark.term;
        match meeting {
            // There was nothing to compare it with.
            Meeting::New => {}
            Meeting::Same => {
                self.count.check(judge, true, String::new);
            }
            Meeting::OtherBody => {
                self.count.check(judge, false, || {
                    format!("entry {index} of term {term} of {} is not that of others", name())
                });
            }
            Meeting::OtherPrev(before) => {
                self.count.check(judge, false, || {
                    format!("entry {index} of term {term} of {} does not follow {before:?}", name())
                });
            }
        }
    }

    /// The log of `id` is purged up to `upto`, as of `term`, where it has an entry of term `has`.
    pub(super) fn on_purge(
        &mut self,
        judge: &mut Judge,
        id: Option<NodeId>,
        upto: LogIndex,
        (term, has): (Term, Term),
    ) {
        self.count.check(judge, term == has, || {
            let name = id.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
            format!("{name} purges up to entry {upto} of term {term}, and its own is of {has}")
        });
    }

    /// A disk is read again. `foreign` is its last entry if it was never there, or was cut.
    pub(super) fn on_reread(
        &mut self,
        judge: &mut Judge,
        id: Option<NodeId>,
        foreign: Option<(LogIndex, Mark)>,
    ) {
        self.count.check(judge, foreign.is_none(), || {
            let name = id.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
            format!("the log of {name} ends with {foreign:?}, which was cut")
        });
    }

    pub(super) fn verdict(&self, judge: &Judge) -> Verdict {
        self.count.verdict(judge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::entries::{Entries, Prev};

    /// Each log has entries of these terms and bodies, from 0 on.
    fn judge_logs(logs: &[&[(u64, &str)]]) -> Verdict {
        let (mut judge, mut matching) = (Judge::default(), LogMatching::new());
        let mut entries = Entries::default();
        for log in logs {
            let mut prev = Prev::Start;
            for (index, (term, body)) in (0..).map(LogIndex).zip(*log) {
                let term = Term(*term);
                let mark = Mark { term, hash: super::super::entries::hash(body.as_bytes()) };
                let meeting = entries.meet(index, mark, prev, body.as_bytes(), false);
                matching.on_entry(&mut judge, Some(NodeId(1)), index, mark, meeting);
                prev = Prev::Term(term);
            }
        }
        matching.verdict(&judge)
    }

    #[test]
    fn logs_that_part_at_a_term_are_well() {
        let one: &[_] = &[(1, "a"), (1, "b"), (2, "c")];
        let two: &[_] = &[(1, "a"), (1, "b"), (3, "d"), (3, "e")];
        assert!(judge_logs(&[one, two, one]).is_green());
        assert!(!judge_logs(&[one]).is_green(), "one log is compared with nothing");
    }

    #[test]
    fn another_body_and_another_entry_before_are_found() {
        let one: &[_] = &[(1, "a"), (2, "b")];
        let other_body: &[_] = &[(1, "a"), (2, "B")];
        let found = judge_logs(&[one, other_body]).violations;
        assert_eq!(
            found,
            ["at 0.000000: entry 1 of term 2 of 0000000000000001 is not that of others"]
        );
        let other_before: &[_] = &[(0, "z"), (2, "b")];
        let found = judge_logs(&[one, other_before]).violations;
        assert_eq!(
            found,
            ["at 0.000000: entry 1 of term 2 of 0000000000000001 does not follow \
              Term(Term(1))"]
        );
    }

    #[test]
    fn a_conflict_below_a_purge_and_an_end_that_was_cut_are_found() {
        let (mut judge, mut matching) = (Judge::default(), LogMatching::new());
        let id = Some(NodeId(1));
        matching.on_purge(&mut judge, id, LogIndex(7), (Term(2), Term(2)));
        matching.on_reread(&mut judge, id, None);
        assert!(matching.verdict(&judge).is_green());
        matching.on_purge(&mut judge, id, LogIndex(7), (Term(2), Term(1)));
        matching.on_reread(&mut judge, id, Some((LogIndex(8), Mark { term: Term(1), hash: 0 })));
        assert_eq!(
            matching.verdict(&judge).violations,
            [
                "at 0.000000: 0000000000000001 purges up to entry 7 of term 2, and its own is of 1",
                "at 0.000000: the log of 0000000000000001 ends with Some((LogIndex(8), Mark { \
                 term: Term(1), hash: 0 })), which was cut",
            ]
        );
    }
}
