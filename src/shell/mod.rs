//! The production shell: files, sockets, processes and threads around the pure node.

pub mod disk;
