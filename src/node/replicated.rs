//! The state machine that Raft replicates: [`jobs::State`](crate::jobs::State) under the engine's
//! trait.

use bytes::Bytes;

use crate::codec::{DecodeError, decode, encode};
use crate::consensus::Machine;
use crate::id::{CommandId, LogIndex, Term};
use crate::jobs::State;
use crate::jobs::command::{Applied, Stamped};
use crate::jobs::history::change::Change;

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
    /// What becomes of the history.
    pub(super) changes: Vec<Change>,
}

impl Machine for Replicated {
    type Reply = Outcome;

    fn apply(&mut self, index: LogIndex, _term: Term, payload: &[u8]) -> Outcome {
        match decode::<Stamped>("log entry", payload) {
            Ok(entry) => {
                let (applied, changes) = self.0.apply(index, &entry);
                Outcome { id: entry.id, applied: Ok(applied), changes }
            }
            Err(error) => Outcome { id: None, applied: Err(error), changes: Vec::new() },
        }
    }

    fn snapshot(&self) -> Bytes {
        encode(&self.0)
    }

    fn restore(data: &[u8]) -> Result<Self, DecodeError> {
        decode("snapshot of the state", data).map(Self)
    }
}
