//! The pure machine behind a server or an agent.

pub mod request;
