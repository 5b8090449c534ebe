//! Anything at all as inputs of one node.
#![no_main]

use cronclave::fuzzing::node_inputs::fuzz_node_inputs;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_node_inputs(bytes));
