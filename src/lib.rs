//! Cronclave: highly available cron on a consensus engine proven by deterministic simulation.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod codec;
pub mod consensus;
pub mod id;
pub mod jobs;
pub mod time;
