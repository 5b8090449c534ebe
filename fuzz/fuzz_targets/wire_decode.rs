//! What arrives from a peer.
#![no_main]

use cronclave::fuzzing::wire::fuzz_wire_frames;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_wire_frames(bytes));
