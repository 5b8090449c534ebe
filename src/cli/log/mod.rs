//! `cronclave log`: what a data directory holds, and the repair of a damaged one.

mod repair;

use clap::Subcommand;

use crate::shell::exit::ExitError;

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Put damaged data aside, so that the server comes back as a new one and fetches everything
    Repair(repair::RepairArgs),
}

/// Carries out one of the commands.
pub(crate) fn run(command: &LogCommand) -> Result<(), ExitError> {
    match command {
        LogCommand::Repair(args) => repair::run(args),
    }
}
