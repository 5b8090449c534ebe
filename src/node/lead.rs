//! What a node does while it leads: it keeps the cluster's clock, claims what is due, orders runs,
//! books reports, and keeps the Raft configuration in step with who is there.
//!
//! A node leads from when the log's first entry of its term is applied (its state is then as fresh
//! as any acknowledgement) and its clock is set, until Raft says that it no longer holds a quorum.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::Node;
use super::clock::OFF_MAX;
use super::history::weight_of;
use super::io::Event;
use super::message::Message;
use super::propose::Retimed;
use crate::codec::encode;
use crate::codec::frame::Lane;
use crate::consensus::{self, ChangeError};
use crate::dispatch::leader::{Leader, NodeView};
use crate::dispatch::message::{Message as Dispatch, Progress, Report};
use crate::id::{Boot, CommandId, ExecutionId, LogIndex, NodeId, NodeName, Term};
use crate::jobs::command::{Command, Role, Stamped};
use crate::membership::autopilot::Role as RaftRole;
use crate::membership::autopilot::{Autopilot, Change, Health, Present, Server, Step, View, Wish};
use crate::node::requests::{OPEN_MAX, Stage};
use crate::time::{Mono, Now, Wall};

/// How often a leader looks at the configuration when nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often a new leader asks whether its state is fresh.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// How long a leader whose clock is off waits before it tries again to hand over.
const CLOCK_OFF_EVERY: Duration = Duration::from_secs(2);

/// The ReadIndex by which a new leader learns that its state is fresh.
const READ_FRESH: u64 = 0;

/// Numbers of a node's own proposals have this bit, those of its clients' writes do not.
const OWN_PROPOSAL: u64 = 1 << 63;

/// A term of leadership.
#[derive(Debug)]
pub(super) struct Leading {
    term: Term,
    since: Mono,
    pub(super) stage: Fresh,
    autopilot: Autopilot,
    leaving: BTreeMap<NodeId, Boot>,
    changing: bool,
    admitting: BTreeMap<NodeId, Boot>,
    settling: bool,
    look: Look,
    /// When it looks at everything though nothing has happened.
    look_at: Mono,
    wake: Option<Mono>,
    clock_off_at: Option<Mono>,
    /// Whether it claims what is due, as it looked last.
    pub(super) claims: bool,
    pub(super) retimed: Retimed,
}

/// What a leader has to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    Nothing,
    /// What is due and what runs.
    Jobs,
    /// That, and who is there and who votes.
    Everything,
}

/// Whether a leader's state is as fresh as any acknowledgement.
#[derive(Debug)]
pub(super) enum Fresh {
    /// It asks Raft.
    Asking,
    /// It is once this is applied.
    At(LogIndex),
    /// It is; there is work.
    Yes(Box<Leader>),
}

/// What one of the node's own proposals was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    Claim,
    /// Of what was due of a job that is about to be changed.
    Overdue,
    /// Its `weight` is that of the row that it will make.
    Report {
        execution: ExecutionId,
        ack: Option<NodeId>,
        weight: u64,
    },
    Admit(NodeId),
    Settle,
}

impl Own {
    /// What it will add to the history.
    fn weight(self) -> u64 {
        match self {
            Self::Report { weight, .. } => weight,
            Self::Claim | Self::Overdue | Self::Admit(_) | Self::Settle => 0,
        }
    }
}

impl Leading {
    pub(super) fn poll_timeout(&self) -> Option<Mono> {
        self.wake
    }
}

impl Node {
    /// Whether this node leads, with a fresh state and a clock.
    pub(super) fn leads(&mut self) -> bool {
        let fresh = |leading: &Leading| matches!(leading.stage, Fresh::Yes(_));
        self.leading.as_ref().is_some_and(fresh) && self.cluster_now().is_some()
    }

    /// Something has happened that a leader may have to act on.
    pub(super) fn look_again(&mut self) {
        if let Some(leading) = &mut self.leading {
            leading.look = Look::Everything;
        }
    }

    /// Entries were applied. They move no server that votes, so under load a leader need not look
    /// for each batch at who is there.
    pub(super) fn look_at_jobs(&mut self) {
        let is_quiet = self.raft.is_settled && self.raft.learners.is_empty();
        let look = if is_quiet { Look::Jobs } else { Look::Everything };
        if let Some(leading) = &mut self.leading {
            leading.look = leading.look.max(look);
        }
    }

    /// The cluster's clock; `None` unless this node leads and hears a quorum.
    pub(super) fn cluster_now(&mut self) -> Option<Wall> {
        self.leading.as_ref()?;
        let floor = self.engine.as_ref()?.read_machine(|machine| machine.0.last_stamp());
        let voters: Vec<NodeId> = self.raft.voters.iter().copied().collect();
        self.clock.read(self.now, self.links.me().id, &voters, floor)
    }

    /// Raft says whether this node leads.
    pub(super) fn on_role(&mut self) {
        let term = self.raft.term;
        let leads = self.raft.leader == Some(self.id());
        let current = self.leading.as_ref().map(|leading| leading.term);
        if current.is_some() && (!leads || current != Some(term)) {
            self.leading = None;
            self.clock.stop();
            self.event(Event::LeadershipLost(current.unwrap_or(term)));
        }
        if leads && self.leading.is_none() {
            self.leading = Some(Leading {
                term,
                since: self.now.mono,
                stage: Fresh::Asking,
                autopilot: Autopilot::new(self.config.dead_server_grace),
                leaving: BTreeMap::new(),
                changing: false,
                admitting: BTreeMap::new(),
                settling: false,
                look: Look::Everything,
                look_at: self.now.mono,
                wake: None,
                clock_off_at: None,
                claims: false,
                retimed: Retimed::default(),
            });
            self.read_index(READ_FRESH);
        }
    }

    fn read_index(&mut self, number: u64) {
        if let Some(engine) = &mut self.engine {
            engine.read_index(number);
        }
    }

    /// Asks Raft for a ReadIndex, for a client of this node or of another.
    pub(super) fn ask_read_index(&mut self, from: Option<NodeId>, number: u64) {
        self.read_last += 1;
        self.reads.insert(self.read_last, (from, number));
        self.read_index(self.read_last);
    }

    pub(super) fn on_read_index_known(&mut self, id: u64, index: Option<LogIndex>) {
        if id == READ_FRESH {
            if let Some(leading) = &mut self.leading
                && matches!(leading.stage, Fresh::Asking | Fresh::At(_))
            {
                if index.is_some() {
                    leading.look = Look::Everything;
                }
                leading.stage = index.map_or(Fresh::Asking, Fresh::At);
            }
            return;
        }
        let Some((from, number)) = self.reads.remove(&id) else { return };
        if let Some(from) = from {
            let message = Message::ReadIndexIs { id: number, index };
            self.links.send(from, Lane::Control, message);
            return;
        }
        let Some(request) = self.requests.of_read(number) else { return };
        match (self.requests.get_mut(request), index) {
            (Some(open), Some(index)) => open.stage = Stage::Applying(index),
            (Some(_), None) => self.requests.pause(self.now.mono, request),
            (None, _) => {}
        }
    }

    pub(super) fn run_lead(&mut self) -> bool {
        let now = self.now.mono;
        let Some(leading) = &mut self.leading else { return false };
        let due = leading.wake.is_some_and(|at| at <= now);
        let look = std::mem::replace(&mut leading.look, Look::Nothing);
        if look == Look::Nothing && !due {
            return false;
        }
        let is_new = !matches!(leading.stage, Fresh::Yes(_));
        let looks_around = look == Look::Everything || is_new || now >= leading.look_at;
        if looks_around {
            leading.look_at = now + LOOK_EVERY;
        }
        leading.wake = Some(leading.look_at);
        self.become_fresh();
        let Some(wall) = self.cluster_now() else { return false };
        if self.disk_full.is_some() {
            self.hand_over_full_disk();
            return true;
        }
        let at = Now { mono: now, wall };
        let clock_off = self.hand_over_if_clock_is_off();
        if looks_around {
            self.introduce(wall);
            self.pilot();
        }
        let claims = !clock_off && !self.unkept.is_behind();
        if let Some(leading) = &mut self.leading {
            leading.claims = claims;
        }
        if claims {
            self.dispatch(at);
        }
        true
    }

    fn become_fresh(&mut self) {
        let Some(wall) = self.cluster_now() else { return };
        let Some(leading) = &mut self.leading else { return };
        match leading.stage {
            Fresh::Yes(_) => {}
            Fresh::Asking => {
                leading.wake = Some(self.now.mono + ASK_EVERY);
                self.read_index(READ_FRESH);
            }
            Fresh::At(index) => {
                if self.raft.applied < Some(index) {
                    return;
                }
                let since = Now { mono: self.now.mono, wall };
                let (term, patience) = (leading.term, self.config.patience);
                let leader =
                    Leader::new(term, since, self.booted, patience, self.rng.random::<u64>());
                leading.stage = Fresh::Yes(Box::new(leader));
                self.event(Event::LeadershipWon(term));
                self.hear_reports();
            }
        }
    }

    /// Reports are heard from here on: whoever has any sends them again.
    pub(super) fn hear_reports(&mut self) {
        let Some(Leading { term, stage: Fresh::Yes(_), look, .. }) = &mut self.leading else {
            return;
        };
        *look = Look::Everything;
        let term = *term;
        let leader = Some(self.id());
        self.links.send_all(&Message::Leads { term, leader });
        self.agent.report_all();
    }

    /// A leader whose clock is off the cluster's claims nothing, and lets one lead whose is not.
    /// Where there is none it goes on: the cluster's clock does not depend on its own.
    fn hand_over_if_clock_is_off(&mut self) -> bool {
        let (now, me) = (self.now, self.id());
        let Some(ahead) = self.clock.ahead(now) else { return false };
        if u128::from(ahead.unsigned_abs()) <= OFF_MAX.as_micros() {
            return false;
        }
        let voters: Vec<NodeId> = self.raft.voters.iter().copied().collect();
        let better = self.clock.nearest(me, &voters);
        let Some(leading) = &mut self.leading else { return false };
        if leading.clock_off_at.is_none_or(|at| now.mono >= at) {
            leading.clock_off_at = Some(now.mono + CLOCK_OFF_EVERY);
            self.event(Event::ClockOff { ms: ahead / 1_000 });
            if let Some(to) = better {
                self.transfer(to);
            }
        }
        better.is_some()
    }

    /// Hands leadership to the voter that is furthest with the log, if this node leads.
    pub(super) fn hand_over(&mut self) {
        let me = self.id();
        let linked = |id: &&NodeId| **id != me && self.links.session_of(**id).is_some();
        let matched = |id: &&NodeId| self.matched(**id);
        let in_doubt =
            |id: &&NodeId| self.engine.as_ref().is_some_and(|engine| engine.is_in_doubt(**id));
        let able = self.raft.voters.iter().filter(linked).filter(|id| !in_doubt(id));
        let to = able.max_by_key(matched).copied();
        if let (true, Some(to)) = (self.leading.is_some(), to) {
            self.transfer(to);
        }
    }

    pub(super) fn transfer(&mut self, to: NodeId) {
        let Some(engine) = &mut self.engine else { return };
        if let Err(error) = engine.transfer(to) {
            tracing::debug!(%error, %to, "leadership is not handed over");
        }
    }

    /// Tells the replicated state which cluster this is, and which nodes have come.
    fn introduce(&mut self, wall: Wall) {
        let Some(state) = self.state() else { return };
        let fresh = |leading: &Leading| matches!(leading.stage, Fresh::Yes(_));
        if !self.leading.as_ref().is_some_and(fresh) {
            return;
        }
        // Who leads belongs to a cluster, but for the instant until that is durable.
        let Some(cluster) = self.links.me().cluster else { return };
        if state.cluster().is_none()
            && !self.leading.as_ref().is_some_and(|leading| leading.settling)
        {
            if let Some(leading) = &mut self.leading {
                leading.settling = true;
            }
            let timezone = self.config.timezone.clone();
            self.propose_own(wall, Command::Settings { timezone }, Own::Settle);
            self.propose_own(wall, Command::Found { cluster }, Own::Settle);
        }
        let me = self.links.me();
        let own = std::iter::once((me.id, me));
        let linked = self.links.peers().filter(|(_, peer)| peer.session.is_some());
        let known = own.chain(linked.map(|(&id, peer)| (id, &peer.hello)));
        let unknown = |boot: Boot, name: &NodeName, id: NodeId| {
            let record = state.node(name);
            record.is_none_or(|record| record.id != id || record.boot < boot)
        };
        let admitting = |id: NodeId, boot: Boot| {
            let leading = self.leading.as_ref();
            leading.is_some_and(|leading| leading.admitting.get(&id) == Some(&boot))
        };
        let new: Vec<(NodeId, NodeName, Boot, Role)> = known
            .filter(|(id, hello)| hello.cluster == Some(cluster) && !admitting(*id, hello.boot))
            .filter(|(id, hello)| unknown(hello.boot, &hello.name, *id))
            .map(|(id, hello)| {
                let role = if hello.server { Role::Server } else { Role::Agent };
                (id, hello.name.clone(), hello.boot, role)
            })
            .collect();
        for (id, name, boot, role) in new {
            if let Some(leading) = &mut self.leading {
                leading.admitting.insert(id, boot);
            }
            self.propose_own(wall, Command::Admit { name, id, boot, role }, Own::Admit(id));
        }
    }

    fn dispatch(&mut self, at: Now) {
        let Some(state) = self.state() else { return };
        let nodes = self.nodes();
        let Some(Leading { stage: Fresh::Yes(leader), wake, .. }) = &mut self.leading else {
            return;
        };
        let step = leader.step(at, &state, &nodes);
        if let Some(at) = step.wake {
            *wake = Some(wake.map_or(at, |wake| wake.min(at)));
        }
        if !step.claims.is_empty() {
            self.propose_own(at.wall, Command::Claim(step.claims), Own::Claim);
        }
        for (execution, result) in step.lost {
            let own = Own::Report { execution, ack: None, weight: weight_of(&result) };
            self.propose_own(at.wall, Command::Finished { execution, result }, own);
        }
        for (to, order) in step.orders {
            self.tell(to, Dispatch::Order(order));
        }
    }

    /// The nodes of the leader's region that answer, itself included.
    pub(super) fn nodes(&mut self) -> Arc<[NodeView]> {
        let version = self.links.version();
        if let Some((of, nodes)) = &self.nodes
            && *of == version
        {
            return Arc::clone(nodes);
        }
        let nodes: Arc<[NodeView]> = self.list_nodes().into();
        self.nodes = Some((version, Arc::clone(&nodes)));
        nodes
    }

    fn list_nodes(&self) -> Vec<NodeView> {
        let me = self.links.me();
        let same_region =
            |tags: &BTreeMap<String, String>| tags.get("region") == me.tags.get("region");
        // A node speaks to itself without a session; no real one has this number.
        let own = NodeView {
            id: me.id,
            name: me.name.clone(),
            tags: me.tags.clone(),
            disk_full: me.disk_full,
            session: Some(crate::id::SessionId(u64::MAX)),
        };
        let peers = self.links.peers().filter(|(_, peer)| peer.hello.cluster == me.cluster);
        let peers = peers.filter(|(_, peer)| same_region(&peer.hello.tags));
        let view = |(&id, peer): (&NodeId, &super::links::Peer)| NodeView {
            id,
            name: peer.hello.name.clone(),
            tags: peer.hello.tags.clone(),
            disk_full: peer.hello.disk_full,
            session: peer.session,
        };
        let mut nodes: Vec<NodeView> = std::iter::once(own).chain(peers.map(view)).collect();
        nodes.sort_by_key(|node| node.id);
        nodes
    }

    pub(super) fn on_report(&mut self, from: NodeId, report: Report) {
        // Whoever has it keeps it until it is booked, and reports it again.
        if self.disk_full.is_some() {
            return;
        }
        let Some(state) = self.state() else { return };
        let execution = report.execution;
        let ended = matches!(report.progress, Progress::Finished(_));
        let Some(wall) = self.cluster_now() else { return };
        let Some(Leading { stage: Fresh::Yes(leader), .. }) = &mut self.leading else { return };
        // Its claim is in this state, which is fresh: an execution that is not open has its end.
        if ended && !state.awaits_end(execution) {
            return self.tell(from, Dispatch::Ack(execution));
        }
        let weight = match &report.progress {
            Progress::Finished(result) => weight_of(result),
            Progress::Started(_) => 0,
        };
        // Its node keeps it and reports it again.
        if ended && !self.unkept.has_room(weight) {
            return;
        }
        if let Some(command) = leader.on_report(report) {
            let ack = ended.then_some(from);
            self.propose_own(wall, command, Own::Report { execution, ack, weight });
        }
    }

    pub(super) fn propose_own(&mut self, stamp: Wall, command: Command, own: Own) {
        self.proposal_last += 1;
        let seq = OWN_PROPOSAL | self.proposal_last;
        let id = CommandId { node: self.id(), boot: self.config.boot, seq };
        let payload = encode(&Stamped { stamp, id: None, command });
        if let Some(engine) = &mut self.engine {
            self.unkept.on_proposed(own.weight());
            self.own.insert(id, own);
            engine.propose(id, payload);
        }
    }

    /// True if the proposal was one of the node's own, which is settled by this.
    pub(super) fn on_own_proposal(&mut self, id: CommandId, taken: bool) -> bool {
        let Some(own) = self.own.remove(&id) else { return false };
        self.unkept.on_settled(own.weight());
        if let Own::Report { execution, ack: Some(node), .. } = own
            && taken
        {
            self.tell(node, Dispatch::Ack(execution));
        }
        let Some(leading) = &mut self.leading else { return true };
        leading.look = Look::Everything;
        match (own, &mut leading.stage) {
            (Own::Claim, Fresh::Yes(leader)) => leader.on_claimed(),
            (Own::Report { execution, .. }, Fresh::Yes(leader)) => leader.on_reported(execution),
            (Own::Admit(node), _) => drop(leading.admitting.remove(&node)),
            (Own::Settle, _) => leading.settling = taken,
            (Own::Overdue, _) | (Own::Claim | Own::Report { .. }, Fresh::Asking | Fresh::At(_)) => {
            }
        }
        true
    }

    pub(super) fn note_forwarded(&mut self, id: CommandId, from: NodeId) {
        if self.forwarded.len() < OPEN_MAX {
            self.forwarded.insert(id, from);
        }
    }

    /// Who forwarded this write and waits for the answer, which is given now.
    pub(super) fn forwarded_by(&mut self, id: CommandId) -> Option<NodeId> {
        self.forwarded.remove(&id)
    }
}

/// The Raft configuration.
impl Node {
    /// Brings the Raft configuration one step nearer to who is there.
    fn pilot(&mut self) {
        let servers = self.configured();
        let present = self.present();
        let (now, me) = (self.now.mono, self.id());
        let gone = self.removed(&servers);
        let Some(leading) = &mut self.leading else { return };
        let settled = self.raft.is_settled && !self.raft.is_joint;
        let change = match leading.changing || !settled {
            true => Change::InFlight,
            false => Change::Settled,
        };
        let committed = self.raft.committed.unwrap_or_default();
        let view = View { leader: me, servers: &servers, present: &present, change, committed };
        let step = leading.autopilot.next_step(now, &view);
        for id in gone {
            self.links.send(id, Lane::Control, Message::Removed);
        }
        let Some(engine) = self.engine.as_mut() else { return };
        let peer = |name: NodeName, addr: String| consensus::Peer { name: name.into(), addr };
        let mut changing = true;
        match step {
            None => return,
            Some(Step::AddLearner { id, name, addr }) => engine.add_learner(id, peer(name, addr)),
            // Raft's own addresses are a fallback: gossip says where a server is now.
            Some(Step::Readdress { .. }) => changing = false,
            Some(
                Step::Promote { voters, .. }
                | Step::Replace { voters, .. }
                | Step::Remove { voters, .. },
            ) => engine.change_voters(voters),
            Some(Step::RemoveLearner { id }) => engine.remove_learner(id),
            Some(Step::HandOver { to }) => return self.transfer(to),
        }
        leading.changing = changing;
    }

    pub(super) fn on_membership_done(
        &mut self,
        change: &consensus::Change,
        result: Result<(), ChangeError>,
    ) {
        if let Err(error) = result {
            tracing::debug!(%error, ?change, "the change of the Raft configuration was not made");
        }
        if let Some(leading) = &mut self.leading {
            leading.changing = false;
            leading.look = Look::Everything;
        }
    }

    fn configured(&self) -> Vec<Server> {
        let since = self.leading.as_ref().map_or(self.now.mono, |leading| leading.since);
        let server = |id: NodeId, role: RaftRole| {
            let gossips = self.roster.is_alive(id) && !self.is_reborn(id);
            let alive = id == self.id() || self.links.session_of(id).is_some() || gossips;
            let dead = Health::Dead { since: self.roster.dead_since(id).unwrap_or(since) };
            Server {
                id,
                name: self.name_of(id),
                addr: self.raft.members.get(&id).map(|peer| peer.addr.clone()).unwrap_or_default(),
                role,
                matched: self.matched(id),
                health: if alive { Health::Alive } else { dead },
                wish: self.wish_of(id),
            }
        };
        let voters = self.raft.voters.iter().map(|&id| server(id, RaftRole::Voter));
        let learners = self.raft.learners.iter().map(|&id| server(id, RaftRole::Learner));
        voters.chain(learners).collect()
    }

    /// Whether another life of the server lives at its address: then this one is dead, whatever
    /// gossip still says.
    fn is_reborn(&self, id: NodeId) -> bool {
        let Some(old) = self.raft.members.get(&id) else { return false };
        self.links.peers().any(|(other, peer)| {
            *other != id
                && peer.session.is_some()
                && peer.hello.name.as_str() == old.name
                && peer.hello.peer_addr == old.addr
        })
    }

    /// What a server wants. That it asked to leave holds for that life alone: whoever starts it
    /// again wants it back.
    fn wish_of(&self, id: NodeId) -> Wish {
        let asked = self.leading.as_ref().and_then(|leading| leading.leaving.get(&id));
        let is_same_life = |boot: &Boot| match id == self.id() {
            true => *boot == self.config.boot,
            false => self.links.peer(id).is_none_or(|peer| peer.hello.boot == *boot),
        };
        if asked.is_some_and(is_same_life) { Wish::Leave } else { Wish::Stay }
    }

    /// Those who asked to leave and are not in the configuration any more.
    fn removed(&self, servers: &[Server]) -> Vec<NodeId> {
        let Some(leading) = &self.leading else { return Vec::new() };
        let is_in = |id: NodeId| servers.iter().any(|server| server.id == id);
        let asked = leading.leaving.keys().copied();
        asked.filter(|&id| !is_in(id) && self.wish_of(id) == Wish::Leave).collect()
    }

    pub(super) fn matched(&self, id: NodeId) -> Option<LogIndex> {
        self.raft.followers.get(&id).and_then(|follower| follower.matched)
    }

    fn present(&self) -> Vec<Present> {
        let me = self.links.me();
        let linked = self.links.peers().filter(|(_, peer)| peer.session.is_some());
        let ours = linked
            .filter(|(_, peer)| peer.hello.server && peer.hello.cluster == me.cluster)
            .map(|(_, peer)| &peer.hello);
        ours.chain(std::iter::once(me))
            .map(|hello| Present {
                id: hello.id,
                name: hello.name.clone(),
                addr: hello.peer_addr.clone(),
                wish: self.wish_of(hello.id),
            })
            .collect()
    }

    /// Tells the leader that this node wants to be removed.
    pub(super) fn wish_to_leave(&mut self) {
        let me = self.id();
        match (self.raft_leader(), &mut self.leading) {
            (Some(leader), Some(leading)) if leader == me => {
                leading.leaving.insert(me, self.config.boot);
                leading.look = Look::Everything;
            }
            (Some(leader), _) => {
                self.links.send(leader, Lane::Control, Message::Leave);
            }
            (None, _) => {}
        }
    }

    /// A node wants to be removed.
    pub(super) fn on_leave_wish(&mut self, from: NodeId) {
        let boot = self.links.peer(from).map(|peer| peer.hello.boot);
        if let (Some(leading), Some(boot)) = (&mut self.leading, boot) {
            leading.leaving.insert(from, boot);
            leading.look = Look::Everything;
        }
    }
}
