//! The simulator's command line: one run, many, a replay, a smaller plan, the quorum lattice, the
//! mutants.

#![expect(clippy::print_stdout, reason = "a command prints what it finds")]

mod hunt;
mod mutants;
mod one;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use cronclave_sim::run::World;

/// Half of a run goes to the allocator otherwise.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulated clusters of Cronclave nodes, under faults, judged from outside.
///
/// Exit codes: 0 nothing was found, 1 a campaign is no proof, 2 usage, 127 a node or the simulator
/// crashed, 128 something that has to happen did not, 129 something happened that must not.
#[derive(Parser)]
#[command(name = "cronclave-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// In which world.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum WorldName {
    /// A bare heap of events: fast.
    Heap,
    /// madsim.
    Madsim,
}

impl From<WorldName> for World {
    fn from(name: WorldName) -> Self {
        match name {
            WorldName::Heap => Self::Heap,
            WorldName::Madsim => Self::Madsim,
        }
    }
}

/// How much of a run is printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogLength {
    /// The verdict alone.
    None,
    /// Roles, faults, processes.
    Short,
    /// Clients and messages too.
    Full,
}

/// How a run is shown.
#[derive(clap::Args, Clone, Debug)]
struct Show {
    /// In which world.
    #[arg(long, value_enum, default_value = "heap")]
    world: WorldName,
    /// How much is printed.
    #[arg(long, value_enum, default_value = "none")]
    log: LogLength,
    /// Writes a page with the run's timeline into this file.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Hashes everything that enters and leaves the nodes, and prints the hash.
    #[arg(long)]
    traced: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the plan of a seed, which is drawn if none is given.
    Run {
        /// The seed.
        seed: Option<u64>,
        /// Plants a fault: see `mutants`.
        #[arg(long)]
        mutant: Option<String>,
        #[command(flatten)]
        show: Show,
    },
    /// Runs a plan from a file.
    Replay {
        /// The file.
        plan: PathBuf,
        #[command(flatten)]
        show: Show,
    },
    /// Prints the plan of a seed.
    Plan {
        /// The seed.
        seed: u64,
    },
    /// Runs seed after seed, on several threads.
    Hunt(hunt::Hunt),
    /// Makes the failing plan of a seed, or of a file, smaller.
    Shrink {
        /// A seed, or the file of a plan.
        what: String,
        /// In which world.
        #[arg(long, value_enum, default_value = "heap")]
        world: WorldName,
        /// How many seconds it may take.
        #[arg(long, default_value_t = 300)]
        seconds: u64,
        /// Plants a fault: see `mutants`.
        #[arg(long)]
        mutant: Option<String>,
        /// Where the smallest plan goes; into `sim/corpus/`, under the name of its checker, if not
        /// given.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Runs a seed twice here and once in another process, in both worlds: all have to be the same.
    Twice {
        /// The seed.
        seed: u64,
    },
    /// Every crash set, partition and lost disk of clusters of 1 to 7 servers.
    Lattice {
        /// How many runs go on at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Writes the report into this file.
        #[arg(long)]
        page: Option<PathBuf>,
        /// Only experiments whose id begins so.
        #[arg(long)]
        only: Option<String>,
        /// Not the part with a quorum of another size planted, for which openraft is built apart.
        #[arg(long)]
        unpatched: bool,
    },
    /// Plants known faults, and tells which checker finds each.
    Mutants {
        /// Which; all if none is named.
        names: Vec<String>,
        /// How many seeds each gets at most.
        #[arg(long)]
        seeds: Option<u64>,
        /// How many runs go on at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
}

fn main() -> ExitCode {
    let code = match Arguments::parse().command {
        Command::Run { seed, mutant, show } => one::run(seed, mutant, &show),
        Command::Replay { plan, show } => one::replay(&plan, &show),
        Command::Plan { seed } => {
            print!("{}", cronclave_sim::plan::generate(seed));
            0
        }
        Command::Hunt(hunt) => hunt.run(),
        Command::Shrink { what, world, seconds, mutant, out } => {
            one::shrink(&what, world.into(), seconds, mutant, out)
        }
        Command::Twice { seed } => one::twice(seed),
        Command::Lattice { jobs, page, only, unpatched } => {
            mutants::lattice(jobs, page, only, unpatched)
        }
        Command::Mutants { names, seeds, jobs } => mutants::mutants(names, seeds, jobs),
    };
    ExitCode::from(code)
}

/// Says why a command could not be carried out, and gives the exit code for that.
#[expect(clippy::print_stderr, reason = "a command says there why it fails")]
fn refuse(reason: &str) -> u8 {
    eprintln!("cronclave-sim: {reason}");
    2
}
