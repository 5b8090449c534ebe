//! Simulated clusters of Cronclave nodes, and the checkers that judge them.
//!
//! The nodes are the production [`Node`](cronclave::node::Node) in the production loop
//! ([`cronclave::driver`]). Around them stands a simulated cluster, which is one state machine: its
//! machines, disks, clocks, processes, network and clients are this crate's own. Two worlds move
//! it, a bare heap of events and madsim. A run is a pure function of its plan.
//!
//! | module | what |
//! |---|---|
//! | [`plan`] | a run as data: options, faults with their times, and what has to hold |
//! | [`mod@run`] | a plan in a world, and its verdict |
//! | `model` | the simulated cluster |
//! | `heap`, `madsim_world` | the two worlds |
//! | `draws` | chance, in streams that do not disturb each other |
//! | `trace` | all inputs and outputs of a run, as one number |
//! | `mailbox` | a queue between two tasks of madsim |
//! | `both` | a plan in both worlds, which have to agree |
//! | [`check`] | what has to hold |
//! | `campaign` | many seeds, and whether they are a proof |
//! | `shrink` | a plan that fails, made as small as it goes |
//! | [`story`] | what happened, for people |
//! | `lattice` | every crash set, partition and lost disk of small clusters |
//! | [`mutant`], [`mutants`] | faults that are planted on purpose, and who has to find them |
//!
//! `cargo test --features sim` runs it. Without the feature only what needs no madsim is built.

#[cfg(all(feature = "sim", not(madsim)))]
compile_error!(
    "the feature sim needs `--cfg madsim`: .cargo/config.toml sets it, and a RUSTFLAGS in the \
     environment replaces what that file says; unset it, or add `--cfg madsim` to it"
);

#[cfg(all(feature = "sim", madsim))]
pub mod both;
#[cfg(all(feature = "sim", madsim))]
pub mod campaign;
pub mod check;
mod draws;
mod heap;
#[cfg(all(feature = "sim", madsim))]
pub mod lattice;
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
mod madsim_world;
#[cfg(all(feature = "sim", madsim))]
mod mailbox;
