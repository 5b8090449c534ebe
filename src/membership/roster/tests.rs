//! Rosters in a simulated network: an event heap, with loss, delays, cuts and names.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use rand::RngExt;

use super::*;
use crate::id::Boot;

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

enum Event {
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Bytes },
    Resolve { at: usize, join: String },
}

struct World {
    now: Mono,
    rng: StdRng,
    seq: u64,
    events: BTreeMap<(Mono, u64), Event>,
    rosters: Vec<Option<Roster>>,
    names: BTreeMap<String, Vec<SocketAddr>>,
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    loss_percent: u32,
    told: Vec<Vec<RosterEffect>>,
    sent: u64,
}

fn addr(n: usize) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, 0, u8::try_from(n + 1).unwrap()).into(), 8946)
}

fn id(n: usize) -> NodeId {
    NodeId(u64::try_from(n).unwrap() + 100)
}

fn config(n: usize, join: &[&str]) -> Config {
    let me = Gossiper {
        id: id(n),
        boot: Boot(1),
        generation: 0,
        gossip: addr(n),
        peer_port: 6868,
        server: true,
    };
    Config {
        me,
        profile: Profile::Lan,
        join: join.iter().map(|name| (*name).to_owned()).collect(),
        retry_interval: 30 * SEC,
        reconnect_timeout: 24 * 3_600 * SEC,
        cluster: None,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            now: Mono::ZERO,
            rng: StdRng::seed_from_u64(seed),
            seq: 0,
            events: BTreeMap::new(),
            rosters: Vec::new(),
            names: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss_percent: 0,
            told: Vec::new(),
            sent: 0,
        }
    }

    /// `count` nodes that look for each other at the name of the first.
    fn of(seed: u64, count: usize) -> Self {
        let mut world = Self::new(seed);
        world.names.insert("first".to_owned(), vec![addr(0)]);
        for n in 0..count {
            world.start(n, config(n, &["first"]));
        }
        world
    }

    fn start(&mut self, at: usize, config: Config) {
        let roster = Roster::new(config, self.rng.random(), self.now);
        if at == self.rosters.len() {
            self.rosters.push(None);
            self.told.push(Vec::new());
        }
        self.rosters[at] = Some(roster);
    }

    fn stop(&mut self, at: usize) {
        self.rosters[at] = None;
    }

    fn after(&mut self, millis: std::ops::Range<u32>, event: Event) {
        let delay = MS * self.rng.random_range(millis);
        self.seq += 1;
        self.events.insert((self.now + delay, self.seq), event);
    }

    fn drain(&mut self, at: usize) {
        while let Some(roster) = &mut self.rosters[at]
            && let Some(effect) = roster.poll_effect()
        {
            let from = roster.me().gossip;
            match effect {
                RosterEffect::Datagram { to, bytes } => {
                    assert!(bytes.len() <= gossip::DATAGRAM_LEN_MAX);
                    self.sent += 1;
                    if self.rng.random_range(0..100) >= self.loss_percent {
                        self.after(1..30, Event::Datagram { from, to, bytes });
                    }
                }
                RosterEffect::Resolve { join } => {
                    self.after(1..50, Event::Resolve { at, join });
                }
                RosterEffect::Up(_)
                | RosterEffect::Down(_)
                | RosterEffect::Renewed(_)
                | RosterEffect::FoundedElsewhere(_)
                | RosterEffect::JoinFailed { .. }
                | RosterEffect::Rejected { .. }
                | RosterEffect::Left => self.told[at].push(effect),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Datagram { from, to, bytes } => {
                let is_at = |roster: &Option<Roster>| {
                    roster.as_ref().is_some_and(|roster| roster.me().gossip == to)
                };
                if let Some(at) = self.rosters.iter().position(is_at)
                    && !self.cut.contains(&(from, to))
                {
                    self.rosters[at].as_mut().unwrap().on_datagram(now, from, &bytes);
                    self.drain(at);
                }
            }
            Event::Resolve { at, join } => {
                let result = self.names.get(&join).cloned().ok_or("no such name".to_owned());
                if let Some(roster) = &mut self.rosters[at] {
                    roster.on_resolved(now, &join, result);
                    self.drain(at);
                }
            }
        }
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..2_000_000 {
            let timers = self.rosters.iter().enumerate().filter_map(|(at, roster)| {
                let timeout = roster.as_ref()?.poll_timeout()?;
                Some((timeout.max(self.now), at))
            });
            let timer = timers.min().filter(|(due, _)| *due <= end);
            let event = self.events.first_key_value().map(|((due, _), _)| *due);
            match (timer, event.filter(|due| *due <= end)) {
                (Some((due, at)), event) if event.is_none_or(|event| due < event) => {
                    self.now = due;
                    let roster = self.rosters[at].as_mut().unwrap();
                    roster.on_timeout(due);
                    assert!(roster.poll_timeout().is_none_or(|next| next > due), "spins");
                    self.drain(at);
                }
                (_, Some(due)) => {
                    self.now = due;
                    let (_, event) = self.events.pop_first().unwrap();
                    self.handle(event);
                }
                (_, None) => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("too many events");
    }

    /// Runs until `done`, at most for `limit`; how long it took.
    fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            let took = self.now.saturating_since(start);
            assert!(took < limit, "not done after {took:?}");
            self.run_for(100 * MS);
        }
        self.now.saturating_since(start)
    }

    fn roster(&self, at: usize) -> &Roster {
        self.rosters[at].as_ref().unwrap()
    }

    fn running(&self) -> Vec<usize> {
        (0..self.rosters.len()).filter(|at| self.rosters[*at].is_some()).collect()
    }

    /// Whether every running node sees exactly the running ones, as they are now.
    fn is_complete(&self) -> bool {
        let running = self.running();
        running.iter().all(|at| {
            let seen: Vec<Gossiper> = self.roster(*at).members().copied().collect();
            let mut there: Vec<Gossiper> = running
                .iter()
                .filter(|other| *other != at)
                .map(|other| *self.roster(*other).me())
                .collect();
            there.sort();
            seen == there
        })
    }

    fn cut_between(&mut self, left: &[usize], right: &[usize]) {
        for a in left {
            for b in right {
                self.cut.extend([(addr(*a), addr(*b)), (addr(*b), addr(*a))]);
            }
        }
    }
}

#[test]
fn two_to_nine_nodes_find_each_other_despite_loss() {
    for count in 2..=9 {
        let mut world = World::of(count as u64, count);
        world.loss_percent = 20;
        world.run_until(30 * SEC, World::is_complete);
    }
}

#[test]
fn nodes_stay_known_to_each_other_for_an_hour_without_a_false_alarm() {
    let mut world = World::of(5, 5);
    world.loss_percent = 2;
    world.run_until(30 * SEC, World::is_complete);
    world.told.iter_mut().for_each(Vec::clear);
    world.sent = 0;
    world.run_for(3_600 * SEC);
    assert!(world.told.iter().all(Vec::is_empty), "{:?}", world.told);
    assert!(world.sent < 5 * 3_600 * 8, "{} datagrams in an hour", world.sent);
}

#[test]
fn a_death_is_seen_by_all_within_fifteen_seconds() {
    let mut world = World::of(7, 5);
    world.loss_percent = 5;
    world.run_until(30 * SEC, World::is_complete);
    world.stop(2);
    let took = world.run_until(15 * SEC, World::is_complete);
    assert!(took > 3 * SEC, "suspicion has its time: {took:?}");
    for at in world.running() {
        assert!(!world.roster(at).is_alive(id(2)));
        assert!(world.roster(at).dead_since(id(2)).is_some());
    }
}

#[test]
fn a_restart_under_a_higher_boot_takes_the_place_of_the_old_life() {
    let mut world = World::of(11, 4);
    world.run_until(30 * SEC, World::is_complete);
    world.stop(3);
    let mut again = config(3, &["first"]);
    again.me.boot = Boot(2);
    world.start(3, again.clone());
    world.run_until(10 * SEC, World::is_complete);
    assert_eq!(world.roster(0).member(id(3)).map(|member| member.boot), Some(Boot(2)));
    assert!(!world.told[0].iter().any(|told| matches!(told, RosterEffect::Down(_))));

    world.stop(3);
    world.run_until(20 * SEC, World::is_complete);
    again.me.boot = Boot(3);
    world.start(3, again);
    world.run_until(10 * SEC, World::is_complete);
    assert_eq!(world.roster(1).member(id(3)).map(|member| member.boot), Some(Boot(3)));
}

#[test]
fn a_node_that_moved_to_another_address_is_known_there() {
    let mut world = World::of(13, 3);
    world.run_until(30 * SEC, World::is_complete);
    world.stop(2);
    let mut moved = config(2, &["first"]);
    moved.me.boot = Boot(2);
    moved.me.gossip = addr(99);
    world.start(2, moved);
    world.run_until(10 * SEC, World::is_complete);
    assert_eq!(world.roster(1).member(id(2)).map(|member| member.gossip), Some(addr(99)));
}

#[test]
fn when_all_but_the_agent_moved_it_finds_them_by_their_names() {
    let mut world = World::new(17);
    world.names.insert("servers".to_owned(), vec![addr(0), addr(1)]);
    for n in 0..3 {
        world.start(n, config(n, &["servers"]));
    }
    world.run_until(30 * SEC, World::is_complete);
    world.stop(0);
    world.stop(1);
    world.run_until(30 * SEC, |world| world.roster(2).members().count() == 0);
    world.names.insert("servers".to_owned(), vec![addr(50), addr(51)]);
    for n in 0..2 {
        let mut moved = config(n, &["servers"]);
        moved.me.boot = Boot(2);
        moved.me.gossip = addr(50 + n);
        // They do not look for anybody: the agent has to come to them.
        moved.join.clear();
        world.start(n, moved);
    }
    world.run_until(5 * SEC, |world| world.roster(2).members().count() == 2);
}

#[test]
fn a_name_that_resolves_late_is_tried_until_it_does() {
    let mut world = World::new(19);
    world.start(0, config(0, &[]));
    world.start(1, config(1, &["later"]));
    world.run_for(300 * SEC);
    let failed: Vec<_> = world.told[1].iter().collect();
    let reason = "no such name".to_owned();
    assert_eq!(failed, [&RosterEffect::JoinFailed { join: "later".to_owned(), reason }]);
    assert_eq!(world.roster(1).unanswered(), ["later does not resolve: no such name"]);
    world.names.insert("later".to_owned(), vec![addr(0)]);
    world.run_until(3 * SEC, World::is_complete);
    assert_eq!(world.roster(1).unanswered(), Vec::<String>::new());
}

#[test]
fn an_address_that_does_not_answer_is_named() {
    let mut world = World::new(23);
    world.names.insert("all".to_owned(), vec![addr(0), addr(1), addr(2)]);
    world.start(0, config(0, &["all"]));
    world.start(1, config(1, &["all"]));
    world.run_until(10 * SEC, World::is_complete);
    assert_eq!(world.roster(0).unanswered(), ["no answer from all (10.0.0.3:8946)"]);
}

#[test]
fn two_halves_that_declared_each_other_dead_heal() {
    let mut world = World::of(29, 6);
    world.run_until(30 * SEC, World::is_complete);
    world.cut_between(&[0, 1, 2], &[3, 4, 5]);
    world.run_until(60 * SEC, |world| (0..6).all(|at| world.roster(at).members().count() == 2));
    world.run_for(600 * SEC);
    world.cut.clear();
    world.run_until(60 * SEC, World::is_complete);
    let is_renewed = |told: &RosterEffect| matches!(told, RosterEffect::Renewed(_));
    assert!(world.told.iter().flatten().any(is_renewed));
}

#[test]
fn who_leaves_is_gone_for_all_at_once_and_silent_itself() {
    let mut world = World::of(31, 5);
    world.run_until(30 * SEC, World::is_complete);
    let now = world.now;
    world.rosters[4].as_mut().unwrap().leave(now);
    world.drain(4);
    world.run_until(3 * SEC, |world| (0..4).all(|at| !world.roster(at).is_alive(id(4))));
    world.run_for(SEC);
    assert_eq!(world.told[4].last(), Some(&RosterEffect::Left));
    assert_eq!(world.roster(4).poll_timeout(), None);
}

#[test]
fn two_founded_clusters_that_meet_stay_apart() {
    let mut world = World::new(37);
    world.names.insert("all".to_owned(), (0..4).map(addr).collect());
    for n in 0..4 {
        let mut founded = config(n, &["all"]);
        founded.cluster = Some(ClusterId(if n < 2 { 1 } else { 2 }));
        world.start(n, founded);
    }
    world.run_for(120 * SEC);
    for (n, other) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        let seen: Vec<NodeId> = world.roster(n).members().map(|member| member.id).collect();
        assert_eq!(seen, [id(other)]);
        assert!(world.roster(n).rejected_count() > 2);
    }
    let rejected = world.told[0].iter().filter(|told| {
        matches!(told, RosterEffect::Rejected { reason: DatagramError::OtherCluster { .. }, .. })
    });
    assert!(rejected.count() <= 2 * 3, "once a minute for each of two senders");
}

#[test]
fn a_node_without_a_cluster_hears_of_one_and_listens_to_that_one_only() {
    let mut world = World::new(41);
    world.names.insert("all".to_owned(), (0..3).map(addr).collect());
    for n in 0..3 {
        let mut each = config(n, &["all"]);
        each.cluster = [Some(ClusterId(1)), Some(ClusterId(2)), None][n];
        world.start(n, each);
    }
    world.run_for(60 * SEC);
    let heard: Vec<&RosterEffect> = world.told[2]
        .iter()
        .filter(|told| matches!(told, RosterEffect::FoundedElsewhere(_)))
        .collect();
    let [RosterEffect::FoundedElsewhere(cluster)] = heard[..] else { panic!("{heard:?}") };
    assert_eq!(world.roster(2).members().count(), 1);
    let friend = if *cluster == ClusterId(1) { 0 } else { 1 };
    assert!(world.roster(2).is_alive(id(friend)));
    world.rosters[2].as_mut().unwrap().set_cluster(*cluster);
    world.run_for(60 * SEC);
    assert!(world.roster(friend).is_alive(id(2)));
    assert!(!world.roster(1 - friend).is_alive(id(2)));
}

#[test]
fn the_same_seed_gives_the_same_datagrams() {
    let trace = |seed| {
        let mut world = World::of(seed, 4);
        world.loss_percent = 10;
        world.run_for(60 * SEC);
        (world.sent, world.rng.random::<u64>(), format!("{:?}", world.told))
    };
    assert_eq!(trace(43), trace(43));
    assert_ne!(trace(43), trace(44));
}

#[test]
fn the_roster_does_not_grow_without_bound() {
    let mut roster = Roster::new(config(0, &[]), 1, Mono::ZERO);
    roster.members_max = 200;
    let mut codec = GossipCodec { me: NodeId(0) };
    for n in 0..300 {
        let src = Gossiper { id: id(n + 1), gossip: addr(1), ..*roster.me() };
        let header = foca::Header {
            src,
            src_incarnation: 0,
            dst: *roster.me(),
            message: foca::Message::Gossip,
        };
        let mut message = Vec::new();
        codec.encode_header(&header, &mut message).unwrap();
        roster.on_datagram(Mono::ZERO, addr(1), &gossip::wrap(None, &message));
        while roster.poll_effect().is_some() {}
    }
    assert_eq!(roster.members().count(), 200);
    assert_eq!(roster.rejected_count(), 100);
}

/// A roster that knows a few others, for bytes to be thrown at.
fn joined() -> Roster {
    let mut world = World::of(47, 3);
    world.run_until(30 * SEC, World::is_complete);
    world.rosters.swap_remove(0).unwrap()
}

proptest! {
    #[test]
    fn arbitrary_datagrams_do_no_harm(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
        cluster in prop::option::of(any::<u64>()),
    ) {
        let mut roster = joined();
        for bytes in &datagrams {
            roster.on_datagram(Mono::ZERO, addr(9), bytes);
            let wrapped = gossip::wrap(cluster.map(ClusterId), bytes);
            roster.on_datagram(Mono::ZERO, addr(9), &wrapped);
            roster.on_timeout(Mono::ZERO + 100 * SEC);
        }
    }

    #[test]
    fn well_formed_datagrams_with_arbitrary_fields_do_no_harm(
        fields in prop::collection::vec(
            (0_u64..104, 0_u64..3, 0_u32..3, any::<u16>(), 0_u8..11, 0_u8..3),
            1..30,
        ),
    ) {
        let mut roster = joined();
        let mut codec = GossipCodec { me: NodeId(0) };
        let mut now = Mono::ZERO + 60 * SEC;
        for (who, boot, generation, incarnation, kind, state) in fields {
            let src = Gossiper { id: NodeId(who), boot: Boot(boot), generation, ..*roster.me() };
            let me = *roster.me();
            let member = Gossiper { id: NodeId(103 - who.min(103)), ..src };
            let message = match kind {
                0 => foca::Message::Ping(1),
                1 => foca::Message::Ack(1),
                2 => foca::Message::PingReq { target: member, probe_number: 1 },
                3 => foca::Message::IndirectPing { origin: member, probe_number: 1 },
                4 => foca::Message::IndirectAck { target: me, probe_number: 1 },
                5 => foca::Message::ForwardedAck { origin: member, probe_number: 1 },
                6 => foca::Message::Announce,
                7 => foca::Message::Feed,
                8 => foca::Message::Gossip,
                9 => foca::Message::Broadcast,
                _ => foca::Message::TurnUndead,
            };
            let header =
                foca::Header { src, src_incarnation: incarnation, dst: me, message };
            let mut bytes = Vec::new();
            codec.encode_header(&header, &mut bytes).unwrap();
            if state < 2 && kind != 6 {
                let state = [foca::State::Suspect, foca::State::Down][usize::from(state)];
                bytes.extend(2_u16.to_be_bytes());
                for id in [member, me] {
                    let member = foca::Member::new(id, incarnation, state);
                    codec.encode_member(&member, &mut bytes).unwrap();
                }
            }
            roster.on_datagram(now, addr(9), &gossip::wrap(None, &bytes));
            now = now + SEC / 3;
            roster.on_timeout(now);
        }
    }
}
