//! Jobs and their executions: one replicated state, applied deterministically.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod job;
