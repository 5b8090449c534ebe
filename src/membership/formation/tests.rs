//! Formation among simulated servers: links that come and go, crashes, lost and late messages.

use proptest::prelude::*;

use super::*;
use crate::id::Incarnation;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default)]
struct Disk {
    pledge: Option<Pledge>,
    raft: Option<ClusterId>,
}

enum Event {
    Deliver { from: usize, to: usize, message: Message },
    Written { at: usize, life: u32, pledge: Option<Pledge> },
    Initialized { at: usize, life: u32, proposal: Proposal },
    Admit { at: usize, cluster: ClusterId },
    Chaos,
}

struct Server {
    id: NodeId,
    name: NodeName,
    expect: u32,
    disk: Disk,
    formation: Option<Formation>,
    life: u32,
}

struct World {
    now: Mono,
    rng: StdRng,
    seq: u64,
    events: BTreeMap<(Mono, u64), Event>,
    servers: Vec<Server>,
    /// Links that are cut, each as (lower, higher).
    cut: BTreeSet<(usize, usize)>,
    /// What `.0` learnt of `.1` when their session began.
    sessions: BTreeMap<(usize, usize), Candidate>,
    loss_percent: u32,
    chaos_until: Mono,
    initialized: Vec<Proposal>,
}

impl World {
    fn new(seed: u64, servers: usize, expect: u32) -> Self {
        let mut servers: Vec<Server> = (0..servers)
            .map(|n| {
                let name = NodeName::new(format!("s{n}")).unwrap();
                let id = NodeId::derive(&name, Incarnation(seed));
                Server { id, name, expect, disk: Disk::default(), formation: None, life: 0 }
            })
            .collect();
        servers.sort_by_key(|server| server.id);
        Self {
            now: Mono::ZERO,
            rng: StdRng::seed_from_u64(seed),
            seq: 0,
            events: BTreeMap::new(),
            servers,
            cut: BTreeSet::new(),
            sessions: BTreeMap::new(),
            loss_percent: 0,
            chaos_until: Mono::ZERO,
            initialized: Vec::new(),
        }
    }

    fn candidate(&self, at: usize) -> Candidate {
        let server = &self.servers[at];
        Candidate {
            id: server.id,
            name: server.name.clone(),
            addr: format!("10.0.0.{at}:6868"),
            expect: server.expect,
            cluster: server.disk.raft,
            virgin: server.disk.raft.is_none(),
        }
    }

    fn start(&mut self, at: usize) {
        if self.servers[at].formation.is_some() {
            return;
        }
        let (me, seed) = (self.candidate(at), self.rng.random());
        let pledge = self.servers[at].disk.pledge.clone();
        let formation = Formation::new(me, Start::Joining, pledge, seed, self.now);
        self.servers[at].life += 1;
        self.servers[at].formation = Some(formation);
        self.drain(at);
        self.relink();
    }

    fn crash(&mut self, at: usize) {
        self.servers[at].formation = None;
        self.relink();
    }

    fn start_all(&mut self) {
        for at in 0..self.servers.len() {
            self.start(at);
        }
    }

    /// Begins and ends sessions as links and servers allow.
    fn relink(&mut self) {
        let count = self.servers.len();
        let mut changed = BTreeSet::new();
        for a in 0..count {
            for b in (0..count).filter(|b| *b != a) {
                let alive = |n: usize| self.servers[n].formation.is_some();
                let up = alive(a) && alive(b) && !self.cut.contains(&(a.min(b), a.max(b)));
                if up && !self.sessions.contains_key(&(a, b)) {
                    self.sessions.insert((a, b), self.candidate(b));
                    changed.insert(a);
                } else if !up && self.sessions.remove(&(a, b)).is_some() {
                    changed.insert(a);
                }
            }
        }
        for at in changed {
            let now = self.now;
            let of_a = self.sessions.range((at, 0)..(at + 1, 0));
            let peers: Vec<Candidate> = of_a.map(|(_, peer)| peer.clone()).collect();
            if let Some(formation) = &mut self.servers[at].formation {
                formation.update(now, &peers);
                self.drain(at);
            }
        }
    }

    fn after(&mut self, millis: std::ops::Range<u32>, event: Event) {
        let delay = MS * self.rng.random_range(millis);
        self.seq += 1;
        self.events.insert((self.now + delay, self.seq), event);
    }

    fn drain(&mut self, at: usize) {
        while let Some(formation) = &mut self.servers[at].formation
            && let Some(effect) = formation.poll_effect()
        {
            let life = self.servers[at].life;
            match effect {
                FormationEffect::Send { to, message } => {
                    let to = self.servers.iter().position(|server| server.id == to).unwrap();
                    let lost = self.rng.random_range(0..100) < self.loss_percent;
                    if !lost && self.sessions.contains_key(&(at, to)) {
                        // While there is chaos, messages are late and overtake each other.
                        let late = if self.now < self.chaos_until { 4_000 } else { 30 };
                        self.after(1..late, Event::Deliver { from: at, to, message });
                    }
                }
                FormationEffect::Persist { pledge } => {
                    self.after(1..200, Event::Written { at, life, pledge });
                }
                FormationEffect::Initialize { proposal } => {
                    self.check_initialize(at, &proposal);
                    self.after(1..400, Event::Initialized { at, life, proposal });
                }
                FormationEffect::Waiting(text) => assert!(!text.is_empty()),
            }
        }
    }

    /// The promise: what is initialized rests on pledges on disk, and shares no member with
    /// anything else that was ever initialized.
    fn check_initialize(&mut self, at: usize, proposal: &Proposal) {
        assert_eq!(proposal.proposer, self.servers[at].id);
        for server in self.servers.iter().filter(|s| proposal.members.contains_key(&s.id)) {
            let pledge = server.disk.pledge.as_ref().map(Pledge::proposal);
            assert_eq!(pledge, Some(proposal), "{} is not bound", server.name);
            assert!(server.disk.raft.is_none());
        }
        for other in self.initialized.iter().filter(|other| *other != proposal) {
            let shared = other.members.keys().find(|id| proposal.members.contains_key(id));
            assert_eq!(shared, None, "two clusters from the same candidates");
        }
        self.initialized.push(proposal.clone());
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Deliver { from, to, message } => {
                let from = self.servers[from].id;
                if let Some(formation) = &mut self.servers[to].formation {
                    formation.on_message(now, from, message);
                    self.drain(to);
                }
            }
            Event::Written { at, life, pledge } => {
                let server = &mut self.servers[at];
                // A write that was in flight in a crash may have reached the disk or not.
                let reached = server.life == life || self.rng.random_range(0..2) == 0;
                if reached && server.formation.as_ref().is_none_or(|_| server.life == life) {
                    server.disk.pledge = pledge;
                }
                if server.life == life
                    && let Some(formation) = &mut server.formation
                {
                    formation.on_persisted(now);
                    self.drain(at);
                }
            }
            Event::Initialized { at, life, proposal } => {
                if self.servers[at].life == life && self.servers[at].formation.is_some() {
                    self.found(at, proposal.cluster);
                    for id in proposal.members.keys() {
                        let at = self.servers.iter().position(|s| s.id == *id).unwrap();
                        self.after(1..500, Event::Admit { at, cluster: proposal.cluster });
                    }
                }
            }
            Event::Admit { at, cluster } => {
                if self.servers[at].formation.is_some() {
                    self.found(at, cluster);
                } else {
                    self.after(500..1_000, Event::Admit { at, cluster });
                }
            }
            Event::Chaos => self.chaos(),
        }
    }

    fn found(&mut self, at: usize, cluster: ClusterId) {
        let server = &mut self.servers[at];
        assert!(server.disk.raft.is_none_or(|raft| raft == cluster), "a server in two clusters");
        server.disk.raft = Some(cluster);
        if let Some(formation) = &mut server.formation {
            formation.founded(cluster);
        }
        self.drain(at);
    }

    fn chaos(&mut self) {
        if self.now >= self.chaos_until {
            self.loss_percent = 0;
            self.cut.clear();
            self.relink();
            return self.start_all();
        }
        let count = self.servers.len();
        let (a, b) = (self.rng.random_range(0..count), self.rng.random_range(0..count));
        match self.rng.random_range(0..6) {
            0 => self.crash(a),
            1 | 2 => self.start(a),
            3 if a != b => {
                self.cut.insert((a.min(b), a.max(b)));
                self.relink();
            }
            4 | 5 => {
                self.cut.remove(&(a.min(b), a.max(b)));
                self.relink();
            }
            _ => {}
        }
        self.after(10..1_500, Event::Chaos);
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..1_000_000 {
            let timers = self.servers.iter().enumerate().filter_map(|(at, server)| {
                let timeout = server.formation.as_ref()?.poll_timeout()?;
                Some((timeout.max(self.now), at))
            });
            let timer = timers.min().filter(|(due, _)| *due <= end);
            let event = self.events.first_key_value().map(|((due, _), _)| *due);
            match (timer, event.filter(|due| *due <= end)) {
                (Some((due, at)), event) if event.is_none_or(|event| due < event) => {
                    self.now = due;
                    let formation = self.servers[at].formation.as_mut().unwrap();
                    formation.on_timeout(due);
                    assert!(formation.poll_timeout().is_none_or(|next| next > due), "spins");
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

    fn founded(&self) -> BTreeSet<ClusterId> {
        self.servers.iter().filter_map(|server| server.disk.raft).collect()
    }

    fn waiting(&self, at: usize) -> String {
        self.servers[at].formation.as_ref().unwrap().waiting_for().unwrap_or_default()
    }
}

fn chaotic_world(seed: u64, expect: u32, extra: usize) -> World {
    let mut world = World::new(seed, usize::try_from(expect).unwrap() + extra, expect);
    world.chaos_until = Mono::ZERO + 40 * SECOND;
    world.loss_percent = 20;
    world.after(0..1, Event::Chaos);
    for at in 0..world.servers.len() {
        if world.rng.random_range(0..3) > 0 {
            world.start(at);
        }
    }
    world.run_for(40 * SECOND);
    world
}

proptest! {
    #[test]
    fn no_candidates_ever_become_two_clusters(
        seed: u64,
        expect in 1_u32..=7,
        extra in 0_usize..=2,
    ) {
        let mut world = chaotic_world(seed, expect, extra);
        world.run_for(90 * SECOND);
        for at in 0..world.servers.len() {
            let in_cluster = world.servers[at].disk.raft.is_some();
            let is_explained = in_cluster || !world.waiting(at).is_empty();
            prop_assert!(is_explained || !world.founded().is_empty());
        }
    }

    #[test]
    fn exactly_as_many_servers_as_expected_form_once_all_links_are_up(
        seed: u64,
        expect in 1_u32..=7,
    ) {
        let mut world = chaotic_world(seed, expect, 0);
        world.run_for(90 * SECOND);
        prop_assert_eq!(world.founded().len(), 1);
        prop_assert!(world.servers.iter().all(|server| server.disk.raft.is_some()));
    }

    #[test]
    fn four_servers_that_expect_three_over_two_slow_links_never_become_two_clusters(
        seed: u64,
        first in 0_usize..6,
        second in 0_usize..6,
        slow_ms in 0_u32..20_000,
    ) {
        let links = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)];
        let mut world = World::new(seed, 4, 3);
        world.cut = BTreeSet::from([links[first], links[second]]);
        world.start_all();
        world.run_for(MS * slow_ms);
        world.cut.remove(&links[first]);
        world.relink();
        world.run_for(MS * (slow_ms / 2));
        world.cut.clear();
        world.relink();
        world.run_for(60 * SECOND);
        prop_assert!(world.founded().len() <= 1);
        if world.founded().is_empty() {
            let waiting = world.waiting(0);
            prop_assert!(waiting.starts_with("4 candidates for bootstrap-expect 3: "));
            world.crash(3);
            world.run_for(60 * SECOND);
            prop_assert_eq!(world.founded().len(), 1);
        }
    }
}

#[test]
fn a_single_server_with_nobody_to_ask_founds_its_cluster_at_once() {
    let name = NodeName::new("alpha").unwrap();
    let me = Candidate {
        id: NodeId(7),
        name,
        addr: "10.0.0.1:6868".to_owned(),
        expect: 1,
        cluster: None,
        virgin: true,
    };
    let mut formation = Formation::new(me, Start::Alone, None, 1, Mono::ZERO);
    let next = |formation: &mut Formation| {
        let mut effects = std::iter::from_fn(|| formation.poll_effect());
        effects.find(|effect| !matches!(effect, FormationEffect::Waiting(_)))
    };
    let Some(FormationEffect::Persist { pledge: Some(Pledge::Open(own)) }) = next(&mut formation)
    else {
        panic!("no proposal");
    };
    assert_eq!(next(&mut formation), None);
    formation.on_persisted(Mono::ZERO);
    let sealed = Some(Pledge::Sealed(own.clone()));
    assert_eq!(next(&mut formation), Some(FormationEffect::Persist { pledge: sealed }));
    formation.on_persisted(Mono::ZERO);
    assert_eq!(next(&mut formation), Some(FormationEffect::Initialize { proposal: own }));
}

#[test]
fn a_proposer_that_dies_while_it_initializes_does_so_again_and_never_withdraws() {
    let mut world = World::new(3, 3, 3);
    world.start_all();
    while world.initialized.is_empty() {
        world.run_for(MS);
    }
    world.crash(0);
    world.crash(1);
    world.run_for(SECOND);
    assert!(world.founded().is_empty(), "the first attempt died with the process");
    world.start(0);
    world.run_for(60 * SECOND);
    world.start(1);
    world.run_for(60 * SECOND);
    assert_eq!(world.initialized[1..], world.initialized[..1]);
    assert!(world.servers.iter().all(|server| server.disk.raft.is_some()));
}

#[test]
fn a_server_that_hears_of_a_cluster_founds_none() {
    for expect in [1, 2] {
        let mut world = World::new(3, 2, expect);
        world.servers[0].disk.raft = Some(ClusterId(77));
        world.start_all();
        world.run_for(60 * SECOND);
        assert_eq!(world.initialized, []);
        assert_eq!(world.waiting(1), "");
    }
}

#[test]
fn two_single_servers_that_know_each_other_wait_and_name_both() {
    let mut world = World::new(3, 2, 1);
    world.start_all();
    world.run_for(60 * SECOND);
    assert_eq!(world.initialized, []);
    assert_eq!(world.waiting(1), "2 candidates for bootstrap-expect 1: s0, s1");
}

#[test]
fn what_is_missing_is_said_in_words() {
    let mut world = World::new(3, 3, 3);
    world.start(0);
    world.start(1);
    world.run_for(5 * SECOND);
    let (a, b) = (world.servers[0].name.clone(), world.servers[1].name.clone());
    let (first, second) = (a.clone().min(b.clone()), a.max(b));
    assert_eq!(world.waiting(0), format!("waiting for 3 servers, know 2: {first}, {second}"));
    world.servers[2].expect = 5;
    world.start(2);
    world.run_for(5 * SECOND);
    assert!(world.waiting(0).starts_with("bootstrap-expect differs: "));
    assert_eq!(world.initialized, []);
}

#[test]
fn a_member_whose_proposer_is_gone_says_whom_it_is_bound_to() {
    let mut world = World::new(3, 3, 3);
    world.start_all();
    let proposer = world.servers[0].name.clone();
    while world.servers[1].disk.pledge.is_none() {
        world.run_for(MS);
    }
    assert!(world.initialized.is_empty(), "the proposer dies before it has all pledges");
    world.crash(0);
    world.run_for(60 * SECOND);
    assert!(world.waiting(1).contains(&format!("for {proposer}, with which there is no session")));
    world.start(0);
    world.run_for(60 * SECOND);
    assert_eq!(world.founded().len(), 1);
}

#[test]
fn a_member_that_knows_one_candidate_too_many_refuses_and_the_proposer_says_so() {
    let mut world = World::new(3, 4, 3);
    world.cut = BTreeSet::from([(0, 3)]);
    world.start_all();
    world.run_for(5 * SECOND);
    assert!(world.waiting(0).contains("(knows 4 candidates for bootstrap-expect 3)"));
    world.run_for(60 * SECOND);
    assert_eq!(world.initialized, []);
}

#[test]
fn members_are_released_only_when_the_withdrawal_is_on_disk() {
    let mut world = World::new(3, 3, 3);
    world.start_all();
    while world.servers[1].disk.pledge.is_none() {
        world.run_for(MS);
    }
    let (pledge, member) = (world.servers[0].disk.pledge.clone().unwrap(), world.servers[1].id);
    let cluster = pledge.proposal().cluster;
    let formation = world.servers[0].formation.as_mut().unwrap();
    let releases = |formation: &mut Formation| {
        let effects = std::iter::from_fn(|| formation.poll_effect());
        let is_release = |effect: &FormationEffect| match effect {
            FormationEffect::Send { message, .. } => matches!(message, Message::Release { .. }),
            FormationEffect::Persist { .. }
            | FormationEffect::Initialize { .. }
            | FormationEffect::Waiting(_) => false,
        };
        effects.filter(is_release).count()
    };
    let late = world.now + 60 * SECOND;
    formation.on_timeout(late);
    assert_eq!(formation.writing, Some(None), "it withdraws");
    formation.on_message(late, member, Message::Pledge { cluster });
    assert_eq!(releases(formation), 0);
    formation.on_persisted(late);
    assert_eq!(releases(formation), 2);
    formation.on_message(late, member, Message::Pledge { cluster });
    assert_eq!(releases(formation), 1);
}

#[test]
fn a_proposal_that_makes_no_sense_is_refused() {
    let mut world = World::new(3, 3, 3);
    world.cut = BTreeSet::from([(1, 2)]);
    world.start_all();
    let ids: Vec<NodeId> = world.servers.iter().map(|server| server.id).collect();
    let member = |n: usize| (ids[n], (world.servers[n].name.clone(), "a:1".to_owned()));
    let all = BTreeMap::from([member(0), member(1), member(2)]);
    let without_me = BTreeMap::from([member(0), member(2)]);
    let not_lowest = Proposal { cluster: ClusterId(1), proposer: ids[2], members: all.clone() };
    let no_cluster = Proposal { cluster: ClusterId(0), proposer: ids[0], members: all };
    let not_for_me = Proposal { cluster: ClusterId(1), proposer: ids[0], members: without_me };
    let formation = world.servers[1].formation.as_mut().unwrap();
    for proposal in [not_lowest, no_cluster, not_for_me] {
        let from = proposal.proposer;
        formation.on_message(Mono::ZERO, from, Message::Propose { proposal });
        assert!(formation.writing.is_none());
    }
}
