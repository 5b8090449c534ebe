//! Tests of consensus. [`world`] holds engines on an in-memory network and disk.

mod admission;
mod chaos;
mod cluster;
mod determinism;
mod doubt;
mod forge;
mod rescue;
mod runtime;
mod snapshots;
mod store;
mod world;
