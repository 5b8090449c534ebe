//! What a node does while its disk is full: nothing that would have to be written.
//!
//! The disk holds the group that found no room and goes on by itself when there is some, so nothing
//! that was acknowledged is at stake, and what was not yet acknowledged waits. Meanwhile a leader
//! takes no writes, claims nothing and books nothing: it hands over to a voter that has room. Only
//! where the voters with room are no quorum it stays, since nobody could be elected without its own
//! vote, which it cannot write; then it serves reads, and refuses writes by name.
//!
//! **Left out on purpose**
//! - Reads on a full follower. It has what it had written, and no more than a window of what came
//!   since: a fresh read is answered if that is enough, and refused in time if not.

use super::Node;
use super::io::Event;
use super::message::Message;
use crate::id::{NodeId, Term};
use crate::node::request::RequestError;

impl Node {
    /// The disk has no room for what was handed out to it; said again if the reason changes.
    pub(super) fn on_disk_full(&mut self, reason: String) {
        if self.disk_full.replace(reason.clone()).is_some() {
            return;
        }
        self.event(Event::DiskFull(reason));
        self.agent.hold();
        if let Some(engine) = &mut self.engine {
            engine.on_disk_full();
        }
        self.links.update_me(|me| me.disk_full = true);
        self.look_again();
    }

    /// The disk takes writes again.
    pub(super) fn on_disk_free(&mut self) {
        if self.disk_full.take().is_none() {
            return;
        }
        self.event(Event::DiskFree);
        self.agent.go_on();
        if let Some(engine) = &mut self.engine {
            engine.on_disk_free();
        }
        self.links.update_me(|me| me.disk_full = false);
        self.learn_raft_leader();
        if self.leads() {
            // What ended meanwhile was reported to a leader that could not book it.
            let (term, leader) = self.known_leader;
            self.links.send_all(&Message::Leads { term, leader });
            self.agent.report_all();
        }
        self.look_again();
    }

    /// Whether this node leads with a full disk and another can take its place.
    pub(super) fn is_to_be_replaced(&self) -> bool {
        self.disk_full.is_some() && self.raft.voters.len() / 2 < self.voters_with_room().count()
    }

    /// The voters that answer and have room on their disks.
    fn voters_with_room(&self) -> impl Iterator<Item = NodeId> + '_ {
        let has_room = |id: &NodeId| match *id == self.id() {
            true => self.disk_full.is_none(),
            false => self
                .links
                .peer(*id)
                .is_some_and(|peer| peer.session.is_some() && !peer.hello.disk_full),
        };
        self.raft.voters.iter().copied().filter(has_room)
    }

    /// A leader whose disk is full lets another lead, if the others can elect it.
    pub(super) fn hand_over_full_disk(&mut self) {
        if !self.is_to_be_replaced() {
            return;
        }
        let best = self.voters_with_room().max_by_key(|&id| self.matched(id));
        if let Some(to) = best {
            self.transfer(to);
        }
    }

    /// Why this node takes no write, if its disk is full.
    pub(super) fn refusal_of_full_disk(&self) -> Option<RequestError> {
        let reason = self.disk_full.as_ref()?;
        let name = &self.config.name;
        Some(RequestError::DiskFull(format!(
            "server {name} cannot write ({reason}); \
             free space on its disk, and it goes on without a restart"
        )))
    }

    /// Whose full disk a request may be waiting for: this node's, or its leader's.
    pub(super) fn full_disk_waited_for(&self) -> Option<String> {
        let text = |name| format!("the disk of server {name} is full");
        if self.disk_full.is_some() {
            return Some(text(&self.config.name));
        }
        let leader = self.links.peer(self.raft_leader()?)?;
        leader.hello.disk_full.then(|| text(&leader.hello.name))
    }

    /// A peer says that it leads in `term`. Raft learns that by writing its vote, which a full disk
    /// holds up; clients' requests can be passed on without.
    pub(super) fn note_claim(&mut self, from: NodeId, term: Term) {
        self.claimed = Some((term, from)).max(self.claimed);
    }

    /// The peer that says that it leads, where Raft could not write down that it does.
    pub(super) fn claimed_leader(&self) -> Option<(Term, NodeId)> {
        let is_heard = |&(term, from): &(Term, NodeId)| {
            let answers = self.links.session_of(from).is_some();
            term >= self.raft.term && answers && !self.disclaiming.contains(&from)
        };
        self.claimed.filter(|_| self.disk_full.is_some()).filter(is_heard)
    }
}
