//! Anything at all as inputs of one node.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cronclave::fuzzing::node_inputs::fuzz_node_inputs(bytes));
