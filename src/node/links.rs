//! The sessions to other nodes: who is dialled, who is heard, what waits to be sent.
//!
//! Of two servers the one with the lower id dials; an agent dials servers. A session begins with a
//! [`Hello`] from each side, and no other message of a side is heard before its own. Dials are
//! repeated for ever, with growing pauses.
//!
//! **Invariants**
//! - A node of another cluster, of a taken name, or with a boot that was seen before is refused.
//! - A node is told that its disk was set back only by a server of its own cluster that has seen a
//!   later boot of it, or an earlier one that held more, at the same address. A live twin elsewhere
//!   is refused, and nothing more.
//! - There is at most one session to a node; of two, the newer stays.
//! - Whom this node has to dial is dialled again when the session with it ends, whoever began that.
//! - What one turn says to one node in one lane leaves as one frame.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::io::{DialId, Output};
use super::message::{Envelope, Hello, Message};
use crate::codec::frame::{FRAME_LEN_MAX, Lane};
use crate::codec::{decode, encode};
use crate::consensus::{Footing, Promise, Standing};
use crate::id::{Boot, ClusterId, NodeId, NodeName, SessionId};
use crate::time::{Mono, Now, Wall};

/// A session whose other side has not said Hello after this long is closed.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before a dial is repeated, first and at most; it doubles in between.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The pause after a refusal: what was refused seldom changes quickly.
const BACKOFF_REFUSED: Duration = Duration::from_secs(5);

/// A refused session is closed after this long, so that the refusal is delivered.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// How many nodes are remembered. The oldest of those without a session are forgotten first.
const PEERS_MAX: usize = 20_000;

/// How many servers' boots are remembered on disk: more than a cluster has, with those that it had.
const MET_MAX: usize = 64;

/// Messages of one frame are split into several beyond this many encoded bytes.
const FRAME_LEN_SOFT: usize = FRAME_LEN_MAX / 4;

/// What became of the links.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// This node may be spoken to.
    Up(NodeId),
    /// This node can no longer be spoken to.
    Down(NodeId),
    /// This node said something new about itself.
    Changed(NodeId),
    /// This node said something.
    Said { from: NodeId, wall: Wall, message: Message },
    /// A node was refused, or refused us.
    Refused(String),
    /// This server was met in a boot that was not known.
    Met(NodeId, Met),
    /// A server of this cluster has seen this node hold more than it does, or be in a later boot
    /// than this one.
    SetBack { by: NodeName, cluster: ClusterId, seen: Boot },
    /// A frame could not be read.
    Garbled { peer: Option<NodeId>, reason: String },
}

/// The last boot of a server that this node has met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Met {
    /// Which one.
    pub(super) boot: Boot,
    /// What it drew at that start.
    pub(super) nonce: u64,
    /// Where it accepted sessions.
    pub(super) addr: String,
}

/// What the replicated state and Raft's configuration say of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    /// The last boot that the leader has admitted.
    pub(super) boot: Boot,
    /// Where it accepts sessions, if that is configured.
    pub(super) addr: Option<String>,
}

/// Why a node is not heard.
#[derive(Debug)]
enum Objection {
    /// For this reason, which it is told.
    Refused(String),
    /// Its disk was set back: this later boot was seen.
    SetBack { seen: Boot },
    /// Its disk was set back: in this earlier boot it held more.
    Outlived { seen: Boot, promise: Promise },
}

impl Objection {
    /// The reason, and what the node of `boot` is told.
    fn tell(self, boot: Boot) -> (String, Message) {
        match self {
            Self::Refused(reason) => (reason.clone(), Message::Refused(reason)),
            Self::SetBack { seen } => (
                format!(
                    "boot {boot} is not after boot {seen}, which was seen here: its disk was set \
                     back"
                ),
                Message::SetBack { boot, seen },
            ),
            Self::Outlived { seen, promise } => (
                format!("it holds less than it did in boot {seen}: its disk was set back"),
                Message::Outlived { boot, seen, promise },
            ),
        }
    }
}

/// What this server knows of a node beside what it heard over sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// What the shared log says.
    pub(super) admitted: Option<Admitted>,
    /// What the node has confirmed to this server as its leader.
    pub(super) promise: Option<Promise>,
}

/// A node that has said Hello.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) hello: Hello,
    pub(super) session: Option<SessionId>,
    pub(super) seen: Mono,
}

#[derive(Debug)]
struct Session {
    remote: SocketAddr,
    dialed: Option<NodeId>,
    peer: Option<NodeId>,
    /// When it is closed unless its other side has said Hello.
    deadline: Option<Mono>,
    refused: bool,
}

#[derive(Debug)]
struct Dial {
    addr: String,
    state: DialState,
    failures: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum DialState {
    Waiting(Mono),
    Dialing(DialId),
    Connected(SessionId),
}

/// All sessions of a node. See the [module](self).
#[derive(Debug)]
pub(super) struct Links {
    me: Hello,
    rng: StdRng,
    sessions: BTreeMap<SessionId, Session>,
    peers: BTreeMap<NodeId, Peer>,
    /// The servers of this cluster that were ever met, this life or before.
    met: BTreeMap<NodeId, Met>,
    dials: BTreeMap<NodeId, Dial>,
    dial_next: u64,
    outgoing: BTreeMap<(SessionId, Lane), Vec<Message>>,
    version: u64,
    outputs: Vec<Output>,
}

impl Links {
    pub(super) fn new(me: Hello, met: BTreeMap<NodeId, Met>, seed: u64) -> Self {
        Self {
            me,
            rng: StdRng::seed_from_u64(seed),
            sessions: BTreeMap::new(),
            peers: BTreeMap::new(),
            met,
            dials: BTreeMap::new(),
            dial_next: 0,
            outgoing: BTreeMap::new(),
            version: 0,
            outputs: Vec::new(),
        }
    }

    pub(super) fn me(&self) -> &Hello {
        &self.me
    }

    /// Changes what this node says about itself, and says it to everybody.
    pub(super) fn update_me(&mut self, change: impl FnOnce(&mut Hello)) {
        let before = self.me.clone();
        change(&mut self.me);
        if self.me != before {
            self.version += 1;
            let open: Vec<SessionId> = self.sessions.keys().copied().collect();
            for session in open {
                self.say(session, Lane::Control, Message::Hello(Box::new(self.me.clone())));
            }
        }
    }

    /// Says to the servers how this one stands, if that has changed.
    pub(super) fn tell_standing(&mut self, standing: Standing) {
        if self.me.standing == standing {
            return;
        }
        self.me.standing = standing.clone();
        self.say_to_servers(&Message::Standing(standing));
    }

    /// Says to the servers how far this one's disk goes, if that has changed.
    pub(super) fn tell_footing(&mut self, footing: Footing) {
        if self.me.footing != footing {
            self.me.footing = footing;
            self.say_to_servers(&Message::Footing(footing));
        }
    }

    fn say_to_servers(&mut self, message: &Message) {
        // Who has not said who it is may be a server, and was told so before.
        let is_agent = |id: NodeId| self.peers.get(&id).is_some_and(|peer| !peer.hello.server);
        let open = self.sessions.iter().filter(|(_, entry)| !entry.peer.is_some_and(is_agent));
        let open: Vec<SessionId> = open.map(|(&session, _)| session).collect();
        for session in open {
            self.say(session, Lane::Control, message.clone());
        }
    }

    /// A peer said how far its disk goes.
    pub(super) fn note_footing(&mut self, id: NodeId, footing: Footing) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.hello.footing = footing;
        }
    }

    /// A peer said how it stands.
    pub(super) fn note_standing(&mut self, id: NodeId, standing: Standing) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.hello.standing = standing;
        }
    }

    /// Rises with every change of what this node or a peer says of itself, but for how it stands in
    /// Raft, and with every change of the sessions.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.peers.iter()
    }

    pub(super) fn peer(&self, id: NodeId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    pub(super) fn session_of(&self, id: NodeId) -> Option<SessionId> {
        self.peers.get(&id)?.session
    }

    /// Names the nodes that this one has to dial, and where. Others are no longer dialled.
    pub(super) fn want(&mut self, now: Mono, targets: BTreeMap<NodeId, String>) {
        self.dials.retain(|id, dial| {
            targets.contains_key(id) || matches!(dial.state, DialState::Connected(_))
        });
        for (id, addr) in targets {
            let connected = self.session_of(id);
            let fresh = || Dial {
                addr: addr.clone(),
                state: connected.map_or(DialState::Waiting(now), DialState::Connected),
                failures: 0,
            };
            let dial = self.dials.entry(id).or_insert_with(fresh);
            if dial.addr != addr {
                dial.addr = addr;
                dial.failures = 0;
            }
        }
    }

    pub(super) fn on_connected(
        &mut self,
        now: Mono,
        session: SessionId,
        dial: Option<DialId>,
        remote: SocketAddr,
    ) {
        let dialing = |state: &DialState| dial.is_some_and(|id| *state == DialState::Dialing(id));
        let found = self.dials.iter_mut().find(|(_, entry)| dialing(&entry.state));
        let dialed = found.map(|(id, entry)| {
            entry.state = DialState::Connected(session);
            *id
        });
        if dial.is_some() && dialed.is_none() {
            self.outputs.push(Output::Close { session });
            return;
        }
        let deadline = Some(now + HELLO_TIMEOUT);
        let entry = Session { remote, dialed, peer: None, deadline, refused: false };
        self.sessions.insert(session, entry);
        self.say(session, Lane::Control, Message::Hello(Box::new(self.me.clone())));
    }

    pub(super) fn on_connect_failed(&mut self, now: Mono, dial: DialId) {
        let failed = self.dials.iter().find(|(_, d)| d.state == DialState::Dialing(dial));
        if let Some((&id, _)) = failed {
            self.back_off(now, id, BACKOFF_MIN);
        }
    }

    fn back_off(&mut self, now: Mono, id: NodeId, least: Duration) {
        let Some(dial) = self.dials.get_mut(&id) else { return };
        let doubled = BACKOFF_MIN.saturating_mul(1 << dial.failures.min(8));
        let pause = doubled.min(BACKOFF_MAX).max(least);
        let jitter = self.rng.random_range(80..=120);
        dial.failures = dial.failures.saturating_add(1);
        dial.state = DialState::Waiting(now + pause * jitter / 100);
    }

    /// Ends a session from this side or learns that it has ended.
    pub(super) fn on_disconnected(&mut self, now: Mono, session: SessionId) -> Vec<LinkEvent> {
        let Some(ended) = self.sessions.remove(&session) else { return Vec::new() };
        self.version += 1;
        self.outgoing.retain(|(id, _), _| *id != session);
        let dialed =
            self.dials.iter().filter(|(_, dial)| dial.state == DialState::Connected(session));
        let dialed: Vec<NodeId> = dialed.map(|(&id, _)| id).collect();
        for id in dialed {
            let was_refused = ended.refused && ended.dialed == Some(id);
            self.back_off(now, id, if was_refused { BACKOFF_REFUSED } else { BACKOFF_MIN });
        }
        let Some(id) = ended.peer else { return Vec::new() };
        let Some(peer) = self.peers.get_mut(&id) else { return Vec::new() };
        if peer.session != Some(session) {
            return Vec::new();
        }
        peer.session = None;
        peer.seen = now;
        vec![LinkEvent::Down(id)]
    }

    /// Reads a frame. `known` says what else is known of a node.
    pub(super) fn on_frame(
        &mut self,
        now: Mono,
        session: SessionId,
        payload: &[u8],
        known: impl Fn(NodeId) -> Known,
    ) -> Vec<LinkEvent> {
        let mut events = Vec::new();
        let peer = match self.sessions.get(&session) {
            None => return events,
            Some(entry) if entry.refused => return events,
            Some(entry) => entry.peer,
        };
        let envelope = match decode::<Envelope>("envelope", payload) {
            Ok(envelope) => envelope,
            Err(error) => {
                events.push(LinkEvent::Garbled { peer, reason: error.to_string() });
                events.extend(self.close(now, session));
                return events;
            }
        };
        for message in envelope.messages {
            let peer = self.sessions.get(&session).and_then(|entry| entry.peer);
            match (message, peer) {
                (Message::Hello(hello), _) => {
                    self.on_hello(now, session, *hello, &known, &mut events);
                    if self.sessions.get(&session).is_none_or(|entry| entry.refused) {
                        return events;
                    }
                }
                (Message::Refused(reason), _) => {
                    let remote = self.sessions.get(&session).map(|entry| entry.remote);
                    let who = remote.map(|addr| addr.to_string()).unwrap_or_default();
                    events.push(LinkEvent::Refused(format!("{who} refuses this node: {reason}")));
                    self.mark_refused(now, session);
                    return events;
                }
                (Message::SetBack { boot, seen }, from) => {
                    events.extend(self.on_set_back(from, boot, seen, seen >= boot));
                    self.mark_refused(now, session);
                    return events;
                }
                (Message::Outlived { boot, seen, promise }, from) => {
                    let holds_less = seen < boot && self.me.footing.breaks(&promise);
                    events.extend(self.on_set_back(from, boot, seen, holds_less));
                    self.mark_refused(now, session);
                    return events;
                }
                (message, Some(from)) => {
                    events.push(LinkEvent::Said { from, wall: envelope.wall, message });
                }
                (_, None) => {
                    let reason = "spoke before it said who it is".to_owned();
                    events.push(LinkEvent::Garbled { peer: None, reason });
                    events.extend(self.close(now, session));
                    return events;
                }
            }
        }
        events
    }

    fn on_hello(
        &mut self,
        now: Mono,
        session: SessionId,
        hello: Hello,
        known: &impl Fn(NodeId) -> Known,
        events: &mut Vec<LinkEvent>,
    ) {
        if hello.id == self.me.id && hello.nonce == self.me.nonce {
            events.extend(self.close(now, session));
            return;
        }
        if let Some(objection) = self.objection(&hello, known(hello.id)) {
            let (reason, message) = objection.tell(hello.boot);
            let who = format!("{} at {}", hello.name, hello.peer_addr);
            events.push(LinkEvent::Refused(format!("refused {who}: {reason}")));
            self.say(session, Lane::Control, message);
            self.mark_refused(now, session);
            return;
        }
        events.extend(self.meet(&hello));
        let id = hello.id;
        let known = self.peers.get(&id).and_then(|peer| peer.session);
        if let Some(old) = known.filter(|&old| old != session) {
            events.extend(self.close(now, old));
        }
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.peer = Some(id);
            entry.deadline = None;
        }
        if let Some(dial) = self.dials.get_mut(&id) {
            dial.state = DialState::Connected(session);
            dial.failures = 0;
        }
        let up = known != Some(session);
        self.peers.insert(id, Peer { hello, session: Some(session), seen: now });
        self.version += 1;
        self.forget_oldest();
        events.push(if up { LinkEvent::Up(id) } else { LinkEvent::Changed(id) });
    }

    /// Remembers a boot of a server of this cluster.
    fn meet(&mut self, hello: &Hello) -> Option<LinkEvent> {
        let is_ours = self.me.cluster.is_some() && hello.cluster == self.me.cluster;
        if !is_ours || !hello.server || !self.me.server {
            return None;
        }
        let met = Met { boot: hello.boot, nonce: hello.nonce, addr: hello.peer_addr.clone() };
        if self.met.get(&hello.id) == Some(&met) {
            return None;
        }
        remember(&mut self.met, hello.id, met.clone());
        Some(LinkEvent::Met(hello.id, met))
    }

    /// A peer says that this node's disk was set back. It is believed if it is a server of this
    /// node's cluster, speaks of this very boot, and what it says `is_so` as far as can be seen
    /// here. A node that knows of no cluster yet was put back to before it belonged to one.
    fn on_set_back(
        &self,
        from: Option<NodeId>,
        boot: Boot,
        seen: Boot,
        is_so: bool,
    ) -> Vec<LinkEvent> {
        let Some(peer) = from.and_then(|id| self.peers.get(&id)) else { return Vec::new() };
        let by = peer.hello.name.clone();
        let reason = format!(
            "{by} has seen this node in boot {seen}, with more than it holds now in boot {boot}"
        );
        let mut events = vec![LinkEvent::Refused(reason)];
        let mine = self.me.cluster;
        let cluster = peer.hello.cluster.filter(|theirs| mine.is_none_or(|mine| mine == *theirs));
        if let Some(cluster) = cluster
            && peer.hello.server
            && boot == self.me.boot
            && is_so
        {
            events.push(LinkEvent::SetBack { by, cluster, seen });
        }
        events
    }

    /// Why a node is not to be heard, if it is not.
    fn objection(&self, hello: &Hello, known: Known) -> Option<Objection> {
        let Known { admitted, promise } = known;
        self.stranger(hello)
            .map(Objection::Refused)
            .or_else(|| self.repeated(hello, admitted))
            .or_else(|| self.outlived(hello, promise))
    }

    /// What is wrong with who the node says it is.
    fn stranger(&self, hello: &Hello) -> Option<String> {
        if hello.id != NodeId::derive(&hello.name, hello.incarnation) {
            return Some("the id does not belong to the name and incarnation".into());
        }
        if let (Some(mine), Some(theirs)) = (self.me.cluster, hello.cluster)
            && mine != theirs
        {
            return Some(format!("it belongs to cluster {theirs}, this node to cluster {mine}"));
        }
        if hello.id == self.me.id {
            return Some("another process uses the same data directory, or a copy of it".into());
        }
        if hello.name == self.me.name {
            let at = &self.me.peer_addr;
            return Some(format!("node-name {} is taken by the live node at {at}", hello.name));
        }
        let namesake = |(id, peer): &(&NodeId, &Peer)| {
            **id != hello.id && peer.session.is_some() && peer.hello.name == hello.name
        };
        if let Some((_, peer)) = self.peers.iter().find(namesake) {
            let at = &peer.hello.peer_addr;
            return Some(format!("node-name {} is taken by the live node at {at}", hello.name));
        }
        let twin = self.peers.get(&hello.id).filter(|peer| {
            peer.session.is_some()
                && peer.hello.nonce != hello.nonce
                && peer.hello.peer_addr != hello.peer_addr
        });
        twin.map(|peer| {
            let at = &peer.hello.peer_addr;
            format!("{} lives at {at}: this is a copy of its data directory", hello.name)
        })
    }

    /// Whether the boot was seen before, and what follows from that.
    fn repeated(&self, hello: &Hello, admitted: Option<Admitted>) -> Option<Objection> {
        let boot = hello.boot;
        let peer = self.peers.get(&hello.id).map(|peer| Met {
            boot: peer.hello.boot,
            nonce: peer.hello.nonce,
            addr: peer.hello.peer_addr.clone(),
        });
        let met = peer.into_iter().chain(self.met.get(&hello.id).cloned());
        let met = met.max_by_key(|met| met.boot);
        let by_itself =
            met.filter(|met| met.boot > boot || (met.boot == boot && met.nonce != hello.nonce));
        let by_log = admitted.filter(|admitted| admitted.boot > boot);
        let (seen, addr) = match (by_itself, by_log) {
            (Some(met), _) => (met.boot, Some(met.addr)),
            (None, Some(admitted)) => (admitted.boot, admitted.addr),
            (None, None) => return None,
        };
        if self.may_set_back(hello, addr.as_deref()) {
            return Some(Objection::SetBack { seen });
        }
        let at = addr.map(|addr| format!(" at {addr}")).unwrap_or_default();
        Some(Objection::Refused(format!(
            "boot {boot} is not after boot {seen}, which was seen{at}: its disk was set back or \
             copied. If nothing else runs under its name, move its data-dir away"
        )))
    }

    /// Whether the node held more in an earlier boot, by what it said or confirmed to this server.
    fn outlived(&self, hello: &Hello, confirmed: Option<Promise>) -> Option<Objection> {
        let earlier = &self.peers.get(&hello.id).filter(|peer| peer.hello.boot < hello.boot)?.hello;
        let promises = [Some(earlier.footing.promise()), confirmed];
        let broken = |promise: &Promise| hello.footing.breaks(promise);
        let promise = promises.into_iter().flatten().find(broken)?;
        let (seen, addr) = (earlier.boot, &earlier.peer_addr);
        if self.may_set_back(hello, Some(addr)) {
            return Some(Objection::Outlived { seen, promise });
        }
        Some(Objection::Refused(format!(
            "it holds less than it did in boot {seen} at {addr}: its disk was set back or copied. \
             If nothing else runs under its name, move its data-dir away"
        )))
    }

    /// Whether the node may be told that its disk was set back, by what was seen at `addr`.
    fn may_set_back(&self, hello: &Hello, addr: Option<&str>) -> bool {
        let Some(mine) = self.me.cluster else { return false };
        let is_ours = hello.cluster.is_none_or(|theirs| theirs == mine);
        // An agent's address is configured nowhere; it holds nothing that a cluster could lose.
        is_ours && self.me.server && addr.map_or(!hello.server, |addr| *addr == hello.peer_addr)
    }

    fn mark_refused(&mut self, now: Mono, session: SessionId) {
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.refused = true;
            entry.deadline = Some(now + REFUSAL_LINGER);
        }
    }

    fn close(&mut self, now: Mono, session: SessionId) -> Vec<LinkEvent> {
        self.outputs.push(Output::Close { session });
        self.on_disconnected(now, session)
    }

    fn forget_oldest(&mut self) {
        while self.peers.len() > PEERS_MAX {
            let idle = self.peers.iter().filter(|(_, peer)| peer.session.is_none());
            let Some((&id, _)) = idle.min_by_key(|(_, peer)| peer.seen) else { return };
            self.peers.remove(&id);
        }
    }

    /// Has `message` sent to `peer` at the end of the turn. False if there is no session to it.
    pub(super) fn send(&mut self, peer: NodeId, lane: Lane, message: Message) -> bool {
        let Some(session) = self.session_of(peer) else { return false };
        self.say(session, lane, message);
        true
    }

    /// Has `message` sent to every peer that can be spoken to.
    pub(super) fn send_all(&mut self, message: &Message) {
        let open: Vec<SessionId> = self.peers.values().filter_map(|peer| peer.session).collect();
        for session in open {
            self.say(session, Lane::Control, message.clone());
        }
    }

    fn say(&mut self, session: SessionId, lane: Lane, message: Message) {
        self.outgoing.entry((session, lane)).or_default().push(message);
    }

    /// Dials what is to be dialled and closes what has waited too long.
    pub(super) fn on_timeout(&mut self, now: Mono) -> Vec<LinkEvent> {
        for dial in self.dials.values_mut() {
            if matches!(dial.state, DialState::Waiting(at) if at <= now) {
                self.dial_next += 1;
                let id = DialId(self.dial_next);
                dial.state = DialState::Dialing(id);
                self.outputs.push(Output::Dial { dial: id, addr: dial.addr.clone() });
            }
        }
        let overdue = |entry: &Session| entry.deadline.is_some_and(|at| at <= now);
        let late: Vec<SessionId> =
            self.sessions.iter().filter(|(_, entry)| overdue(entry)).map(|(&id, _)| id).collect();
        late.into_iter().flat_map(|session| self.close(now, session)).collect()
    }

    pub(super) fn poll_timeout(&self) -> Option<Mono> {
        let waiting = |dial: &Dial| match dial.state {
            DialState::Waiting(at) => Some(at),
            DialState::Dialing(_) | DialState::Connected(_) => None,
        };
        let dials = self.dials.values().filter_map(waiting);
        dials.chain(self.sessions.values().filter_map(|entry| entry.deadline)).min()
    }

    /// Everything that is to be done now: dials, closes, and one frame a session and lane.
    pub(super) fn flush(&mut self, now: Now) -> Vec<Output> {
        let mut outputs = Vec::new();
        for ((session, lane), messages) in std::mem::take(&mut self.outgoing) {
            for payload in frames(now.wall, messages) {
                outputs.push(Output::Send { session, lane, payload });
            }
        }
        outputs.append(&mut self.outputs);
        outputs
    }
}

/// Adds what was met to what is remembered of other servers, and forgets one if they are too many.
pub(super) fn remember(all: &mut BTreeMap<NodeId, Met>, id: NodeId, met: Met) {
    while all.len() >= MET_MAX && !all.contains_key(&id) {
        all.pop_first();
    }
    all.insert(id, met);
}

/// One frame for all messages, or several where they would not fit.
fn frames(wall: Wall, messages: Vec<Message>) -> Vec<bytes::Bytes> {
    let mut envelope = Envelope { wall, messages };
    let whole = encode(&envelope);
    if whole.len() <= FRAME_LEN_SOFT || envelope.messages.len() < 2 {
        return vec![whole];
    }
    let rest = envelope.messages.split_off(envelope.messages.len() / 2);
    let mut halves = frames(wall, envelope.messages);
    halves.extend(frames(wall, rest));
    halves
}

#[cfg(test)]
mod tests;
