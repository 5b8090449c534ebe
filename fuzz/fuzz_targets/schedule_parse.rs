//! Any text as a schedule.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cronclave::fuzzing::schedule::fuzz_schedule(bytes));
