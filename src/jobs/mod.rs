//! Jobs and their executions: one replicated state, applied deterministically.
//!
//! - [`job`]: what a job and an execution are.
//! - [`command`]: what may be written, and what comes of it.
//! - [`state`]: the state, and what can be asked of it; how commands change it is in `apply`.
//! - [`history`]: the rows of executions that have ended, which are not in the state.
//! - [`json`], [`view`]: jobs as clients write them, and as they are shown.
//!
//! **Invariants**
//! - What is here depends on the log only: no clock, no schedule, no machine.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod apply;
mod by_job;
mod carried;
pub mod command;
pub mod history;
pub mod job;
pub mod json;
pub mod state;
#[cfg(test)]
mod tests;
pub mod view;

pub use state::State;
