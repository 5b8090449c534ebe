//! All checkers behind one front: [`Checkers`].

use std::collections::BTreeMap;
use std::time::Duration;

use cronclave::codec::decode;
use cronclave::codec::record::{Record, Recovered};
use cronclave::consensus::{Role, Status};
use cronclave::id::{LogIndex, NodeId, Term};
use cronclave::jobs::State;
use cronclave::jobs::command::Stamped;
use cronclave::node::io::Event;
use cronclave::time::{Mono, Wall};

use super::Verdict;
use super::bounds::Bounds;
use super::commits::Commits;
use super::completeness::Completeness;
use super::coverage::{Coverage, Situation};
use super::durability::Durability;
use super::election::Election;
use super::entries::{Entries, Mark, Work, hash};
use super::halts::Halts;
use super::immutable::Immutable;
use super::linear::Linear;
use super::log_matching::LogMatching;
use super::mirror::{Image, Mirror, Op};
use super::model::{Model, Step};
use super::quorum::Quorum;
use super::runs::Runs;
use super::seen::{Ending, Load, Seen};
use super::states::States;
use super::tally::{Judge, Violation};
use super::watch::Watch;

/// What checkers must know of a run before it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// How many machines there are; they are numbered from 0.
    pub machines: usize,
    /// What a node may hold at most.
    pub bounds: Load,
    /// By how much a process may start before it is due, by the true time: as far as the cluster's
    /// clock may be ahead of that.
    pub early_max: Duration,
    /// When all is over: how far the claims may be behind the cluster's clock.
    pub claim_lag: Duration,
    /// How long a leader's lease lasts.
    pub lease: Duration,
    /// How many rows of a job the history keeps at least.
    pub rows_per_job: usize,
    /// Whether bytes that were synced may rot in this run: then the end of a log that was cut at a
    /// start may have been synced.
    pub may_rot: bool,
    /// Whether a majority of disks may be lost in this run. From the first lost disk on nothing is
    /// judged that rests on one log for all.
    pub may_lose: bool,
    /// Whether a rejected message of a peer is a violation. It is none where messages are forged.
    pub forbids_rejections: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            machines: 1,
            bounds: Load {
                inputs: 100_000,
                log_bytes: 1 << 30,
                disk_bytes: 1 << 31,
                requests: 16_384,
                frames: 1_000_000,
            },
            early_max: Duration::from_millis(50),
            claim_lag: Duration::from_secs(5),
            lease: Duration::from_millis(250),
            rows_per_job: 1_000,
            may_rot: false,
            may_lose: false,
            forbids_rejections: false,
        }
    }
}

/// All checkers. They are shown everything that happens, in its order.
#[derive(Debug)]
pub struct Checkers {
    setup: Setup,
    judge: Judge,
    mirror: Mirror,
    entries: Entries,
    commits: Commits,
    model: Model,
    steps: Vec<Step>,
    /// Whether one log is still the truth for all; see [`Setup::may_lose`].
    is_one_log: bool,
    election: Election,
    matching: LogMatching,
    completeness: Completeness,
    quorum: Quorum,
    immutable: Immutable,
    states: States,
    durability: Durability,
    linear: Linear,
    runs: Runs,
    bounds: Bounds,
    halts: Halts,
    watch: Watch,
}

impl Checkers {
    /// Checkers of a run that is about to begin.
    pub fn new(setup: Setup) -> Self {
        Self {
            judge: Judge::default(),
            mirror: Mirror::new(setup.machines),
            entries: Entries::default(),
            commits: Commits::default(),
            model: Model::default(),
            steps: Vec::new(),
            is_one_log: true,
            election: Election::new(),
            matching: LogMatching::new(),
            completeness: Completeness::new(),
            quorum: Quorum::new(),
            immutable: Immutable::new(),
            states: States::new(),
            durability: Durability::new(),
            linear: Linear::new(),
            runs: Runs::new(),
            bounds: Bounds::new(),
            halts: Halts::new(),
            watch: Watch::default(),
            setup,
        }
    }

    /// Something has happened at `at` of the simulation's clock and `wall` of the true civil time.
    pub fn observe(&mut self, at: Mono, wall: Wall, seen: &Seen<'_>) {
        (self.judge.at, self.judge.wall) = (at, wall);
        match *seen {
            Seen::Boot { host, id, is_server: _, recovered } => self.on_boot(host, id, recovered),
            Seen::Written { host, write, records } => self.on_written(host, write, records),
            Seen::Synced { host, write } => self.on_synced(host, write),
            Seen::Snapshot { host, index } => self.on_snapshot(host, index),
            Seen::Down { host, durable, is_wiped } => self.on_down(host, durable, is_wiped),
            Seen::Status { host, id: _, status, committed_term } => {
                self.on_status(host, status, committed_term);
            }
            Seen::Event { host, event } => self.on_event(host, event),
            Seen::Asked { op, via, request } => {
                self.linear.on_asked(op, request);
                self.durability.on_asked(op, request);
                self.watch.on_asked(&self.judge, (op, via), request, self.setup.lease);
            }
            Seen::Answered { op, answer } => {
                self.watch.on_answered(op, answer);
                if self.has_log() {
                    let upto = self.commits.watermark();
                    self.linear.on_answered(&mut self.judge, op, answer, upto);
                    self.durability.on_answered(&mut self.judge, op, answer, upto);
                }
            }
            Seen::Started(start) => {
                let upto = self.commits.watermark();
                let model = self.has_log().then_some((&self.model, upto));
                self.runs.on_start(&mut self.judge, &self.setup, start, model);
                self.watch.on_start(start);
            }
            Seen::Ended { execution, host, result, is_heard } => {
                self.runs.on_end(&mut self.judge, (execution, host), result, is_heard);
                self.watch.on_ended(host, execution, is_heard);
            }
            Seen::Halted { host, reason, is_excused } => {
                self.halts.on_halt(&mut self.judge, host, reason, is_excused);
            }
            Seen::Load { host, load } => {
                self.bounds.on_load(&mut self.judge, host, load, self.setup.bounds);
            }
        }
    }

    /// The state of the server on `host`, shown now and then. It is compared with what the log
    /// makes of it.
    pub fn on_state(&mut self, host: usize, state: &State) {
        if self.is_one_log {
            self.states.on_state(&mut self.judge, host, state);
        }
    }

    /// Something befalls a machine that may cut it off or hold it up: a partition, a pause, a disk
    /// that is full or slow, a clock that is off. Its executions may be given up as lost.
    pub fn disturb(&mut self, at: Mono, host: usize) {
        self.runs.disturb(at, host);
    }

    /// Nothing befalls that machine any more.
    pub fn calm(&mut self, at: Mono, host: usize) {
        self.runs.calm(at, host);
    }

    /// A situation has happened that the observations do not show.
    pub fn note(&mut self, situation: Situation) {
        self.watch.coverage.note(situation);
    }

    /// All that does not hold so far.
    pub fn violations(&self) -> &[Violation] {
        &self.judge.violations
    }

    /// How often what has happened.
    pub fn coverage(&self) -> &Coverage {
        &self.watch.coverage
    }

    /// What of an execution the cluster ought to know by now, and does not.
    pub fn overdue(&self, at: Mono, wall: Wall) -> Option<String> {
        self.has_log().then(|| self.runs.overdue(&self.model, (at, wall))).flatten()
    }

    /// How many messages of peers were rejected.
    pub fn rejected(&self) -> usize {
        self.halts.rejected
    }

    /// The last entry that is known to be committed.
    pub fn committed(&self) -> Option<LogIndex> {
        self.commits.watermark()
    }

    /// How many servers were seen to lead, one in each term.
    pub fn terms_led(&self) -> usize {
        self.election.terms_led()
    }

    /// All is over and has settled. What every checker says of the whole run; those that had to
    /// give up because disks were lost for good are left out.
    pub fn finish(&mut self, ending: &Ending) -> Vec<Verdict> {
        (self.judge.at, self.judge.wall) = (ending.at, ending.wall);
        if self.is_one_log {
            self.states.on_end(&mut self.judge, &ending.states, &ending.histories);
            self.finish_disks(ending);
        }
        if self.has_log() {
            self.durability.on_end(&mut self.judge, &self.model, &ending.states);
            self.linear.on_end(&mut self.judge);
            self.runs.on_ending(&mut self.judge, &self.setup, &self.model, ending);
            let durability = &self.durability;
            self.watch.on_end(|op| durability.is_in_log(op));
        }
        self.verdicts()
    }

    fn finish_disks(&mut self, ending: &Ending) {
        let members = ending.states.keys().filter_map(|host| ending.disks.get_key_value(host));
        let mut images = BTreeMap::new();
        for (host, recovered) in members {
            let Some(id) = self.mirror.machine(*host).id else { continue };
            let image = Image::of(recovered);
            self.immutable.on_end(&mut self.judge, &self.commits, id, &image);
            images.insert(id, image);
        }
        let leads = |host: &&usize| {
            let status = self.mirror.machine(**host).status.as_ref();
            status.is_some_and(|status| status.role == Role::Leader)
        };
        let leader = ending.states.keys().filter(leads).max_by_key(|host| {
            self.mirror.machine(**host).status.as_ref().map(|status| status.term)
        });
        let status = leader.and_then(|host| self.mirror.machine(*host).status.as_ref());
        if let Some(status) = status {
            let holds = |id: NodeId, index, mark| {
                images.get(&id).is_some_and(|image: &Image| image.holds(index, mark))
            };
            self.quorum.on_end(&mut self.judge, &self.commits, &status.config, holds);
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let judge = &self.judge;
        let mut verdicts = vec![self.election.verdict(judge)];
        verdicts.extend([self.bounds.verdict(judge), self.halts.verdict(judge)]);
        if self.is_one_log {
            verdicts.extend([
                self.matching.verdict(judge),
                self.completeness.verdict(judge),
                self.quorum.verdict(judge),
                self.immutable.verdict(judge),
            ]);
            verdicts.extend(self.states.verdicts(judge));
        }
        if self.has_log() {
            verdicts.extend([
                self.durability.verdict(judge),
                self.linear.verdict(judge),
                self.runs.verdict(judge),
            ]);
        }
        verdicts
    }

    /// Whether all that is committed is known, and is one log.
    fn has_log(&self) -> bool {
        self.is_one_log && self.commits.is_whole()
    }
}

/// What happens to disks.
impl Checkers {
    /// Reads what a disk holds, and compares all of it with what others hold.
    fn read_image(&mut self, id: Option<NodeId>, recovered: &Recovered) -> Image {
        let mut image = Image::of(recovered);
        if self.is_one_log {
            for (index, term, body) in &recovered.entries {
                let mark = Mark { term: *term, hash: hash(body) };
                if image.at(*index) == Some(mark) {
                    let (prev, is_done) = (image.before(*index), self.commits.has(*index));
                    let meeting = self.entries.meet(*index, mark, prev, body, is_done);
                    self.matching.on_entry(&mut self.judge, id, *index, mark, meeting);
                }
            }
        }
        image.find_configs(&self.entries);
        image
    }

    /// A disk that was not lost is read: it has to hold what it held.
    fn compare_image(&mut self, host: usize, image: &Image) {
        let machine = self.mirror.machine(host);
        let is_excused = machine.is_damaged || (self.setup.may_rot && image.in_doubt);
        self.election.on_reread(&mut self.judge, machine, image, is_excused);
        if self.is_one_log {
            self.immutable.on_reread(&mut self.judge, machine, image, is_excused);
            let foreign = machine.foreign_in(image);
            self.matching.on_reread(&mut self.judge, machine.id, foreign);
        }
    }

    fn on_boot(&mut self, host: usize, id: NodeId, recovered: &Recovered) {
        self.halts.on_boot(&mut self.judge);
        self.runs.on_boot(&self.judge, host, id);
        let image = self.read_image(Some(id), recovered);
        if self.mirror.machine(host).id == Some(id) {
            self.compare_image(host, &image);
        }
        if self.is_one_log && image.covered >= Some(self.commits.next()) {
            if let Some(covered) = image.covered {
                self.commits.skip_to(covered);
            }
            self.states.give_up_replay();
        }
        if let Some(ballot) = image.vote {
            self.election.on_durable(&mut self.judge, id, ballot);
        }
        self.mirror.boot(host, id, image);
        self.watch.on_boot(&self.mirror, host);
    }

    fn on_down(&mut self, host: usize, durable: Option<&Recovered>, is_wiped: bool) {
        self.watch.on_down(&self.judge, &self.mirror, host);
        self.runs.on_down(&self.judge, host, is_wiped);
        let id = self.mirror.machine(host).id;
        if is_wiped && self.setup.may_lose {
            self.is_one_log = false;
        }
        let image = durable.map(|recovered| self.read_image(id, recovered));
        match (&image, id, is_wiped) {
            (_, Some(id), true) => self.election.on_lost(id),
            (Some(image), Some(id), false) => {
                self.compare_image(host, image);
                if let Some(ballot) = image.vote {
                    self.election.on_durable(&mut self.judge, id, ballot);
                }
            }
            (_, _, _) => {}
        }
        self.mirror.down(host, image, is_wiped.then_some(self.judge.at));
    }

    fn on_written(&mut self, host: usize, write: u64, records: &[Record]) {
        let mut ops = Vec::with_capacity(records.len());
        for record in records {
            let Some(op) = Op::of(record) else { continue };
            let machine = self.mirror.machine(host);
            if let Op::Vote(ballot) = op {
                self.election.on_written(&mut self.judge, machine, ballot);
            }
            if self.is_one_log {
                self.immutable.on_written(&mut self.judge, &self.commits, machine, &op);
                if let Op::Purge { upto, term: Some(term) } = op
                    && let Some(has) = machine.written.at(upto)
                {
                    let terms = (term, has.term);
                    self.matching.on_purge(&mut self.judge, machine.id, upto, terms);
                }
            }
            if let Some(id) = machine.id {
                self.watch.on_op(id, &op);
            }
            self.mirror.machine_mut(host).written.apply(&op);
            if let (Op::Entry { index, mark }, Record::Entry { body, .. }) = (op, record) {
                self.meet(host, index, mark, body);
            }
            ops.push(op);
        }
        self.mirror.queue(host, write, ops);
    }

    /// An entry is on its way to a disk.
    fn meet(&mut self, host: usize, index: LogIndex, mark: Mark, body: &[u8]) {
        let machine = self.mirror.machine_mut(host);
        let prev = machine.written.before(index);
        if self.is_one_log {
            let is_done = self.commits.has(index);
            let meeting = self.entries.meet(index, mark, prev, body, is_done);
            self.matching.on_entry(&mut self.judge, machine.id, index, mark, meeting);
        }
        if let Some(config) = self.entries.config(index, mark) {
            machine.written.note_config(index, config);
        }
    }

    fn on_synced(&mut self, host: usize, write: u64) {
        while let Some(ops) = self.mirror.take_synced(host, write) {
            for op in ops {
                let cut = self.committed_at_cut(host, &op);
                self.mirror.machine_mut(host).durable.apply(&op);
                if let (Op::Vote(ballot), Some(id)) = (op, self.mirror.machine(host).id) {
                    self.election.on_durable(&mut self.judge, id, ballot);
                }
                if let Op::Entry { index, mark } = op {
                    self.watch.on_durable(&self.mirror, &self.commits, index, mark);
                }
                if let Some((index, mark)) = cut {
                    self.quorum.on_cut(&mut self.judge, &self.mirror, host, index, mark);
                }
            }
        }
    }

    /// The committed entry that this op takes from a disk, if no snapshot there stands for it.
    fn committed_at_cut(&self, host: usize, op: &Op) -> Option<(LogIndex, Mark)> {
        let Op::Truncate { from } = *op else { return None };
        let durable = &self.mirror.machine(host).durable;
        let mark = durable.at(from)?;
        let is_lost =
            self.is_one_log && self.commits.at(from) == Some(mark) && durable.covered < Some(from);
        is_lost.then_some((from, mark))
    }

    fn on_snapshot(&mut self, host: usize, index: LogIndex) {
        self.watch.on_snapshot(&self.mirror, &self.commits, host, index);
        let machine = self.mirror.machine_mut(host);
        for image in [&mut machine.written, &mut machine.durable] {
            image.covered = image.covered.max(Some(index));
        }
    }
}

/// What servers say of themselves.
impl Checkers {
    fn on_event(&mut self, host: usize, event: &Event) {
        self.halts.on_event(&mut self.judge, &self.setup, host, event);
        self.watch.on_event(event);
        if let (Event::LeadershipWon(term), Some(id)) = (event, self.mirror.machine(host).id) {
            self.election.on_role(&mut self.judge, id, Role::Leader, *term);
        }
    }

    fn on_status(&mut self, host: usize, status: &Status, committed_term: Option<Term>) {
        let before = self.mirror.brief(host, status);
        let was = before.as_ref().map(|before| (before.role, before.term));
        if was != Some((status.role, status.term)) {
            self.on_role(host, status.role, status.term);
        }
        self.watch.on_status(&self.judge, &self.mirror, host, before.as_ref());
        if !self.is_one_log {
            return;
        }
        while status.committed >= Some(self.commits.next()) {
            let index = self.commits.next();
            let world = (&self.mirror, &self.entries, &mut self.commits);
            self.quorum.on_commit(&mut self.judge, world, host, before.as_ref());
            self.replay(index);
        }
        let machine = self.mirror.machine(host);
        if let (Some(id), Some(before), Some(entry_term), Some(index)) =
            (machine.id, &before, committed_term, status.committed)
            && (before.role, before.term) == (Role::Leader, status.term)
            && status.role == Role::Leader
            && before.committed < Some(index)
        {
            let leader = (id, status.term);
            self.completeness.on_advance(&mut self.judge, leader, index, entry_term);
        }
        let own = (machine, committed_term);
        self.immutable.on_status(&mut self.judge, &self.commits, own, before.as_ref());
    }

    fn on_role(&mut self, host: usize, role: Role, term: Term) {
        let machine = self.mirror.machine(host);
        let Some(id) = machine.id else { return };
        self.election.on_role(&mut self.judge, id, role, term);
        if role == Role::Leader && self.is_one_log {
            if let Some(status) = &machine.status {
                self.election.on_elected(&mut self.judge, id, term, &status.config);
            }
            let log = &machine.written;
            self.completeness.on_leader(&mut self.judge, &self.commits, id, term, log);
        }
    }

    /// The entry at `index` has just been committed.
    fn replay(&mut self, index: LogIndex) {
        let Some(mark) = self.commits.at(index) else { return };
        let work = self.entries.take_committed(index, mark);
        if self.commits.is_whole()
            && let Some(Work::Command(bytes)) = work
            && let Ok(entry) = decode::<Stamped>("log entry", &bytes)
        {
            let mut steps = std::mem::take(&mut self.steps);
            steps.clear();
            self.model.apply(index, &entry, &mut steps);
            let judge = &mut self.judge;
            self.states.on_entry(judge, (index, &entry), &self.model, &steps);
            self.durability.on_steps(judge, index, &steps);
            self.linear.on_steps(judge, index, &steps);
            self.runs.on_steps(judge, &self.model, &steps);
            self.watch.on_steps(&self.model, mark.term, &steps);
            self.steps = steps;
        }
        self.durability.on_replayed(&mut self.judge, index);
        self.linear.on_replayed(&mut self.judge, index);
    }
}
