//! The `cronclave` command.
fn main() {}
