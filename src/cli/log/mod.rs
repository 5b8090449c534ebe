//! `cronclave log`: what a data directory holds, and the repair of a damaged one.

mod inspect;
mod repair;

use clap::Subcommand;

use crate::shell::exit::ExitError;

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Show what a data directory holds, and what is damaged; changes nothing
    Inspect(inspect::InspectArgs),
    /// Check every file of a data directory: exit code 0 if all are whole, 3 if one is damaged
    Verify(inspect::VerifyArgs),
    /// Put damaged data aside, so that the server comes back as a new one and fetches everything
    Repair(repair::RepairArgs),
}

/// Carries out one of the commands.
pub(crate) fn run(command: &LogCommand) -> Result<(), ExitError> {
    match command {
        LogCommand::Inspect(args) => inspect::inspect(args),
        LogCommand::Verify(args) => inspect::verify(args),
        LogCommand::Repair(args) => repair::run(args),
    }
}
