//! A node's data directory without the node: what its records say ([`survey`]), and the logs with
//! which an operator's repair has it go on ([`refound`], [`rehome`]).
//!
//! All of it is worked out from what was read and gives the records of a whole new log; whoever
//! owns the files writes them. Nothing here decides *whether* to do it: that is the operator's.
//!
//! **Invariants**
//! - A log that is founded again belongs to a cluster of another id, in the replicated state as in
//!   the node's own facts: the servers that were given up can never speak to it again.

use bytes::Bytes;

use super::local::{Local, LocalFact};
use crate::codec::record::{Record, Recovered};
use crate::codec::{DecodeError, decode, encode};
use crate::consensus::{self, Described};
use crate::id::{ClusterId, NodeId};
use crate::jobs::command::{Command, Stamped};
use crate::time::Wall;

pub use crate::consensus::{Position, RescueError, Survey};

/// What the records of a data directory say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSurvey {
    /// About Raft.
    pub raft: Survey,
    /// The cluster that the node belongs to.
    pub cluster: Option<ClusterId>,
    /// Whether it has pledged itself to a set of founders.
    pub is_pledged: bool,
}

impl NodeSurvey {
    /// Whether Raft has never written anything, as on an agent.
    pub fn has_no_raft(&self) -> bool {
        self.raft.term.is_none() && self.raft.last.is_none()
    }
}

/// Reads what the records say.
///
/// # Errors
/// If one cannot be read.
pub fn survey(recovered: &Recovered) -> Result<NodeSurvey, DecodeError> {
    let (local, _) = Local::recover(recovered)?;
    let raft = consensus::survey(recovered)?;
    Ok(NodeSurvey { raft, cluster: local.cluster, is_pledged: local.pledge.is_some() })
}

/// The log of server `me` as the only voter of the cluster `cluster`, a new one that goes on with
/// everything that the server's log held. `addr` replaces the address at which its peers reach it.
///
/// # Errors
/// If the log cannot be read, or the server is no member by it.
pub fn refound(
    recovered: &Recovered,
    me: NodeId,
    addr: Option<&str>,
    cluster: ClusterId,
) -> Result<Vec<Record>, RescueError> {
    // The stamp of an entry is at least that of the entry before, whatever it says.
    let stamp = Wall::default();
    let entry = Stamped { stamp, id: None, command: Command::Refound { cluster } };
    let raft = consensus::rescue(recovered, me, addr, &[encode(&entry)])?;
    let mut records = rehome(recovered, cluster);
    records.extend(raft);
    Ok(records)
}

/// The log of a node that keeps its own facts (on an agent: what it has started and what it has yet
/// to report) and belongs to `cluster` instead of the one before. Nothing of Raft is in it.
pub fn rehome(recovered: &Recovered, cluster: ClusterId) -> Vec<Record> {
    let checkpoint = recovered.checkpoint.clone().map(Record::Checkpoint);
    let locals = recovered.locals.iter().cloned().map(Record::Local);
    let facts = checkpoint.into_iter().chain(locals);
    facts.chain([belongs_to(cluster)]).collect()
}

/// What an entry of the log says, in a few words for people.
pub fn describe(body: &[u8]) -> String {
    let payload = match consensus::describe(body) {
        Ok(Described::Command(payload)) => payload,
        Ok(Described::Other(text)) => return text,
        Err(error) => return error.to_string(),
    };
    let command = match decode::<Stamped>("log entry", &payload.0) {
        Ok(entry) => entry.command,
        Err(error) => return error.to_string(),
    };
    match command {
        Command::Found { cluster } => format!("found cluster {cluster}"),
        Command::Admit { name, id, boot, .. } => format!("admit {name} ({id}), boot {boot}"),
        Command::Settings { timezone } => format!("set the time zone to {timezone:?}"),
        Command::PutJob { spec, .. } => format!("put job {}", spec.name),
        Command::DeleteJob { name } => format!("delete job {name}"),
        Command::ToggleJob { name, .. } => format!("toggle job {name}"),
        Command::Claim(claims) => {
            let jobs: Vec<&str> = claims.iter().take(3).map(|claim| claim.job.as_str()).collect();
            let more = if claims.len() > 3 { ", ..." } else { "" };
            format!("claim {}{more}", jobs.join(", "))
        }
        Command::Started { execution, .. } => format!("execution {execution} started"),
        Command::Finished { execution, result } => {
            format!("execution {execution} {:?}", result.outcome).to_lowercase()
        }
        Command::Refound { cluster } => format!("go on as cluster {cluster}"),
    }
}

fn belongs_to(cluster: ClusterId) -> Record {
    let fact: Bytes = encode(&LocalFact::Cluster(cluster));
    Record::Local(fact)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::consensus::LogBounds;
    use crate::dispatch::leader::Patience;
    use crate::id::{Boot, Incarnation, NodeName, RequestId, WriteId};
    use crate::membership::Profile;
    use crate::node::config::{NodeConfig, NodeRole};
    use crate::node::io::{Input, Output};
    use crate::node::request::{Consistency, Reply, Request, View, Write};
    use crate::node::{BootError, Node};
    use crate::time::{Mono, Now};

    /// A node on a disk in memory, with nobody around it.
    struct Bench {
        node: Node,
        disk: Recovered,
        now: Now,
        replies: Vec<Reply>,
    }

    fn config(expect: u32, boot: u64) -> NodeConfig {
        let addr = "127.0.0.1:6868".parse().unwrap();
        NodeConfig {
            name: NodeName::new("alpha").unwrap(),
            incarnation: Incarnation(7),
            boot: Boot(boot),
            role: NodeRole::Server { bootstrap_expect: expect },
            gossip_addr: addr,
            peer_addr: addr,
            tags: BTreeMap::new(),
            joins: None,
            join: Vec::new(),
            retry_interval: Duration::from_secs(1),
            reconnect_timeout: Duration::from_secs(3_600),
            dead_server_grace: Duration::from_secs(60),
            profile: Profile::Local,
            raft_multiplier: 1,
            log: LogBounds::default(),
            patience: Patience::default(),
            timezone: String::new(),
            version: String::new(),
        }
    }

    impl Bench {
        fn boot(expect: u32, boot: u64, disk: Recovered) -> Result<Self, BootError> {
            let wall = Wall::from_micros(1_700_000_000_000_000);
            let now = Now { mono: Mono::from_micros(1), wall };
            let node = Node::boot(config(expect, boot), boot, &disk, now)?;
            Ok(Self { node, disk, now, replies: Vec::new() })
        }

        /// Runs until the node has nothing to do before the time is over.
        fn run_for(&mut self, seconds: u64) {
            let end = self.now.mono + Duration::from_secs(seconds);
            while self.now.mono < end {
                self.node.run(self.now);
                let mut written = Vec::new();
                while let Some(output) = self.node.poll_output() {
                    if let Output::Persist { write, records, .. } = output {
                        written.push((write, records));
                    } else if let Output::Reply { reply, .. } = output {
                        self.replies.push(reply);
                    } else if let Output::Halt { reason } = output {
                        panic!("{reason}");
                    }
                }
                for (write, records) in written {
                    records.into_iter().for_each(|record| keep(&mut self.disk, record));
                    self.persisted(write);
                }
                self.now.mono = self.now.mono + Duration::from_millis(5);
            }
        }

        fn persisted(&mut self, write: WriteId) {
            self.node.push(self.now, Input::Persisted { write });
        }

        fn ask(&mut self, request: Request) -> Reply {
            self.node.push(self.now, Input::Request { id: RequestId(9), request });
            self.run_for(2);
            self.replies.pop().expect("the node answers")
        }

        fn view(&mut self) -> View {
            let request = Request::Read(Consistency::Linearizable);
            let Reply::View(view) = self.ask(request) else { panic!("no view") };
            *view
        }

        fn me(&self) -> NodeId {
            self.node.id()
        }
    }

    /// What a disk makes of a record. Nothing here truncates, purges or takes snapshots.
    fn keep(disk: &mut Recovered, record: Record) {
        match record {
            Record::Vote(vote) => disk.vote = Some(vote),
            Record::Entry { index, term, body } => disk.entries.push((index, term, body)),
            Record::Committed(id) => disk.committed = Some(id),
            Record::Local(fact) => disk.locals.push(fact),
            Record::Truncate { .. }
            | Record::Purge { .. }
            | Record::Reset { .. }
            | Record::Doubt(_)
            | Record::Settled
            | Record::Checkpoint(_) => panic!("{record:?}"),
        }
    }

    fn disk_of(records: Vec<Record>) -> Recovered {
        let mut disk = Recovered::default();
        records.into_iter().for_each(|record| keep(&mut disk, record));
        disk
    }

    fn zone(name: &str) -> Request {
        Request::Write(Write::SetTimezone(name.to_owned()))
    }

    #[test]
    fn a_server_that_is_founded_again_leads_another_cluster_with_the_same_state() {
        let mut bench = Bench::boot(1, 1, Recovered::default()).unwrap();
        bench.run_for(3);
        let written = bench.ask(zone("Europe/Oslo"));
        assert!(matches!(written, Reply::Written(_)), "{written:?}");
        let before = bench.view();
        let old = before.state.cluster().unwrap();
        let found = survey(&bench.disk).unwrap();
        assert_eq!(found.cluster, Some(old));
        assert!(!found.has_no_raft());

        let new = ClusterId(old.0 ^ 1);
        let records = refound(&bench.disk, bench.me(), None, new).unwrap();
        let mut again = Bench::boot(3, 2, disk_of(records)).unwrap();
        assert_eq!(again.node.cluster(), Some(new));
        again.run_for(3);
        let after = again.view();
        assert_eq!(after.state.cluster(), Some(new));
        assert_eq!(after.state.timezone(), "Europe/Oslo");
        assert!(after.applied > before.applied);
        let written = again.ask(zone("Europe/Rome"));
        assert!(matches!(written, Reply::Written(_)), "{written:?}");
        assert_eq!(survey(&again.disk).unwrap().cluster, Some(new));
    }

    #[test]
    fn a_node_that_moves_to_another_cluster_keeps_its_own_facts() {
        let checkpoint = Bytes::from_static(b"checkpoint");
        let locals = vec![Bytes::from_static(b"started"), Bytes::from_static(b"finished")];
        let disk = Recovered {
            checkpoint: Some(checkpoint.clone()),
            locals: locals.clone(),
            ..Recovered::default()
        };
        let mut wanted = vec![Record::Checkpoint(checkpoint)];
        wanted.extend(locals.into_iter().map(Record::Local));
        wanted.push(belongs_to(ClusterId(6)));
        assert_eq!(rehome(&disk, ClusterId(6)), wanted);
    }
}
