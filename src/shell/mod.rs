//! The production shell: tokio, sockets, files and processes around the pure node.
//!
//! One task owns the node and runs the driver's loop ([`run()`], [`world`]); everything else only
//! moves bytes and speaks to it through bounded channels.

pub mod archive;
pub mod config;
pub mod counters;
pub mod disk;
pub mod exec;
pub mod exit;
pub mod http;
pub mod net;
mod run;
pub mod world;

pub use run::run;
