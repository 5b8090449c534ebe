//! The command line: arguments, settings and logging in, exit code out. One file per subcommand.
//!
//! [`run`] parses the arguments. `agent` gathers its settings from flags, environment, file and
//! defaults (`sources`), checks them (`build`) and hands an
//! [`AgentConfig`] to whoever starts the shell.
//!
//! **Invariants**
//! - Exit codes: 0 clean, 1 environment, 2 usage, 3 damaged data.
//! - A wrong value is named with its setting, where it came from and what would be right.
//! - A secret is never printed.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::shell::config::AgentConfig;
use crate::shell::exit::ExitError;

pub mod addr;
mod agent;
mod build;
mod confirm;
mod demo;
mod file;
mod keys;
mod leave;
mod log;
pub mod logging;
mod print;
mod raft;
mod sources;
mod version;

pub use build::{BOOTSTRAP_EXPECT_MAX, JOIN_COUNT_MAX};

/// Highly available cron: a cluster of servers that runs every job at its time.
#[derive(Debug, Parser)]
#[command(name = "cronclave", version, long_version = version::long(), propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server or an agent
    Agent(agent::AgentArgs),
    /// Have a server leave its cluster: it hands over leadership, votes no more, and stops
    Leave(leave::LeaveArgs),
    /// Look at the data of a node, or repair it
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Look at Raft in the data of a stopped server, or recover from a lost quorum
    #[command(subcommand)]
    Raft(raft::RaftCommand),
    /// Run three servers and an agent on this machine, and follow them in a table
    Demo(demo::DemoArgs),
    /// Show the version, and that of the time zone database
    Version,
}

/// Carries out the command line `args` (the program's name first). `start` runs an agent until it
/// is stopped; logging is set up before it is called.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    start: impl FnOnce(AgentConfig) -> Result<(), ExitError>,
) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with code 0. A closed pipe is no reason to fail.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = match cli.command {
        Command::Agent(args) => agent::run(args, start),
        Command::Leave(args) => leave::run(&args),
        Command::Log(command) => log::run(&command),
        Command::Raft(command) => raft::run(&command),
        Command::Demo(args) => demo::run(&args),
        Command::Version => {
            say(&version::text());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("cronclave: {error}\n"));
            ExitCode::from(error.code())
        }
    }
}

/// Writes to stdout. That nobody reads it is no reason to fail.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes to stderr. That nobody reads it is no reason to fail.
fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
