//! Who is alive: [`Roster`], SWIM gossip by `foca` without its clock and its sockets.
//!
//! foca decides; this part holds its timers, wraps its messages with a version and the cluster's
//! id, drops what does not belong here, and looks for other nodes at the `retry-join` names.
//!
//! **Invariants**
//! - [`Roster::on_datagram`] is total: what is not well-formed is counted, reported at most once a
//!   minute for each sender, and dropped.
//! - Members of two founded clusters never mix. A node that belongs to none listens only to the
//!   first cluster of which a server speaks to it, for as long as it knows a live member of it.
//! - The roster holds at most [`MEMBERS_MAX`] nodes, dead ones included, and one datagram more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use foca::{Codec, Foca, NoCustomBroadcast, Notification, Runtime, Timer};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::gossip::{self, DatagramError, GossipCodec, Gossiper, Profile};
use super::join::Joins;
use crate::id::{ClusterId, NodeId};
use crate::time::Mono;

/// The most nodes that the roster holds. Datagrams that would exceed it are dropped.
pub const MEMBERS_MAX: usize = 16_384;

/// The most effects that wait to be polled; beyond, datagrams are lost, as a network may lose them.
const EFFECTS_MAX: usize = 65_536;

/// The most senders of refused datagrams that are remembered, so as to report each but once.
const REFUSED_SENDERS_MAX: usize = 256;

/// How long a sender of refused datagrams is not reported again.
const REFUSED_QUIET: Duration = Duration::from_secs(60);

/// How often the farewell is gossiped before the node is gone, and the time between.
const LEAVE_ROUNDS: u32 = 3;
const LEAVE_PERIOD: Duration = Duration::from_millis(200);

/// What a [`Roster`] has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node. `generation` starts at 0 with each boot.
    pub me: Gossiper,
    /// How patient gossip is.
    pub profile: Profile,
    /// Names to look for others at, as they stand in the configuration; the shell resolves them.
    pub join: Vec<String>,
    /// The longest time between two rounds of looking, 1 s at least.
    pub retry_interval: Duration,
    /// How long a dead node is remembered and tried again.
    pub reconnect_timeout: Duration,
    /// The cluster that this node belongs to, if any.
    pub cluster: Option<ClusterId>,
}

/// What the roster wants done, and what it has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RosterEffect {
    /// Send this datagram.
    Datagram {
        /// Its receiver.
        to: SocketAddr,
        /// At most [`gossip::DATAGRAM_LEN_MAX`] bytes.
        bytes: Bytes,
    },
    /// Resolve this name and answer with [`Roster::on_resolved`].
    Resolve {
        /// As it stands in the configuration.
        join: String,
    },
    /// A node is alive, or a living one has new facts (another boot or address).
    Up(Gossiper),
    /// A node is dead or has left.
    Down(Gossiper),
    /// The others had declared this node dead; it lives on in a new generation.
    Renewed(Gossiper),
    /// A server of a founded cluster spoke to this node, which belongs to none.
    FoundedElsewhere(ClusterId),
    /// A name could not be resolved, for a reason that is news. It will be tried again.
    JoinFailed {
        /// The name.
        join: String,
        /// What was wrong.
        reason: String,
    },
    /// A datagram was dropped.
    Rejected {
        /// Who sent it.
        from: SocketAddr,
        /// What was wrong with it.
        reason: DatagramError,
    },
    /// The farewell is out; the roster is silent from now on.
    Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Member,
    Leaving { round_at: Mono, rounds_left: u32 },
    Left,
}

/// The nodes that are alive, as far as gossip knows. See the module.
pub struct Roster {
    foca: Foca<Gossiper, GossipCodec, StdRng, NoCustomBroadcast>,
    rng: StdRng,
    profile: Profile,
    reconnect_timeout: Duration,
    /// The number of nodes that foca's timings were computed for.
    sized_for: usize,
    cluster: Option<ClusterId>,
    /// The founded cluster that we listen to while we belong to none.
    leaning: Option<ClusterId>,
    phase: Phase,
    now: Mono,
    timers: BTreeMap<(Mono, u64), Timer<Gossiper>>,
    timer_seq: u64,
    joins: Joins,
    alive: BTreeMap<NodeId, Gossiper>,
    version: u64,
    dead_since: BTreeMap<NodeId, Mono>,
    effects: VecDeque<RosterEffect>,
    refused: BTreeMap<SocketAddr, Mono>,
    rejected_count: u64,
    members_max: usize,
}

impl Roster {
    /// A roster that knows nobody; its first round of looking is due at once.
    pub fn new(config: Config, seed: u64, now: Mono) -> Self {
        let me = config.me.canonical();
        let mut rng = StdRng::seed_from_u64(seed);
        let foca = Foca::new(
            me,
            config.profile.foca_config(1, config.reconnect_timeout),
            StdRng::from_rng(&mut rng),
            GossipCodec { me: me.id },
        );
        Self {
            foca,
            rng,
            profile: config.profile,
            reconnect_timeout: config.reconnect_timeout,
            sized_for: 1,
            cluster: config.cluster,
            leaning: None,
            phase: Phase::Member,
            now,
            timers: BTreeMap::new(),
            timer_seq: 0,
            joins: Joins::new(me.gossip, config.join, config.retry_interval, now),
            alive: BTreeMap::new(),
            version: 0,
            dead_since: BTreeMap::new(),
            effects: VecDeque::new(),
            refused: BTreeMap::new(),
            rejected_count: 0,
            members_max: MEMBERS_MAX,
        }
    }

    /// Takes a datagram from the network, whatever it is.
    pub fn on_datagram(&mut self, now: Mono, from: SocketAddr, bytes: &[u8]) {
        self.advance(now);
        if self.phase != Phase::Member {
            return;
        }
        if let Err(reason) = self.take_datagram(from, bytes) {
            self.reject(from, reason);
        }
    }

    /// Takes what a name of [`RosterEffect::Resolve`] stands for, or why nobody knows.
    pub fn on_resolved(&mut self, now: Mono, join: &str, result: Result<Vec<SocketAddr>, String>) {
        self.advance(now);
        if self.phase != Phase::Member {
            return;
        }
        match self.joins.on_resolved(join, result) {
            Ok(addrs) => {
                let live = self.live_addrs();
                let fresh = |addr: &SocketAddr| !live.contains(addr) && gossip::is_sendable(*addr);
                for addr in addrs.into_iter().filter(fresh) {
                    self.drive(|foca, out| foca.announce(Gossiper::anyone_at(addr), out));
                }
            }
            Err(Some(reason)) => {
                self.effects.push_back(RosterEffect::JoinFailed { join: join.to_owned(), reason });
            }
            Err(None) => {}
        }
    }

    /// Does what is due.
    pub fn on_timeout(&mut self, now: Mono) {
        self.advance(now);
        match self.phase {
            Phase::Member => {
                // foca's timers come in the order of their deadlines and set only later ones.
                while let Some(entry) = self.timers.first_entry() {
                    if entry.key().0 > self.now {
                        break;
                    }
                    let timer = entry.remove();
                    if let Timer::RemoveDown(gone) = &timer {
                        self.dead_since.remove(&gone.id);
                    }
                    self.drive(|foca, out| foca.handle_timer(timer, out));
                }
                if self.joins.poll_timeout().is_none_or(|at| at > self.now) {
                    return;
                }
                let live = self.live_addrs();
                for join in self.joins.on_timeout(self.now, &live, &mut self.rng) {
                    self.effects.push_back(RosterEffect::Resolve { join });
                }
            }
            Phase::Leaving { round_at, rounds_left } if round_at <= self.now => {
                self.leave_round(rounds_left);
            }
            Phase::Leaving { .. } | Phase::Left => {}
        }
    }

    /// When [`Roster::on_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Mono> {
        match self.phase {
            Phase::Member => {
                let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
                timer.into_iter().chain(self.joins.poll_timeout()).min()
            }
            Phase::Leaving { round_at, .. } => Some(round_at),
            Phase::Left => None,
        }
    }

    /// Tells the others that this node goes for good; ends with [`RosterEffect::Left`].
    pub fn leave(&mut self, now: Mono) {
        self.advance(now);
        if self.phase != Phase::Member {
            return;
        }
        self.drive(|foca, out| foca.leave_cluster(out));
        self.timers.clear();
        let rounds = if self.alive.is_empty() { 0 } else { LEAVE_ROUNDS - 1 };
        self.schedule_leave(rounds);
    }

    /// This node belongs to `cluster` from now on. Members of another are forgotten as they fall
    /// silent to us.
    pub fn set_cluster(&mut self, cluster: ClusterId) {
        self.cluster = Some(cluster);
        self.leaning = None;
    }

    /// What there is to do or to tell, in order. To be drained after every call.
    pub fn poll_effect(&mut self) -> Option<RosterEffect> {
        self.effects.pop_front()
    }

    /// This node as the others know it.
    pub fn me(&self) -> &Gossiper {
        self.foca.identity()
    }

    /// Rises with every change of [`Roster::members`].
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The other nodes that are alive, by id.
    pub fn members(&self) -> impl Iterator<Item = &Gossiper> {
        self.alive.values()
    }

    /// The node `id`, if it is alive and another.
    pub fn member(&self, id: NodeId) -> Option<&Gossiper> {
        self.alive.get(&id)
    }

    /// Whether `id` is alive, which this node itself always is.
    pub fn is_alive(&self, id: NodeId) -> bool {
        id == self.me().id || self.alive.contains_key(&id)
    }

    /// Since when `id` is known to be dead; `None` for the living and for those never heard of.
    pub fn dead_since(&self, id: NodeId) -> Option<Mono> {
        self.dead_since.get(&id).copied()
    }

    /// The `retry-join` names of which nothing was heard, and why, for people.
    pub fn unanswered(&self) -> Vec<String> {
        self.joins.unanswered(&self.live_addrs())
    }

    /// How many datagrams were dropped since the start.
    pub fn rejected_count(&self) -> u64 {
        self.rejected_count
    }

    fn advance(&mut self, now: Mono) {
        self.now = self.now.max(now);
    }

    fn live_addrs(&self) -> BTreeSet<SocketAddr> {
        self.alive.values().map(|member| member.gossip).collect()
    }

    fn take_datagram(&mut self, from: SocketAddr, bytes: &[u8]) -> Result<(), DatagramError> {
        let (theirs, message) = gossip::unwrap(bytes)?;
        if let (Some(ours), Some(theirs)) = (self.cluster.or(self.leaning), theirs)
            && ours != theirs
        {
            return Err(DatagramError::OtherCluster { theirs, ours });
        }
        let mut codec = GossipCodec { me: self.me().id };
        let malformed = |error: &dyn std::fmt::Display| DatagramError::Malformed(error.to_string());
        let header = codec.decode_header(message).map_err(|error| malformed(&error))?;
        if header.src.id == self.me().id {
            // Our own greeting came back: one of the join addresses is ours.
            self.joins.on_heard(from);
            return Ok(());
        }
        if self.foca.iter_membership_state().len() >= self.members_max {
            self.check_no_newcomer(message)?;
        }
        let is_to_me = header.dst.id == self.me().id;
        self.try_drive(|foca, out| foca.handle_data(message, out)).map_err(|e| malformed(&e))?;
        self.joins.on_heard(from);
        if let Some(theirs) = theirs
            && self.cluster.or(self.leaning).is_none()
            && header.src.server
            && is_to_me
        {
            self.leaning = Some(theirs);
            self.effects.push_back(RosterEffect::FoundedElsewhere(theirs));
        }
        Ok(())
    }

    /// Whether a full roster can take `message`: only if it knows all nodes in it.
    fn check_no_newcomer(&self, mut message: &[u8]) -> Result<(), DatagramError> {
        use bytes::Buf;
        let mut codec = GossipCodec { me: self.me().id };
        let malformed = |error: gossip::CodecError| DatagramError::Malformed(error.to_string());
        let known: BTreeSet<NodeId> =
            self.foca.iter_membership_state().map(|member| member.id().id).collect();
        let is_known = |id: NodeId| known.contains(&id) || id == self.me().id;
        let header = codec.decode_header(&mut message).map_err(malformed)?;
        let count = if message.len() >= 2 { message.get_u16() } else { 0 };
        let mut all_known = is_known(header.src.id);
        for _ in 0..count {
            let member = codec.decode_member(&mut message).map_err(malformed)?;
            all_known &= is_known(member.id().id);
        }
        if all_known { Ok(()) } else { Err(DatagramError::Full) }
    }

    fn reject(&mut self, from: SocketAddr, reason: DatagramError) {
        self.rejected_count = self.rejected_count.saturating_add(1);
        let now = self.now;
        self.refused.retain(|_, at| now.saturating_since(*at) < REFUSED_QUIET);
        if self.refused.contains_key(&from) || self.refused.len() >= REFUSED_SENDERS_MAX {
            return;
        }
        self.refused.insert(from, now);
        self.effects.push_back(RosterEffect::Rejected { from, reason });
    }

    fn schedule_leave(&mut self, rounds_left: u32) {
        if rounds_left == 0 {
            self.phase = Phase::Left;
            self.effects.push_back(RosterEffect::Left);
        } else {
            self.phase = Phase::Leaving { round_at: self.now + LEAVE_PERIOD, rounds_left };
        }
    }

    fn leave_round(&mut self, rounds_left: u32) {
        self.drive(|foca, out| foca.gossip(out));
        self.schedule_leave(rounds_left - 1);
    }

    /// Lets foca act where it can only fail by a fault of its own, which it survives.
    fn drive(
        &mut self,
        act: impl FnOnce(
            &mut Foca<Gossiper, GossipCodec, StdRng, NoCustomBroadcast>,
            &mut Outbox,
        ) -> Result<(), foca::Error>,
    ) {
        if let Err(error) = self.try_drive(act) {
            tracing::debug!(%error, "gossip went on after an error");
        }
    }

    /// Lets foca act, and takes over what it wants done.
    fn try_drive(
        &mut self,
        act: impl FnOnce(
            &mut Foca<Gossiper, GossipCodec, StdRng, NoCustomBroadcast>,
            &mut Outbox,
        ) -> Result<(), foca::Error>,
    ) -> Result<(), foca::Error> {
        let mut outbox = Outbox::default();
        let result = act(&mut self.foca, &mut outbox);
        let me = self.me().id;
        let cluster = self.cluster;
        for (to, message) in outbox.sends {
            if to.id != me && self.effects.len() < EFFECTS_MAX {
                let bytes = gossip::wrap(cluster, &message);
                self.effects.push_back(RosterEffect::Datagram { to: to.gossip, bytes });
            }
        }
        for (timer, after) in outbox.timers {
            self.set_timer(timer, after);
        }
        if outbox.renewed {
            self.effects.push_back(RosterEffect::Renewed(*self.foca.identity()));
        }
        if !outbox.touched.is_empty() {
            self.reconcile(&outbox.touched);
        }
        result
    }

    fn set_timer(&mut self, timer: Timer<Gossiper>, after: Duration) {
        if let Timer::RemoveDown(gone) = &timer {
            // A node that comes and goes would leave a timer of a day each time.
            self.timers.retain(|_, other| match other {
                Timer::RemoveDown(other) => other.id != gone.id,
                Timer::ProbeRandomMember(_)
                | Timer::SendIndirectProbe { .. }
                | Timer::ChangeSuspectToDown { .. }
                | Timer::PeriodicAnnounce(_)
                | Timer::PeriodicAnnounceDown(_)
                | Timer::PeriodicGossip(_) => true,
            });
        }
        self.timer_seq += 1;
        self.timers.insert((self.now + after, self.timer_seq), timer);
    }

    /// Brings our view of the nodes `touched` in line with foca's, and tells what is new.
    fn reconcile(&mut self, touched: &BTreeSet<NodeId>) {
        let me = self.me().id;
        let active: BTreeMap<NodeId, Gossiper> = self
            .foca
            .iter_members()
            .filter(|member| touched.contains(&member.id().id))
            .map(|member| (member.id().id, *member.id()))
            .collect();
        for id in touched.iter().filter(|id| **id != me) {
            match (active.get(id), self.alive.get(id).copied()) {
                (Some(now), before) if before != Some(*now) => {
                    self.alive.insert(*id, *now);
                    self.version += 1;
                    self.dead_since.remove(id);
                    self.effects.push_back(RosterEffect::Up(*now));
                }
                (None, Some(before)) => {
                    self.alive.remove(id);
                    self.version += 1;
                    self.dead_since.insert(*id, self.now);
                    self.effects.push_back(RosterEffect::Down(before));
                    if before.server {
                        self.joins.on_server_down(before.gossip, self.now, &mut self.rng);
                    } else if self.alive.is_empty() {
                        self.joins.hurry(self.now, &mut self.rng);
                    }
                }
                (Some(_), _) | (None, None) => {}
            }
        }
        if self.alive.is_empty() {
            self.leaning = None;
        }
        let size = self.alive.len() + 1;
        if size.ilog2() != self.sized_for.ilog2() || size.ilog10() != self.sized_for.ilog10() {
            let config = self.profile.foca_config(size, self.reconnect_timeout);
            self.foca.set_config(config).expect("only what may change has changed");
            self.sized_for = size;
        }
    }
}

/// What foca wants done in one call.
#[derive(Default)]
struct Outbox {
    sends: Vec<(Gossiper, Vec<u8>)>,
    timers: Vec<(Timer<Gossiper>, Duration)>,
    touched: BTreeSet<NodeId>,
    renewed: bool,
}

impl Runtime<Gossiper> for Outbox {
    fn notify(&mut self, notification: Notification<'_, Gossiper>) {
        match notification {
            Notification::MemberUp(member) | Notification::MemberDown(member) => {
                self.touched.insert(member.id);
            }
            Notification::Rename(before, after) => {
                self.touched.extend([before.id, after.id]);
            }
            Notification::Rejoin(_) => self.renewed = true,
            Notification::Active | Notification::Idle | Notification::Defunct => {}
        }
    }

    fn send_to(&mut self, to: Gossiper, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Gossiper>, after: Duration) {
        self.timers.push((event, after));
    }
}

#[cfg(test)]
mod tests;
