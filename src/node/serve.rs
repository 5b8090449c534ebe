//! Clients' requests: taken here, carried out by the leader, answered here.

use super::io::Output;
use super::message::{Message, Refusal};
use super::requests::{Look, Stage, What};
use super::{HAND_OVER_MAX, Life, Node};
use crate::codec::frame::Lane;
use crate::id::{CommandId, LogIndex, NodeId, RequestId};
use crate::jobs::command::Applied;
use crate::node::request::{
    Consistency, Member, MemberStatus, NodeStatus, RaftRole, Reply, Request, RequestError, View,
    Write,
};
use crate::time::Mono;
use std::time::Duration;

impl Node {
    pub(super) fn on_request(&mut self, id: RequestId, request: Request) {
        let now = self.now.mono;
        let refused = match (&request, &self.life) {
            (Request::Status | Request::Members, _) => None,
            (_, Life::Stopping { .. } | Life::Leaving(_)) => Some(RequestError::Stopping),
            (Request::Leave, _) => None,
            (_, _) if self.engine.is_none() => Some(RequestError::NotServer),
            (_, Life::Running | Life::Over) => None,
        };
        let taken = match (refused, request) {
            (Some(error), _) => Err(error),
            (None, Request::Status) => {
                return self.reply(id, Reply::Status(Box::new(self.status())));
            }
            (None, Request::Members) => return self.reply(id, Reply::Members(self.members())),
            (None, Request::Write(write)) => {
                let me = (self.id(), self.config.boot);
                self.requests.open_write(now, id, me, write)
            }
            (None, Request::Read(Consistency::Stale)) => return self.reply_view(id),
            (None, Request::Read(Consistency::Linearizable)) => {
                self.requests.open_read(now, id, Look::State)
            }
            (None, Request::Executions { job, select, consistency }) => {
                self.open_executions(id, Look::Executions { job, select }, consistency)
            }
            (None, Request::Leave) => self.begin_leave(id),
        };
        if let Err(error) = taken {
            self.reply(id, Reply::Failed(error));
        }
    }

    fn reply(&mut self, id: RequestId, reply: Reply) {
        self.outputs.push_back(Output::Reply { id, reply });
    }

    /// Ends an open request with its answer.
    pub(super) fn answer(&mut self, id: RequestId, reply: Reply) {
        if self.requests.close(id).is_some() {
            self.reply(id, reply);
        }
    }

    fn reply_view(&mut self, id: RequestId) {
        let Some(engine) = &self.engine else {
            return self.reply(id, Reply::Failed(RequestError::NotServer));
        };
        let view = View {
            state: engine.machine().0,
            applied: self.raft.applied,
            leader: self.raft_leader().map(|id| self.name_of(id)),
        };
        self.reply(id, Reply::View(Box::new(view)));
    }

    fn open_executions(
        &mut self,
        id: RequestId,
        look: Look,
        consistency: Consistency,
    ) -> Result<(), RequestError> {
        self.requests.open_read(self.now.mono, id, look)?;
        match (consistency, self.requests.get_mut(id)) {
            // Whatever is applied will do.
            (Consistency::Stale, Some(open)) => open.stage = Stage::Applying(LogIndex(0)),
            (Consistency::Stale, None) | (Consistency::Linearizable, _) => {}
        }
        Ok(())
    }

    /// What a read waited for is applied. False if it has to wait for something else.
    fn serve_read(&mut self, id: RequestId) -> bool {
        let look = match self.requests.get_mut(id).map(|open| &open.what) {
            Some(What::Read { look, .. }) => look.clone(),
            Some(What::Write { .. } | What::Leave) | None => return false,
        };
        match look {
            Look::State => {
                self.requests.close(id);
                self.reply_view(id);
                true
            }
            Look::Executions { job, select } => self.read_history(id, job, select),
        }
    }

    pub(super) fn run_requests(&mut self) -> bool {
        let mut acted = false;
        for id in self.requests.overdue(self.now.mono) {
            acted = true;
            self.expire(id);
        }
        for id in self.requests.applied(self.raft.applied.unwrap_or_default()) {
            acted |= self.serve_read(id);
        }
        // Looked at even when nobody leads: a pause that is over has to be no deadline any more.
        let waiting = self.requests.waiting(self.now.mono);
        let Some(leader) = self.raft_leader() else { return acted };
        for id in waiting {
            acted |= self.pass_on(id, leader);
        }
        acted
    }

    fn expire(&mut self, id: RequestId) {
        let Some(open) = self.requests.close(id) else { return };
        if open.what == What::Leave {
            self.life = Life::Running;
        }
        let write = matches!(open.what, What::Write { .. });
        let exposed = open.exposed && write;
        let full = self.full_disk_waited_for();
        let error = match (exposed, full, self.raft_leader()) {
            (false, _, _) if self.awaits_store(&open.stage) => {
                RequestError::HistoryUnavailable("it was not read in time".to_owned())
            }
            (true, Some(full), _) => RequestError::UnknownDiskFull(full),
            (true, None, _) => RequestError::Unknown,
            (false, Some(full), _) => RequestError::DiskFull(format!("{full}; ask another server")),
            (false, None, Some(leader)) => {
                RequestError::NoLeader(format!("{} did not answer in time", self.name_of(leader)))
            }
            (false, None, None) => RequestError::NoLeader(self.missing()),
        };
        self.reply(id, Reply::Failed(error));
    }

    /// Whether nothing but the store of the history is waited for, or a place there.
    fn awaits_store(&self, stage: &Stage) -> bool {
        match stage {
            Stage::Reading => true,
            Stage::Applying(at) => *at <= self.raft.applied.unwrap_or_default(),
            Stage::Waiting | Stage::Paused(_) | Stage::With(_) => false,
        }
    }

    /// Gives a request to the leader, which may be this node. False if it has to wait.
    fn pass_on(&mut self, id: RequestId, leader: NodeId) -> bool {
        let mine = leader == self.id();
        if mine && !self.leads() {
            return false;
        }
        let is_to_be_replaced = mine && self.is_to_be_replaced();
        let Some(open) = self.requests.get_mut(id) else { return false };
        if is_to_be_replaced && matches!(open.what, What::Write { .. }) {
            self.requests.pause(self.now.mono, id);
            return false;
        }
        let what = open.what.clone();
        open.begin_attempt(leader);
        match what {
            What::Write { id: command, write } => {
                if mine {
                    if let Err(refusal) = self.propose_write(command, &write) {
                        self.on_refused(id, refusal);
                    }
                    return true;
                }
                let message = Message::Forward { id: command, write };
                if self.links.send(leader, Lane::Append, message) {
                    return true;
                }
            }
            What::Read { number, .. } => {
                let message = Message::ReadIndex { id: number };
                if mine {
                    self.ask_read_index(None, number);
                    return true;
                }
                if self.links.send(leader, Lane::Control, message) {
                    return true;
                }
            }
            What::Leave => return true,
        }
        if let Some(open) = self.requests.get_mut(id) {
            open.stage = Stage::Waiting;
            open.undo_attempt();
        }
        false
    }

    /// A leader did not take a write. If none has proposed it, the client is told why; else it may
    /// still be carried out, and is asked for again until its time is over.
    fn on_refused(&mut self, id: RequestId, refusal: Refusal) {
        let Some(open) = self.requests.get_mut(id) else { return };
        let error = match refusal {
            Refusal::Failed(error) if error.is_unknown() => Some(error),
            Refusal::Failed(error) => {
                open.undo_attempt();
                Some(error).filter(|_| !open.exposed)
            }
            Refusal::NotLeader | Refusal::NotYet => {
                open.undo_attempt();
                None
            }
        };
        match error {
            Some(error) => self.answer(id, Reply::Failed(error)),
            None => self.requests.pause(self.now.mono, id),
        }
    }

    pub(super) fn on_forward(&mut self, from: NodeId, id: CommandId, write: Write) {
        let refusal = match self.leads() && !self.is_to_be_replaced() {
            false => Some(Refusal::NotLeader),
            true => {
                self.note_forwarded(id, from);
                self.propose_write(id, &write).err()
            }
        };
        if let Some(refusal) = refusal {
            self.forwarded.remove(&id);
            let message = Message::Forwarded { id, result: Err(refusal) };
            self.links.send(from, Lane::Control, message);
        }
    }

    pub(super) fn on_forwarded(
        &mut self,
        _from: NodeId,
        id: CommandId,
        result: Result<Box<Applied>, Refusal>,
    ) {
        let Some(request) = self.requests.of_command(id) else { return };
        match result {
            Ok(applied) => self.answer(request, Reply::Written(applied)),
            Err(refusal) => self.on_refused(request, refusal),
        }
    }

    pub(super) fn on_read_index(&mut self, from: NodeId, id: u64) {
        match self.leads() {
            true => self.ask_read_index(Some(from), id),
            false => {
                let message = Message::ReadIndexIs { id, index: None };
                self.links.send(from, Lane::Control, message);
            }
        }
    }

    pub(super) fn on_read_index_is(&mut self, _from: NodeId, id: u64, index: Option<LogIndex>) {
        let Some(request) = self.requests.of_read(id) else { return };
        match index {
            Some(index) => {
                if let Some(open) = self.requests.get_mut(request) {
                    open.stage = Stage::Applying(index);
                }
            }
            None => self.requests.pause(self.now.mono, request),
        }
    }

    fn status(&self) -> NodeStatus {
        let me = self.links.me();
        let leader = self.raft_leader();
        NodeStatus {
            id: me.id,
            name: me.name.clone(),
            server: me.server,
            cluster: me.cluster,
            tags: me.tags.clone(),
            term: self.known_leader.0,
            leader: leader.map(|id| self.name_of(id)),
            is_leader: leader == Some(me.id),
            applied: self.raft.applied,
            committed: self.raft.committed,
            voters: self.raft.voters.iter().map(|&id| self.name_of(id)).collect(),
            running: self.agent.running().count(),
            disk_full: self.disk_full.clone(),
            waiting_for: leader.is_none().then(|| self.missing()),
            in_doubt: self.doubts(),
        }
    }

    fn members(&self) -> Vec<Member> {
        let me = self.links.me();
        let leader = self.raft_leader();
        let role = |id: NodeId| match id {
            id if leader == Some(id) => RaftRole::Leader,
            id if self.raft.voters.contains(&id) => RaftRole::Voter,
            id if self.raft.learners.contains(&id) => RaftRole::Learner,
            _ => RaftRole::None,
        };
        let own = std::iter::once((me, MemberStatus::Alive));
        let peers = self.links.peers().map(|(_, peer)| {
            let alive = peer.session.is_some() || self.roster.is_alive(peer.hello.id);
            let status = match (peer.hello.left, alive) {
                (true, _) => MemberStatus::Left,
                (false, true) => MemberStatus::Alive,
                (false, false) => MemberStatus::Failed,
            };
            (&peer.hello, status)
        });
        let mut members: Vec<Member> = own
            .chain(peers)
            .map(|(hello, status)| Member {
                id: hello.id,
                name: hello.name.clone(),
                gossip_addr: hello.gossip_addr.clone(),
                peer_addr: hello.peer_addr.clone(),
                tags: hello.tags.clone(),
                status,
                raft: role(hello.id),
                disk_full: hello.disk_full,
            })
            .collect();
        members.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        members
    }

    /// Stops without leaving: hands over, launches nothing more, lets what runs end.
    pub(super) fn begin_stop(&mut self, drain: Duration) {
        if self.life != Life::Running {
            return;
        }
        let since = self.now.mono;
        self.life = Life::Stopping { since, drain_until: since + drain, killed: false };
        self.agent.stop();
        for request in self.requests.all() {
            let is_exposed = self.requests.get_mut(request).is_some_and(|open| open.exposed);
            let error = if is_exposed { RequestError::Unknown } else { RequestError::Stopping };
            self.answer(request, Reply::Failed(error));
        }
        self.hand_over();
    }

    fn begin_leave(&mut self, id: RequestId) -> Result<(), RequestError> {
        let others = self.raft.voters.iter().any(|voter| *voter != self.id());
        if !self.raft.voters.contains(&self.id()) || !others {
            // Nobody is there to remove it, or it has no part in Raft: it says goodbye and stops.
            self.reply(id, Reply::Left);
            self.say_goodbye();
            return Ok(());
        }
        self.requests.open_leave(self.now.mono, id)?;
        self.life = Life::Leaving(id);
        self.wish_to_leave();
        Ok(())
    }

    /// The leader says that this node is removed from the Raft configuration.
    pub(super) fn on_removed(&mut self, from: NodeId) {
        if let Life::Leaving(request) = self.life
            && self.raft_leader() == Some(from)
        {
            self.life = Life::Running;
            self.answer(request, Reply::Left);
            self.say_goodbye();
        }
    }

    fn say_goodbye(&mut self) {
        self.links.update_me(|me| me.left = true);
        self.roster.leave(self.now.mono);
        self.begin_stop(Duration::ZERO);
    }

    pub(super) fn stop_timeout(&self) -> Option<Mono> {
        match self.life {
            Life::Stopping { since, drain_until, killed } => {
                // What has passed is no deadline: what is waited for then comes as an input.
                let drained = Some(drain_until).filter(|_| !killed);
                let handed_over = Some(since + HAND_OVER_MAX).filter(|&at| at > self.now.mono);
                drained.into_iter().chain(handed_over).min()
            }
            Life::Running | Life::Leaving(_) | Life::Over => None,
        }
    }

    /// Ends what still runs when the time is over, and stops when nothing is left to be written.
    pub(super) fn stop_if_drained(&mut self) {
        let Life::Stopping { since, drain_until, killed } = self.life else { return };
        let now = self.now.mono;
        if now >= drain_until && !killed {
            self.life = Life::Stopping { since, drain_until, killed: true };
            let running: Vec<_> = self.agent.running().collect();
            for execution in running {
                let reason = "its node was told to stop".to_owned();
                self.outputs.push_back(Output::Kill { execution, reason });
            }
        }
        let handing_over = self.leads() && self.raft.voters.len() > 1;
        let patient = handing_over && now < since + HAND_OVER_MAX;
        let written = self.agent.is_settled() && self.disk.is_idle();
        // What a full disk holds back was acknowledged to nobody: to stop without it is a crash,
        // which loses nothing that was promised.
        let hopeless = self.disk_full.is_some()
            && now >= since + HAND_OVER_MAX
            && (self.agent.running().next().is_none() || killed);
        if (written || hopeless) && !patient {
            self.life = Life::Over;
            self.outputs.push_back(Output::Stopped);
        }
    }
}
