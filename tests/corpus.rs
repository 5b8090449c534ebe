//! Every input that a fuzzer has kept, through the body that it was kept for. A file that fails
//! is a bug that was found once: give it a name that says what it was, and keep it.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a failed replay names its file")]

use std::fs;
use std::path::{Path, PathBuf};

use cronclave::fuzzing::{log, node_inputs, schedule, wire};

/// Replays the corpus of `target`; it holds at least `least` files.
fn replay(target: &str, least: usize, body: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= least, "{} holds only {} files", dir.display(), files.len());
    for file in files {
        // The name of the file comes before the panic that it may cause.
        println!("replaying {}", file.display());
        body(&fs::read(&file).unwrap());
    }
}

#[test]
fn no_kept_input_halts_a_node() {
    replay("node_inputs", 8, node_inputs::fuzz_node_inputs);
}

#[test]
fn no_kept_stream_unwinds_the_reader_of_frames() {
    replay("wire_decode", 4, wire::fuzz_wire_frames);
}

#[test]
fn no_kept_disk_unwinds_recovery_or_loses_what_was_synced() {
    replay("log_recover", 4, log::fuzz_log_recover);
}

#[test]
fn no_kept_text_unwinds_a_schedule() {
    replay("schedule_parse", 8, schedule::fuzz_schedule);
}
