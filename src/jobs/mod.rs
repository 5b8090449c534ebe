//! Jobs and their executions: one replicated state, applied deterministically.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod apply;
mod carried;
pub mod command;
pub mod history;
pub mod job;
pub mod state;
