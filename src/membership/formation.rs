//! How N fresh servers become one cluster: a durable pledge.
//!
//! The candidate with the lowest id among exactly N proposes one set of N and a random cluster id,
//! and pledges to it itself first. Each member syncs a pledge to the proposal and says so. Only the
//! proposer, holding all N pledges, initializes. It seals its own pledge first, so that a proposal
//! that may have been initialized is never withdrawn.
//!
//! A pledge binds until its proposer has durably withdrawn the proposal, so nobody can ever
//! initialize it. A proposer withdraws when its proposal does not complete in time, when a lower id
//! asks it into another set, or when it learns that one of its members is bound to a lower id.
//! So two proposals that share members cannot both complete, and do not block each other for ever.
//! A member whose proposer fell silent stays bound, and says so ([`Formation::waiting_for`]).
//!
//! **Invariants**
//! - What leaves this part ([`FormationEffect::Send`], [`FormationEffect::Initialize`]) rests only
//!   on the pledge that is on disk. While a pledge is being written, nothing is promised.
//! - No two proposals that share a member are ever initialized, whatever is lost or restarted.
//! - A cluster id is drawn anew for each proposal, and a withdrawn proposal never comes back.
//! - Who holds a log, a vote or a cluster neither proposes nor pledges.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, NodeId, NodeName};
use crate::time::Mono;

/// How long the candidates must have been the same before one of them proposes.
const SETTLE: Duration = Duration::from_millis(300);

/// How long a single server with `retry-join` listens for a founded cluster before it founds one.
const LISTEN: Duration = Duration::from_secs(3);

/// How often a proposer asks for missing pledges, and a member repeats its own.
const REPEAT: Duration = Duration::from_millis(500);

/// How long a proposer waits for all pledges before it withdraws, without jitter.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long a proposer stands back after it withdrew, without jitter.
const STAND_BACK: Duration = Duration::from_secs(2);

/// The most members that a proposal may have.
pub const MEMBERS_MAX: usize = 255;

/// The most bytes of a member's address.
const ADDR_LEN_MAX: usize = 300;

/// A server that may take part in founding a cluster, as its handshake describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Who it is.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Where it accepts sessions.
    pub addr: String,
    /// Its `bootstrap-expect`; 0 if it only joins.
    pub expect: u32,
    /// The cluster it belongs to, if any.
    pub cluster: Option<ClusterId>,
    /// Whether it holds neither a Raft log nor a vote. A pledge does not count here.
    pub virgin: bool,
}

/// One exact set of servers that shall become the cluster `cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Drawn at random for this proposal.
    pub cluster: ClusterId,
    /// The lowest id of the members.
    pub proposer: NodeId,
    /// All members, the proposer included: name and address of each.
    pub members: BTreeMap<NodeId, (NodeName, String)>,
}

/// What a server is bound to, as it lies on its disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pledge {
    /// Bound until the proposer withdraws.
    Open(Proposal),
    /// The proposer's own, once all have pledged: it may have been initialized, and is never
    /// withdrawn.
    Sealed(Proposal),
}

impl Pledge {
    /// What it is bound to.
    pub fn proposal(&self) -> &Proposal {
        match self {
            Self::Open(proposal) | Self::Sealed(proposal) => proposal,
        }
    }
}

/// What servers say to each other to found a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Pledge to this.
    Propose {
        /// What the sender proposes.
        proposal: Proposal,
    },
    /// The sender has synced its pledge.
    Pledge {
        /// The proposal's cluster.
        cluster: ClusterId,
    },
    /// The sender, who proposed it, has durably withdrawn it: pledges to it are void.
    Release {
        /// The proposal's cluster.
        cluster: ClusterId,
    },
    /// The sender does not pledge.
    Refuse {
        /// The proposal's cluster.
        cluster: ClusterId,
        /// Why not.
        reason: Refusal,
    },
}

/// Why a server does not pledge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It belongs to a cluster, or has heard of one.
    Founded {
        /// That cluster.
        cluster: ClusterId,
    },
    /// It holds a log or a vote.
    NotVirgin,
    /// It is bound to another proposal.
    Pledged {
        /// Who proposed that.
        proposer: NodeId,
    },
    /// It expects another number of servers; 0 if it only joins.
    Expect {
        /// Its `bootstrap-expect`.
        expect: u32,
    },
    /// It knows more candidates than it expects servers.
    TooMany {
        /// How many it knows, itself included.
        known: u32,
    },
    /// The proposal makes no sense to it.
    Invalid,
}

/// What the formation wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormationEffect {
    /// Send this to `to`.
    Send {
        /// Its receiver.
        to: NodeId,
        /// What to send.
        message: Message,
    },
    /// Make this the pledge on disk (`None`: no pledge), then call [`Formation::on_persisted`].
    Persist {
        /// The pledge, which replaces any before it.
        pledge: Option<Pledge>,
    },
    /// Initialize Raft with exactly these members, and belong to its cluster.
    Initialize {
        /// What all members have pledged to.
        proposal: Proposal,
    },
    /// What is missing has changed; for people.
    Waiting(String),
}

/// How a server starts, which decides how long it listens before it founds a cluster alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It has no `retry-join`.
    Alone,
    /// It looks for others.
    Joining,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Forming,
    /// All pledges were there, and Raft was told.
    Initialized,
    /// There is a cluster, or this node holds a log: nothing is left to found.
    Done(Option<ClusterId>),
}

/// The founding of a cluster, as one server sees it. See the module.
#[derive(Debug)]
pub struct Formation {
    me: Candidate,
    rng: StdRng,
    stage: Stage,
    peers: BTreeMap<NodeId, Candidate>,
    /// The pledge on disk.
    pledge: Option<Pledge>,
    /// The pledge that is being written.
    writing: Option<Option<Pledge>>,
    /// Who has synced a pledge to our own proposal.
    pledged: BTreeSet<NodeId>,
    /// Who refused our own proposal, and why.
    refused: BTreeMap<NodeId, Refusal>,
    propose_after: Mono,
    repeat_at: Mono,
    withdraw_at: Mono,
    now: Mono,
    effects: VecDeque<FormationEffect>,
    waiting: Option<String>,
}

impl Formation {
    /// The formation of a node that has just started, with the pledge that it holds on disk.
    pub fn new(
        me: Candidate,
        start: Start,
        recovered_pledge: Option<Pledge>,
        seed: u64,
        now: Mono,
    ) -> Self {
        let listen = match start {
            Start::Joining if me.expect == 1 => LISTEN,
            Start::Alone if me.expect == 1 => Duration::ZERO,
            Start::Alone | Start::Joining => SETTLE,
        };
        let stage = if me.virgin && me.cluster.is_none() && me.expect > 0 {
            Stage::Forming
        } else {
            Stage::Done(me.cluster)
        };
        let mut formation = Self {
            me,
            rng: StdRng::seed_from_u64(seed),
            stage,
            peers: BTreeMap::new(),
            pledge: recovered_pledge,
            writing: None,
            pledged: BTreeSet::new(),
            refused: BTreeMap::new(),
            propose_after: now + listen,
            repeat_at: now,
            withdraw_at: now,
            now,
            effects: VecDeque::new(),
            waiting: None,
        };
        formation.start_round();
        formation.act();
        formation
    }

    /// Takes the servers with which there are sessions now; replaces those given before.
    pub fn update(&mut self, now: Mono, peers: &[Candidate]) {
        self.advance(now);
        let peers: BTreeMap<NodeId, Candidate> = peers
            .iter()
            .filter(|peer| peer.id != self.me.id)
            .map(|peer| (peer.id, peer.clone()))
            .collect();
        if let Some(cluster) = peers.values().find_map(|peer| peer.cluster) {
            self.founded(cluster);
        }
        if peers != self.peers {
            self.peers = peers;
            if self.me.expect > 1 {
                self.propose_after = self.propose_after.max(self.now + SETTLE);
            }
            // Whoever came back may have lost what was sent to it.
            self.repeat_at = self.now;
        }
        self.act();
    }

    /// Takes a message of the peer of a session.
    pub fn on_message(&mut self, now: Mono, from: NodeId, message: Message) {
        self.advance(now);
        match message {
            Message::Propose { proposal } => self.on_propose(from, proposal),
            Message::Pledge { cluster } => self.on_pledge(from, cluster),
            Message::Release { cluster } => self.on_release(from, cluster),
            Message::Refuse { cluster, reason } => self.on_refuse(from, cluster, reason),
        }
        self.act();
    }

    /// The pledge of the last [`FormationEffect::Persist`] is on disk.
    pub fn on_persisted(&mut self, now: Mono) {
        self.advance(now);
        let Some(written) = self.writing.take() else {
            return;
        };
        let before = std::mem::replace(&mut self.pledge, written);
        let kept = self.pledge.as_ref().map(|pledge| pledge.proposal().cluster);
        if let Some(Pledge::Open(withdrawn)) = before
            && withdrawn.proposer == self.me.id
            && kept != Some(withdrawn.cluster)
        {
            for member in withdrawn.members.into_keys() {
                self.send(member, Message::Release { cluster: withdrawn.cluster });
            }
        }
        self.start_round();
        self.act();
    }

    /// Does what is due.
    pub fn on_timeout(&mut self, now: Mono) {
        self.advance(now);
        self.act();
    }

    /// When [`Formation::on_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Mono> {
        if self.stage == Stage::Forming && self.writing.is_none() {
            let proposal = self.own_proposal().map(|_| self.withdraw_at.min(self.repeat_at));
            let pledge = self.pledge.as_ref().map(|_| self.repeat_at);
            let propose = (self.now < self.propose_after).then_some(self.propose_after);
            proposal.or(pledge).or(propose)
        } else {
            None
        }
    }

    /// There is a cluster: this node heard of it, was admitted to it, or initialized it. From now
    /// on it founds none.
    pub fn founded(&mut self, cluster: ClusterId) {
        if self.stage != Stage::Done(Some(cluster)) {
            self.stage = Stage::Done(Some(cluster));
            self.waiting = None;
        }
    }

    /// Whether this node knows a founded cluster, so that nothing is left to be proposed.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Done(Some(_)))
    }

    /// The pledge on disk.
    pub fn pledge(&self) -> Option<&Pledge> {
        self.pledge.as_ref()
    }

    /// What there is to do, in order. To be drained after every call.
    pub fn poll_effect(&mut self) -> Option<FormationEffect> {
        self.effects.pop_front()
    }

    /// What is missing for a cluster to be founded, for people; `None` once there is one.
    pub fn waiting_for(&self) -> Option<String> {
        match &self.stage {
            Stage::Forming => Some(self.describe()),
            Stage::Initialized | Stage::Done(_) => None,
        }
    }

    fn advance(&mut self, now: Mono) {
        self.now = self.now.max(now);
    }

    fn send(&mut self, to: NodeId, message: Message) {
        if self.peers.contains_key(&to) {
            self.effects.push_back(FormationEffect::Send { to, message });
        }
    }

    fn persist(&mut self, pledge: Option<Pledge>) {
        assert!(self.writing.is_none(), "one pledge is written at a time");
        assert!(self.stage == Stage::Forming, "a pledge changes only while there is no cluster");
        self.writing = Some(pledge.clone());
        self.effects.push_back(FormationEffect::Persist { pledge });
    }

    fn own_proposal(&self) -> Option<&Proposal> {
        let proposal = self.pledge.as_ref().map(Pledge::proposal);
        proposal.filter(|proposal| proposal.proposer == self.me.id)
    }

    /// Starts to collect pledges, or to repeat one, for the pledge that is now on disk.
    fn start_round(&mut self) {
        self.pledged = BTreeSet::from([self.me.id]);
        self.refused.clear();
        self.repeat_at = self.now;
        self.withdraw_at = self.now + self.jitter(PATIENCE);
    }

    fn withdraw(&mut self) {
        self.propose_after = self.now + self.jitter(STAND_BACK);
        self.persist(None);
    }

    /// `duration` plus up to 100 %, so that two proposers do not stay in step.
    fn jitter(&mut self, duration: Duration) -> Duration {
        duration * self.rng.random_range(100..=200) / 100
    }

    fn act(&mut self) {
        if self.stage == Stage::Forming && self.writing.is_none() {
            match self.pledge.clone() {
                None => self.try_propose(),
                Some(Pledge::Sealed(proposal)) => self.initialize(proposal),
                Some(Pledge::Open(own)) if own.proposer == self.me.id => self.pursue(own),
                Some(Pledge::Open(proposal)) => self.repeat_pledge(&proposal),
            }
        }
        let waiting = self.waiting_for();
        if waiting != self.waiting {
            self.waiting = waiting.clone();
            self.effects.extend(waiting.map(FormationEffect::Waiting));
        }
    }

    fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        let peers = self.peers.values();
        let able = peers.filter(|peer| peer.virgin && peer.cluster.is_none() && peer.expect > 0);
        able.chain([&self.me])
    }

    fn try_propose(&mut self) {
        let mut members = BTreeMap::new();
        for candidate in self.candidates() {
            if candidate.expect != self.me.expect {
                return;
            }
            members.insert(candidate.id, (candidate.name.clone(), candidate.addr.clone()));
        }
        let is_lowest = members.first_key_value().is_some_and(|(id, _)| *id == self.me.id);
        if members.len() != self.expected() || !is_lowest || self.now < self.propose_after {
            return;
        }
        let cluster = ClusterId(self.rng.random_range(1..=u64::MAX));
        let proposal = Proposal { cluster, proposer: self.me.id, members };
        self.persist(Some(Pledge::Open(proposal)));
    }

    fn pursue(&mut self, proposal: Proposal) {
        if proposal.members.keys().all(|id| self.pledged.contains(id)) {
            self.persist(Some(Pledge::Sealed(proposal)));
        } else if self.now >= self.withdraw_at {
            self.withdraw();
        } else if self.now >= self.repeat_at {
            self.repeat_at = self.now + REPEAT;
            for id in proposal.members.keys().filter(|id| !self.pledged.contains(id)) {
                if self.peers.contains_key(id) {
                    let message = Message::Propose { proposal: proposal.clone() };
                    self.effects.push_back(FormationEffect::Send { to: *id, message });
                }
            }
        }
    }

    fn initialize(&mut self, proposal: Proposal) {
        self.stage = Stage::Initialized;
        self.effects.push_back(FormationEffect::Initialize { proposal });
    }

    fn repeat_pledge(&mut self, pledge: &Proposal) {
        if self.now >= self.repeat_at {
            self.repeat_at = self.now + REPEAT;
            self.send(pledge.proposer, Message::Pledge { cluster: pledge.cluster });
        }
    }

    fn on_propose(&mut self, from: NodeId, proposal: Proposal) {
        let cluster = proposal.cluster;
        match self.weigh(from, &proposal) {
            Verdict::Pledge => self.persist(Some(Pledge::Open(proposal))),
            Verdict::Repeat => self.send(from, Message::Pledge { cluster }),
            Verdict::Later => {}
            Verdict::Refuse(reason) => self.send(from, Message::Refuse { cluster, reason }),
        }
    }

    fn weigh(&self, from: NodeId, proposal: &Proposal) -> Verdict {
        match &self.stage {
            Stage::Done(Some(cluster)) => {
                return Verdict::Refuse(Refusal::Founded { cluster: *cluster });
            }
            Stage::Done(None) if !self.me.virgin => return Verdict::Refuse(Refusal::NotVirgin),
            Stage::Done(None) => {
                return Verdict::Refuse(Refusal::Expect { expect: self.me.expect });
            }
            Stage::Initialized => {
                return Verdict::Refuse(Refusal::Pledged { proposer: self.me.id });
            }
            Stage::Forming => {}
        }
        if !self.is_valid(from, proposal) {
            return Verdict::Refuse(Refusal::Invalid);
        }
        if self.writing.is_some() {
            // The proposer repeats itself; by then it is known what this node is bound to.
            return Verdict::Later;
        }
        match self.pledge.as_ref().map(Pledge::proposal) {
            Some(pledge) if pledge == proposal => return Verdict::Repeat,
            // Our own proposal yields to that of a lower id: `is_valid` has made sure that it is.
            Some(pledge) if pledge.proposer == self.me.id => {}
            Some(pledge) => {
                return Verdict::Refuse(Refusal::Pledged { proposer: pledge.proposer });
            }
            None => {}
        }
        if proposal.members.len() != self.expected() {
            return Verdict::Refuse(Refusal::Expect { expect: self.me.expect });
        }
        // All that propose or pledge count, whether or not they are in the set.
        let known: BTreeSet<NodeId> = self.candidates().map(|candidate| candidate.id).collect();
        let known = known.union(&proposal.members.keys().copied().collect()).count();
        if known > self.expected() {
            let known = u32::try_from(known).unwrap_or(u32::MAX);
            return Verdict::Refuse(Refusal::TooMany { known });
        }
        Verdict::Pledge
    }

    fn is_valid(&self, from: NodeId, proposal: &Proposal) -> bool {
        let members = &proposal.members;
        proposal.cluster != ClusterId(0)
            && proposal.proposer == from
            && members.first_key_value().is_some_and(|(lowest, _)| *lowest == from)
            && members.get(&self.me.id).is_some_and(|(name, _)| *name == self.me.name)
            && from != self.me.id
            && members.len() <= MEMBERS_MAX
            && members.values().all(|(_, addr)| addr.len() <= ADDR_LEN_MAX)
    }

    fn on_pledge(&mut self, from: NodeId, cluster: ClusterId) {
        let is_of = |pledge: &Option<Pledge>| {
            pledge.as_ref().is_some_and(|pledge| pledge.proposal().cluster == cluster)
        };
        let is_current = is_of(&self.pledge);
        if is_current || self.writing.as_ref().is_some_and(is_of) {
            let member = self.own_proposal().is_some_and(|own| own.members.contains_key(&from));
            if is_current && member {
                self.refused.remove(&from);
                self.pledged.insert(from);
            }
            if let Stage::Done(Some(founded)) = self.stage
                && founded != cluster
            {
                let reason = Refusal::Founded { cluster: founded };
                self.send(from, Message::Refuse { cluster, reason });
            }
        } else if match &self.stage {
            Stage::Forming | Stage::Initialized => true,
            Stage::Done(founded) => founded.is_some_and(|founded| founded != cluster),
        } {
            // It was ours and is withdrawn, on disk: nobody can initialize it any more.
            self.send(from, Message::Release { cluster });
        }
    }

    fn on_release(&mut self, from: NodeId, cluster: ClusterId) {
        let bound = self.pledge.as_ref().map(Pledge::proposal).is_some_and(|pledge| {
            pledge.proposer == from && pledge.cluster == cluster && from != self.me.id
        });
        if bound && self.writing.is_none() && self.stage == Stage::Forming {
            self.propose_after = self.propose_after.max(self.now + SETTLE);
            self.persist(None);
        }
    }

    fn on_refuse(&mut self, from: NodeId, cluster: ClusterId, reason: Refusal) {
        let Some(pledge) = self.pledge.as_ref().map(Pledge::proposal) else {
            return;
        };
        let is_own = pledge.proposer == self.me.id;
        let concerns_us = pledge.cluster == cluster && pledge.members.contains_key(&from);
        if !concerns_us || self.stage != Stage::Forming || self.pledged.contains(&from) {
            return;
        }
        match reason {
            Refusal::Founded { cluster } => self.founded(cluster),
            _ if !is_own => {}
            Refusal::Pledged { proposer } if proposer < self.me.id && self.writing.is_none() => {
                self.withdraw();
            }
            Refusal::Pledged { .. }
            | Refusal::NotVirgin
            | Refusal::Expect { .. }
            | Refusal::TooMany { .. }
            | Refusal::Invalid => {
                self.refused.insert(from, reason);
            }
        }
    }

    fn expected(&self) -> usize {
        usize::try_from(self.me.expect).unwrap_or(usize::MAX)
    }
}

enum Verdict {
    Pledge,
    Repeat,
    Later,
    Refuse(Refusal),
}

mod waiting;

#[cfg(test)]
mod tests;
