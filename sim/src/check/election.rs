//! Election safety (Raft thesis, figure 3.2): one leader a term, and one vote a term of each node,
//! through restarts.
//!
//! Votes are judged by their records. One that a crash has taken back was never given, since a
//! node says nothing of it before it is synced; so through restarts only durable votes count. A
//! node that has lost its disk has forgotten its votes, and is another node from then on.

use std::collections::{BTreeMap, BTreeSet};

use cronclave::consensus::Role;
use cronclave::id::{NodeId, Term};

use super::Verdict;
use super::entries::Config;
use super::mirror::{Ballot, Image, Machine};
use super::tally::{Count, Judge};

#[derive(Debug)]
pub(super) struct Election {
    count: Count,
    leaders: BTreeMap<Term, NodeId>,
    /// What each node has durably given, of the terms of which it may still be asked.
    given: BTreeMap<NodeId, BTreeMap<Term, NodeId>>,
    /// Who was durably voted for in which term, and by whom, whatever became of their disks.
    voters: BTreeMap<(Term, NodeId), BTreeSet<NodeId>>,
}

/// How many terms back votes are remembered.
const TERMS_MAX: usize = 64;

impl Election {
    pub(super) fn new() -> Self {
        let count = Count::new("election");
        let (leaders, given, voters) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { count, leaders, given, voters }
    }

    /// A server says that it leads, or a vote says so of it.
    fn on_leader(&mut self, judge: &mut Judge, term: Term, id: NodeId) {
        let first = *self.leaders.entry(term).or_insert(id);
        self.count
            .check(judge, first == id, || format!("{first} and {id} both lead in term {term}"));
    }

    /// A server that did not lead in this term before says that it does.
    pub(super) fn on_role(&mut self, judge: &mut Judge, id: NodeId, role: Role, term: Term) {
        match role {
            Role::Leader => self.on_leader(judge, term, id),
            Role::Candidate | Role::Follower | Role::Learner => {}
        }
    }

    /// A server begins to lead in `term`: a quorum of these voters has voted for it, and their
    /// votes were durable before it could hear of them.
    pub(super) fn on_elected(&mut self, judge: &mut Judge, id: NodeId, term: Term, all: &Config) {
        let voters = self.voters.get(&(term, id));
        for half in &all.halves {
            let count = voters.map_or(0, |voters| half.intersection(voters).count());
            self.count.check(judge, count > half.len() / 2, || {
                format!("{id} leads in term {term} by the durable votes of {count} of {half:?}")
            });
        }
    }

    /// A vote is on its way to the disk of `machine`, which does not have it yet.
    pub(super) fn on_written(&mut self, judge: &mut Judge, machine: &Machine, ballot: Ballot) {
        let Some(id) = machine.id else { return };
        if let Some(before) = machine.written.vote {
            self.count.check(judge, ballot.may_follow(before), || {
                format!("{id} votes {ballot:?} after {before:?}")
            });
        }
        if ballot.is_leader {
            self.on_leader(judge, ballot.term, ballot.to);
        }
    }

    /// A vote is durable.
    pub(super) fn on_durable(&mut self, judge: &mut Judge, id: NodeId, ballot: Ballot) {
        if ballot.is_leader {
            return self.on_leader(judge, ballot.term, ballot.to);
        }
        self.voters.entry((ballot.term, ballot.to)).or_default().insert(id);
        if self.voters.len() > TERMS_MAX {
            self.voters.pop_first();
        }
        let given = self.given.entry(id).or_default();
        let first = *given.entry(ballot.term).or_insert(ballot.to);
        if given.len() > TERMS_MAX {
            given.pop_first();
        }
        self.count.check(judge, first == ballot.to, || {
            let Ballot { term, to, .. } = ballot;
            format!("{id} votes for {to} in term {term}, and has voted for {first} in it")
        });
    }

    /// A disk that was not lost is read again, and may be excused for what it has forgotten.
    pub(super) fn on_reread(
        &mut self,
        judge: &mut Judge,
        machine: &Machine,
        image: &Image,
        is_excused: bool,
    ) {
        let (Some(id), Some(before)) = (machine.id, machine.durable.vote) else { return };
        let kept = image.vote.is_some_and(|vote| vote == before || vote.may_follow(before));
        self.count.check(judge, kept || is_excused, || {
            format!("{id} had durably voted {before:?}, and its disk now says {:?}", image.vote)
        });
    }

    /// The node has lost its disk.
    pub(super) fn on_lost(&mut self, id: NodeId) {
        self.given.remove(&id);
    }

    /// In how many terms somebody led.
    pub(super) fn terms_led(&self) -> usize {
        self.leaders.len()
    }

    pub(super) fn verdict(&self, judge: &Judge) -> Verdict {
        self.count.verdict(judge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(0xa);
    const B: NodeId = NodeId(0xb);

    fn vote(term: u64, to: NodeId) -> Ballot {
        Ballot { term: Term(term), to, is_leader: false }
    }

    fn accept(term: u64, to: NodeId) -> Ballot {
        Ballot { is_leader: true, ..vote(term, to) }
    }

    /// Every vote reaches the disk of `A` and is synced.
    fn cast(ballots: &[Ballot]) -> Vec<String> {
        let (mut judge, mut election) = (Judge::default(), Election::new());
        let mut machine = Machine::of(A);
        for ballot in ballots {
            election.on_written(&mut judge, &machine, *ballot);
            machine.written.vote = Some(*ballot);
            election.on_durable(&mut judge, A, *ballot);
        }
        election.verdict(&judge).violations
    }

    #[test]
    fn votes_of_rising_terms_and_the_leader_that_was_not_voted_for_are_well() {
        let healthy = [vote(1, A), accept(1, A), vote(2, A), accept(2, B), vote(4, B)];
        assert_eq!(cast(&healthy), Vec::<String>::new());
    }

    #[test]
    fn a_second_vote_in_a_term_is_found() {
        let found = cast(&[vote(3, A), vote(3, B)]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].ends_with(
            "000000000000000a votes for 000000000000000b in term 3, and has voted for \
             000000000000000a in it"
        ));
        assert_eq!(cast(&[accept(3, A), vote(3, A)]).len(), 1, "a leader is not unlearnt");
        assert_eq!(cast(&[vote(3, A), vote(2, A)]).len(), 1, "terms do not go back");
        assert_eq!(cast(&[accept(3, A), accept(3, B)]).len(), 3, "two leaders by votes");
    }

    #[test]
    fn a_second_vote_after_a_restart_is_found_if_the_first_was_durable() {
        let (mut judge, mut election) = (Judge::default(), Election::new());
        election.on_durable(&mut judge, A, vote(3, A));
        election.on_durable(&mut judge, A, vote(3, A));
        assert!(election.verdict(&judge).is_green());
        election.on_durable(&mut judge, A, vote(3, B));
        assert_eq!(election.verdict(&judge).violations.len(), 1);
        election.on_lost(A);
        election.on_durable(&mut judge, A, vote(3, B));
        assert_eq!(election.verdict(&judge).violations.len(), 1, "a lost disk knows no votes");
    }

    #[test]
    fn two_leaders_of_a_term_are_found() {
        let (mut judge, mut election) = (Judge::default(), Election::new());
        election.on_role(&mut judge, A, Role::Leader, Term(2));
        election.on_role(&mut judge, B, Role::Follower, Term(2));
        election.on_role(&mut judge, B, Role::Leader, Term(3));
        assert!(election.verdict(&judge).is_green());
        election.on_role(&mut judge, B, Role::Leader, Term(2));
        assert_eq!(election.verdict(&judge).violations.len(), 1);
    }

    #[test]
    fn a_leader_by_votes_that_are_not_durable_on_a_quorum_of_each_half_is_found() {
        let (mut judge, mut election) = (Judge::default(), Election::new());
        let half = |ids: &[NodeId]| ids.iter().copied().collect::<BTreeSet<_>>();
        let c = NodeId(0xc);
        let all = Config { halves: vec![half(&[A, B, c])], ..Config::default() };
        let joint = Config { halves: vec![half(&[A, B, c]), half(&[c])], ..Config::default() };
        election.on_durable(&mut judge, A, vote(3, A));
        election.on_durable(&mut judge, B, vote(3, A));
        election.on_durable(&mut judge, c, accept(3, A));
        election.on_lost(B);
        election.on_elected(&mut judge, A, Term(3), &all);
        assert!(election.verdict(&judge).is_green(), "a vote that is lost later was given");
        election.on_elected(&mut judge, A, Term(3), &joint);
        assert_eq!(election.verdict(&judge).violations.len(), 1);
        election.on_durable(&mut judge, A, vote(4, A));
        election.on_elected(&mut judge, A, Term(4), &all);
        assert_eq!(election.verdict(&judge).violations.len(), 2);
    }

    #[test]
    fn a_disk_that_forgets_its_vote_is_found() {
        let (mut judge, mut election) = (Judge::default(), Election::new());
        let mut machine = Machine::of(A);
        machine.durable.vote = Some(vote(3, A));
        let image = |vote| Image::bare(None, vote);
        election.on_reread(&mut judge, &machine, &image(Some(vote(3, A))), false);
        election.on_reread(&mut judge, &machine, &image(Some(vote(4, B))), false);
        election.on_reread(&mut judge, &machine, &image(None), true);
        assert!(election.verdict(&judge).is_green());
        election.on_reread(&mut judge, &machine, &image(None), false);
        election.on_reread(&mut judge, &machine, &image(Some(vote(2, A))), false);
        assert_eq!(election.verdict(&judge).violations.len(), 2);
    }
}
