//! Sessions between hosts, over packets that may be lost or overtake each other: [`Links`].
//!
//! What a turn sends over one session leaves as one packet with a number. The receiver waits a
//! moment for a packet that was overtaken; one that does not come ends the session, as a broken
//! stream does. A side that hears nothing for [`SILENCE_MAX`] ends it too.
//!
//! **Invariants**
//! - What comes over a session comes in the order of its lanes, each once, without a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use cronclave::codec::frame::Lane;
use cronclave::id::SessionId;
use cronclave::node::io::{DialId, Input};
use cronclave::time::Mono;

/// The port of gossip, on every host.
pub(crate) const GOSSIP_PORT: u16 = 8946;

/// The port of sessions, on every host; packets of both kinds travel over it.
pub(crate) const PEER_PORT: u16 = 6868;

/// A session over which nothing comes for so long is over.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// A session over which nothing is to be said says that it lives.
const KEEP_ALIVE: Duration = Duration::from_millis(500);

/// How long a packet that was overtaken is waited for.
const OVERTAKEN_MAX: Duration = Duration::from_millis(50);

/// A dial without answer has failed after this long.
const DIAL_MAX: Duration = Duration::from_secs(1);

/// Names a connection in the whole simulation.
pub(crate) type ConnId = u64;

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    /// Gossip.
    Datagram { payload: Bytes },
    /// Opens a connection.
    Open { conn: ConnId },
    /// A numbered part of one direction; number 0 answers the opening.
    Data { conn: ConnId, number: u64, frames: Vec<Bytes> },
    /// The connection is over, or unknown.
    Reset { conn: ConnId },
}

impl Packet {
    /// What it is, in one word, for people.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Datagram { .. } => "gossip",
            Self::Open { .. } => "open",
            Self::Data { number: 0, .. } => "opened",
            Self::Data { frames, .. } if frames.is_empty() => "alive",
            Self::Data { .. } => "data",
            Self::Reset { .. } => "reset",
        }
    }
}

/// The host's number in its address.
pub(crate) fn host_of(addr: SocketAddr) -> Option<usize> {
    match addr.ip() {
        IpAddr::V4(ip) => usize::from(ip.octets()[3]).checked_sub(1),
        IpAddr::V6(_) => None,
    }
}

/// The address of a host.
pub(crate) fn addr_of(host: usize, port: u16) -> SocketAddr {
    let last = u8::try_from(host + 1).expect("a simulation has fewer than 255 hosts");
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, last), port))
}

#[derive(Debug)]
struct Conn {
    peer: usize,
    stage: Stage,
    /// The number of the next packet to be sent.
    send_next: u64,
    /// The number of the next packet to be delivered.
    recv_next: u64,
    early: BTreeMap<u64, Vec<Bytes>>,
    gap_since: Option<Mono>,
    /// What came while the session hung.
    held: Vec<Bytes>,
    heard: Mono,
    spoke: Mono,
    waiting: Vec<(Lane, Bytes)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Dialing(DialId),
    Open(SessionId),
}

/// All connections of one boot of a host.
#[derive(Debug, Default)]
pub(crate) struct Links {
    conns: BTreeMap<ConnId, Conn>,
    sessions: BTreeMap<SessionId, ConnId>,
    session_last: u64,
    outgoing: Vec<(usize, Packet)>,
    /// From whom nothing is delivered, though it comes.
    hung: BTreeSet<usize>,
}

impl Links {
    /// Opens a connection under a fresh name.
    pub(crate) fn dial(&mut self, now: Mono, dial: DialId, peer: usize, conn: ConnId) {
        self.conns.insert(conn, new_conn(now, peer, Stage::Dialing(dial), 1, 0));
        self.outgoing.push((peer, Packet::Open { conn }));
    }

    /// Has a frame sent with the next [`Links::flush`].
    pub(crate) fn send(&mut self, session: SessionId, lane: Lane, payload: Bytes) {
        let conn = self.sessions.get(&session).and_then(|conn| self.conns.get_mut(conn));
        if let Some(conn) = conn {
            conn.waiting.push((lane, payload));
        }
    }

    /// Ends a session from this side.
    pub(crate) fn close(&mut self, session: SessionId) {
        if let Some(id) = self.sessions.remove(&session)
            && let Some(conn) = self.conns.remove(&id)
        {
            self.outgoing.push((conn.peer, Packet::Reset { conn: id }));
        }
    }

    /// Everything that is to be sent now: one packet a session, the higher lanes first in it.
    pub(crate) fn flush(&mut self, now: Mono) -> Vec<(usize, Packet)> {
        let mut packets = std::mem::take(&mut self.outgoing);
        for (&id, conn) in &mut self.conns {
            if !conn.waiting.is_empty() {
                packets.push(conn.pack(now, id));
            }
        }
        packets
    }

    /// A packet came from another host.
    pub(crate) fn on_packet(&mut self, now: Mono, from: usize, packet: Packet) -> Vec<Input> {
        match packet {
            Packet::Datagram { payload } => {
                vec![Input::Datagram { from: addr_of(from, GOSSIP_PORT), payload }]
            }
            Packet::Open { conn } => self.on_open(now, from, conn),
            Packet::Data { conn, number, frames } => self.on_data(now, from, conn, number, frames),
            Packet::Reset { conn } => self.end(conn, "the other side has closed it"),
        }
    }

    fn on_open(&mut self, now: Mono, from: usize, id: ConnId) -> Vec<Input> {
        if self.conns.contains_key(&id) {
            // It came twice.
            return Vec::new();
        }
        let session = self.next_session();
        // The dialler's opening was its number 0, the answer is this side's.
        let mut conn = new_conn(now, from, Stage::Open(session), 0, 1);
        self.outgoing.push(conn.pack(now, id));
        self.conns.insert(id, conn);
        self.sessions.insert(session, id);
        vec![Input::Connected { session, dial: None, remote: addr_of(from, PEER_PORT) }]
    }

    fn on_data(
        &mut self,
        now: Mono,
        from: usize,
        id: ConnId,
        number: u64,
        frames: Vec<Bytes>,
    ) -> Vec<Input> {
        let Some(conn) = self.conns.get_mut(&id) else {
            self.outgoing.push((from, Packet::Reset { conn: id }));
            return Vec::new();
        };
        conn.heard = now;
        conn.early.insert(number, frames);
        let expected = conn.recv_next;
        let mut inputs = Vec::new();
        while let Some(frames) = self.conns.get_mut(&id).and_then(Conn::next_in_order) {
            let stage = self.conns.get(&id).map(|conn| conn.stage);
            let session = match stage {
                Some(Stage::Open(session)) => session,
                Some(Stage::Dialing(dial)) => {
                    let session = self.next_session();
                    self.sessions.insert(session, id);
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.stage = Stage::Open(session);
                    }
                    let remote = addr_of(from, PEER_PORT);
                    inputs.push(Input::Connected { session, dial: Some(dial), remote });
                    session
                }
                None => break,
            };
            let hangs = self.hung.contains(&from);
            match self.conns.get_mut(&id).filter(|_| hangs) {
                Some(conn) => conn.held.extend(frames),
                None => {
                    let inputs_of = |payload| Input::Frame { session, payload };
                    inputs.extend(frames.into_iter().map(inputs_of));
                }
            }
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            let waits = !conn.early.is_empty();
            // What was delivered closed the gap; if something still waits, it waits for another.
            let since = conn.gap_since.filter(|_| conn.recv_next == expected);
            conn.gap_since = waits.then(|| since.unwrap_or(now));
        }
        inputs
    }

    /// What comes from a host is held back from here on.
    pub(crate) fn hang(&mut self, from: usize) {
        self.hung.insert(from);
    }

    /// Ends [`Links::hang`]: gives what was held back.
    pub(crate) fn unhang(&mut self, from: usize) -> Vec<Input> {
        let mut inputs = Vec::new();
        if !self.hung.remove(&from) {
            return inputs;
        }
        for conn in self.conns.values_mut().filter(|conn| conn.peer == from) {
            if let Stage::Open(session) = conn.stage {
                let frames = std::mem::take(&mut conn.held).into_iter();
                inputs.extend(frames.map(|payload| Input::Frame { session, payload }));
            }
        }
        inputs
    }

    /// Breaks all sessions with a host; the other side learns of it.
    pub(crate) fn break_with(&mut self, peer: usize) -> Vec<Input> {
        let of_peer = self.conns.iter().filter(|(_, conn)| conn.peer == peer);
        let ids: Vec<ConnId> = of_peer.map(|(&id, _)| id).collect();
        self.outgoing.extend(ids.iter().map(|&conn| (peer, Packet::Reset { conn })));
        ids.into_iter().flat_map(|id| self.end(id, "the connection broke")).collect()
    }

    /// How many frames wait to be sent or delivered.
    pub(crate) fn waiting(&self) -> usize {
        let frames = |conn: &Conn| conn.waiting.len() + conn.held.len() + conn.early.len();
        self.conns.values().map(frames).sum()
    }

    /// Ends what is silent or broken, and says on the others that this side lives.
    pub(crate) fn on_tick(&mut self, now: Mono) -> Vec<Input> {
        let mut over = Vec::new();
        for (&id, conn) in &mut self.conns {
            let past = |since: Mono, limit: Duration| now.saturating_since(since) > limit;
            let dialing = matches!(conn.stage, Stage::Dialing(_));
            if dialing && past(conn.heard, DIAL_MAX) {
                over.push((id, "no answer"));
            } else if past(conn.heard, SILENCE_MAX) {
                over.push((id, "nothing was heard for too long"));
            } else if conn.gap_since.is_some_and(|since| past(since, OVERTAKEN_MAX)) {
                over.push((id, "a packet was lost"));
            } else if !dialing && past(conn.spoke, KEEP_ALIVE) {
                self.outgoing.push(conn.pack(now, id));
            }
        }
        let mut inputs = Vec::new();
        for (id, reason) in over {
            let peer = self.conns.get(&id).map(|conn| conn.peer);
            self.outgoing.extend(peer.map(|peer| (peer, Packet::Reset { conn: id })));
            inputs.extend(self.end(id, reason));
        }
        inputs
    }

    fn end(&mut self, id: ConnId, reason: &str) -> Vec<Input> {
        let Some(conn) = self.conns.remove(&id) else { return Vec::new() };
        let reason = reason.to_owned();
        match conn.stage {
            Stage::Dialing(dial) => vec![Input::ConnectFailed { dial, reason }],
            Stage::Open(session) => {
                self.sessions.remove(&session);
                vec![Input::Disconnected { session, reason }]
            }
        }
    }

    fn next_session(&mut self) -> SessionId {
        self.session_last += 1;
        SessionId(self.session_last)
    }
}

impl Conn {
    fn next_in_order(&mut self) -> Option<Vec<Bytes>> {
        // What was delivered before is a packet that came twice.
        self.early.retain(|number, _| *number >= self.recv_next);
        let frames = self.early.remove(&self.recv_next)?;
        self.recv_next += 1;
        Some(frames)
    }

    fn pack(&mut self, now: Mono, conn: ConnId) -> (usize, Packet) {
        self.waiting.sort_by_key(|(lane, _)| *lane);
        let frames = self.waiting.drain(..).map(|(_, payload)| payload).collect();
        let number = self.send_next;
        self.send_next += 1;
        self.spoke = now;
        (self.peer, Packet::Data { conn, number, frames })
    }
}

fn new_conn(now: Mono, peer: usize, stage: Stage, send_next: u64, recv_next: u64) -> Conn {
    Conn {
        peer,
        stage,
        send_next,
        recv_next,
        early: BTreeMap::new(),
        gap_since: None,
        held: Vec::new(),
        heard: now,
        spoke: now,
        waiting: Vec::new(),
    }
}
