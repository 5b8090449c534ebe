//! The promises on real processes: clusters of the built binary on loopback, killed and stopped.

#![expect(clippy::print_stderr, reason = "a failed test shows the logs of its nodes")]

mod cluster;
mod demo;
mod disks;
mod forming;
mod golden;
mod kills;
mod lives;
mod load;
mod nodes;
mod pauses;
mod quorum;
mod recovery;
mod refusals;
mod small_disk;
mod snapshots;
mod stopping;
mod sudden;
