//! What a node remembers on disk besides Raft: its cluster, its pledge, its journal and outbox.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::links::{Met, remember};
use crate::codec::record::Recovered;
use crate::codec::{DecodeError, decode, encode};
use crate::dispatch::agent::{self, Agent};
use crate::id::{ClusterId, NodeId};
use crate::membership::formation::Pledge;

/// One fact of the node's own, as a record of the log holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LocalFact {
    /// The node belongs to this cluster.
    Cluster(ClusterId),
    /// The node is pledged to this set of founders, or to none; replaces any pledge before.
    Pledge(Option<Pledge>),
    /// About an execution here.
    Agent(agent::Fact),
    /// This boot of another server was met.
    Met(NodeId, Met),
}

/// All of the node's own facts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Local {
    /// The cluster that it belongs to.
    pub(super) cluster: Option<ClusterId>,
    /// The set that it has pledged itself to.
    pub(super) pledge: Option<Pledge>,
    agent: agent::Checkpoint,
    /// The last boot of each other server that was met.
    pub(super) met: BTreeMap<NodeId, Met>,
}

impl Local {
    /// The facts as `recovered` has them, and the agent that they make.
    ///
    /// # Errors
    /// If a record is no fact: the log was written by another version, or by something else.
    pub(super) fn recover(recovered: &Recovered) -> Result<(Self, Agent), DecodeError> {
        let mut local = match &recovered.checkpoint {
            Some(bytes) => decode::<Self>("checkpoint of the node", bytes)?,
            None => Self::default(),
        };
        let mut facts = Vec::new();
        for bytes in &recovered.locals {
            match decode::<LocalFact>("fact of the node", bytes)? {
                LocalFact::Cluster(cluster) => local.cluster = Some(cluster),
                LocalFact::Pledge(pledge) => local.pledge = pledge,
                LocalFact::Agent(fact) => facts.push(fact),
                LocalFact::Met(id, met) => remember(&mut local.met, id, met),
            }
        }
        let agent = Agent::recover(std::mem::take(&mut local.agent), facts);
        Ok((local, agent))
    }

    /// All facts as a checkpoint of the log.
    pub(super) fn checkpoint(&self, agent: &Agent) -> Bytes {
        encode(&Self { agent: agent.checkpoint(), ..self.clone() })
    }
}
