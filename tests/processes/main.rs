//! The promises on real processes: clusters of the built binary on loopback, killed and stopped.

mod cluster;
mod forming;
mod kills;
mod quorum;
mod refusals;
mod stopping;
