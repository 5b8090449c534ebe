//! Cronclave: highly available cron on a consensus engine proven by deterministic simulation.
//!
//! Three or five servers form a Raft cluster, elect a leader, and run every job at its time on the
//! right machines, through crashes, partitions and restarts. This chapter is the map of the crate
//! and the contract of its centre, [`node::Node`].
//!
//! # The shape
//!
//! Everything that a server or an agent decides (membership, Raft, schedules, jobs, dispatch) is
//! decided by one state machine, [`Node`](node::Node). It performs no I/O and reads no clock, no
//! environment and no global randomness. A driver feeds it facts, which are
//! [`Input`](node::io::Input)s, and carries out its effects, which are
//! [`Output`](node::io::Output)s:
//!
//! ```text
//! tokio shell (production)    -+                           +-  sends, writes, launches, answers
//!                              +-- Input -> Node -> Output -+
//! simulated world (sim/)      -+                           +-  the same, in a simulated world
//! ```
//!
//! So the node that ships is the node that is simulated, and what a node does depends on its boot
//! and its inputs alone. A list of `(Now, Input)` is a bug report, and an input of the fuzzers.
//!
//! # The map
//!
//! | module | what it is |
//! |---|---|
//! | [`time`], [`id`] | the two clocks as types; names and ids as newtypes |
//! | [`schedule`] | a text becomes a schedule, and a schedule tells its next due instant |
//! | [`codec`] | bytes to values and back: frames, the log, snapshots; every length bounded |
//! | [`jobs`] | jobs and executions: one replicated [`State`](jobs::State), a function of the log |
//! | [`consensus`] | Raft: openraft, hosted without a runtime |
//! | [`membership`] | who is there (gossip), who founds a cluster (pledge), who votes |
//! | [`dispatch`] | from a claim in the log to a process on a node, and back to a row of history |
//! | [`node`] | these parts behind one boundary |
//! | [`driver`] | the body of the loop that every driver runs |
//! | `shell` | tokio: sockets, files, processes, HTTP |
//! | `cli` | the command line |
//!
//! Arrows point one way: `time`, `id` <- `schedule`, `codec` <- `jobs`, `consensus`, `membership`,
//! `dispatch` <- `node` <- `driver` <- `shell` <- `cli`. `jobs`, `consensus`, `membership` do not
//! know each other; `dispatch` knows the types of `jobs`. `tests/tidy.rs` reads the sources and
//! says so. The shell and the command line are behind the feature `server`, so that without it
//! (`make core`) a pure module that reaches for a socket does not compile.
//!
//! # The contract
//!
//! A driver owns the node. Time and again it
//!
//! 1. [`push`](node::Node::push)es what is ready, at most [`INPUTS_MAX`](node::INPUTS_MAX) inputs,
//! 2. [`run`](node::Node::run)s the node once,
//! 3. drains [`poll_output`](node::Node::poll_output) to `None` and performs what comes, in order,
//! 4. sleeps until something is ready, or until [`poll_timeout`](node::Node::poll_timeout).
//!
//! [`driver::turn`] is that loop's body. What a driver has to keep:
//!
//! - **Time.** `mono` is a clock that never goes back, and `wall` is the civil one, which may do
//!   anything. Every duration is measured by `mono`; `wall` reaches replicated state only by the
//!   cluster's clock, a quorum's median.
//! - **The disk is a peer.** [`Persist`](node::io::Output::Persist) is answered by
//!   [`Persisted`](node::io::Input::Persisted) when the records are synced and not before. What may
//!   leave only after that is held back inside: the shell knows no rule of Raft. One group of
//!   records is under way at a time while the next one gathers. Snapshots are files, and what is to
//!   be done with them ([`Snapshot`](node::io::Output::Snapshot)) goes beside the groups.
//! - **Peers are sessions.** A session is an ordered stream of frames. The driver opens it when it
//!   is told to [`Dial`](node::io::Output::Dial) or when another node does, moves the frames of the
//!   higher lane first, and ends the session when a frame is lost. Who speaks, and whether it is
//!   heard, is the node's affair.
//! - **Clients are requests**, each answered once, within
//!   [`REQUEST_TIMEOUT`](node::request::REQUEST_TIMEOUT).
//! - **The end.** After [`Stopped`](node::io::Output::Stopped) or
//!   [`Halt`](node::io::Output::Halt) the node does nothing more.
//!
//! What a node promises in turn: nothing that a peer or a client says unwinds out of it or halts
//! it; the same boot and the same inputs give the same outputs on every machine; and what it
//! acknowledges has been reported durable by a quorum of disks.
//!
//! # A node, driven by hand
//!
//! A server that founds a cluster of its own, leads it, and takes a job. Nothing here waits: the
//! clock is a number, and the disk a `Vec`.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use cronclave::codec::record::{Record, Recovered};
//! use cronclave::consensus::LogBounds;
//! use cronclave::dispatch::leader::Patience;
//! use cronclave::id::{Boot, Incarnation, NodeName, RequestId};
//! use cronclave::jobs::command::Applied;
//! use cronclave::jobs::json::parse_job;
//! use cronclave::membership::Profile;
//! use cronclave::node::Node;
//! use cronclave::node::config::{NodeConfig, NodeRole};
//! use cronclave::node::io::{Event, Input, Output};
//! use cronclave::node::request::{Reply, Request, Write};
//! use cronclave::time::{Mono, Now, Wall};
//!
//! let config = NodeConfig {
//!     name: NodeName::new("alone")?,
//!     incarnation: Incarnation(1),
//!     boot: Boot(1),
//!     role: NodeRole::Server { bootstrap_expect: 1 },
//!     gossip_addr: "10.0.0.1:8946".parse()?,
//!     peer_addr: "10.0.0.1:6868".parse()?,
//!     tags: BTreeMap::new(),
//!     joins: None,
//!     join: Vec::new(),
//!     retry_interval: Duration::from_secs(30),
//!     reconnect_timeout: Duration::from_secs(86_400),
//!     dead_server_grace: Duration::from_secs(86_400),
//!     profile: Profile::Lan,
//!     raft_multiplier: 1,
//!     log: LogBounds::default(),
//!     patience: Patience::default(),
//!     timezone: "UTC".to_owned(),
//!     version: "0.1.0".to_owned(),
//! };
//! let mut now = Now { mono: Mono::ZERO, wall: Wall::from_secs(1_767_225_600) };
//! let mut node = Node::boot(config, 42, &Recovered::default(), now)?;
//! let mut disk: Vec<Record> = Vec::new();
//!
//! // One turn: run, and answer what the node asks of its disk. Gives what it asks of others.
//! let mut turn = |node: &mut Node, now: Now| {
//!     let mut outputs = Vec::new();
//!     node.run(now);
//!     while let Some(output) = node.poll_output() {
//!         match output {
//!             Output::Persist { write, records } => {
//!                 disk.extend(records);
//!                 node.push(now, Input::Persisted { write });
//!                 node.run(now);
//!             }
//!             other => outputs.push(other),
//!         }
//!     }
//!     outputs
//! };
//!
//! // Time passes from deadline to deadline until it leads.
//! let later = |node: &Node, now: Now| {
//!     let (at, _reason) = node.poll_timeout().expect("a node that lives has something to do");
//!     let waited = at.saturating_since(now.mono);
//!     Now { mono: now.mono + waited, wall: now.wall + waited }
//! };
//! let leads = |output: &Output| matches!(output, Output::Event(Event::LeadershipWon(_)));
//! while !turn(&mut node, now).iter().any(leads) {
//!     now = later(&node, now);
//! }
//! assert!(now.mono < Mono::from_micros(5_000_000), "a server alone leads within seconds");
//!
//! // A client puts a job; the answer comes when the entry is durable and applied.
//! let json = br#"{ "name": "hello", "schedule": "@every 10s", "executor": "shell",
//!                  "executor_config": { "command": "echo hello" } }"#;
//! let spec = Arc::new(parse_job(json, &|_spec| Ok(()))?);
//! let request = Request::Write(Write::PutJob(spec));
//! node.push(now, Input::Request { id: RequestId(1), request });
//! let reply = loop {
//!     let reply = turn(&mut node, now).into_iter().find_map(|output| match output {
//!         Output::Reply { id: RequestId(1), reply } => Some(reply),
//!         _ => None,
//!     });
//!     match reply {
//!         Some(reply) => break reply,
//!         None => now = later(&node, now),
//!     }
//! };
//! let Reply::Written(applied) = reply else { panic!("not written: {reply:?}") };
//! let Applied::Put { job, created: true } = *applied else { panic!("not put: {applied:?}") };
//! let due = job.next.expect("it is due some day").saturating_since(now.wall);
//! assert!(due <= Duration::from_secs(10));
//! assert!(disk.iter().any(|record| matches!(record, Record::Entry { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[cfg(feature = "server")]
pub mod cli;
pub mod codec;
pub mod consensus;
pub mod dispatch;
pub mod driver;
#[doc(hidden)]
pub mod fuzzing;
pub mod id;
pub mod jobs;
pub mod membership;
pub mod node;
pub mod schedule;
#[cfg(feature = "server")]
pub mod shell;
pub mod time;
