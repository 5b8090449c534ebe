//! From a claim in the log to a process on a node, and back to a row of history.
//!
//! [`leader`] derives from replicated state what has to be claimed, ordered and given up; [`agent`]
//! runs what is ordered, once, and reports how it ended. Neither does I/O or sees Raft.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod agent;
pub mod launch;
pub mod leader;
pub mod message;
pub mod timing;
