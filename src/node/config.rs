//! What a node is told at boot: [`NodeConfig`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::consensus::LogBounds;
use crate::dispatch::leader::Patience;
use crate::id::{Boot, ClusterId, Incarnation, NodeId, NodeName};
use crate::membership::Profile;

/// A node's settings. All of them hold until it stops, but for the tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Unique in the cluster.
    pub name: NodeName,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Which start of it: greater than any before, and synced before the node boots.
    pub boot: Boot,
    /// Whether it votes and schedules, or only runs jobs.
    pub role: NodeRole,
    /// Where its gossip is reached.
    pub gossip_addr: SocketAddr,
    /// Where its peers reach it.
    pub peer_addr: SocketAddr,
    /// Its tags; the reserved ones are added to them.
    pub tags: BTreeMap<String, String>,
    /// The only cluster that it may belong to, known from an earlier life of its data directory.
    pub joins: Option<ClusterId>,
    /// Whom to ask for the others, `host[:port]`, again and again.
    pub join: Vec<String>,
    /// The longest pause between two rounds of joining.
    pub retry_interval: Duration,
    /// How long a dead node is remembered by the gossip.
    pub reconnect_timeout: Duration,
    /// How long a dead server keeps its vote.
    pub dead_server_grace: Duration,
    /// The pace of the gossip.
    pub profile: Profile,
    /// Stretches every time of Raft; 1 to 10.
    pub raft_multiplier: u8,
    /// How large the log gets.
    pub log: LogBounds,
    /// The leader's patience.
    pub patience: Patience,
    /// The time zone of jobs that name none, if this node founds the cluster: an IANA name.
    pub timezone: String,
    /// The version of the program, for people.
    pub version: String,
}

/// A node's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// It votes, schedules, answers clients and runs jobs.
    Server {
        /// With how many servers it founds a cluster; 0 if it only joins one.
        bootstrap_expect: u32,
    },
    /// It runs jobs.
    Agent,
}

impl NodeConfig {
    /// The node's id.
    pub fn id(&self) -> NodeId {
        NodeId::derive(&self.name, self.incarnation)
    }

    /// Whether it is a server.
    pub fn is_server(&self) -> bool {
        matches!(self.role, NodeRole::Server { .. })
    }

    /// With how many servers it founds a cluster; 0 for none.
    pub fn expect(&self) -> u32 {
        match self.role {
            NodeRole::Server { bootstrap_expect } => bootstrap_expect,
            NodeRole::Agent => 0,
        }
    }

    /// The tags with the reserved ones laid over them (Dkron's names, its `tags.go`).
    pub fn all_tags(&self, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut tags = own.clone();
        tags.entry("dc".into()).or_insert_with(|| "dc1".into());
        tags.entry("region".into()).or_insert_with(|| "global".into());
        tags.insert("role".into(), "cronclave".into());
        tags.insert("version".into(), self.version.clone());
        tags.insert("rpc_addr".into(), self.peer_addr.to_string());
        tags.insert("port".into(), self.peer_addr.port().to_string());
        if self.is_server() {
            tags.insert("server".into(), "true".into());
        }
        if self.expect() > 0 {
            tags.insert("expect".into(), self.expect().to_string());
        }
        tags
    }
}
