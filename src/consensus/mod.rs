//! Raft: openraft, hosted without a runtime, behind inputs and effects.
//!
//! [`Engine`] replicates opaque commands and applies them to a [`Machine`]. It takes messages of
//! peers, completions of writes, proposals and the time, and gives [`Effect`]s. openraft is written
//! for an async runtime; the one it gets here ([`runtime`]) is a ready queue, a heap of timers, a
//! clock that is only set and a seeded generator, entered for the length of a call. So an engine is
//! a pure function of its seed and its inputs, and many of them run in one thread.
//!
//! A turn: push what has come (`on_...`, `propose`, `read_index`), call [`Engine::run`], drain
//! [`Engine::poll_effect`], and come back at [`Engine::poll_timeout`] at the latest.
//!
//! **Invariants**
//! - No message that says something is durable leaves before [`Engine::on_persisted`] said so.
//! - Only what [`peers`] admits reaches openraft.
//! - A leader past its lease takes no proposal and answers no read, and [`Status::leader`] says so.
//! - A snapshot is never held in memory: it is a file, and the engine holds its name.
//! - Heartbeats wait for no write: a follower answers those of its leader at once.
//! - A reply leaves in the session in which its request came, or not at all.
//! - A server whose log was cut neither votes nor campaigns until its `doubt` is settled.
//!
//! **Left out on purpose**
//! - Reads by lease: openraft's lease leaves no room for clocks that drift.
//! - Catching panics: a task's panic unwinds out of the call, and its caller must never call the
//!   engine again.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(crate) mod channels;
mod content;
mod doubt;
mod effect;
mod engine;
mod footing;
mod machine;
mod message;
mod network;
mod peers;
mod receiving;
mod rescue;
pub(crate) mod runtime;
mod sending;
mod serve;
mod snapshots;
mod status;
mod store;
pub(crate) mod types;
mod upkeep;

pub use content::Content;
pub use doubt::{Reach, Settled, Standing, Trust, Voters, Waiting};
pub use effect::{Change, ChangeError, Effect, NotLeader, ProposeError, TransferError};
pub use engine::{BootError, Engine, EngineConfig, LogBounds};
pub use footing::{Footing, Promise};
pub use machine::Machine;
pub use message::{Appended, Ballot, Lane, Message, RpcId, TransferRefused};
pub use peers::Inadmissible;
pub use rescue::{Described, Position, RescueError, Survey, describe, rescue, survey};
pub use snapshots::{Restore, SnapshotDone, SnapshotSource, SnapshotTask, TaskId};
pub use status::{Follower, Role, Status};
pub use types::{Entry, LogId, Payload, Peer, SnapshotMeta, Vote};

#[cfg(test)]
mod tests;
