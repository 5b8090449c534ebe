//! The bodies of the fuzz targets, so that a plain test can replay the corpus through them.

pub mod log;
pub mod node_inputs;
pub mod schedule;
pub mod wire;
