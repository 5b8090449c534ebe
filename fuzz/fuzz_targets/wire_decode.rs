//! What arrives from a peer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cronclave::fuzzing::wire::fuzz_wire_frames(bytes));
