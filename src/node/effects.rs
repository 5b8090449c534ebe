//! What engine, disk and agent want done, and what follows from it.

use std::collections::BTreeSet;

use super::io::{Event, Output};
use super::local::LocalFact;
use super::message::{Message, Refusal};
use super::replicated::{Outcome, Replicated};
use super::requests::OPEN_MAX;
use super::{Life, Node};
use crate::codec::encode;
use crate::codec::frame::Lane;
use crate::consensus::{self, Effect, Engine, ProposeError, SnapshotDone, SnapshotTask, TaskId};
use crate::dispatch::agent;
use crate::dispatch::message::Message as Dispatch;
use crate::id::{CommandId, LogIndex, NodeId, Term, WriteId};
use crate::node::disk::After;
use crate::node::request::{Reply, RequestError};

impl Node {
    pub(super) fn run_engine(&mut self) -> bool {
        let Some(engine) = &mut self.engine else { return false };
        engine.run(self.now.mono);
        let status = engine.status().clone();
        let changed = (&self.raft.voters, &self.raft.learners, self.raft.role, self.raft.leader)
            != (&status.voters, &status.learners, status.role, status.leader)
            || self.raft.term != status.term;
        let progressed = self.raft.applied != status.applied;
        let reshaped = (self.raft.is_joint, self.raft.is_settled, self.raft.doubt)
            != (status.is_joint, status.is_settled, status.doubt);
        let before = std::mem::replace(&mut self.raft, status);
        if changed {
            self.on_status(&before);
        }
        if changed || reshaped {
            self.look_again();
        } else if progressed {
            self.look_at_jobs();
        }
        self.settle_founding();
        let is_unsure = self.raft.leader.is_none() || self.raft.doubt.is_some();
        if changed || reshaped || is_unsure {
            self.tell_standing();
        }
        self.tell_footing();
        let mut acted = changed || progressed;
        while let Some(effect) = self.engine.as_mut().and_then(Engine::poll_effect) {
            acted = true;
            self.on_effect(effect);
            if self.life == Life::Over {
                return false;
            }
        }
        acted
    }

    fn on_effect(&mut self, effect: Effect<Replicated>) {
        match effect {
            Effect::Send { peer, message } => {
                let lane = match message.lane() {
                    consensus::Lane::Control => Lane::Control,
                    consensus::Lane::Append => Lane::Append,
                    consensus::Lane::Bulk => Lane::Bulk,
                };
                let unheard = !self.links.send(peer, lane, Message::Raft(message));
                if let Some(engine) = self.engine.as_mut().filter(|_| unheard) {
                    engine.on_disconnected(peer);
                }
            }
            Effect::Persist { write, records } => self.disk.push_engine(write, records),
            Effect::Snapshot { id, task } => {
                if let SnapshotTask::Build(source) = &task {
                    self.cover_by_history(source.index);
                }
                self.outputs.push_back(Output::Snapshot { id, task });
            }
            Effect::Applied { index, reply } => self.on_applied(index, reply),
            Effect::Proposed { id, result } => self.on_proposed(id, result),
            Effect::ReadIndex { id, result } => self.on_read_index_known(id, result.ok()),
            Effect::MembershipDone { change, result } => self.on_membership_done(&change, result),
            // Looked at after each run of the engine.
            Effect::StatusChanged => {}
            Effect::Settled { doubt, how } => self.event(Event::Settled { doubt, how }),
            Effect::Rejected { peer, reason } => {
                let reason = reason.to_string();
                self.event(Event::Rejected { peer: Some(peer), reason });
            }
            Effect::Halt { reason } => self.halt(reason),
        }
    }

    fn on_status(&mut self, before: &consensus::Status) {
        if !self.raft.voters.is_empty() {
            self.links.update_me(|me| me.virgin = false);
        }
        if (&before.voters, &before.learners) != (&self.raft.voters, &self.raft.learners) {
            let names = |ids: &BTreeSet<NodeId>| -> Vec<String> {
                ids.iter().map(|&id| self.name_of(id).to_string()).collect()
            };
            let voters = names(&self.raft.voters);
            let learners = names(&self.raft.learners);
            self.event(Event::VotersChanged { voters, learners });
        }
        self.learn_raft_leader();
        self.on_role();
    }

    fn on_applied(&mut self, index: LogIndex, outcome: Outcome) {
        self.look_at_jobs();
        self.unkept.push(index, outcome.changes);
        let Some(id) = outcome.id else {
            if let Err(error) = outcome.applied {
                self.event(Event::JobTrouble(format!("an entry of the log was skipped: {error}")));
            }
            return;
        };
        self.settle_retimed(id);
        let Ok(applied) = outcome.applied else { return };
        if let Some(to) = self.forwarded_by(id) {
            let result = Ok(Box::new(applied));
            self.links.send(to, Lane::Control, Message::Forwarded { id, result });
        } else if let Some(request) = self.requests.of_command(id) {
            self.answer(request, Reply::Written(Box::new(applied)));
        }
    }

    /// The log has taken a proposal, or has not.
    fn on_proposed(&mut self, id: CommandId, result: Result<(LogIndex, Term), ProposeError>) {
        if self.on_own_proposal(id, result.is_ok()) {
            return;
        }
        let Err(error) = result else { return };
        self.settle_retimed(id);
        if let Some(to) = self.forwarded_by(id) {
            let result = Err(match error {
                ProposeError::NotLeader { .. } | ProposeError::LeaseExpired => Refusal::NotLeader,
                ProposeError::Busy => Refusal::Failed(RequestError::Busy(OPEN_MAX)),
                ProposeError::LogFull => Refusal::Failed(RequestError::LogFull),
                ProposeError::Unknown => Refusal::Failed(RequestError::Unknown),
            });
            self.links.send(to, Lane::Control, Message::Forwarded { id, result });
            return;
        }
        let Some(request) = self.requests.of_command(id) else { return };
        let Some(open) = self.requests.get_mut(request) else { return };
        if error != ProposeError::Unknown {
            open.undo_attempt();
        }
        if error == ProposeError::LogFull && !open.exposed {
            return self.answer(request, Reply::Failed(RequestError::LogFull));
        }
        self.requests.pause(self.now.mono, request);
    }

    fn settle_retimed(&mut self, id: CommandId) {
        if let Some(leading) = &mut self.leading {
            leading.retimed.on_settled(id);
        }
    }

    /// Peers are told how this server stands as soon as that changes.
    fn tell_standing(&mut self) {
        let Some(standing) = self.engine.as_ref().map(Engine::standing) else { return };
        self.links.tell_standing(standing);
    }

    /// Peers remember how far this server's disk went, and know by that if it is set back.
    fn tell_footing(&mut self) {
        if self.now.mono < self.footing_at {
            return;
        }
        self.footing_at = self.now.mono + super::FOOTING_EVERY;
        if let Some(footing) = self.engine.as_ref().map(Engine::footing) {
            self.links.tell_footing(footing);
        }
    }

    pub(super) fn on_persisted(&mut self, write: WriteId) {
        for after in self.disk.on_persisted(write) {
            match after {
                After::Engine(write) => {
                    if let Some(engine) = &mut self.engine {
                        engine.on_persisted(write);
                    }
                }
                After::Agent(fact) => self.agent.on_persisted(fact),
                After::Pledge => {
                    if let Some(formation) = &mut self.formation {
                        formation.on_persisted(self.now.mono);
                    }
                }
                After::Cluster(cluster) => self.on_cluster_durable(cluster),
                After::Nothing => {}
            }
        }
    }

    pub(super) fn on_snapshot_done(&mut self, id: TaskId, done: SnapshotDone) {
        if let Some(engine) = &mut self.engine {
            engine.on_snapshot_done(id, done);
        }
    }

    pub(super) fn on_dispatch(&mut self, from: NodeId, message: Dispatch) {
        match message {
            Dispatch::Order(order) => self.agent.on_order(self.now.wall, order),
            Dispatch::Ack(execution) => self.agent.on_ack(execution),
            Dispatch::Report(report) => self.on_report(from, report),
        }
    }

    pub(super) fn run_agent(&mut self) -> bool {
        let mut acted = false;
        while let Some(effect) = self.agent.poll_effect() {
            acted = true;
            match effect {
                agent::Effect::Persist(fact) => {
                    let bytes = encode(&LocalFact::Agent(fact.clone()));
                    let lazy = matches!(fact, agent::Fact::Acknowledged(_));
                    let after = (!lazy).then_some(After::Agent(fact));
                    self.disk.push_local(bytes, after);
                }
                agent::Effect::Launch(spec) => {
                    self.event(Event::Launching(spec.execution));
                    self.outputs.push_back(Output::Launch(spec));
                }
                agent::Effect::Report(report) => {
                    if let Some(leader) = self.raft_leader() {
                        self.tell(leader, Dispatch::Report(report));
                    }
                }
                agent::Effect::Refused { execution, reason } => {
                    tracing::debug!(%execution, reason, "order refused");
                }
            }
        }
        acted
    }

    /// Says something about an execution to a node, which may be this one.
    pub(super) fn tell(&mut self, to: NodeId, message: Dispatch) {
        if to == self.id() {
            self.loopback.push_back(Message::Dispatch(message));
        } else {
            let lane = match &message {
                Dispatch::Order(_) | Dispatch::Ack(_) => Lane::Control,
                // A report may carry 256,000 bytes of output.
                Dispatch::Report(_) => Lane::Append,
            };
            self.links.send(to, lane, Message::Dispatch(message));
        }
    }
}
