//! The `cronclave` command.

use std::process::ExitCode;

use cronclave::cli;
use cronclave::shell::exit::ExitError;

fn main() -> ExitCode {
    cli::run(std::env::args_os(), |config| {
        let name = config.node_name;
        Err(ExitError::Environment(format!("{name}: this build has no shell to run an agent in")))
    })
}
