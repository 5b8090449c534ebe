//! Clients' open requests, until each is answered.
//!
//! A write keeps its [`CommandId`] however often it is passed on, and the replicated state carries
//! an id out once; so a write whose way was lost is sent again until it is answered or its time is
//! over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{Boot, CommandId, JobName, LogIndex, NodeId, RequestId};
use crate::jobs::history::change::Select;
use crate::node::request::{REQUEST_TIMEOUT, RequestError, Write};
use crate::time::Mono;

/// How many requests may be open.
pub(super) const OPEN_MAX: usize = 16_384;

/// How long a request waits when the leader was not ready for it.
const PAUSE: Duration = Duration::from_millis(50);

/// How many reads of the history may be with the store. More wait until their turn comes, because
/// each of the answers may be large; one that the store never answers keeps its place.
pub(super) const READING_MAX: usize = 16;

/// A request on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) what: What,
    pub(super) stage: Stage,
    pub(super) deadline: Mono,
    /// Whether a leader may have proposed it.
    pub(super) exposed: bool,
    /// Whether one may have before the attempt that is under way.
    was_exposed: bool,
}

impl Open {
    /// It is passed on, and is proposed for all that this node knows.
    pub(super) fn begin_attempt(&mut self, leader: NodeId) {
        self.stage = Stage::With(leader);
        self.was_exposed = self.exposed;
        self.exposed |= matches!(self.what, What::Write { .. });
    }

    /// The attempt under way proposed nothing. What those before it did stays unknown.
    pub(super) fn undo_attempt(&mut self) {
        self.exposed = self.was_exposed;
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Write { id: CommandId, write: Write },
    Read { number: u64, look: Look },
    Leave,
}

/// What a read looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The replicated state.
    State,
    /// Executions of a job.
    Executions { job: JobName, select: Select },
}

/// Where a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// With nobody, until a leader is known.
    Waiting,
    /// With nobody, because the leader was not ready; to be passed on again from here on.
    Paused(Mono),
    /// With this node, the leader or not (then it is this one).
    With(NodeId),
    /// A read that waits until this is applied here.
    Applying(LogIndex),
    /// A read that is with the store of the history.
    Reading,
}

/// All open requests of a node.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<RequestId, Open>,
    by_command: BTreeMap<CommandId, RequestId>,
    by_read: BTreeMap<u64, RequestId>,
    /// Reads that the store of the history has not answered, given up or not.
    reading: BTreeSet<RequestId>,
    last: u64,
    resume_at: Option<Mono>,
}

impl Requests {
    /// Takes a write.
    ///
    /// # Errors
    /// If too many requests are open.
    pub(super) fn open_write(
        &mut self,
        now: Mono,
        request: RequestId,
        (node, boot): (NodeId, Boot),
        write: Write,
    ) -> Result<(), RequestError> {
        self.last += 1;
        let id = CommandId { node, boot, seq: self.last };
        self.insert(now, request, What::Write { id, write })?;
        self.by_command.insert(id, request);
        Ok(())
    }

    /// Takes a read.
    ///
    /// # Errors
    /// If too many requests are open.
    pub(super) fn open_read(
        &mut self,
        now: Mono,
        request: RequestId,
        look: Look,
    ) -> Result<(), RequestError> {
        self.last += 1;
        let number = self.last;
        self.insert(now, request, What::Read { number, look })?;
        self.by_read.insert(number, request);
        Ok(())
    }

    /// Takes the wish to leave.
    ///
    /// # Errors
    /// If too many requests are open.
    pub(super) fn open_leave(&mut self, now: Mono, request: RequestId) -> Result<(), RequestError> {
        self.insert(now, request, What::Leave)
    }

    fn insert(&mut self, now: Mono, request: RequestId, what: What) -> Result<(), RequestError> {
        if self.open.len() >= OPEN_MAX {
            return Err(RequestError::Busy(OPEN_MAX));
        }
        let deadline = now + REQUEST_TIMEOUT;
        let (exposed, was_exposed) = (false, false);
        let open = Open { what, stage: Stage::Waiting, deadline, exposed, was_exposed };
        self.open.insert(request, open);
        Ok(())
    }

    pub(super) fn get_mut(&mut self, request: RequestId) -> Option<&mut Open> {
        self.open.get_mut(&request)
    }

    /// The request that a write belongs to.
    pub(super) fn of_command(&self, id: CommandId) -> Option<RequestId> {
        self.by_command.get(&id).copied()
    }

    /// The request that a read belongs to.
    pub(super) fn of_read(&self, number: u64) -> Option<RequestId> {
        self.by_read.get(&number).copied()
    }

    /// Ends a request, which is being answered.
    pub(super) fn close(&mut self, request: RequestId) -> Option<Open> {
        let open = self.open.remove(&request)?;
        match &open.what {
            What::Write { id, .. } => drop(self.by_command.remove(id)),
            What::Read { number, .. } => drop(self.by_read.remove(number)),
            What::Leave => {}
        }
        Some(open)
    }

    /// Passes a request on again after [`PAUSE`].
    pub(super) fn pause(&mut self, now: Mono, request: RequestId) {
        if let Some(open) = self.open.get_mut(&request) {
            let until = now + PAUSE;
            open.stage = Stage::Paused(until);
            self.resume_at = Some(self.resume_at.map_or(until, |at| at.min(until)));
        }
    }

    /// Those that are to be passed on now, oldest first.
    pub(super) fn waiting(&mut self, now: Mono) -> Vec<RequestId> {
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
            for open in self.open.values_mut() {
                match open.stage {
                    Stage::Paused(until) if until <= now => open.stage = Stage::Waiting,
                    Stage::Paused(until) => {
                        self.resume_at = Some(self.resume_at.map_or(until, |at| at.min(until)));
                    }
                    Stage::Waiting | Stage::With(_) | Stage::Applying(_) | Stage::Reading => {}
                }
            }
        }
        let waits = |open: &Open| open.stage == Stage::Waiting;
        self.open.iter().filter(|(_, open)| waits(open)).map(|(&id, _)| id).collect()
    }

    /// A read goes to the store of the history, if it has a place for it.
    pub(super) fn begin_reading(&mut self, request: RequestId) -> bool {
        let Some(open) = self.open.get_mut(&request) else { return false };
        if self.reading.len() >= READING_MAX || open.stage == Stage::Reading {
            return false;
        }
        open.stage = Stage::Reading;
        self.reading.insert(request);
        true
    }

    /// The store of the history has answered a read. Whether it was waited for.
    pub(super) fn end_reading(&mut self, request: RequestId) -> bool {
        let was_asked = self.reading.remove(&request);
        let is_open = |open: &Open| open.stage == Stage::Reading;
        was_asked && self.open.get(&request).is_some_and(is_open)
    }

    /// Those that wait for an index up to `applied`.
    pub(super) fn applied(&self, applied: LogIndex) -> Vec<RequestId> {
        let ready = |open: &Open| matches!(open.stage, Stage::Applying(at) if at <= applied);
        self.open.iter().filter(|(_, open)| ready(open)).map(|(&id, _)| id).collect()
    }

    /// What is with another node than `leader` is with nobody: it will be passed on again.
    pub(super) fn recall(&mut self, leader: Option<NodeId>) {
        for open in self.open.values_mut() {
            if matches!(open.stage, Stage::With(node) if Some(node) != leader) {
                open.stage = Stage::Waiting;
            }
        }
    }

    /// Those whose time is over. All have the same time and ids rise, so the oldest are the first.
    pub(super) fn overdue(&self, now: Mono) -> Vec<RequestId> {
        let late = |open: &Open| open.deadline <= now;
        self.open.iter().take_while(|(_, open)| late(open)).map(|(&id, _)| id).collect()
    }

    pub(super) fn all(&self) -> Vec<RequestId> {
        self.open.keys().copied().collect()
    }

    pub(super) fn poll_timeout(&self) -> Option<Mono> {
        let expiry = self.open.first_key_value().map(|(_, open)| open.deadline);
        expiry.into_iter().chain(self.resume_at).min()
    }
}
