//! Cronclave: highly available cron on a consensus engine proven by deterministic simulation.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod codec;
#[doc(hidden)]
pub mod fuzzing;
pub mod id;
pub mod jobs;
#[cfg(feature = "server")]
pub mod shell;
pub mod time;
