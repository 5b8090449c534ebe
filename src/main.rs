//! The `cronclave` command.

use std::process::ExitCode;

use cronclave::{cli, shell};
use mimalloc::MiMalloc;

/// What one thread allocates for a call, another one frees: the system's allocator took a fifth of
/// a write's time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::run(std::env::args_os(), shell::run)
}
