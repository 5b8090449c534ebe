//! What the leader changes in the Raft configuration so that it follows the roster.
//!
//! [`Autopilot::next_step`] looks at both and names one step; the leader carries it out and asks
//! again. A new server becomes a learner, and a voter once it has everything that was committed
//! when it came. Of a server that lost its disk, the new life takes the place of the old one.
//!
//! **Invariants**
//! - No step while an earlier change is unfinished.
//! - A change of voters is proposed only if a majority of the voters before and of those after it
//!   is alive, so that it can be committed, and the cluster still works then.
//! - The leader is never removed: it hands over first. The last voter is never removed.
//!
//! **Left out on purpose**
//! - Nobody is made a voter again who is dead, and nobody loses the vote for being slow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{LogIndex, NodeId, NodeName};
use crate::time::Mono;

/// How long a dead server keeps its vote, unless configured.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(72 * 60 * 60);

/// What a server may do in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It votes.
    Voter,
    /// It follows without a vote.
    Learner,
}

/// Whether a server is alive, from the roster and from Raft's own traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is.
    Alive,
    /// It is not, at the latest since this instant.
    Dead {
        /// When that was learnt, or when this node began to watch.
        since: Mono,
    },
}

/// Whether a server wants to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It does.
    Stay,
    /// Somebody asked it to leave.
    Leave,
}

/// A server in the Raft configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Who it is.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its address as the configuration has it.
    pub addr: String,
    /// What it may do.
    pub role: Role,
    /// Up to where its log is known to match; `None` if that is not known.
    pub matched: Option<LogIndex>,
    /// Whether it is alive.
    pub health: Health,
    /// Whether it stays.
    pub wish: Wish,
}

/// A server that is alive, of this cluster, and of which name and address are sure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Who it is.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Where it accepts sessions.
    pub addr: String,
    /// Whether it stays.
    pub wish: Wish,
}

/// Whether a change of the configuration is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// None is: the last configuration is committed, and not joint.
    Settled,
    /// One is.
    InFlight,
}

/// What the leader sees.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The leader, who asks.
    pub leader: NodeId,
    /// The Raft configuration.
    pub servers: &'a [Server],
    /// Servers with which there are sessions, whether in the configuration or not.
    pub present: &'a [Present],
    /// Whether a change is under way.
    pub change: Change,
    /// Up to where the log is committed.
    pub committed: LogIndex,
}

/// One change of the Raft configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Let this server follow.
    AddLearner {
        /// Who it is.
        id: NodeId,
        /// Its name.
        name: NodeName,
        /// Where it accepts sessions.
        addr: String,
    },
    /// Make a learner a voter.
    Promote {
        /// Who it is.
        id: NodeId,
        /// All voters then.
        voters: BTreeSet<NodeId>,
    },
    /// Let a learner take the place of a voter of the same name, in one change.
    Replace {
        /// The voter that goes.
        old: NodeId,
        /// The learner that comes.
        new: NodeId,
        /// All voters then.
        voters: BTreeSet<NodeId>,
    },
    /// Take a voter out.
    Remove {
        /// Who it is.
        id: NodeId,
        /// All voters then.
        voters: BTreeSet<NodeId>,
    },
    /// Take a learner out.
    RemoveLearner {
        /// Who it is.
        id: NodeId,
    },
    /// The leader is to leave: hand over to this voter.
    HandOver {
        /// Who is to lead.
        to: NodeId,
    },
    /// A server has another address than the configuration says.
    Readdress {
        /// Who it is.
        id: NodeId,
        /// Its name.
        name: NodeName,
        /// Where it accepts sessions now.
        addr: String,
    },
}

/// The leader's helmsman. Made anew with each term of leadership. See the module.
#[derive(Clone, Debug)]
pub struct Autopilot {
    grace: Duration,
    /// For each learner, what was committed when it was first seen.
    bars: BTreeMap<NodeId, LogIndex>,
}

impl Autopilot {
    /// An autopilot that removes a dead server after `grace`.
    pub fn new(grace: Duration) -> Self {
        Self { grace, bars: BTreeMap::new() }
    }

    /// The next change, or `None` if all is as it should be or must wait.
    pub fn next_step(&mut self, now: Mono, view: &View<'_>) -> Option<Step> {
        self.set_bars(view);
        match view.change {
            Change::InFlight => None,
            Change::Settled => leave(view)
                .or_else(|| self.promote(view))
                .or_else(|| add(view))
                .or_else(|| self.bury(now, view))
                .or_else(|| readdress(view)),
        }
    }

    fn set_bars(&mut self, view: &View<'_>) {
        let learners = view.servers.iter().filter(|server| server.role == Role::Learner);
        let learners: BTreeSet<NodeId> = learners.map(|server| server.id).collect();
        self.bars.retain(|id, _| learners.contains(id));
        for id in learners {
            self.bars.entry(id).or_insert(view.committed);
        }
    }

    /// Promotes a learner that has caught up, in the place of its dead former life if it has one.
    fn promote(&self, view: &View<'_>) -> Option<Step> {
        let ready = |server: &&Server| {
            let bar = self.bars.get(&server.id);
            server.role == Role::Learner
                && server.health == Health::Alive
                && server.wish == Wish::Stay
                && server.matched.is_some_and(|matched| Some(&matched) >= bar)
        };
        view.servers.iter().filter(ready).find_map(|learner| {
            let mut voters = view.voters();
            voters.insert(learner.id);
            let namesake = view.servers.iter().find(|other| {
                other.role == Role::Voter && other.name == learner.name && other.id != learner.id
            });
            let step = match namesake {
                Some(old) if old.health == Health::Alive || old.id == view.leader => return None,
                Some(old) => {
                    voters.remove(&old.id);
                    Step::Replace { old: old.id, new: learner.id, voters: voters.clone() }
                }
                None => Step::Promote { id: learner.id, voters: voters.clone() },
            };
            view.can_become(&voters).then_some(step)
        })
    }

    /// Removes who has been dead for longer than the grace, and learners whose new life is here.
    fn bury(&self, now: Mono, view: &View<'_>) -> Option<Step> {
        let dead = view.servers.iter().filter_map(|server| match server.health {
            Health::Alive => None,
            Health::Dead { since } => Some((server, now.saturating_since(since) >= self.grace)),
        });
        let mut dead = dead.filter(|(server, _)| server.id != view.leader);
        dead.find_map(|(server, is_overdue)| match server.role {
            Role::Learner => {
                let is_reborn = view
                    .present
                    .iter()
                    .any(|present| present.name == server.name && present.id != server.id);
                (is_overdue || is_reborn).then_some(Step::RemoveLearner { id: server.id })
            }
            Role::Voter => is_overdue.then(|| view.remove(server.id)).flatten(),
        })
    }
}

/// Takes out who was asked to leave.
fn leave(view: &View<'_>) -> Option<Step> {
    let mut leavers = view.servers.iter().filter(|server| server.wish == Wish::Leave);
    leavers.find_map(|leaver| match leaver.role {
        Role::Learner => Some(Step::RemoveLearner { id: leaver.id }),
        Role::Voter if leaver.id != view.leader => view.remove(leaver.id),
        Role::Voter => {
            let heirs = view.servers.iter().filter(|server| {
                server.role == Role::Voter
                    && server.id != leaver.id
                    && server.health == Health::Alive
                    && server.wish == Wish::Stay
            });
            heirs.max_by_key(|heir| heir.matched).map(|heir| Step::HandOver { to: heir.id })
        }
    })
}

/// Lets a server that is new follow; unless it bears the name of one that is alive.
fn add(view: &View<'_>) -> Option<Step> {
    let newcomer = view.present.iter().find(|present| {
        let is_known = view.servers.iter().any(|server| {
            server.id == present.id
                || (server.name == present.name && server.health == Health::Alive)
        });
        !is_known && present.wish == Wish::Stay
    })?;
    let Present { id, name, addr, .. } = newcomer.clone();
    Some(Step::AddLearner { id, name, addr })
}

fn readdress(view: &View<'_>) -> Option<Step> {
    let moved = view.present.iter().find(|present| {
        view.servers.iter().any(|server| server.id == present.id && server.addr != present.addr)
    })?;
    let Present { id, name, addr, .. } = moved.clone();
    Some(Step::Readdress { id, name, addr })
}

impl View<'_> {
    fn voters(&self) -> BTreeSet<NodeId> {
        let voters = self.servers.iter().filter(|server| server.role == Role::Voter);
        voters.map(|server| server.id).collect()
    }

    fn remove(&self, id: NodeId) -> Option<Step> {
        let mut voters = self.voters();
        voters.remove(&id);
        self.can_become(&voters).then_some(Step::Remove { id, voters })
    }

    /// Whether a majority of the voters, and of the `next` ones, is alive.
    fn can_become(&self, next: &BTreeSet<NodeId>) -> bool {
        !next.is_empty() && self.has_quorum(&self.voters()) && self.has_quorum(next)
    }

    fn has_quorum(&self, voters: &BTreeSet<NodeId>) -> bool {
        let is_alive = |server: &&Server| {
            voters.contains(&server.id)
                && (server.health == Health::Alive || server.id == self.leader)
        };
        self.servers.iter().filter(is_alive).count() > voters.len() / 2
    }
}

#[cfg(test)]
mod tests;
