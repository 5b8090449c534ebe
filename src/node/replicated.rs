//! The state machine that Raft replicates: [`jobs::State`](crate::jobs::State) under the engine's
//! trait.

use bytes::Bytes;

use crate::codec::{DecodeError, decode, encode};
use crate::consensus::Machine;
use crate::id::{CommandId, LogIndex, Term};
use crate::jobs::State;
use crate::jobs::command::{Applied, Stamped};

/// The replicated state as the engine holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Replicated(pub(super) State);

/// What came of one entry.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// The write that it carries out, if a client waits for it.
    pub(super) id: Option<CommandId>,
    /// What came of it; the error says why the entry could not be read, and was skipped by all.
    pub(super) applied: Result<Applied, DecodeError>,
}

impl Machine for Replicated {
    type Reply = Outcome;

    fn apply(&mut self, index: LogIndex, _term: Term, payload: &[u8]) -> Outcome {
        match decode::<Stamped>("log entry", payload) {
            Ok(entry) => Outcome { id: entry.id, applied: Ok(self.0.apply(index, &entry)) },
            Err(error) => Outcome { id: None, applied: Err(error) },
        }
    }

    fn snapshot(&self) -> Bytes {
        encode(&self.0)
    }

    fn restore(data: &[u8]) -> Result<Self, DecodeError> {
        decode("snapshot of the state", data).map(Self)
    }
}
