//! The production shell: tokio, sockets, files and processes around the pure node.
//!
//! One task owns the node and runs the driver's loop; everything else only moves bytes and speaks
//! to it through bounded channels.

pub mod config;
pub mod disk;
pub mod exec;
pub mod exit;
pub mod http;
pub mod net;
