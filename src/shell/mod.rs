//! The tokio shell: sockets, files and processes around a node.

pub mod http;
