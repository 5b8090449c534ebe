//! Who is there, who founds the cluster, and who shall vote.
//!
//! Three parts that know nothing of each other; the node stands between them:
//!
//! - [`Roster`]: who is alive, by SWIM gossip over datagrams (`foca`), and the search for others
//!   at the `retry-join` names.
//! - [`Formation`]: how N fresh servers become one cluster, by durable pledges.
//! - [`Autopilot`]: what the leader changes in the Raft configuration, one step at a time.
//!
//! The roster says who is alive; the Raft configuration says who votes.
//!
//! **Invariants**
//! - No outside bytes and no message unwind out of this module.
//! - The same calls in the same order give the same effects: both generators (ChaCha12, `StdRng`)
//!   are seeded at construction.
//! - A proposal is initialized only by its proposer, and only after every one of its members has
//!   synced a pledge to it. A pledge ends only after its proposer has durably withdrawn.
//!
//! **Left out on purpose**
//! - Names and tags do not gossip: a datagram holds more members without them, and the handshake
//!   of a session carries them.
//! - Link-local IPv6 addresses with a scope cannot be advertised.
//! - Datagrams are neither encrypted nor signed here.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod autopilot;
pub mod formation;
pub mod gossip;
pub mod roster;

mod join;

pub use autopilot::{Autopilot, Step};
pub use formation::{Candidate, Formation, FormationEffect, Message, Pledge, Proposal};
pub use gossip::{Gossiper, Profile};
pub use roster::{Config, Roster, RosterEffect};
