//! From a claim to a process and back.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod launch;
