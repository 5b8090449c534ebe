//! Anything at all as inputs of one node.
//!
//! The first byte chooses the scene: a server that leads a cluster of its own, one that follows in
//! a cluster of three whose other servers the bytes speak for, one that waits to be founded, an
//! agent. Every following byte is an order: raw bytes as a frame or a datagram, messages that are
//! well formed with any fields, requests, answers of the disk, time, a crash.
//!
//! What must hold:
//! - Nothing unwinds, and the node never halts. Nothing that a peer or a client says may halt it:
//!   what contradicts the log is rejected. The disk is the only thing that may, and does not here.
//! - Each request has one answer, in time.
//! - One run has a bounded number of effects, and a node does not ask for a run at an instant at
//!   which it was run again and again.
//! - What the node had made durable it can be booted from.

mod bench;
mod choices;
mod raft;

use std::time::Duration;

use bytes::Bytes;

use self::bench::{Asked, Bench, CLUSTER, Kind, PEERS, gossip_addr, hello};
use self::choices::Choices;
use self::raft::{Shape, log_id, membership, vote};
use crate::codec::decode;
use crate::consensus::{self, Appended, Entry, LogId, RpcId};
use crate::dispatch::launch::LaunchSpec;
use crate::dispatch::message::{Message as Dispatch, Order, Progress, Report};
use crate::id::{Boot, ClusterId, CommandId, Incarnation, LogIndex, NodeId, WriteId};
use crate::jobs::command::Applied;
use crate::jobs::history::change::Page;
use crate::membership::formation::{Message as Formation, Proposal, Refusal as FormationRefusal};
use crate::node::config::NodeRole;
use crate::node::io::{DialId, Input};
use crate::node::message::{Message, Refusal};
use crate::node::request::{REQUEST_TIMEOUT, RequestError};

/// The most orders that are carried out.
const ORDERS_MAX: usize = 256;

/// How often time passes before a scene has to be set.
const SETUP_MAX: usize = 200;

/// Carries out `bytes` as orders. See the module.
pub fn fuzz_node_inputs(bytes: &[u8]) {
    let Some((&scene, rest)) = bytes.split_first() else { return };
    let mut orders = Choices(rest);
    let mut run = match scene % 4 {
        0 => Run::leader(),
        1 => Run::follower(),
        2 => Run::new(NodeRole::Server { bootstrap_expect: 3 }, &["a:1", "b:1"]),
        3.. => Run::new(NodeRole::Agent, &["a:1"]),
    };
    for _ in 0..ORDERS_MAX {
        if orders.is_empty() || run.bench.over {
            break;
        }
        run.order(&mut orders);
    }
    run.check_the_end();
}

/// A node, and what its peers believe.
struct Run {
    bench: Bench,
    /// The node and its peers.
    known: Vec<NodeId>,
    term: u64,
    /// What a correct leader among the peers has sent.
    log: Vec<LogId>,
    rpc_last: u64,
}

impl Run {
    fn new(role: NodeRole, join: &[&str]) -> Self {
        let mut bench = Bench::new(role, join);
        let peers = (0..PEERS.len()).map(|place| hello(place).id);
        let known = std::iter::once(bench.id()).chain(peers).collect();
        bench.run();
        Self { bench, known, term: 1, log: Vec::new(), rpc_last: 0 }
    }

    /// A server that founded a cluster of its own and leads it.
    fn leader() -> Self {
        let mut run = Self::new(NodeRole::Server { bootstrap_expect: 1 }, &[]);
        for _ in 0..SETUP_MAX {
            if run.bench.won {
                run.look();
                return run;
            }
            run.bench.settle();
            run.bench.pass_to_deadline(Duration::from_secs(1));
        }
        panic!("a server alone leads");
    }

    /// A server in a cluster of three, which follows the first peer.
    fn follower() -> Self {
        let mut run = Self::new(NodeRole::Server { bootstrap_expect: 0 }, &["a:1"]);
        for place in 0..2 {
            run.bench.link(place);
            run.bench.settle();
        }
        let payload = openraft::EntryPayload::Membership(membership(&run.known[..3]));
        run.append(0, payload);
        run.append(0, openraft::EntryPayload::Blank);
        let voters = run.bench.status().map(|status| status.voters.len());
        assert_eq!(voters, Some(3), "a server takes what its leader sends");
        run
    }

    /// The peer at `place` acts as a correct leader of its term, as far as that is known here.
    fn append(&mut self, place: usize, payload: Payload) {
        let prev = self.log.last().copied();
        let id = log_id(self.term, prev.map_or(0, |prev| prev.index + 1));
        self.rpc_last += 1;
        let message = consensus::Message::Append {
            rpc: RpcId(self.rpc_last),
            vote: vote(self.term, self.known[place + 1], true),
            prev,
            entries: vec![Entry { log_id: id, payload }],
            commit: Some(id),
        };
        self.log.push(id);
        let wall = self.bench.now.wall;
        self.bench.say(place, wall, vec![Message::Raft(message)]);
        self.bench.settle();
    }

    /// Looks where the node stands, so that what follows may be near to it.
    fn look(&mut self) {
        let Some(status) = self.bench.status() else { return };
        self.term = self.term.max(status.term.0.min(1 << 40));
        let last = self.log.last().map_or(0, |id| id.index + 1);
        if let Some(LogIndex(applied)) = status.applied
            && self.log.is_empty()
        {
            self.log.extend((last..=applied).map(|index| log_id(self.term, index)));
        }
    }

    fn order(&mut self, orders: &mut Choices<'_>) {
        let place = orders.place(PEERS.len());
        match orders.byte() % 32 {
            0..=2 => self.pass(orders),
            3..=5 => self.bench.settle(),
            6 => drop(self.bench.persist()),
            7..=9 => self.bench.link(place),
            10 => self.connection(orders, place),
            11 => self.hello(orders, place),
            12..=17 => self.raft(orders, place),
            18 | 19 => self.answer(orders),
            20 => self.follow(orders, place),
            21 => self.dispatch(orders, place),
            22 => self.formation(orders, place),
            23 => self.client_message(orders, place),
            24 => self.raw(orders, place),
            25 => self.datagram(orders),
            26 | 27 => drop(self.bench.request(orders.request(self.bench.now.wall))),
            28 => self.finish(orders),
            29 => self.world(orders),
            30 => self.bench.restart(|unsynced| 0..orders.place(unsynced + 1)),
            31.. => self.look(),
        }
    }

    fn pass(&mut self, orders: &mut Choices<'_>) {
        match orders.byte() % 4 {
            0 | 1 => self.bench.pass_to_deadline(Duration::from_secs(60)),
            2 => self.bench.pass(orders.duration().min(Duration::from_secs(86_400 * 366))),
            3.. => {
                // The clock on the wall is set.
                self.bench.now.wall = orders.wall(self.bench.now.wall);
                self.bench.input(Input::Timeout);
            }
        }
        self.bench.check_that_it_rests();
    }

    fn connection(&mut self, orders: &mut Choices<'_>, place: usize) {
        match orders.byte() % 4 {
            0 => {
                let dial = self.bench.dials.pop_front();
                self.bench.connect(place, dial);
            }
            1 => {
                let dial = self.bench.dials.pop_front().unwrap_or(DialId(orders.number(1)));
                self.bench.input(Input::ConnectFailed { dial, reason: String::new() });
            }
            2.. => {
                if let Some(session) = self.bench.sessions.remove(&place) {
                    self.bench.input(Input::Disconnected { session, reason: String::new() });
                }
            }
        }
    }

    fn hello(&mut self, orders: &mut Choices<'_>, place: usize) {
        let mut said = hello(orders.place(PEERS.len()));
        match orders.byte() % 8 {
            0 => said.boot = Boot(orders.number(1)),
            1 => said.nonce = orders.number(1),
            2 => said.cluster = orders.coin().then(|| ClusterId(orders.number(CLUSTER.0))),
            3 => said.server = orders.coin(),
            4 => {
                (said.virgin, said.expect) = (orders.coin(), u32::from(orders.byte()));
                said.disk_full = orders.coin();
            }
            5 => (said.gossip_addr, said.peer_addr) = (orders.text(), orders.text()),
            6 => {
                said.name = orders.node_name();
                said.incarnation = Incarnation(orders.number(1));
                said.id = NodeId::derive(&said.name, said.incarnation);
            }
            7.. => drop(said.tags.insert(orders.text(), orders.text())),
        }
        if !self.bench.sessions.contains_key(&place) {
            self.bench.connect(place, None);
        }
        self.say(orders, place, Message::Hello(Box::new(said)));
    }

    fn say(&mut self, orders: &mut Choices<'_>, place: usize, message: Message) {
        let wall = match orders.byte() {
            0..=223 => self.bench.now.wall,
            224.. => orders.wall(self.bench.now.wall),
        };
        self.bench.say(place, wall, vec![message]);
    }

    fn shape<'a>(&'a self, speaker: usize, rpc: u64) -> Shape<'a> {
        Shape {
            known: &self.known,
            speaker: self.known[speaker + 1],
            term: self.term,
            log: &self.log,
            rpc,
            wall: self.bench.now.wall,
        }
    }

    fn raft(&mut self, orders: &mut Choices<'_>, place: usize) {
        if orders.byte().is_multiple_of(16) {
            self.term += 1;
        }
        self.rpc_last += 1;
        let asked = self.bench.asked.iter().rev().find(|asked| asked.peer == place);
        let rpc = match orders.coin() {
            true => asked.map_or(self.rpc_last, |asked| asked.rpc),
            false => self.rpc_last,
        };
        let message = self.shape(place, rpc).message(orders);
        self.say(orders, place, Message::Raft(message));
    }

    /// A correct leader sends an entry; what is in it may be anything.
    fn follow(&mut self, orders: &mut Choices<'_>, place: usize) {
        self.rpc_last += 1;
        let payload = self.shape(place, self.rpc_last).payload(orders);
        self.append(place, payload);
    }

    /// Answers what the node asked, as a peer that agrees with everything.
    fn answer(&mut self, orders: &mut Choices<'_>) {
        let answers = 1 + orders.byte() % 4;
        for _ in 0..answers {
            let Some(Asked { peer, rpc, kind }) = self.bench.asked.pop_front() else { return };
            let (rpc, outcome) = (RpcId(rpc), Appended::Success);
            let message = match kind {
                Kind::Vote(vote) => {
                    consensus::Message::VoteReply { rpc, vote, granted: true, last: None }
                }
                Kind::Entries => consensus::Message::AppendReply { rpc, outcome },
                Kind::Heartbeat => consensus::Message::HeartbeatReply { rpc, outcome },
                Kind::Other => return,
            };
            self.say(orders, peer, Message::Raft(message));
        }
    }

    fn dispatch(&mut self, orders: &mut Choices<'_>, place: usize) {
        let near = self.log.last().map_or(0, |id| id.index);
        let execution = match (orders.coin(), self.bench.launched.back()) {
            (true, Some(&launched)) => launched,
            (_, _) => orders.execution(near),
        };
        let wall = self.bench.now.wall;
        let message = match orders.byte() % 4 {
            0 => Dispatch::Ack(execution),
            1 => {
                let progress = Progress::Started(orders.wall(wall));
                Dispatch::Report(Report { execution, progress })
            }
            2 => {
                let progress = Progress::Finished(orders.result());
                Dispatch::Report(Report { execution, progress })
            }
            3.. => {
                let job = orders.spec(wall);
                let spec = LaunchSpec {
                    execution,
                    job: job.name.clone(),
                    due: orders.wall(wall),
                    attempt: u32::from(orders.byte()),
                    executor: job.executor.clone(),
                    config: job.executor_config.clone(),
                };
                Dispatch::Order(Order { term: orders.term(self.term), spec })
            }
        };
        self.say(orders, place, Message::Dispatch(message));
    }

    fn formation(&mut self, orders: &mut Choices<'_>, place: usize) {
        let cluster = ClusterId(orders.number(CLUSTER.0));
        let message = match orders.byte() % 8 {
            0..=2 => {
                let bits = orders.byte();
                let chosen = |at: &usize| bits & 1 << at != 0;
                let member = |at: usize| {
                    let name = orders.node_name();
                    let id = match orders.byte() {
                        0..=223 => self.known[at],
                        224.. => NodeId(orders.number(0)),
                    };
                    (id, (name, orders.text()))
                };
                let members = (0..self.known.len()).filter(chosen).map(member).collect();
                let proposer = orders.node_id(&self.known);
                Formation::Propose { proposal: Proposal { cluster, proposer, members } }
            }
            3 | 4 => Formation::Pledge { cluster },
            5 => Formation::Release { cluster },
            6.. => {
                let known = u32::from(orders.byte());
                let proposer = orders.node_id(&self.known);
                let reason = match known % 6 {
                    0 => FormationRefusal::Founded { cluster },
                    1 => FormationRefusal::NotVirgin,
                    2 => FormationRefusal::Pledged { proposer },
                    3 => FormationRefusal::Expect { expect: known },
                    4 => FormationRefusal::TooMany { known },
                    5.. => FormationRefusal::Invalid,
                };
                Formation::Refuse { cluster, reason }
            }
        };
        self.say(orders, place, Message::Formation(message));
    }

    fn client_message(&mut self, orders: &mut Choices<'_>, place: usize) {
        let wall = self.bench.now.wall;
        let id: CommandId = orders.command_id(&self.known);
        let number = orders.number(1);
        let message = match orders.byte() % 8 {
            0 | 1 => Message::Forward { id, write: orders.write(wall) },
            2 => Message::Forwarded { id, result: Ok(Box::new(Applied::Started)) },
            3 => {
                let refusal = match orders.coin() {
                    true => Refusal::NotLeader,
                    false => Refusal::Failed(RequestError::Unknown),
                };
                Message::Forwarded { id, result: Err(refusal) }
            }
            4 => Message::ReadIndex { id: number },
            5 => {
                let index = orders.coin().then(|| LogIndex(orders.number(2)));
                Message::ReadIndexIs { id: number, index }
            }
            6 => {
                let leader = orders.coin().then(|| orders.node_id(&self.known));
                Message::Leads { term: orders.term(self.term), leader }
            }
            7.. => orders
                .one_of(&[Parting::Leave, Parting::Removed, Parting::Refused, Parting::SetBack])
                .message(),
        };
        self.say(orders, place, message);
    }

    /// Bytes as a frame; as messages, if they are; and the node's own frames, changed.
    fn raw(&mut self, orders: &mut Choices<'_>, place: usize) {
        match orders.byte() % 3 {
            0 => self.bench.frame(place, Bytes::copy_from_slice(orders.bytes())),
            1 => {
                if let Ok(messages) = decode::<Vec<Message>>("messages", orders.bytes()) {
                    self.bench.say(place, self.bench.now.wall, messages);
                }
            }
            2.. => {
                let at = orders.place(self.bench.frames.len());
                if let Some(frame) = self.bench.frames.get(at) {
                    let frame = changed(frame, orders);
                    self.bench.frame(place, frame);
                }
            }
        }
    }

    fn datagram(&mut self, orders: &mut Choices<'_>) {
        let from = gossip_addr(orders.byte());
        let at = orders.place(self.bench.datagrams.len());
        let payload = match (orders.byte() % 4, self.bench.datagrams.get(at)) {
            (1.., Some(own)) => changed(own, orders),
            (_, _) => Bytes::copy_from_slice(orders.bytes()),
        };
        self.bench.input(Input::Datagram { from, payload });
    }

    fn finish(&mut self, orders: &mut Choices<'_>) {
        if let Some(execution) = self.bench.launched.pop_front() {
            self.bench.input(Input::RunFinished { execution, result: orders.result() });
        }
    }

    /// What the driver and the operator may say.
    fn world(&mut self, orders: &mut Choices<'_>) {
        match orders.byte() % 12 {
            0 => self.bench.input(Input::Shutdown { drain: orders.duration() }),
            1 => {
                let tags = (0..orders.byte() % 3).map(|_| (orders.text(), orders.text()));
                self.bench.input(Input::Retag(tags.collect()));
            }
            2 => self.bench.input(match orders.coin() {
                true => Input::DiskFull { reason: orders.text() },
                false => Input::DiskFree,
            }),
            3 | 4 => {
                let found = (0..orders.byte() % 3).map(|_| gossip_addr(orders.byte()));
                let result = Ok(found.collect());
                self.bench.input(Input::Resolved { name: "a:1".to_owned(), result });
            }
            5 => {
                let result = Err(orders.text());
                self.bench.input(Input::Resolved { name: "a:1".to_owned(), result });
            }
            6 => {
                // No write has this number.
                let write = WriteId(u64::MAX - orders.number(0));
                self.bench.input(Input::Persisted { write });
            }
            7..=9 => self.bench.keep_history(),
            10 => {
                let page = if orders.coin() { Ok(Page::default()) } else { Err(orders.text()) };
                self.bench.read_history(page);
            }
            11.. => {
                let execution = orders.execution(2);
                self.bench.input(Input::RunFinished { execution, result: orders.result() });
            }
        }
    }

    /// Nothing is left open: every request has its answer, and the node can be started again.
    fn check_the_end(&mut self) {
        self.bench.settle();
        self.bench.pass(REQUEST_TIMEOUT);
        self.bench.check_that_it_rests();
        let unanswered = self.bench.unanswered();
        assert!(self.bench.over || unanswered == 0, "{unanswered} requests have no answer");
        self.bench.restart(|unsynced| 0..unsynced);
        self.bench.settle();
        self.bench.pass_to_deadline(Duration::from_secs(1));
    }
}

type Payload = openraft::EntryPayload<consensus::Payload, NodeId, consensus::Peer>;

/// What is said at the end.
#[derive(Clone, Copy)]
enum Parting {
    Leave,
    Removed,
    Refused,
    SetBack,
}

impl Parting {
    fn message(self) -> Message {
        match self {
            Self::Leave => Message::Leave,
            Self::Removed => Message::Removed,
            Self::Refused => Message::Refused("no".to_owned()),
            Self::SetBack => Message::SetBack { boot: Boot(1), seen: Boot(2) },
        }
    }
}

/// `bytes` with up to three of them changed.
fn changed(bytes: &Bytes, orders: &mut Choices<'_>) -> Bytes {
    let mut bytes = bytes.to_vec();
    for _ in 0..orders.byte() % 4 {
        let (at, byte) = (orders.place(bytes.len()), orders.byte());
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
    }
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None, cases: 48, ..Default::default()
        })]

        #[test]
        fn no_inputs_halt_a_node(
            scene in 0..4_u8,
            orders in proptest::collection::vec(any::<u8>(), 0..1_500),
        ) {
            let mut bytes = vec![scene];
            bytes.extend(orders);
            fuzz_node_inputs(&bytes);
        }
    }
}
