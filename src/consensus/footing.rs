//! What a server holds durably, and by what others know that it has lost some of it.
//!
//! A vote never goes back, and under one vote a log loses nothing that its leader counts on: what
//! it confirmed to that leader, and every entry of that term. A server that comes back with less
//! than it told of itself has another disk than it had, or the same one as it was before.
//!
//! **Left out on purpose**: the end of a log that was cut at a crash, which is in doubt and is
//! settled as [`doubt`](super::doubt) says.

use serde::{Deserialize, Serialize};

use super::types::{LogId, Vote, index_of, term_of};
use crate::id::{LogIndex, Term};

/// How far a server's vote and its log go on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footing {
    /// The term of its vote.
    pub term: Term,
    /// Its last entry.
    pub last: Option<(Term, LogIndex)>,
    /// Whether it found the end of its log cut when it started.
    pub was_cut: bool,
}

/// What a server never goes back behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The term of its vote.
    pub term: Term,
    /// The last entry that it holds as long as it has no vote of a later term.
    pub upto: Option<(Term, LogIndex)>,
}

impl Footing {
    /// Where a server stands with this vote and this last entry.
    pub(crate) fn new(vote: Option<Vote>, last: Option<LogId>, was_cut: bool) -> Self {
        let term = vote.map_or(Term(0), |vote| Term(vote.leader_id.term));
        Self { term, last: last.map(|id| (term_of(&id), index_of(&id))), was_cut }
    }

    /// What a server that stands so never goes back behind. A later leader of the same term may
    /// still cut entries of earlier terms.
    pub fn promise(&self) -> Promise {
        Promise { term: self.term, upto: self.last.filter(|(term, _)| *term == self.term) }
    }

    /// Whether a server that has promised this cannot stand so.
    pub fn breaks(&self, promise: &Promise) -> bool {
        let is_short = promise.upto.is_some() && self.last < promise.upto && !self.was_cut;
        self.term < promise.term || (self.term == promise.term && is_short)
    }
}

impl Promise {
    /// By what a server has confirmed everything up to `upto` to the leader of `vote`.
    pub(crate) fn confirmed(vote: Vote, upto: LogId) -> Self {
        let upto = Some((term_of(&upto), index_of(&upto)));
        Self { term: Term(vote.leader_id.term), upto }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: u64, last: (u64, u64)) -> Footing {
        let last = Some((Term(last.0), LogIndex(last.1)));
        Footing { term: Term(term), last, was_cut: false }
    }

    #[test]
    fn a_vote_never_goes_back() {
        let promise = at(3, (2, 9)).promise();
        assert!(at(2, (2, 90)).breaks(&promise));
        assert!(Footing { was_cut: true, ..at(2, (2, 90)) }.breaks(&promise));
        assert!(!at(3, (2, 9)).breaks(&promise) && !at(4, (1, 1)).breaks(&promise));
    }

    #[test]
    fn an_entry_of_the_votes_own_term_stays_until_a_later_vote() {
        let promise = at(3, (3, 9)).promise();
        assert!(at(3, (3, 8)).breaks(&promise) && at(3, (2, 90)).breaks(&promise));
        assert!(Footing { last: None, ..at(3, (3, 8)) }.breaks(&promise));
        assert!(!at(3, (3, 9)).breaks(&promise) && !at(4, (2, 3)).breaks(&promise));
        assert!(!Footing { was_cut: true, ..at(3, (3, 8)) }.breaks(&promise));
    }

    #[test]
    fn an_entry_of_an_earlier_term_may_be_cut_unless_the_leader_has_heard_of_it() {
        assert!(!at(3, (2, 4)).breaks(&at(3, (2, 9)).promise()));
        let heard = Promise { term: Term(3), upto: Some((Term(2), LogIndex(9))) };
        assert!(at(3, (2, 4)).breaks(&heard) && !at(3, (3, 5)).breaks(&heard));
    }
}
