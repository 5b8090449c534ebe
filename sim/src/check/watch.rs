//! Which situations the observations show: [`Watch`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cronclave::consensus::Role;
use cronclave::id::{ExecutionId, LogIndex, NodeId, Term};
use cronclave::jobs::job::{Outcome, Trigger};
use cronclave::node::io::Event;
use cronclave::node::request::{Consistency, Reply, Request, RequestError};
use cronclave::time::{Mono, Wall};

use super::commits::Commits;
use super::coverage::{Coverage, Situation};
use super::entries::{Config, Mark};
use super::mirror::{Ballot, Brief, Mirror, Op};
use super::model::{Fate, Model, Step};
use super::seen::{Answer, OpId, Start};
use super::tally::Judge;

/// Later than so long after its due instant a start is late.
const LATE: Duration = Duration::from_secs(2);

/// What a watch remembers to tell situations by.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) coverage: Coverage,
    candidates: BTreeMap<Term, NodeId>,
    /// The greatest term in which anyone was seen to lead, who that is, and since when.
    term: Term,
    leader: Option<usize>,
    won_at: Wall,
    voters: Option<Arc<Config>>,
    /// Reads that are open, with the term in which they were asked.
    reads: BTreeMap<OpId, Term>,
    /// Writes of unknown outcome that carry a token.
    unknown: BTreeSet<OpId>,
    /// Leaders that died, and when.
    fallen: BTreeMap<usize, Mono>,
    running: BTreeMap<usize, BTreeSet<ExecutionId>>,
}

impl Watch {
    fn note(&mut self, situation: Situation) {
        self.coverage.note(situation);
    }

    pub(super) fn on_boot(&mut self, mirror: &Mirror, host: usize) {
        if mirror.machine(host).written.in_doubt {
            self.note(Situation::TornRecordFound);
        }
    }

    /// The node on `host` dies; `mirror` is as it was before.
    pub(super) fn on_down(&mut self, judge: &Judge, mirror: &Mirror, host: usize) {
        let machine = mirror.machine(host);
        if !self.running.remove(&host).unwrap_or_default().is_empty() {
            self.note(Situation::NodeDiedWithRun);
        }
        let Some(status) = machine.status.as_ref().filter(|status| status.role == Role::Leader)
        else {
            return;
        };
        self.note(Situation::LeaderCrash);
        self.fallen.insert(host, judge.at);
        if machine.has_unsynced() {
            self.note(Situation::LeaderCrashUnsynced);
        }
        if status.is_joint {
            self.note(Situation::JointInterrupted);
        }
    }

    pub(super) fn on_op(&mut self, id: NodeId, op: &Op) {
        match *op {
            Op::Vote(Ballot { term, to, is_leader: false }) if to == id => {
                let first = *self.candidates.entry(term).or_insert(id);
                if first != id {
                    self.note(Situation::TwoCandidatesInTerm);
                }
            }
            Op::Vote(_) | Op::Entry { .. } | Op::Reset { .. } => {}
            Op::Truncate { .. } => self.note(Situation::LogTruncated),
            Op::Purge { .. } => self.note(Situation::LogPurged),
        }
    }

    /// An entry is durable on one more disk.
    pub(super) fn on_durable(
        &mut self,
        mirror: &Mirror,
        commits: &Commits,
        index: LogIndex,
        mark: Mark,
    ) {
        if mark.term >= self.term || commits.has(index) {
            return;
        }
        let Some(config) = self.voters.as_ref().filter(|config| !config.halves.is_empty()) else {
            return;
        };
        if mirror.is_on_quorum(config, index, Some(mark)) {
            self.note(Situation::EarlierTermOnQuorum);
        }
    }

    /// A snapshot is durable on `host`; `mirror` is as it was before.
    pub(super) fn on_snapshot(
        &mut self,
        mirror: &Mirror,
        commits: &Commits,
        host: usize,
        index: LogIndex,
    ) {
        let machine = mirror.machine(host);
        let applied = machine.status.as_ref().and_then(|status| status.applied);
        if applied >= Some(index) {
            return;
        }
        self.note(Situation::SnapshotInstalled);
        let log = &machine.written;
        let last = log.last().min(commits.watermark());
        let differs = |last: LogIndex| match (log.at(last), commits.at(last)) {
            (Some(has), Some(committed)) => has != committed,
            (_, _) => false,
        };
        if last.is_some_and(differs) {
            self.note(Situation::SnapshotOverDivergedLog);
        }
    }

    pub(super) fn on_status(
        &mut self,
        judge: &Judge,
        mirror: &Mirror,
        host: usize,
        before: Option<&Brief>,
    ) {
        let machine = mirror.machine(host);
        let Some(now) = &machine.status else { return };
        let was = before.map_or((Role::Learner, now.term), |before| (before.role, before.term));
        if was == (Role::Candidate, now.term) && now.role == Role::Follower {
            let own = machine.written.vote;
            if own.is_none_or(|vote| Some(vote.to) != machine.id || vote.term < now.term) {
                self.note(Situation::PreVoteRefused);
            }
        }
        if now.role != Role::Leader || was == (Role::Leader, now.term) && now.term <= self.term {
            if now.role == Role::Leader && now.term == self.term {
                self.on_voters(mirror, &now.config);
            }
            return;
        }
        if now.term > self.term {
            let last = self.leader.filter(|last| *last != host);
            if last.is_some_and(|last| mirror.machine(last).is_up) {
                self.note(Situation::HandedOver);
            }
            self.term = now.term;
            self.leader = Some(host);
            self.won_at = judge.wall;
            self.on_voters(mirror, &now.config);
        }
    }

    fn on_voters(&mut self, mirror: &Mirror, config: &Arc<Config>) {
        if self.voters.as_ref().is_some_and(|known| Arc::ptr_eq(known, config)) {
            return;
        }
        let before = self.voters.replace(Arc::clone(config));
        let Some(before) = before.filter(|before| before != config) else { return };
        self.note(Situation::VotersChanged);
        let voters = config.halves.iter().flatten();
        for id in voters.filter(|id| !before.halves.iter().any(|half| half.contains(id))) {
            let host = mirror.host_of(*id);
            if host.is_some_and(|host| mirror.machine(host).wiped_at.is_some()) {
                self.coverage.note(Situation::WipedRejoined);
            }
        }
    }

    pub(super) fn on_event(&mut self, event: &Event) {
        match event {
            Event::DiskFull(_) => self.note(Situation::DiskFull),
            Event::ClockOff { .. } => self.note(Situation::ClockOff),
            Event::Settled { .. } => self.note(Situation::DoubtSettled),
            Event::Rejected { .. }
            | Event::ClusterJoined(_)
            | Event::LeadershipWon(_)
            | Event::LeadershipLost(_)
            | Event::LeaderKnown { .. }
            | Event::NoLeader(_)
            | Event::InDoubt(_)
            | Event::MemberUp { .. }
            | Event::MemberDown { .. }
            | Event::MemberLeft { .. }
            | Event::VotersChanged { .. }
            | Event::Refused(_)
            | Event::JobTrouble(_)
            | Event::DiskFree
            | Event::Launching(_)
            | Event::HistoryBehind { .. }
            | Event::HistoryCaughtUp => {}
        }
    }

    pub(super) fn on_asked(
        &mut self,
        judge: &Judge,
        (op, via): (OpId, usize),
        request: &Request,
        lease: Duration,
    ) {
        if !matches!(request, Request::Read(Consistency::Linearizable)) {
            return;
        }
        self.reads.insert(op, self.term);
        if self.fallen.remove(&via).is_some_and(|fell| judge.at <= fell + lease) {
            self.note(Situation::LeaderRestartedInLeaseThenRead);
        }
    }

    pub(super) fn on_answered(&mut self, op: OpId, answer: &Answer) {
        let asked = self.reads.remove(&op);
        match answer {
            Answer::Reply(Reply::View(_)) if asked.is_some_and(|term| term < self.term) => {
                self.note(Situation::ReadAcrossTerms);
            }
            Answer::Reply(Reply::Failed(RequestError::NoLeader(_))) => {
                self.note(Situation::NoLeaderTold);
            }
            Answer::Reply(Reply::Failed(
                RequestError::Unknown | RequestError::UnknownDiskFull(_),
            ))
            | Answer::Lost
                if asked.is_none() =>
            {
                self.unknown.insert(op);
            }
            Answer::Reply(_) | Answer::Unheard | Answer::Lost | Answer::Silence => {}
        }
    }

    pub(super) fn on_start(&mut self, start: &Start) {
        self.running.entry(start.host).or_default().insert(start.execution);
        if start.wall.saturating_since(start.due) > LATE {
            self.note(Situation::RunLate);
        }
    }

    pub(super) fn on_ended(&mut self, host: usize, id: ExecutionId, is_heard: bool) {
        if let Some(running) = self.running.get_mut(&host) {
            running.remove(&id);
        }
        if !is_heard {
            self.note(Situation::ProcessOutlivedNode);
        }
    }

    /// An entry of `term` was replayed.
    pub(super) fn on_steps(&mut self, model: &Model, term: Term, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Instant { due, outcome, .. } => {
                    if term == self.term && *due < self.won_at {
                        self.note(Situation::FireAcrossLeaders);
                    }
                    match outcome {
                        Outcome::Skipped => self.note(Situation::RunSkipped),
                        Outcome::Missed => self.note(Situation::RunMissed),
                        Outcome::Claimed
                        | Outcome::Running
                        | Outcome::Succeeded
                        | Outcome::Failed
                        | Outcome::Lost => {}
                    }
                }
                Step::Write { fate: Fate::Repeated, .. } => self.note(Situation::DuplicateWrite),
                Step::Defined { job, .. } if model.rows.open_named(job) > 0 => {
                    self.note(Situation::JobChangedWhileOpen);
                }
                Step::Opened(id) => {
                    let row = model.rows.get(*id);
                    if row.is_some_and(|row| row.trigger == Trigger::Retry) {
                        self.note(Situation::RunRetried);
                    }
                }
                Step::Closed { is_corrected: true, .. } => self.note(Situation::RunFoundAgain),
                Step::Closed { id, .. } => {
                    let row = model.rows.get(*id);
                    if row.is_some_and(|row| row.outcome == Outcome::Lost) {
                        self.note(Situation::RunLost);
                    }
                }
                Step::Write { .. }
                | Step::Defined { .. }
                | Step::Timed { .. }
                | Step::Stopped { .. }
                | Step::Zoned => {}
            }
        }
    }

    /// All is over: writes of unknown outcome are in the log or not.
    pub(super) fn on_end(&mut self, is_in_log: impl Fn(OpId) -> Option<bool>) {
        for op in std::mem::take(&mut self.unknown) {
            match is_in_log(op) {
                Some(true) => self.note(Situation::UnknownWriteDone),
                Some(false) => self.note(Situation::UnknownWriteNotDone),
                None => {}
            }
        }
    }
}
