//! The production shell.

pub mod exec;
pub mod net;
