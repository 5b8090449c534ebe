//! The bodies of the fuzz targets. Each takes raw bytes and unwinds if an invariant is broken, so
//! that a plain test can replay a corpus through it.

mod schedule;
mod wire;

pub use schedule::fuzz_schedule;
pub use wire::fuzz_wire_frames;
