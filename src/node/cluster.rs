//! The node among others: sessions, gossip, the founding of a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::io::{Event, Output};
use super::links::{Admitted, Known, LinkEvent, remember};
use super::local::LocalFact;
use super::message::Message;
use super::{Life, Node, candidate};
use crate::codec::encode;
use crate::codec::frame::Lane;
use crate::consensus::{self, Trust, Waiting};
use crate::id::{Boot, ClusterId, NodeId, NodeName, SessionId, Term};
use crate::membership::formation::{Candidate, Formation, FormationEffect, Pledge, Proposal};
use crate::membership::gossip::Gossiper;
use crate::membership::roster::RosterEffect;
use crate::node::disk::After;

/// How many addresses a node takes over into its next life.
const JOIN_MAX: usize = 16;

/// What it was worked out from whom to dial. As long as it is the same, so is the result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DialBasis {
    links: u64,
    roster: u64,
    members: Arc<BTreeMap<NodeId, consensus::Peer>>,
}

impl Node {
    pub(super) fn on_frame(&mut self, session: SessionId, payload: &[u8]) {
        let state = self.engine.as_ref().map(|engine| engine.machine());
        let members = &self.raft.members;
        let admitted = |id: NodeId| {
            let state = state.as_ref()?;
            let (_, record) = state.0.nodes().find(|(_, record)| record.id == id)?;
            let addr = members.get(&id).map(|peer| peer.addr.clone());
            Some(Admitted { boot: record.boot, addr })
        };
        let engine = self.engine.as_ref();
        let promise = |id: NodeId| engine.and_then(|engine| engine.promise_of(id));
        let known = |id: NodeId| Known { admitted: admitted(id), promise: promise(id) };
        let events = self.links.on_frame(self.now.mono, session, payload, known);
        self.on_links(events);
    }

    pub(super) fn on_links(&mut self, events: Vec<LinkEvent>) {
        for event in events {
            match event {
                LinkEvent::Up(peer) => self.on_peer_up(peer),
                LinkEvent::Down(peer) => self.on_peer_down(peer),
                LinkEvent::Changed(peer) => self.on_peer_changed(peer),
                LinkEvent::Said { from, wall, message } => {
                    self.clock.on_sample(self.now, from, wall);
                    self.on_message(from, message);
                }
                LinkEvent::Refused(reason) => self.event(Event::Refused(reason)),
                LinkEvent::Met(peer, met) => {
                    remember(&mut self.local.met, peer, met.clone());
                    let fact = encode(&LocalFact::Met(peer, met));
                    self.disk.push_local(fact, Some(After::Nothing));
                }
                LinkEvent::SetBack { by, cluster, seen } => self.on_set_back(&by, cluster, seen),
                LinkEvent::Garbled { peer, reason } => {
                    self.event(Event::Rejected { peer, reason });
                }
            }
        }
    }

    fn on_peer_up(&mut self, peer: NodeId) {
        if let Some(entry) = self.links.peer(peer) {
            let (name, addr) = (entry.hello.name.clone(), entry.hello.peer_addr.clone());
            self.event(Event::MemberUp { name, addr });
        }
        if let Some(engine) = &mut self.engine {
            engine.on_connected(peer);
        }
        self.on_peer_changed(peer);
        if self.engine.is_some() {
            let (term, leader) = self.known_leader;
            self.links.send(peer, Lane::Control, Message::Leads { term, leader });
        }
        if self.known_leader.1 == Some(peer) {
            self.agent.report_all();
        }
        self.look_again();
    }

    fn on_peer_down(&mut self, peer: NodeId) {
        if let Some(entry) = self.links.peer(peer) {
            let (name, left) = (entry.hello.name.clone(), entry.hello.left);
            self.event(match left {
                true => Event::MemberLeft { name },
                false => Event::MemberDown { name },
            });
        }
        self.disclaiming.remove(&peer);
        if let Some(engine) = &mut self.engine {
            engine.on_disconnected(peer);
        }
        if self.known_leader.1 == Some(peer) {
            self.requests.recall(None);
            if self.disk_full.is_some() {
                self.learn_raft_leader();
            }
        }
        self.look_again();
    }

    /// A peer said who it is, for the first time or again: it may belong to a cluster that this
    /// node does not belong to yet.
    fn on_peer_changed(&mut self, peer: NodeId) {
        let Some(hello) = self.links.peer(peer).map(|entry| &entry.hello) else { return };
        let (cluster, standing) = (hello.cluster, hello.standing.clone());
        if let Some(engine) = &mut self.engine {
            engine.on_standing(peer, standing);
        }
        if let Some(cluster) = cluster {
            self.adopt(cluster);
        }
        self.look_again();
    }

    /// Joins a founded cluster, if this node belongs to none and is not pledged to another.
    fn adopt(&mut self, cluster: ClusterId) {
        let pledged = self.local.pledge.as_ref().map(|pledge| pledge.proposal().cluster);
        let bound = pledged.is_some_and(|pledged| pledged != cluster);
        if self.local.cluster.is_none() && !bound {
            self.belong_to(cluster);
        }
    }

    /// A server of this cluster has seen a later boot of this node, or more on its disk: what the
    /// disk holds is older than what this node has promised. It must not go on with it, and begins
    /// a new life.
    fn on_set_back(&mut self, by: &NodeName, cluster: ClusterId, seen: Boot) {
        let pledged = self.local.pledge.as_ref().map(|pledge| pledge.proposal().cluster);
        if self.local.cluster.or(pledged).is_some_and(|bound| bound != cluster) {
            return;
        }
        // One that stops has nothing more to say.
        if matches!(self.life, Life::Stopping { .. } | Life::Over) {
            return;
        }
        for execution in self.agent.running().collect::<Vec<_>>() {
            let reason = "its node's disk was set back".to_owned();
            self.outputs.push_back(Output::Kill { execution, reason });
        }
        let boot = self.config.boot;
        let reason = format!(
            "the data directory was put back from an older image: this is boot {boot}, and {by} \
             has seen more of it in boot {seen}"
        );
        let known = self.links.peers().map(|(_, peer)| peer.hello.gossip_addr.clone());
        let known = known.chain(self.roster.members().map(|member| member.gossip.to_string()));
        let mut join: Vec<String> = known.collect();
        join.sort();
        join.dedup();
        join.truncate(JOIN_MAX);
        self.life = Life::Over;
        self.outputs.push_back(Output::Reincarnate { reason, cluster, join });
    }

    pub(super) fn belong_to(&mut self, cluster: ClusterId) {
        self.local.cluster = Some(cluster);
        let fact = encode(&LocalFact::Cluster(cluster));
        self.disk.push_local(fact, Some(After::Cluster(cluster)));
        self.roster.set_cluster(cluster);
        if let Some(formation) = &mut self.formation {
            formation.founded(cluster);
        }
    }

    pub(super) fn on_cluster_durable(&mut self, cluster: ClusterId) {
        self.links.update_me(|me| me.cluster = Some(cluster));
        self.event(Event::ClusterJoined(cluster));
        self.look_again();
    }

    pub(super) fn on_message(&mut self, from: NodeId, message: Message) {
        match message {
            // The links have dealt with these.
            Message::Hello(_)
            | Message::Refused(_)
            | Message::SetBack { .. }
            | Message::Outlived { .. } => {}
            Message::Footing(footing) => self.links.note_footing(from, footing),
            Message::Raft(message) => self.on_raft(from, message),
            Message::Formation(message) => {
                if let Some(formation) = &mut self.formation {
                    formation.on_message(self.now.mono, from, message);
                }
            }
            Message::Dispatch(message) => self.on_dispatch(from, message),
            Message::Leads { term, leader } => self.on_leads(from, term, leader),
            Message::Forward { id, write } => self.on_forward(from, id, write),
            Message::Forwarded { id, result } => self.on_forwarded(from, id, result),
            Message::ReadIndex { id } => self.on_read_index(from, id),
            Message::ReadIndexIs { id, index } => self.on_read_index_is(from, id, index),
            Message::Leave => self.on_leave_wish(from),
            Message::Removed => self.on_removed(from),
            Message::Standing(standing) => {
                self.links.note_standing(from, standing.clone());
                if let Some(engine) = &mut self.engine {
                    engine.on_standing(from, standing);
                }
            }
        }
    }

    /// Raft is spoken only within a cluster. Entries that this node has no room for are dropped:
    /// the leader, which gets no answer, sends them again.
    fn on_raft(&mut self, from: NodeId, message: consensus::Message) {
        let appends =
            matches!(&message, consensus::Message::Append { entries, .. } if !entries.is_empty());
        if appends && self.unkept.is_full() {
            return;
        }
        let theirs = self.links.peer(from).and_then(|peer| peer.hello.cluster);
        let ours = self.links.me().cluster;
        match &mut self.engine {
            Some(engine) if ours.is_some() && ours == theirs => {
                engine.on_message(self.now.mono, from, message)
            }
            Some(_) | None => {}
        }
    }

    pub(super) fn run_links(&mut self) -> bool {
        let basis = DialBasis {
            links: self.links.version(),
            roster: self.roster.version(),
            members: Arc::clone(&self.raft.members),
        };
        if self.dial_basis.as_ref() != Some(&basis) {
            let targets = self.targets();
            self.links.want(self.now.mono, targets);
            self.dial_basis = Some(basis);
        }
        let events = self.links.on_timeout(self.now.mono);
        let acted = !events.is_empty();
        self.on_links(events);
        acted
    }

    /// Whom this node dials: of two servers the lower id dials the other, agents dial servers.
    fn targets(&self) -> BTreeMap<NodeId, String> {
        let me = self.links.me();
        let mut targets = BTreeMap::new();
        if me.server {
            for (&id, peer) in self.raft.members.iter().filter(|(id, _)| **id > me.id) {
                targets.insert(id, peer.addr.clone());
            }
        }
        let dials = |them: &&Gossiper| them.server && (!me.server || them.id > me.id);
        for them in self.roster.members().filter(dials) {
            targets.insert(them.id, them.peer_addr().to_string());
        }
        targets
    }

    pub(super) fn run_roster(&mut self) -> bool {
        self.roster.on_timeout(self.now.mono);
        let mut acted = false;
        while let Some(effect) = self.roster.poll_effect() {
            acted = true;
            match effect {
                RosterEffect::Datagram { to, bytes } => {
                    self.outputs.push_back(Output::Datagram { to, payload: bytes });
                }
                RosterEffect::Resolve { join } => {
                    self.outputs.push_back(Output::Resolve { name: join });
                }
                RosterEffect::Up(_) | RosterEffect::Down(_) => self.look_again(),
                RosterEffect::Renewed(me) => {
                    tracing::debug!(generation = me.generation, "declared dead, and lives on");
                }
                // The session's Hello says so too, and with more certainty.
                RosterEffect::FoundedElsewhere(_) => {}
                RosterEffect::JoinFailed { join, reason } => {
                    tracing::debug!(join, reason, "no answer");
                }
                RosterEffect::Rejected { from, reason } => {
                    let reason = format!("a datagram from {from}: {reason}");
                    self.event(Event::Rejected { peer: None, reason });
                }
                RosterEffect::Left => {}
            }
        }
        acted
    }

    pub(super) fn run_formation(&mut self) -> bool {
        let now = self.now.mono;
        let Some(formation) = &mut self.formation else { return false };
        let is_known = self.formation_basis == Some(self.links.version());
        if is_known && formation.is_over() {
            return self.drain_formation();
        }
        self.formation_basis = Some(self.links.version());
        let linked = self.links.peers().filter(|(_, peer)| peer.session.is_some());
        let servers = linked.filter(|(_, peer)| peer.hello.server);
        let peers: Vec<Candidate> = servers.map(|(_, peer)| candidate(&peer.hello)).collect();
        formation.update(now, &peers);
        formation.on_timeout(now);
        self.drain_formation()
    }

    fn drain_formation(&mut self) -> bool {
        let mut acted = false;
        while let Some(effect) = self.formation.as_mut().and_then(Formation::poll_effect) {
            acted = true;
            self.on_formation(effect);
        }
        acted
    }

    fn on_formation(&mut self, effect: FormationEffect) {
        match effect {
            FormationEffect::Send { to, message } => {
                self.links.send(to, Lane::Control, Message::Formation(message));
            }
            FormationEffect::Persist { pledge } => {
                self.local.pledge.clone_from(&pledge);
                let fact = encode(&LocalFact::Pledge(pledge));
                self.disk.push_local(fact, Some(After::Pledge));
            }
            FormationEffect::Initialize { proposal } => self.found(&proposal),
            FormationEffect::Waiting(missing) => tracing::debug!(missing, "formation waits"),
        }
    }

    /// Founds the cluster that all its members have pledged themselves to. This node belongs to it
    /// once Raft's first entry is durable ([`Node::settle_founding`]): if it crashes before, it is
    /// virgin still, and its sealed pledge has it begin again.
    fn found(&mut self, proposal: &Proposal) {
        let Some(engine) = &mut self.engine else { return };
        let peer = |(name, addr): &(NodeName, String)| consensus::Peer {
            name: name.to_string(),
            addr: addr.clone(),
        };
        let members = proposal.members.iter().map(|(&id, member)| (id, peer(member))).collect();
        engine.initialize(members);
    }

    /// Belongs to the cluster that this node has founded, if what it founded it with is durable.
    pub(super) fn settle_founding(&mut self) {
        let founded = !self.raft.voters.is_empty() && self.raft.unsynced_since.is_none();
        if self.local.cluster.is_none()
            && founded
            && let Some(Pledge::Sealed(proposal)) = &self.local.pledge
        {
            let cluster = proposal.cluster;
            self.belong_to(cluster);
        }
    }

    /// A server said who leads. An agent believes a name of a term that is not older than what it
    /// knows; that nobody leads, it believes of the leader alone, since a follower that hears
    /// nothing knows nothing. A server believes it of the sender alone.
    fn on_leads(&mut self, from: NodeId, term: Term, leader: Option<NodeId>) {
        let leads = leader == Some(from);
        let (known_term, known) = self.known_leader;
        match (&self.engine, leader) {
            (None, Some(_)) if term >= known_term => self.learn_leader(term, leader),
            (None, None) if known == Some(from) => self.learn_leader(known_term, None),
            (None, _) => {}
            (Some(_), _) => {
                if leads {
                    self.disclaiming.remove(&from);
                    self.note_claim(from, term);
                } else {
                    self.disclaiming.insert(from);
                }
                self.learn_raft_leader();
            }
        }
        if leads {
            self.agent.report_all();
        }
    }

    /// Takes note of whom Raft names, unless that one says itself that it does not lead. An agent
    /// has no Raft, and knows what servers tell it.
    pub(super) fn learn_raft_leader(&mut self) {
        if self.engine.is_none() {
            return;
        }
        let leader = self.raft.leader.filter(|leader| !self.disclaiming.contains(leader));
        match (leader, self.claimed_leader()) {
            (None, Some((term, claimed))) => self.learn_leader(term, Some(claimed)),
            (leader, _) => self.learn_leader(self.raft.term, leader),
        }
    }

    /// Takes note of who leads; whoever waits for a leader acts on it.
    pub(super) fn learn_leader(&mut self, term: Term, leader: Option<NodeId>) {
        if self.known_leader == (term, leader) {
            return;
        }
        let before = std::mem::replace(&mut self.known_leader, (term, leader));
        self.requests.recall(leader);
        if let Some(id) = leader.filter(|_| before.1 != leader || before.0 != term) {
            let leader = self.name_of(id);
            self.event(Event::LeaderKnown { leader, term });
            self.agent.report_all();
            if matches!(self.life, Life::Leaving(_)) {
                self.wish_to_leave();
            }
        }
        if self.engine.is_some() {
            self.links.send_all(&Message::Leads { term, leader });
        }
        self.no_leader_at = self.now.mono + super::NO_LEADER_EVERY;
    }

    pub(super) fn name_of(&self, id: NodeId) -> NodeName {
        if id == self.id() {
            return self.config.name.clone();
        }
        if let Some(peer) = self.links.peer(id) {
            return peer.hello.name.clone();
        }
        let configured = self.raft.members.get(&id);
        let named = configured.and_then(|peer| NodeName::new(peer.name.clone()).ok());
        named.unwrap_or_else(|| NodeName::new(id.to_string()).expect("hex digits are a name"))
    }

    /// What is missing while nobody leads, for people.
    pub(super) fn missing(&self) -> String {
        let mut text = match (&self.formation, &self.engine) {
            (_, None) => self.missing_servers(),
            (Some(formation), Some(_)) => {
                formation.waiting_for().unwrap_or_else(|| self.missing_voters())
            }
            (None, Some(_)) => self.missing_voters(),
        };
        if let Some(doubts) = self.doubts() {
            text.push_str("; ");
            text.push_str(&doubts);
        }
        let unanswered = self.roster.unanswered();
        if !unanswered.is_empty() {
            text.push_str("; ");
            text.push_str(&unanswered.join(", "));
        }
        text
    }

    fn missing_servers(&self) -> String {
        let linked = self.links.peers().filter(|(_, peer)| peer.session.is_some());
        match linked.filter(|(_, peer)| peer.hello.server).count() {
            0 => "waiting for a server to answer".to_owned(),
            known => format!("{known} servers answer, none of them knows a leader"),
        }
    }

    fn missing_voters(&self) -> String {
        let voters = &self.raft.voters;
        if voters.is_empty() {
            return "waiting to be admitted by the cluster's leader".to_owned();
        }
        let answers = |id: &NodeId| *id == self.id() || self.links.session_of(*id).is_some();
        let silent: Vec<String> = voters
            .iter()
            .filter(|id| !answers(id))
            .map(|&id| self.name_of(id).to_string())
            .collect();
        let (have, quorum) = (voters.len() - silent.len(), voters.len() / 2 + 1);
        if silent.is_empty() {
            return format!("an election is under way among {} voters", voters.len());
        }
        if have >= quorum {
            let silent = silent.join(", ");
            return format!(
                "an election is under way among {have} voters; no answer from {silent}"
            );
        }
        format!(
            "waiting for {quorum} of {} voters, know {have}: no answer from {}",
            voters.len(),
            silent.join(", ")
        )
    }

    /// Who is in doubt about its log, and what it waits for; `None` if nobody is.
    pub(super) fn doubts(&self) -> Option<String> {
        let mut texts = Vec::new();
        if let (Some(doubt), Some(engine)) = (self.raft.doubt, &self.engine) {
            let waits = match engine.waiting() {
                Some(Waiting::Leader) => "a leader".to_owned(),
                Some(Waiting::Voters(silent)) => {
                    let names = silent.iter().map(|&id| self.name_of(id).to_string());
                    format!("a leader, or an answer from {}", names.collect::<Vec<_>>().join(", "))
                }
                Some(Waiting::Election) => "the others to elect a leader".to_owned(),
                None => "its disk".to_owned(),
            };
            let (name, len) = (&self.config.name, doubt.len);
            texts.push(format!(
                "server {name} cut {len} bytes of its log at a crash and does not vote: \
                 it waits for {waits}"
            ));
        }
        let linked = self.links.peers().filter(|(_, peer)| peer.session.is_some());
        for (_, peer) in linked.filter(|(_, peer)| peer.hello.standing.trust == Trust::InDoubt) {
            let name = &peer.hello.name;
            texts.push(format!("server {name} cut its log at a crash and does not vote yet"));
        }
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    pub(super) fn run_notices(&mut self) {
        let now = self.now.mono;
        if now >= self.report_at {
            self.report_at = now + super::REPORT_EVERY;
            self.agent.report_all();
        }
        if self.raft_leader().is_none() && now >= self.no_leader_at {
            self.no_leader_at = now + super::NO_LEADER_EVERY;
            if self.life == Life::Running {
                let missing = self.missing();
                self.event(Event::NoLeader(missing));
            }
        }
        self.clock.prune(now);
    }

    /// The leader that this node knows to hold a quorum.
    pub(super) fn raft_leader(&self) -> Option<NodeId> {
        self.known_leader.1
    }
}
