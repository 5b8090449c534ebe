//! The bodies of the fuzz targets. Each takes raw bytes and unwinds if an invariant is broken, so
//! that a plain test can replay a corpus through it.

mod schedule;

pub use schedule::fuzz_schedule;
