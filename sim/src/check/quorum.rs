//! Committed on a quorum: when a server says that an entry is committed, the disks say so too.
//!
//! Each index is judged once, at the first status that names it: the entry has to be durable on a
//! majority of each half of the voters, dead ones included, or covered by a durable snapshot
//! there. Which entry it is, is what the quorum holds; what any one server says of it is judged by
//! [`immutable`](super::immutable).
//!
//! The voters are those that the server itself names. Between two of its statuses they may change
//! after the entry was committed, so those of the status before will do too. And who is no leader
//! knows only late who votes: for it a later membership will do, wherever it stands.

use std::sync::Arc;

use cronclave::consensus::Role;
use cronclave::id::{LogIndex, NodeId};

use super::Verdict;
use super::commits::Commits;
use super::entries::{Config, Entries, Mark};
use super::mirror::{Brief, Mirror};
use super::tally::{Count, Judge};

#[derive(Debug)]
pub(super) struct Quorum {
    count: Count,
}

impl Quorum {
    pub(super) fn new() -> Self {
        Self { count: Count::new("committed on quorum") }
    }

    /// The server on `host` says that more is committed. Books the entry at [`Commits::next`].
    pub(super) fn on_commit(
        &mut self,
        judge: &mut Judge,
        (mirror, entries, commits): (&Mirror, &Entries, &mut Commits),
        host: usize,
        before: Option<&Brief>,
    ) {
        let machine = mirror.machine(host);
        let (Some(id), Some(now)) = (machine.id, &machine.status) else { return };
        let index = commits.next();
        let holders = |config: &Config| quorum_of(mirror, config, index);
        let configs = std::iter::once(&now.config).chain(before.map(|before| &before.config));
        let mut found = configs.map(Arc::as_ref).find_map(holders);
        if found.is_none() && now.role != Role::Leader {
            let own = machine.written.config().map_or(LogIndex(0), |(index, _)| *index);
            found = entries.configs_from(own).map(Arc::as_ref).find_map(holders);
        }
        self.count.check(judge, found.is_some(), || {
            let has = |id: &NodeId| {
                let marks: Vec<Mark> = mirror.durable_marks(*id, index).collect();
                (*id, mirror.has_durably(*id, index, None), marks)
            };
            let halves = now.config.halves.iter();
            let halves: Vec<Vec<_>> = halves.map(|half| half.iter().map(has).collect()).collect();
            format!(
                "{id} ({:?} of term {}) says that {:?} is committed, and no quorum has entry \
                 {index}: {halves:?}",
                now.role, now.term, now.committed
            )
        });
        let mark = found.unwrap_or_else(|| machine.written.at(index));
        commits.push(mark, now.term);
    }

    /// A server has durably cut an entry off that is committed.
    pub(super) fn on_cut(
        &mut self,
        judge: &mut Judge,
        mirror: &Mirror,
        host: usize,
        index: LogIndex,
        mark: Mark,
    ) {
        let machine = mirror.machine(host);
        let (Some(id), Some(now)) = (machine.id, &machine.status) else { return };
        let still = mirror.is_on_quorum(&now.config, index, Some(mark));
        self.count.check(judge, still, || {
            format!("{id} has cut entry {index} off, which is committed and on no quorum since")
        });
    }

    /// When all is over, the last committed entries are on the disks of a quorum.
    pub(super) fn on_end(
        &mut self,
        judge: &mut Judge,
        commits: &Commits,
        voters: &Config,
        holds: impl Fn(NodeId, LogIndex, Option<Mark>) -> bool,
    ) {
        let Some(index) = commits.watermark() else { return };
        let mark = commits.at(index);
        for half in &voters.halves {
            let having = half.iter().filter(|id| holds(**id, index, mark)).count();
            self.count.check(judge, having > half.len() / 2, || {
                format!("in the end {having} of {half:?} have entry {index}, committed as {mark:?}")
            });
        }
    }

    pub(super) fn verdict(&self, judge: &Judge) -> Verdict {
        self.count.verdict(judge)
    }
}

/// The entry that a majority of each half has durably at `index`. The inner `None` says that
/// snapshots alone stand for it.
fn quorum_of(mirror: &Mirror, config: &Config, index: LogIndex) -> Option<Option<Mark>> {
    if config.halves.is_empty() {
        return None;
    }
    let mut last = None;
    for mark in config.halves.iter().flatten().flat_map(|id| mirror.durable_marks(*id, index)) {
        if last == Some(mark) {
            continue;
        }
        if mirror.is_on_quorum(config, index, Some(mark)) {
            return Some(Some(mark));
        }
        last = Some(mark);
    }
    // No mark at all stands there: whoever has the entry has it in a snapshot.
    let covered = last.is_none() && mirror.is_on_quorum(config, index, None);
    covered.then_some(None)
}
