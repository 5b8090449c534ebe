//! Cronclave: highly available cron on a consensus engine proven by deterministic simulation.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[cfg(feature = "server")]
pub mod cli;
pub mod codec;
#[doc(hidden)]
pub mod fuzzing;
pub mod id;
pub mod jobs;
pub mod schedule;
#[cfg(feature = "server")]
pub mod shell;
pub mod time;
