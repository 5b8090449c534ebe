//! What is committed stays: it is the same on every server that says so, it is not cut off, and
//! neither commit nor what is applied goes back while a node lives. What was synced is still there
//! after a crash, and nothing is purged that no durable snapshot covers.

use cronclave::id::{LogIndex, NodeId, Term};

use super::Verdict;
use super::commits::Commits;
use super::entries::Mark;
use super::mirror::{Brief, Image, Machine, Op};
use super::tally::{Count, Judge};

#[derive(Debug)]
pub(super) struct Immutable {
    count: Count,
}

impl Immutable {
    pub(super) fn new() -> Self {
        Self { count: Count::new("committed entries immutable") }
    }

    /// The server's status has changed. Everything that it says is committed is booked by now.
    pub(super) fn on_status(
        &mut self,
        judge: &mut Judge,
        commits: &Commits,
        (machine, committed_term): (&Machine, Option<Term>),
        before: Option<&Brief>,
    ) {
        let (Some(id), Some(now)) = (machine.id, &machine.status) else { return };
        let (was, had) = before.map_or((None, None), |it| (it.committed, it.applied));
        if now.committed != was {
            self.count.check(judge, now.committed >= was, || {
                format!("{id} said that {was:?} is committed, and now {:?}", now.committed)
            });
            // By the log as the node has it, which may be ahead of what its disk was given. With
            // the same term it is the same entry, and so are all before it (log matching).
            let committed = now.committed.and_then(|index| commits.at(index));
            if let (Some(has), Some(committed)) = (committed_term, committed) {
                self.count.check(judge, has == committed.term, || {
                    let index = now.committed;
                    format!("{id} committed {index:?} of term {has}, which is {committed:?}")
                });
            }
        }
        if now.applied != had {
            self.count.check(judge, now.applied >= had, || {
                format!("{id} had applied {had:?}, and now {:?}", now.applied)
            });
            self.count.check(judge, now.applied <= now.committed, || {
                format!("{id} has applied {:?} and committed {:?}", now.applied, now.committed)
            });
        }
    }

    fn same(
        &mut self,
        judge: &mut Judge,
        id: NodeId,
        index: LogIndex,
        (has, committed): (Mark, Mark),
    ) {
        self.count.check(judge, has == committed, || {
            format!("{id} has {has:?} as entry {index}, which is committed as {committed:?}")
        });
    }

    /// A change of the log is on its way to the disk of `machine`, which does not have it yet.
    pub(super) fn on_written(
        &mut self,
        judge: &mut Judge,
        commits: &Commits,
        machine: &Machine,
        op: &Op,
    ) {
        let Some(id) = machine.id else { return };
        let own = machine.status.as_ref().and_then(|status| status.committed);
        match *op {
            Op::Entry { index, mark } if Some(index) <= own => {
                if let Some(committed) = commits.at(index) {
                    self.same(judge, id, index, (mark, committed));
                }
            }
            Op::Entry { .. } | Op::Vote(_) => {}
            Op::Truncate { from } => {
                // The log as the node has it may be ahead: what it cut off before it heard of the
                // commit reaches the disk later, and is not what is committed.
                let cuts_it =
                    machine.written.at(from).is_some_and(|it| commits.at(from) == Some(it));
                self.count.check(judge, Some(from) > own || !cuts_it, || {
                    format!("{id} cuts off what is at {from} and above, and has committed {own:?}")
                });
            }
            Op::Purge { upto, .. } => {
                let covered = machine.durable.covered;
                self.count.check(judge, Some(upto) <= covered, || {
                    format!("{id} purges up to {upto}, and its durable snapshot covers {covered:?}")
                });
            }
            Op::Reset { next } => {
                let covered = machine.durable.covered;
                self.count.check(judge, next.0.checked_sub(1).map(LogIndex) <= covered, || {
                    format!("{id} begins anew at {next}, and its snapshot covers {covered:?}")
                });
            }
        }
    }

    /// A disk that was not lost is read again.
    pub(super) fn on_reread(
        &mut self,
        judge: &mut Judge,
        machine: &Machine,
        image: &Image,
        is_excused: bool,
    ) {
        let Some(id) = machine.id else { return };
        let missing = machine.missing_in(image);
        self.count.check(judge, missing.is_none() || is_excused, || {
            format!("{id} had {missing:?} synced, and its disk has it no more")
        });
        let (had, has) = (machine.durable.covered, image.covered);
        self.count.check(judge, has >= had || is_excused, || {
            format!("{id} had a durable snapshot up to {had:?}, and now up to {has:?}")
        });
    }

    /// When all is over: what the disk of a member holds is what is committed.
    pub(super) fn on_end(&mut self, judge: &mut Judge, commits: &Commits, id: NodeId, log: &Image) {
        for (index, has) in log.marks() {
            if let Some(committed) = commits.at(index) {
                self.same(judge, id, index, (has, committed));
            }
        }
    }

    pub(super) fn verdict(&self, judge: &Judge) -> Verdict {
        self.count.verdict(judge)
    }
}
