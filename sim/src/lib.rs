//! Simulated clusters of Cronclave nodes, and the checkers that judge them.
//!
//! The nodes are the production [`Node`](cronclave::node::Node) in the production loop
//! ([`cronclave::driver`]). Around them stands a simulated world: madsim schedules, passes time,
//! carries packets, kills and restarts hosts; disks, clocks and processes are this crate's own. A
//! run is a pure function of its seed.
//!
//! | module | what |
//! |---|---|
//! | `seed` | which seeds run, and the command that replays one |
//! | `cluster` | hosts, and what a test does to them |
//! | `world` | one host: the [`World`](cronclave::driver::World) of its node |
//! | `links` | sessions between nodes, over packets that may be lost |
//! | `exec` | processes, which outlive their node |
//! | `client` | what clients write, read and are told |
//! | [`ledger`] | what was started, seen from outside the cluster |
//! | [`check`] | what has to hold |
//! | [`story`] | what happened, for people |
//! | [`lattice`] | every crash set, partition and lost disk of small clusters |
//! | [`mutant`], [`mutants`] | faults that are planted on purpose, and who has to find them |
//! | `verdict` | whether a cluster works, stands still, and has lost nothing |
//!
//! `cargo test --features sim` runs it. Without the feature only what needs no madsim is built.

#[cfg(all(feature = "sim", not(madsim)))]
compile_error!(
    "the feature sim needs `--cfg madsim`: .cargo/config.toml sets it, and a RUSTFLAGS in the \
     environment replaces what that file says; unset it, or add `--cfg madsim` to it"
);

#[cfg(all(feature = "sim", madsim))]
pub mod campaign;
pub mod check;
mod draws;
mod heap;
pub mod lattice;
pub mod ledger;
mod model;
pub mod mutant;
pub mod mutants;
pub mod plan;
pub mod run;
#[cfg(all(feature = "sim", madsim))]
pub mod shrink;
pub mod story;
mod trace;

#[cfg(all(feature = "sim", madsim))]
mod archive;
#[cfg(all(feature = "sim", madsim))]
pub mod client;
#[cfg(all(feature = "sim", madsim))]
pub mod cluster;
#[cfg(all(feature = "sim", madsim))]
mod exec;
#[cfg(all(feature = "sim", madsim))]
mod madsim_world;
#[cfg(all(feature = "sim", madsim))]
mod mailbox;
#[cfg(all(feature = "sim", madsim))]
pub mod seed;
#[cfg(all(feature = "sim", madsim))]
mod shared;
#[cfg(all(feature = "sim", madsim))]
pub mod verdict;
#[cfg(all(feature = "sim", madsim))]
mod world;
