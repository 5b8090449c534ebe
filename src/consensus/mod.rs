//! Raft: openraft, hosted without a runtime.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(crate) mod channels;
pub(crate) mod runtime;
pub(crate) mod types;

pub use types::{Payload, Peer};

#[cfg(test)]
mod tests;
