//! The rows of executions that have ended, which are kept outside of the replicated state.
//!
//! The state says with each entry what becomes of the rows ([`change`]); a store on disk carries
//! that out, in the order of the log.

pub mod change;
pub mod memory_backend;
pub mod store;
