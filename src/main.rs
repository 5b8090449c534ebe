//! The `cronclave` command.

use std::process::ExitCode;

use cronclave::{cli, shell};

fn main() -> ExitCode {
    cli::run(std::env::args_os(), shell::run)
}
