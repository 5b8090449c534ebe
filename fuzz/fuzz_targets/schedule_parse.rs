//! Any text as a schedule.
#![no_main]

use cronclave::fuzzing::schedule::fuzz_schedule;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_schedule(bytes));
