//! Raft: openraft, hosted without a runtime.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(crate) mod channels;
mod engine;
mod machine;
mod message;
mod network;
mod peers;
pub(crate) mod runtime;
mod serve;
mod status;
mod store;
pub(crate) mod types;
mod upkeep;

pub use engine::{
    BootError, Change, ChangeError, Effect, Engine, EngineConfig, NotLeader, ProposeError,
    TransferError,
};
pub use machine::{Machine, SnapshotSource};
pub use message::{Appended, Ballot, Lane, Message, RpcId, TransferRefused};
pub use peers::Inadmissible;
pub use status::{Follower, Role, Status};
pub use types::{Entry, LogId, Payload, Peer, SnapshotMeta, Vote};

#[cfg(test)]
mod tests;
