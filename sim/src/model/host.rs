//! One boot of one node, seen from its machine: [`Host`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use cronclave::codec::snapshot::SnapshotFile;
use cronclave::consensus::{Role, SnapshotTask, Status, TaskId};
use cronclave::driver::{Turn, World, turn};
use cronclave::id::{Boot, LogIndex, NodeId, RequestId, Term};
use cronclave::node::Node;
use cronclave::node::io::{Input, Output};
use cronclave::time::{Mono, Now};

use super::archive::{self, Archive, Task};
use super::disk::Writer;
use super::links::{GOSSIP_PORT, Links, Packet, addr_of, host_of};
use super::net::Kind;
use super::{Event, Rebirth, Sim};
use crate::check::coverage::Situation;
use crate::check::seen::{Answer, OpId, Seen};
use crate::plan::Range;
use crate::story::What;

/// How long a look-up takes.
const RESOLVE: Range = Range::micros(1_000, 5_000);

/// How often sessions are looked after.
pub(super) const LINKS_EVERY: Duration = Duration::from_millis(250);

/// After a start on a new disk the node comes up this much later.
const REBORN_AFTER: Duration = Duration::from_millis(200);

/// One boot of one node.
pub(crate) struct Host {
    pub(super) id: NodeId,
    /// Taken out while it runs.
    pub(super) node: Option<Box<Node>>,
    pub(super) inbox: VecDeque<Input>,
    pub(super) links: Links,
    pub(super) writer: Writer,
    pub(super) archive: Archive,
    pub(super) tasks: VecDeque<(TaskId, SnapshotTask)>,
    pub(super) is_installing: bool,
    /// Whether a part of a snapshot has come in that is not installed yet.
    pub(super) is_receiving: bool,
    /// Snapshots that another server reads.
    pub(super) sending: BTreeSet<SnapshotFile>,
    pub(super) open: BTreeMap<RequestId, OpId>,
    request_last: u64,
    /// The deadline of the node, by true time.
    deadline: Option<Mono>,
    /// The earliest wake-up that is on its way.
    armed: Option<Mono>,
    /// Until then the node works at its last turn.
    busy_until: Mono,
    /// Whether a turn is on its way.
    has_turn: bool,
    shown: Shown,
    /// Whether it was told to stop, and is to boot again when it has.
    pub(super) stops: Option<Afterwards>,
    is_over: bool,
}

/// What comes after a stop that a node was told to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Afterwards {
    Rests,
    Boots,
}

/// What the checkers were last shown of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shown {
    role: Option<Role>,
    term: Term,
    leader: Option<NodeId>,
    last: Option<LogIndex>,
    committed: Option<LogIndex>,
    applied: Option<LogIndex>,
}

impl Shown {
    fn of(status: &Status) -> Self {
        Self {
            role: Some(status.role),
            term: status.term,
            leader: status.leader,
            last: status.last,
            committed: status.committed,
            applied: status.applied,
        }
    }
}

impl Host {
    /// Names a request.
    pub(super) fn open(&mut self, op: OpId) -> RequestId {
        self.request_last += 1;
        let id = RequestId(self.request_last);
        self.open.insert(id, op);
        id
    }

    fn node(&self) -> &Node {
        self.node.as_deref().expect("it is taken out only while it runs")
    }

    /// Whether it is not in the middle of a turn.
    pub(super) fn is_at_rest(&self) -> bool {
        self.node.is_some()
    }

    /// How its server stands, if it is one.
    pub(crate) fn status(&self) -> &Status {
        self.node().raft()
    }

    /// Its node.
    pub(crate) fn view(&self) -> &Node {
        self.node()
    }
}

impl Sim {
    /// Boots a machine's node on what its disk holds, if none runs; if one is about to stop, then.
    pub(super) fn boot(&mut self, host: usize) {
        let machine = &mut self.machines[host];
        if let Some(afterwards) = machine.host.as_mut().and_then(|host| host.stops.as_mut()) {
            *afterwards = Afterwards::Boots;
        }
        if machine.host.is_some() || machine.has_left {
            return;
        }
        machine.life += 1;
        machine.is_paused = false;
        if machine.ill.fails_read {
            return self.fail_to_boot(host, "the disk cannot be read");
        }
        machine.boots += 1;
        machine.snapshots_at_boot = Some(machine.snapshots.clone());
        machine.disk.set_snapshot(machine.snapshots.newest());
        let recovered = match machine.disk.recover() {
            Ok(recovered) => recovered,
            Err(damage) => {
                self.checkers.note(Situation::CorruptRecordFound);
                return self.fail_to_boot(host, &damage.to_string());
            }
        };
        if machine.config.is_server()
            && let Err(error) = archive::open(machine)
        {
            return self.fail_to_boot(host, &error.to_string());
        }
        let mut config = machine.config.clone();
        config.boot = Boot(machine.boots);
        let (id, is_server) = (config.id(), config.is_server());
        let (boots, now) = (machine.boots, machine.clock.now(self.now));
        self.see(&Seen::Boot { host, id, is_server, recovered: &recovered });
        let seed = self.draws.boot.any();
        let node = match Node::boot(config, seed, &recovered, now) {
            Ok(node) => node,
            Err(error) => return self.fail_to_boot(host, &error.to_string()),
        };
        self.ids.insert((id, host));
        self.tell(host, || What::Up { boot: boots });
        self.machines[host].host = Some(Box::new(Host {
            id,
            node: Some(Box::new(node)),
            inbox: VecDeque::new(),
            links: Links::default(),
            writer: Writer::default(),
            archive: Archive::default(),
            tasks: VecDeque::new(),
            is_installing: false,
            is_receiving: false,
            sending: BTreeSet::new(),
            open: BTreeMap::new(),
            request_last: 0,
            deadline: None,
            armed: None,
            busy_until: self.now,
            has_turn: false,
            shown: Shown::default(),
            stops: None,
            is_over: false,
        }));
        self.hang_links_of(host);
        self.note_mixed(host);
        self.control.push(super::Control::Up(host));
        let life = self.machines[host].life;
        self.after(LINKS_EVERY, Event::Links { host, life });
        self.turn(host);
    }

    fn fail_to_boot(&mut self, host: usize, reason: &str) {
        let ill = self.machines[host].ill;
        let is_excused = ill.fails_read || ill.is_rotten;
        self.see(&Seen::Halted { host, reason, is_excused });
        let why = reason.to_owned();
        self.tell(host, || What::Down { why: format!("cannot start: {why}") });
    }

    /// The node is dead. Who waits for an answer learns that none will come.
    pub(super) fn bury(&mut self, host: usize, why: &str) {
        let machine = &mut self.machines[host];
        machine.is_paused = false;
        machine.life += 1;
        let Some(dead) = machine.host.take() else { return };
        self.control.push(super::Control::Down(host));
        self.tell(host, || What::Down { why: why.to_owned() });
        self.note_broken_off(&dead);
        for op in dead.open.into_values() {
            self.answered(op, &Answer::Lost);
        }
    }

    /// Gives the node an input, and has it run.
    pub(super) fn give(&mut self, host: usize, input: Input) {
        if let Some(host) = &mut self.machines[host].host {
            host.inbox.push_back(input);
        }
        self.turn_soon(host);
    }

    pub(super) fn give_all(&mut self, host: usize, inputs: Vec<Input>) {
        if inputs.is_empty() {
            return;
        }
        if let Some(host) = &mut self.machines[host].host {
            host.inbox.extend(inputs);
        }
        self.turn_soon(host);
    }

    /// Has the node run as soon as it is not at work.
    pub(super) fn turn_soon(&mut self, index: usize) {
        let (now, machine) = (self.now, &mut self.machines[index]);
        let (life, is_paused) = (machine.life, machine.is_paused);
        let Some(host) = &mut machine.host else { return };
        if is_paused || host.has_turn || host.node.is_none() {
            return;
        }
        host.has_turn = true;
        let at = host.busy_until.max(now);
        self.at(at, Event::Turn { host: index, life });
    }

    pub(super) fn on_turn(&mut self, index: usize) {
        if let Some(host) = &mut self.machines[index].host {
            host.has_turn = false;
        }
        if !self.machines[index].is_paused {
            self.turn(index);
        }
    }

    /// The wake-up that was armed.
    pub(super) fn on_wake(&mut self, index: usize, at: Mono) {
        let now = self.now;
        let Some(host) = &mut self.machines[index].host else { return };
        if host.armed == Some(at) {
            host.armed = None;
        }
        match host.deadline {
            Some(deadline) if deadline <= now => self.turn_soon(index),
            Some(_) => self.arm(index),
            None => {}
        }
    }

    /// Sees to it that the node is woken at its deadline. A wake-up that is on its way stays, and
    /// finds out when it comes whether it came too early.
    fn arm(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let life = machine.life;
        let Some(host) = &mut machine.host else { return };
        let Some(deadline) = host.deadline else { return };
        if host.armed.is_none_or(|armed| armed > deadline) {
            host.armed = Some(deadline);
            self.at(deadline, Event::Wake { host: index, life, at: deadline });
        }
    }

    /// One turn of the production loop.
    pub(super) fn turn(&mut self, index: usize) {
        let Some(host) = &mut self.machines[index].host else { return };
        let Some(mut node) = host.node.take() else { return };
        self.turns += 1;
        let mut port = Port { sim: self, index, acted: false };
        let next = turn(&mut node, &mut port);
        let acted = port.acted;
        let works = self.draws.turn.span(self.options.turn);
        let now = self.now;
        let machine = &mut self.machines[index];
        let clock = &machine.clock;
        let Some(host) = &mut machine.host else { return };
        host.node = Some(node);
        host.busy_until = now + works;
        let mut is_idle = false;
        let again = match next {
            Turn::Again => true,
            Turn::Wait(deadline) => {
                let at = deadline.map(|(at, _)| clock.when(at).max(now));
                is_idle = !acted && at.is_some_and(|at| at <= now);
                // What is due at once comes back in a moment, as a real timer would.
                host.deadline = at.map(|at| if at <= now { now + MOMENT } else { at });
                !host.inbox.is_empty()
            }
        };
        let (is_over, stops) = (host.is_over, host.stops);
        if self.spins.on_turn(index, is_idle) {
            self.spinning(index, next);
        }
        self.send_all(index);
        self.show_status(index);
        self.spring_ambush(index);
        if is_over {
            self.exit(index, "it has stopped");
            if stops == Some(Afterwards::Boots) {
                self.boot(index);
            }
            return;
        }
        if again {
            self.turn_soon(index);
        }
        self.arm(index);
    }

    fn spinning(&mut self, index: usize, next: Turn) {
        let deadline = match next {
            Turn::Wait(Some((_, timer))) => format!("{timer:?}"),
            Turn::Wait(None) | Turn::Again => "none".to_owned(),
        };
        let text = format!("n{} spins: a deadline has passed, of {deadline}", index + 1);
        self.violated("spins", &text);
    }

    /// The clocks of a machine were set: its deadline is another one by true time.
    pub(super) fn clock_was_set(&mut self, index: usize) {
        self.turn_soon(index);
    }

    fn show_status(&mut self, index: usize) {
        let Some(host) = &mut self.machines[index].host else { return };
        let Some(node) = host.node.as_deref() else { return };
        let shown = Shown::of(node.raft());
        if shown == host.shown {
            return;
        }
        let before = std::mem::replace(&mut host.shown, shown);
        let id = host.id;
        // Taken out so that what is shown can be lent while the checkers look at it.
        let node = host.node.take().expect("it was there");
        let committed_term = match before.committed == shown.committed {
            true => None,
            false => node.committed_term(),
        };
        self.see(&Seen::Status { host: index, id, status: node.raft(), committed_term });
        if self.is_settling
            && self.is_watched
            && before.applied != shown.applied
            && let Some(state) = node.state()
        {
            self.checkers.on_state(index, &state);
        }
        if let Some(host) = &mut self.machines[index].host {
            host.node = Some(node);
        }
        let is_news = self.options.is_server(index)
            && (before.role, before.term, before.leader) != (shown.role, shown.term, shown.leader);
        if is_news {
            let leader = shown.leader.and_then(|id| self.host_with_id(id));
            self.tell(index, || What::Stands {
                role: shown.role.unwrap_or_default(),
                term: shown.term,
                leader,
                last: shown.last,
                committed: shown.committed,
                applied: shown.applied,
            });
        }
    }

    /// The machine on which a node of this id runs or ran last.
    pub(super) fn host_with_id(&self, id: NodeId) -> Option<usize> {
        self.machines.iter().position(|machine| machine.config.id() == id)
    }

    pub(super) fn send_all(&mut self, index: usize) {
        let now = self.now;
        let Some(host) = &mut self.machines[index].host else { return };
        for (to, packet) in host.links.flush(now) {
            self.send(index, to, packet);
        }
    }

    fn send(&mut self, from: usize, to: usize, packet: Packet) {
        self.packets += 1;
        self.sent.push(super::Sent { from, to, packet });
    }

    pub(super) fn on_packet(&mut self, from: usize, to: usize, packet: Packet) {
        let now = self.now;
        let Some(host) = &mut self.machines[to].host else {
            // The machine answers for a process that is gone: nobody listens there.
            if let Packet::Data { conn, .. } | Packet::Open { conn } = packet {
                self.send(to, from, Packet::Reset { conn });
            }
            return;
        };
        let inputs = host.links.on_packet(now, from, packet);
        self.give_all(to, inputs);
        self.send_all(to);
    }

    pub(super) fn on_links(&mut self, index: usize) {
        let (now, machine) = (self.now, &mut self.machines[index]);
        let (life, is_paused) = (machine.life, machine.is_paused);
        let Some(host) = &mut machine.host else { return };
        if !is_paused {
            let inputs = host.links.on_tick(now);
            self.give_all(index, inputs);
            self.send_all(index);
        }
        self.after(LINKS_EVERY, Event::Links { host: index, life });
    }

    /// Names are `n1:8946` and so on, or addresses.
    pub(super) fn on_resolved(&mut self, host: usize, name: String) {
        let address = name.parse().ok().and_then(host_of);
        let number = name.strip_prefix('n').and_then(|rest| rest.split(':').next());
        let named = number.and_then(|number| number.parse::<usize>().ok()?.checked_sub(1));
        let known = address.or(named).filter(|index| *index < self.machines.len());
        let result = match known {
            Some(index) => Ok(vec![addr_of(index, GOSSIP_PORT)]),
            None => Err("no such host".to_owned()),
        };
        self.give(host, Input::Resolved { name, result });
    }

    fn perform(&mut self, index: usize, output: Output) {
        let life = self.machines[index].life;
        match output {
            Output::Dial { dial, addr } => self.dial(index, dial, &addr),
            Output::Send { session, lane, payload } => {
                let payload = self.layer.frame(payload);
                if let Some(host) = &mut self.machines[index].host {
                    host.links.send(session, lane, payload);
                }
            }
            Output::Close { session } => {
                if let Some(host) = &mut self.machines[index].host {
                    host.links.close(session);
                }
            }
            Output::Datagram { to, payload } => {
                if let Some(to) = host_of(to).filter(|&to| to < self.machines.len()) {
                    self.send(index, to, Packet::Datagram { payload });
                }
            }
            Output::Resolve { name } => {
                let takes = self.draws.boot.span(RESOLVE);
                self.after(takes, Event::Resolved { host: index, life, name });
            }
            Output::Persist { write, records } => self.persist(index, write, records),
            Output::Snapshot { id, task } => self.push_task(index, id, task),
            Output::History { upto, changes } => {
                let changes = self.layer.changes(changes);
                self.push_archive(index, Task::Apply { upto, changes });
            }
            Output::ReadHistory { id, query } => {
                self.push_archive(index, Task::Read { id, query });
            }
            Output::Launch(spec) => {
                (0..self.layer.starts()).for_each(|_| self.launch(index, &spec));
            }
            Output::Kill { execution, reason } => self.kill_process(index, execution, reason),
            Output::Reply { id, reply } => {
                let host = self.machines[index].host.as_mut();
                if let Some(op) = host.and_then(|host| host.open.remove(&id)) {
                    self.answered(op, &Answer::Reply(reply));
                }
            }
            Output::Event(event) => {
                self.see(&Seen::Event { host: index, event: &event });
                self.note_told(index, &event);
                self.tell(index, || What::Event(event.to_string()));
            }
            Output::Stopped => self.end(index),
            Output::Reincarnate { reason, cluster, join } => {
                self.end(index);
                self.tell(index, || What::Event(format!("it begins anew: {reason}")));
                let incarnation = self.draws.boot.any();
                let life = Box::new(Rebirth { incarnation, cluster, join });
                self.after(REBORN_AFTER, Event::Reborn { host: index, life });
            }
            Output::Halt { reason } => {
                let ill = self.machines[index].ill;
                let is_excused = ill.fails_sync || ill.is_rotten;
                self.see(&Seen::Halted { host: index, reason: &reason, is_excused });
                self.tell(index, || What::Event(format!("it halts: {reason}")));
                self.end(index);
            }
        }
    }

    fn dial(&mut self, index: usize, dial: cronclave::node::io::DialId, addr: &str) {
        let now = self.now;
        let peer = addr.parse().ok().and_then(host_of).filter(|&at| at < self.machines.len());
        self.serial += 1;
        let conn = self.serial;
        let Some(host) = &mut self.machines[index].host else { return };
        match peer {
            Some(peer) => host.links.dial(now, dial, peer, conn),
            None => {
                let reason = "no such address".to_owned();
                host.inbox.push_back(Input::ConnectFailed { dial, reason });
            }
        }
    }

    fn end(&mut self, index: usize) {
        if let Some(host) = &mut self.machines[index].host {
            host.is_over = true;
        }
    }
}

/// How soon a deadline that has passed already is looked at again.
const MOMENT: Duration = Duration::from_micros(100);

impl Packet {
    /// What it belongs to, for the network.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Datagram { .. } => Kind::Datagram,
            Self::Open { .. } | Self::Data { .. } | Self::Reset { .. } => Kind::Stream,
        }
    }
}

/// The world of one node for the length of a turn.
struct Port<'a> {
    sim: &'a mut Sim,
    index: usize,
    /// Whether something came in or went out.
    acted: bool,
}

impl World for Port<'_> {
    fn now(&mut self) -> Now {
        self.sim.machines[self.index].clock.now(self.sim.now)
    }

    fn next_input(&mut self) -> Option<Input> {
        let input = self.sim.machines[self.index].host.as_mut()?.inbox.pop_front()?;
        self.acted = true;
        self.sim.trace(self.index, &input);
        Some(input)
    }

    fn perform(&mut self, output: Output) {
        self.acted = true;
        self.sim.trace(self.index, &output);
        self.sim.perform(self.index, output);
    }
}
