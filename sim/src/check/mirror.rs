//! What every machine's disk holds, followed record by record: [`Mirror`].
//!
//! Of each disk there are two images: what was handed to it, and what is durable. An image of a
//! log holds for each entry its term and a hash of its body; the bodies are in
//! [`Entries`], once.
//!
//! What a disk held when it was lost is remembered under the id of its node: an acknowledgement
//! that was sent before may be counted after.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cronclave::codec::decode;
use cronclave::codec::record::{Record, Recovered};
use cronclave::consensus::{LogId, Role, Status, Vote};
use cronclave::id::{LogIndex, NodeId, Term};
use cronclave::time::Mono;

use super::entries::{Config, Entries, Mark, Prev, hash};

/// Raft's vote, as it stands on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ballot {
    pub(super) term: Term,
    /// The candidate that it was given to, or the leader that it accepts.
    pub(super) to: NodeId,
    /// Whether a quorum has granted it: then `to` leads.
    pub(super) is_leader: bool,
}

impl Ballot {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let vote: Vote = decode("vote", body).ok()?;
        let (term, to) = (Term(vote.leader_id.term), vote.leader_id.voted_for);
        Some(Self { term, to, is_leader: vote.committed })
    }

    /// Whether a node that has cast `other` may cast this one after it.
    pub(super) fn may_follow(self, other: Self) -> bool {
        match self.term.cmp(&other.term) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => match (other.is_leader, self.is_leader) {
                (false, false) | (true, true) => self.to == other.to,
                (false, true) => true,
                (true, false) => false,
            },
        }
    }
}

/// What a record does to an image.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Vote(Ballot),
    Entry { index: LogIndex, mark: Mark },
    Truncate { from: LogIndex },
    Purge { upto: LogIndex, term: Option<Term> },
    Reset { next: LogIndex },
}

impl Op {
    /// `None` for records that Raft's log is not made of. A hint of what is committed is one: it is
    /// never synced.
    pub(super) fn of(record: &Record) -> Option<Self> {
        match record {
            Record::Vote(body) => Ballot::read(body).map(Self::Vote),
            Record::Entry { index, term, body } => {
                Some(Self::Entry { index: *index, mark: Mark { term: *term, hash: hash(body) } })
            }
            Record::Truncate { from } => Some(Self::Truncate { from: *from }),
            Record::Purge { upto, body } => Some(Self::Purge { upto: *upto, term: term_in(body) }),
            Record::Reset { next } => Some(Self::Reset { next: *next }),
            Record::Committed(_)
            | Record::Local(_)
            | Record::Checkpoint(_)
            | Record::Doubt(_)
            | Record::Settled => None,
        }
    }
}

fn term_in(log_id: &[u8]) -> Option<Term> {
    let id: LogId = decode("log id", log_id).ok()?;
    Some(Term(*id.leader_id))
}

/// A log on a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// The index of the first of `entries`.
    first: u64,
    entries: VecDeque<Mark>,
    /// The last entry that was purged, with its term as far as that is known.
    base: Option<(LogIndex, Option<Term>)>,
    /// Memberships among the entries, ascending.
    configs: Vec<(LogIndex, Arc<Config>)>,
    /// The last entry that a durable snapshot covers.
    pub(super) covered: Option<LogIndex>,
    pub(super) vote: Option<Ballot>,
    /// Whether the end was cut, and nobody has settled what was lost.
    pub(super) in_doubt: bool,
}

impl Image {
    /// The image of what is read from a disk.
    pub(super) fn of(recovered: &Recovered) -> Self {
        let mut image = Self {
            covered: recovered.snapshot.as_ref().map(|snapshot| snapshot.index()),
            vote: recovered.vote.as_deref().and_then(Ballot::read),
            in_doubt: recovered.doubt.is_some(),
            ..Self::default()
        };
        let purged = recovered.purged.as_deref();
        let purged: Option<LogId> = purged.and_then(|body| decode("log id", body).ok());
        if let Some(id) = purged {
            image.base = Some((LogIndex(id.index), Some(Term(*id.leader_id))));
            image.first = id.index.saturating_add(1);
        }
        for (index, term, body) in &recovered.entries {
            if index.0 >= image.first {
                image.apply(&Op::Entry {
                    index: *index,
                    mark: Mark { term: *term, hash: hash(body) },
                });
            }
        }
        image
    }

    /// Fills in the memberships, once `entries` has met all that is in this image.
    pub(super) fn find_configs(&mut self, entries: &Entries) {
        let found = self.marks().filter_map(|(index, mark)| {
            let config = entries.config(index, mark)?;
            Some((index, Arc::clone(config)))
        });
        self.configs = found.collect();
    }

    /// All entries, ascending.
    pub(super) fn marks(&self) -> impl Iterator<Item = (LogIndex, Mark)> {
        let first = self.first;
        self.entries.iter().enumerate().map(move |(n, mark)| (LogIndex(first + n as u64), *mark))
    }

    /// The entry at `index`, if it is kept.
    pub(super) fn at(&self, index: LogIndex) -> Option<Mark> {
        let offset = index.0.checked_sub(self.first)?;
        self.entries.get(usize::try_from(offset).ok()?).copied()
    }

    /// What stands before the entry at `index`.
    pub(super) fn before(&self, index: LogIndex) -> Prev {
        let Some(before) = index.0.checked_sub(1).map(LogIndex) else { return Prev::Start };
        match (self.at(before), self.base) {
            (Some(mark), _) => Prev::Term(mark.term),
            (None, Some((base, Some(term)))) if base == before => Prev::Term(term),
            (None, _) => Prev::Unknown,
        }
    }

    /// The last entry, kept, purged or covered.
    pub(super) fn last(&self) -> Option<LogIndex> {
        let kept = self.entries.len() as u64;
        let kept = kept.checked_sub(1).map(|more| LogIndex(self.first + more));
        kept.max(self.base.map(|base| base.0)).max(self.covered)
    }

    /// Whether the entry is there, or a durable snapshot stands for it. Without a mark any will do.
    pub(super) fn holds(&self, index: LogIndex, mark: Option<Mark>) -> bool {
        if self.covered >= Some(index) {
            return true;
        }
        self.at(index).is_some_and(|found| mark.is_none_or(|mark| mark == found))
    }

    /// The last membership in the log.
    pub(super) fn config(&self) -> Option<&(LogIndex, Arc<Config>)> {
        self.configs.last()
    }

    /// A membership stands at `index`.
    pub(super) fn note_config(&mut self, index: LogIndex, config: &Arc<Config>) {
        self.configs.push((index, Arc::clone(config)));
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match *op {
            Op::Vote(ballot) => self.vote = Some(ballot),
            Op::Entry { index, mark } => {
                let next = self.first + self.entries.len() as u64;
                if self.entries.is_empty() || index.0 > next || index.0 < self.first {
                    self.entries.clear();
                    self.first = index.0;
                } else if index.0 < next {
                    self.cut(index);
                }
                self.entries.push_back(mark);
            }
            Op::Truncate { from } => self.cut(from),
            Op::Purge { upto, term } => {
                if self.base.is_none_or(|base| base.0 < upto) {
                    self.base = Some((upto, term));
                }
                while self.first <= upto.0 && self.entries.pop_front().is_some() {
                    self.first += 1;
                }
                if self.entries.is_empty() {
                    self.first = self.first.max(upto.0.saturating_add(1));
                }
            }
            Op::Reset { next } => {
                self.entries.clear();
                self.configs.clear();
                self.first = next.0;
            }
        }
    }

    fn cut(&mut self, from: LogIndex) {
        let keep = usize::try_from(from.0.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.entries.truncate(keep);
        while self.configs.last().is_some_and(|config| config.0 >= from) {
            self.configs.pop();
        }
    }
}

/// How a server said that it stands, in short.
#[derive(Clone, Debug)]
pub(super) struct Brief {
    pub(super) role: Role,
    pub(super) term: Term,
    pub(super) committed: Option<LogIndex>,
    pub(super) applied: Option<LogIndex>,
    pub(super) is_joint: bool,
    /// The voters, in halves as far as they can be told.
    pub(super) config: Arc<Config>,
}

/// A machine and its disk.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// The node that runs on it, or ran last.
    pub(super) id: Option<NodeId>,
    pub(super) is_up: bool,
    /// What was handed to the disk.
    pub(super) written: Image,
    /// What a crash leaves.
    pub(super) durable: Image,
    pending: VecDeque<(u64, Vec<Op>)>,
    /// The entries that were on their way when its node died. The system may have held them for
    /// the disk, where the next start finds them.
    left: Vec<(LogIndex, Mark)>,
    /// The last status of this boot.
    pub(super) status: Option<Brief>,
    /// When its disk was last lost or set back.
    pub(super) wiped_at: Option<Mono>,
    /// Whether what it held could not be read when it went down.
    pub(super) is_damaged: bool,
    /// Whether that, or its disk was lost or set back: what it holds then is not known.
    is_lost: bool,
}

impl Machine {
    /// Whether something is on its way to the disk.
    pub(super) fn has_unsynced(&self) -> bool {
        self.pending.iter().any(|(_, ops)| !ops.is_empty())
    }

    /// The last entry that must be readable after a crash now: nothing on its way may undo it.
    fn surely_kept(&self) -> Option<LogIndex> {
        let undone = self.pending.iter().flat_map(|(_, ops)| ops).filter_map(|op| match op {
            Op::Truncate { from } => Some(*from),
            Op::Entry { index, .. } => Some(*index),
            Op::Reset { .. } => Some(LogIndex(0)),
            Op::Vote(_) | Op::Purge { .. } => None,
        });
        let last = self.durable.last()?;
        match undone.min() {
            Some(first) if first <= last => first.0.checked_sub(1).map(LogIndex),
            Some(_) | None => Some(last),
        }
    }

    /// The last entry of `image`, if a crash could not leave it: it is not what stood there, and
    /// was not on its way.
    pub(super) fn foreign_in(&self, image: &Image) -> Option<(LogIndex, Mark)> {
        let (index, mark) = image.marks().last()?;
        let was_there = self.durable.holds(index, Some(mark));
        let was_coming = self.entries_on_their_way().any(|entry| entry == (index, mark));
        let was_left = self.is_lost || self.left.contains(&(index, mark));
        (!was_there && !was_coming && !was_left).then_some((index, mark))
    }

    fn entries_on_their_way(&self) -> impl Iterator<Item = (LogIndex, Mark)> {
        self.pending.iter().flat_map(|(_, ops)| ops).filter_map(|op| match op {
            Op::Entry { index, mark } => Some((*index, *mark)),
            Op::Vote(_) | Op::Truncate { .. } | Op::Purge { .. } | Op::Reset { .. } => None,
        })
    }

    /// What was synced and `image` does not hold.
    pub(super) fn missing_in(&self, image: &Image) -> Option<(LogIndex, Mark)> {
        let last = self.surely_kept()?;
        let mark = self.durable.at(last)?;
        (!image.holds(last, Some(mark))).then_some((last, mark))
    }
}

/// All machines.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    machines: Vec<Machine>,
    hosts: BTreeMap<NodeId, usize>,
    /// What disks held when they were lost, by the node that they belonged to.
    gone: BTreeMap<NodeId, Vec<Image>>,
}

impl Mirror {
    pub(super) fn new(machines: usize) -> Self {
        let machines = (0..machines).map(|_| Machine::default()).collect();
        Self { machines, ..Self::default() }
    }

    pub(super) fn machine(&self, host: usize) -> &Machine {
        self.machines.get(host).expect("machines are numbered from 0 without gaps")
    }

    pub(super) fn machine_mut(&mut self, host: usize) -> &mut Machine {
        self.machines.get_mut(host).expect("machines are numbered from 0 without gaps")
    }

    /// The machine on which this node runs, or ran last.
    pub(super) fn host_of(&self, id: NodeId) -> Option<usize> {
        self.hosts.get(&id).copied()
    }

    pub(super) fn boot(&mut self, host: usize, id: NodeId, image: Image) {
        let machine = self.machine_mut(host);
        let before = machine.id.replace(id).filter(|before| *before != id);
        machine.is_up = true;
        machine.left.clear();
        machine.is_lost = false;
        machine.is_damaged = false;
        machine.status = None;
        machine.pending.clear();
        machine.written = image.clone();
        let held = std::mem::replace(&mut machine.durable, image);
        if let Some(before) = before {
            self.hosts.remove(&before);
            self.gone.entry(before).or_default().push(held);
        }
        self.hosts.insert(id, host);
    }

    pub(super) fn down(&mut self, host: usize, durable: Option<Image>, wiped_at: Option<Mono>) {
        let machine = self.machine_mut(host);
        machine.is_up = false;
        machine.status = None;
        let left: Vec<_> = machine.entries_on_their_way().collect();
        machine.left.extend(left);
        machine.pending.clear();
        let is_lost = wiped_at.is_some() || durable.is_none();
        machine.is_damaged = durable.is_none() && wiped_at.is_none();
        machine.is_lost = is_lost;
        machine.wiped_at = wiped_at.or(machine.wiped_at);
        let image = durable.unwrap_or_default();
        machine.written = image.clone();
        let held = std::mem::replace(&mut machine.durable, image);
        if let (true, Some(id)) = (is_lost, machine.id) {
            self.gone.entry(id).or_default().push(held);
        }
    }

    /// These ops of the write are in the disk's cache, and are applied to `written` already.
    pub(super) fn queue(&mut self, host: usize, write: u64, ops: Vec<Op>) {
        self.machine_mut(host).pending.push_back((write, ops));
    }

    /// The next ops that are durable now, to be applied to `durable`.
    pub(super) fn take_synced(&mut self, host: usize, write: u64) -> Option<Vec<Op>> {
        let pending = &mut self.machine_mut(host).pending;
        let is_synced = pending.front().is_some_and(|(number, _)| *number <= write);
        is_synced.then(|| pending.pop_front()).flatten().map(|(_, ops)| ops)
    }

    /// Whether the node has the entry on its disk, or had it when that was lost.
    pub(super) fn has_durably(&self, id: NodeId, index: LogIndex, mark: Option<Mark>) -> bool {
        let host = self.host_of(id);
        host.is_some_and(|host| self.machine(host).durable.holds(index, mark))
            || self.gone.get(&id).is_some_and(|lost| lost.iter().any(|it| it.holds(index, mark)))
    }

    /// What stands at `index` on the disk of this node, or stood there when it was lost.
    pub(super) fn durable_marks(
        &self,
        id: NodeId,
        index: LogIndex,
    ) -> impl Iterator<Item = Mark> + '_ {
        let now = self.host_of(id).map(|host| &self.machine(host).durable);
        let lost = self.gone.get(&id).into_iter().flatten();
        now.into_iter().chain(lost).filter_map(move |image| image.at(index))
    }

    /// Whether a majority of each half has the entry durably.
    pub(super) fn is_on_quorum(
        &self,
        config: &Config,
        index: LogIndex,
        mark: Option<Mark>,
    ) -> bool {
        config.halves.iter().all(|half| {
            let having = half.iter().filter(|id| self.has_durably(**id, index, mark)).count();
            having > half.len() / 2
        })
    }

    /// Keeps what matters of a status. Gives the one before it in this boot.
    pub(super) fn brief(&mut self, host: usize, status: &Status) -> Option<Brief> {
        let machine = self.machine_mut(host);
        let before = machine.status.take();
        let known = before.as_ref().map(|before| &before.config);
        let config = match known.filter(|config| config.is_of(&status.voters, status.is_joint)) {
            Some(config) => Arc::clone(config),
            None => config_of(status, machine, known),
        };
        machine.status = Some(Brief {
            role: status.role,
            term: status.term,
            committed: status.committed,
            applied: status.applied,
            is_joint: status.is_joint,
            config,
        });
        before
    }
}

/// The voters that a server names. The two halves of a joint membership are not told apart by it:
/// they are in its log, or on their way there, and then the half before is what is known: from the
/// log too, or from what the server said last, if a snapshot has taken it from the log.
fn config_of(status: &Status, machine: &Machine, said: Option<&Arc<Config>>) -> Arc<Config> {
    let in_log = machine.written.config().map(|(_, config)| config);
    match in_log {
        Some(config) if config.is_of(&status.voters, status.is_joint) || status.is_joint => {
            Arc::clone(config)
        }
        Some(_) | None if status.is_joint => said.map(Arc::clone).unwrap_or_default(),
        Some(_) | None => Arc::new(Config {
            halves: vec![(*status.voters).clone()],
            learners: (*status.learners).clone(),
        }),
    }
}

#[cfg(test)]
impl Image {
    /// An image of nothing but a snapshot and a vote.
    pub(super) fn bare(covered: Option<LogIndex>, vote: Option<Ballot>) -> Self {
        Self { covered, vote, ..Self::default() }
    }
}

#[cfg(test)]
impl Machine {
    /// A machine on which this node runs.
    pub(super) fn of(id: NodeId) -> Self {
        Self { id: Some(id), is_up: true, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Op {
        let mark = Mark { term: Term(term), hash: index * 100 + term };
        Op::Entry { index: LogIndex(index), mark }
    }

    fn image(ops: &[Op]) -> Image {
        let mut image = Image::default();
        ops.iter().for_each(|op| image.apply(op));
        image
    }

    fn terms(image: &Image) -> Vec<(u64, u64)> {
        image.marks().map(|(index, mark)| (index.0, mark.term.0)).collect()
    }

    #[test]
    fn an_image_follows_the_records() {
        let purge = Op::Purge { upto: LogIndex(0), term: Some(Term(1)) };
        let cut = Op::Truncate { from: LogIndex(2) };
        let log = image(&[entry(0, 1), entry(1, 1), entry(2, 1), purge, cut, entry(2, 2)]);
        assert_eq!(terms(&log), [(1, 1), (2, 2)]);
        assert_eq!(log.before(LogIndex(2)), Prev::Term(Term(1)));
        assert_eq!(log.before(LogIndex(1)), Prev::Term(Term(1)));
        assert_eq!(log.before(LogIndex(0)), Prev::Start);
        assert!(!log.holds(LogIndex(0), None), "what is purged is held by a snapshot alone");
    }

    #[test]
    fn a_log_that_begins_behind_a_snapshot_is_followed() {
        let purge = Op::Purge { upto: LogIndex(9), term: Some(Term(3)) };
        let mut log = image(&[entry(0, 1), purge, Op::Reset { next: LogIndex(10) }, entry(10, 4)]);
        assert_eq!(terms(&log), [(10, 4)]);
        assert_eq!(log.before(LogIndex(10)), Prev::Term(Term(3)));
        assert_eq!(log.last(), Some(LogIndex(10)));
        log.covered = Some(LogIndex(9));
        assert!(log.holds(LogIndex(5), Some(Mark { term: Term(1), hash: 7 })));
    }

    #[test]
    fn what_is_on_its_way_may_undo_what_is_synced() {
        let mut mirror = Mirror::new(1);
        mirror.boot(0, NodeId(1), image(&[entry(0, 1), entry(1, 1), entry(2, 1)]));
        let missing = |mirror: &Mirror, ops: &[Op]| mirror.machine(0).missing_in(&image(ops));
        assert!(missing(&mirror, &[entry(0, 1), entry(1, 1)]).is_some());
        let cut = Op::Truncate { from: LogIndex(2) };
        mirror.queue(0, 1, vec![cut, entry(2, 2)]);
        assert!(mirror.machine(0).has_unsynced());
        assert!(missing(&mirror, &[entry(0, 1), entry(1, 1)]).is_none());
        assert!(missing(&mirror, &[entry(0, 1), entry(1, 1), entry(2, 2)]).is_none());
        assert!(missing(&mirror, &[entry(0, 1)]).is_some());
    }

    #[test]
    fn an_end_that_was_cut_does_not_come_back() {
        let mut mirror = Mirror::new(1);
        mirror.boot(0, NodeId(1), image(&[entry(0, 1), entry(1, 1), entry(2, 1)]));
        let cut = [Op::Truncate { from: LogIndex(1) }, entry(1, 2)];
        mirror.queue(0, 1, cut.to_vec());
        cut.iter().for_each(|op| mirror.machine_mut(0).written.apply(op));
        let foreign = |mirror: &Mirror, ops: &[Op]| mirror.machine(0).foreign_in(&image(ops));
        let (old, new) = ([entry(0, 1), entry(1, 1), entry(2, 1)], [entry(0, 1), entry(1, 2)]);
        let stale = [entry(0, 1), entry(1, 2), entry(2, 1)];
        assert_eq!(foreign(&mirror, &old), None, "nothing of the write may be there yet");
        assert_eq!(foreign(&mirror, &new), None);
        for op in mirror.take_synced(0, 1).unwrap() {
            mirror.machine_mut(0).durable.apply(&op);
        }
        assert_eq!(foreign(&mirror, &new), None);
        assert_eq!(foreign(&mirror, &stale).map(|(index, _)| index), Some(LogIndex(2)));
    }

    #[test]
    fn a_lost_disk_counts_for_what_it_had_acknowledged() {
        let mut mirror = Mirror::new(3);
        for host in 0..3 {
            mirror.boot(host, NodeId(host as u64), image(&[entry(0, 1)]));
        }
        let all = (0..3).map(NodeId).collect();
        let config = Config { halves: vec![all], ..Config::default() };
        let mark = |term| Some(Mark { term: Term(term), hash: term });
        let zero = mirror.machine(0).durable.at(LogIndex(0));
        assert!(mirror.is_on_quorum(&config, LogIndex(0), zero));
        assert!(!mirror.is_on_quorum(&config, LogIndex(0), mark(2)));
        mirror.down(0, None, Some(Mono::ZERO));
        mirror.boot(1, NodeId(9), Image::default());
        assert!(mirror.is_on_quorum(&config, LogIndex(0), zero));
        assert!(!mirror.has_durably(NodeId(9), LogIndex(0), None));
        assert_eq!(mirror.host_of(NodeId(1)), None);
    }

    #[test]
    fn ballots_have_an_order() {
        let ballot = |term, to, is_leader| Ballot { term: Term(term), to: NodeId(to), is_leader };
        let follows = |a: Ballot, b: Ballot| b.may_follow(a);
        assert!(follows(ballot(1, 1, false), ballot(1, 2, true)));
        assert!(follows(ballot(1, 1, true), ballot(2, 2, false)));
        assert!(!follows(ballot(1, 1, false), ballot(1, 2, false)));
        assert!(!follows(ballot(1, 1, true), ballot(1, 2, true)));
        assert!(!follows(ballot(1, 1, true), ballot(1, 1, false)));
        assert!(!follows(ballot(2, 1, false), ballot(1, 1, true)));
    }
}
