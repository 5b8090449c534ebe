//! The tokio shell: the production world around a node.

pub mod config;
pub mod exit;
