//! What lies on a disk.
#![no_main]

use cronclave::fuzzing::log::fuzz_log_recover;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_log_recover(bytes));
