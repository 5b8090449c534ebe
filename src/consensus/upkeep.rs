//! What an engine does by itself: snapshots, purges, handovers, unfinished changes.

use std::sync::Arc;
use std::time::Duration;

use openraft::{ChangeMembers, RaftMetrics, ServerState};

use super::effect::{Effect, NotLeader, TransferError};
use super::engine::{Engine, LogBounds, Run};
use super::machine::Machine;
use super::status::{Follower, Role, Status};
use super::types::{LogId, TypeConfig, index_of};
use crate::id::{LogIndex, NodeId, Term};
use crate::time::Mono;

/// A leader whose oldest write is unsynced for longer hands over.
const UNSYNCED_MAX: Duration = Duration::from_secs(2);
/// Who is to take over must have answered within this time.
const TRANSFER_ACK_MAX: Duration = Duration::from_secs(1);
/// How long to wait before something that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The log is purged when it is over what is to be kept by this part of it.
const PURGE_PART: u64 = 16;
/// How long to wait before another snapshot is taken because the last one may be damaged.
const REWRITE_AFTER: Duration = Duration::from_secs(10);

/// What the upkeep remembers between turns.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// What the snapshot covered beyond which the last one was asked for.
    asked_beyond: Option<Option<LogIndex>>,
    /// When one may be asked for beyond the same again.
    next_snapshot: Mono,
    /// Up to where a purge was asked for.
    purged_upto: Option<u64>,
    /// A handover that is under way: in which term, and until when it must be done.
    transfer: Option<(Term, Mono)>,
    /// When a handover for a slow disk may next be tried.
    next_handover: Mono,
    /// When a snapshot may next be taken because the current one may be damaged.
    next_rewrite: Mono,
    /// Whether the disk is full, which its owner deals with.
    is_disk_full: bool,
    /// When finishing a joint membership may next be tried.
    next_flatten: Mono,
    /// Until when openraft's clock rests, if it does.
    rests_until: Option<Mono>,
}

impl<M: Machine> Engine<M> {
    /// Hands leadership to `to`.
    ///
    /// # Errors
    /// If this node does not lead, or `to` cannot take over now. Nothing has happened then.
    pub fn transfer(&mut self, to: NodeId) -> Result<(), TransferError> {
        let (Some(raft), Role::Leader) = (self.raft(), self.status.role) else {
            return Err(TransferError::NotLeader);
        };
        if self.upkeep.transfer.is_some() {
            return Err(TransferError::InProgress);
        }
        if !self.status.voters.contains(&to) || to == self.config.id {
            return Err(TransferError::NotVoter);
        }
        if !self.is_reachable(to) {
            return Err(TransferError::NotReachable);
        }
        if self.doubts.is_in_doubt(to) {
            return Err(TransferError::InDoubt);
        }
        let deadline = self.now + self.config.lease() * 2;
        self.upkeep.transfer = Some((self.status.term, deadline));
        self.quiet_at = None;
        let _entered = self.host.enter();
        self.host.spawn(async move {
            // A stopped Raft shows in its metrics.
            drop(raft.trigger().transfer_leader(to).await);
        });
        Ok(())
    }

    /// The disk is full. Writes wait, and it is for the owner to say who takes over: without this
    /// node's vote, which cannot be written, perhaps nobody can.
    pub fn on_disk_full(&mut self) {
        self.quiet_at = None;
        self.upkeep.is_disk_full = true;
    }

    /// There is space on the disk again.
    pub fn on_disk_free(&mut self) {
        self.quiet_at = None;
        self.upkeep.is_disk_full = false;
    }

    /// Whether what has to wait for the disk has to wait for a person.
    pub(crate) fn is_disk_full(&self) -> bool {
        self.upkeep.is_disk_full
    }

    fn is_reachable(&self, peer: NodeId) -> bool {
        let acked = self.status.followers.get(&peer).and_then(|follower| follower.acked);
        let is_recent =
            acked.is_some_and(|acked| self.now.saturating_since(acked) <= TRANSFER_ACK_MAX);
        is_recent && self.net.is_connected(peer)
    }

    /// Does what is due. The host must be entered.
    pub(crate) fn keep_up(&mut self) {
        let Some(metrics) = self.metrics() else { return };
        if let Err(fatal) = &metrics.running_state {
            self.halt(fatal.to_string());
            return;
        }
        self.tidy_incoming();
        self.take_snapshot();
        self.purge(&metrics);
        self.flatten(&metrics);
        self.hand_over_slow_disk(&metrics);
        self.give_up_transfer(&metrics);
        self.tick_or_rest(&metrics);
    }

    /// Lets openraft's clock rest while it has nothing to tell. It ticks five times in a heartbeat,
    /// and each tick asks two things: whether a leader is to show that it lives, and whether a
    /// voter has waited long enough to campaign. Who follows a leader does neither before that one
    /// was silent for the lease, which is also when it is no longer named as the leader. A clock
    /// that goes on ticks where it would have without the rest.
    fn tick_or_rest(&mut self, metrics: &RaftMetrics<TypeConfig>) {
        let is_alone = metrics.membership_config.voter_ids().eq([self.config.id]);
        let heard = self.heard.filter(|(peer, _)| metrics.current_leader == Some(*peer));
        let until = heard.map(|(_, at)| at + self.config.lease());
        let until = until.filter(|until| self.now < *until && !is_alone);
        if let Some(raft) = self.raft()
            && until.is_some() != self.upkeep.rests_until.is_some()
        {
            raft.runtime_config().tick(until.is_none());
        }
        self.upkeep.rests_until = until;
    }

    /// When openraft's clock has to go on, if it rests.
    pub(crate) fn rests_until(&self) -> Option<Mono> {
        self.upkeep.rests_until
    }

    fn take_snapshot(&mut self) {
        let (Some(raft), Some(applied)) = (self.raft(), self.machine.applied()) else { return };
        let current = self.machine.snapshot_file();
        let covered = current.map(|file| file.index);
        let is_asked = self.upkeep.asked_beyond == Some(covered);
        if self.machine.is_building() || (is_asked && self.now < self.upkeep.next_snapshot) {
            return;
        }
        let bound = self.config.log.snapshot_after_bytes.max(current.map_or(0, |file| file.len));
        // A snapshot larger than that must not let the log grow up to its bound.
        let bound = bound.min(self.config.log.bytes_max / 2);
        let is_grown =
            self.store.bytes_above(covered) > bound && Some(index_of(&applied)) > covered;
        // Whatever is wrong with the current one on disk, the next one is written anew.
        let is_suspect = self.net.take_suspect().is_some_and(|file| current == Some(file));
        let is_rewritten = is_suspect && self.now >= self.upkeep.next_rewrite;
        if !is_grown && !is_rewritten {
            return;
        }
        self.upkeep.asked_beyond = Some(covered);
        self.upkeep.next_snapshot = self.now + RETRY_AFTER;
        self.upkeep.next_rewrite = self.now + REWRITE_AFTER;
        self.host.spawn(async move {
            drop(raft.trigger().snapshot().await);
        });
    }

    fn purge(&mut self, metrics: &RaftMetrics<TypeConfig>) {
        let Some(covered) = metrics.snapshot.as_ref().map(index_of) else { return };
        let LogBounds { keep_bytes, keep_entries, .. } = self.config.log;
        // A little at a time would be a record in each group.
        let is_much = self.store.bytes() > keep_bytes + keep_bytes / PURGE_PART
            || self.store.len() > keep_entries + keep_entries / PURGE_PART;
        if !is_much {
            return;
        }
        let Some(upto) = self.store.purgeable(covered, keep_bytes, keep_entries) else { return };
        if self.upkeep.purged_upto.is_some_and(|asked| asked >= upto) {
            return;
        }
        self.upkeep.purged_upto = Some(upto);
        let Some(raft) = self.raft() else { return };
        self.host.spawn(async move {
            drop(raft.trigger().purge_log(upto).await);
        });
    }

    /// Finishes a change of voters whose leader died half way.
    fn flatten(&mut self, metrics: &RaftMetrics<TypeConfig>) {
        let membership = &metrics.membership_config;
        let is_settled = membership == &metrics.committed_membership_config;
        let is_joint = membership.get_joint_config().len() > 1;
        let is_due = metrics.state == ServerState::Leader && is_joint && is_settled;
        if !is_due || self.now < self.upkeep.next_flatten {
            return;
        }
        self.upkeep.next_flatten = self.now + RETRY_AFTER;
        let Some(raft) = self.raft() else { return };
        self.host.spawn(async move {
            let nothing = ChangeMembers::AddVoterIds(std::collections::BTreeSet::new());
            // If it fails, it is tried again.
            drop(raft.change_membership(nothing, false).await);
        });
    }

    fn hand_over_slow_disk(&mut self, metrics: &RaftMetrics<TypeConfig>) {
        let is_slow = self
            .store
            .oldest_unsynced()
            .is_some_and(|since| self.now.saturating_since(since) > UNSYNCED_MAX);
        let is_leader = metrics.state == ServerState::Leader;
        let is_due = is_slow && is_leader && !self.upkeep.is_disk_full;
        if !is_due || self.upkeep.transfer.is_some() || self.now < self.upkeep.next_handover {
            return;
        }
        self.upkeep.next_handover = self.now + RETRY_AFTER;
        let best = self
            .status
            .voters
            .iter()
            .filter(|voter| **voter != self.config.id && self.is_reachable(**voter))
            .filter(|voter| !self.doubts.is_in_doubt(**voter))
            .max_by_key(|voter| self.status.followers.get(voter).and_then(|known| known.matched));
        if let Some(&best) = best {
            // If it cannot be now, it is tried again.
            let _refused = self.transfer(best);
        }
    }

    /// A handover that does not come about leaves openraft refusing proposals for ever; only a new
    /// start ends that.
    fn give_up_transfer(&mut self, metrics: &RaftMetrics<TypeConfig>) {
        let Some((term, deadline)) = self.upkeep.transfer else { return };
        let is_over = metrics.state != ServerState::Leader || metrics.current_term != term.0;
        if is_over {
            self.upkeep.transfer = None;
        } else if self.now >= deadline {
            self.upkeep.transfer = None;
            self.restart();
        }
    }

    /// Stops Raft's tasks. They start again when every write is durable, since a start takes all
    /// that is in the log for durable.
    fn restart(&mut self) {
        self.run = Run::Restarting;
        self.host.clear();
        self.net.forget_all();
        // What has come of a snapshot stays; it goes on when it is announced again.
        self.drop_installing();
        self.serving.clear();
        self.held.clear();
        self.agreed = None;
        self.heard = None;
        // The next clock ticks from its start on.
        self.upkeep.rests_until = None;
        let reads = std::mem::take(&mut self.turn.reads);
        for id in reads {
            let result = Err(NotLeader { leader: None });
            self.effects.push(Effect::ReadIndex { id, result });
        }
    }

    pub(crate) fn restart_when_synced(&mut self) {
        if !self.store.is_synced() || self.machine.is_installing() {
            return;
        }
        if let Err(error) = self.start() {
            self.halt(error.to_string());
        }
    }

    /// How it stands now.
    pub(crate) fn read_status(&mut self) -> Status {
        let Some(metrics) = self.metrics() else {
            return Status { role: Role::Learner, leader: None, ..self.status.clone() };
        };
        let membership = &metrics.membership_config;
        let is_known = self.membership.as_ref().is_some_and(|known| Arc::ptr_eq(known, membership));
        let (voters, learners, members) = if is_known {
            let Status { voters, learners, members, .. } = &self.status;
            (Arc::clone(voters), Arc::clone(learners), Arc::clone(members))
        } else {
            let members = membership.nodes().map(|(id, peer)| (*id, peer.clone()));
            let learners = membership.membership().learner_ids().collect();
            let voters = membership.voter_ids().collect();
            (Arc::new(voters), Arc::new(learners), Arc::new(members.collect()))
        };
        let log = |id: &Option<LogId>| id.as_ref().map(index_of);
        let status = Status {
            role: match metrics.state {
                ServerState::Leader => Role::Leader,
                ServerState::Candidate => Role::Candidate,
                ServerState::Follower => Role::Follower,
                ServerState::Learner | ServerState::Shutdown => Role::Learner,
            },
            term: Term(metrics.current_term),
            leader: self.live_leader(&metrics),
            voters,
            learners,
            members,
            is_joint: membership.get_joint_config().len() > 1,
            is_settled: membership == &metrics.committed_membership_config,
            last: metrics.last_log_index.map(LogIndex),
            committed: log(&metrics.local_committed),
            applied: log(&metrics.last_applied),
            snapshot: log(&metrics.snapshot),
            purged: log(&metrics.purged),
            followers: followers(&metrics),
            unsynced_since: self.store.oldest_unsynced(),
            log_bytes: self.store.bytes(),
            is_fresh: self.store.is_fresh(),
            doubt: self.store.doubt(),
        };
        self.membership = Some(metrics.membership_config);
        status
    }

    /// The leader, if it is known to be alive.
    fn live_leader(&self, metrics: &RaftMetrics<TypeConfig>) -> Option<NodeId> {
        let leader = metrics.current_leader?;
        let lease = self.config.lease();
        let seen = if leader != self.config.id {
            self.heard.filter(|(peer, _)| *peer == leader).map(|(_, at)| at)
        } else if metrics.membership_config.voter_ids().eq([leader]) {
            Some(self.now)
        } else {
            metrics.last_quorum_acked.map(|at| at.into_inner().round_down())
        };
        seen.is_some_and(|at| self.now.saturating_since(at) < lease).then_some(leader)
    }
}

fn followers(metrics: &RaftMetrics<TypeConfig>) -> std::collections::BTreeMap<NodeId, Follower> {
    let (Some(matched), Some(acked)) = (&metrics.replication, &metrics.heartbeat) else {
        return std::collections::BTreeMap::new();
    };
    matched
        .iter()
        .map(|(id, matched)| {
            let acked = acked.get(id).copied().flatten();
            let acked = acked.map(|at| at.into_inner().round_down());
            (*id, Follower { matched: matched.as_ref().map(index_of), acked })
        })
        .collect()
}
