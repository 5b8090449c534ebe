//! What lies on a disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cronclave::fuzzing::log::fuzz_log_recover(bytes));
