//! One run: of a seed, of a plan from a file, twice, or again and again until it is small.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cronclave_sim::plan::{Plan, generate};
use cronclave_sim::run::{Class, Look, Report, Telling, World};
use cronclave_sim::shrink::{self, Limits, run_safely};
use cronclave_sim::story::{REPLAY, log::Log, page};

use crate::{LogLength, Show, refuse};

/// The command that builds and runs this program.
pub(crate) const SELF: &str = "cargo run --release -p cronclave-sim --features sim --";

/// The plan of a seed, with a fault planted if one is named.
pub(crate) fn plan_of(seed: u64, mutant: Option<String>) -> Result<Plan, String> {
    let mut plan = generate(seed);
    plan.options.mutant = mutant;
    // Read back, a plan is checked.
    plan.to_string().parse::<Plan>().map_err(|error| error.to_string())
}

pub(crate) fn run(seed: Option<u64>, mutant: Option<String>, show: &Show) -> u8 {
    let seed = seed.unwrap_or_else(rand::random);
    let planted = mutant.as_ref().map(|name| format!(" --mutant {name}")).unwrap_or_default();
    match plan_of(seed, mutant) {
        Ok(plan) => show_run(&plan, show, &format!("{SELF} run {seed}{planted}")),
        Err(reason) => refuse(&reason),
    }
}

pub(crate) fn replay(path: &Path, show: &Show) -> u8 {
    match read(path) {
        Ok(plan) => show_run(&plan, show, &format!("{SELF} replay {}", path.display())),
        Err(reason) => refuse(&reason),
    }
}

fn read(path: &Path) -> Result<Plan, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.parse().map_err(|error| format!("{}: {error}", path.display()))
}

/// Prints the plan before anything can fail, then what happens, then the verdict; the last line of
/// a failure is the command that replays it.
fn show_run(plan: &Plan, show: &Show, replay: &str) -> u8 {
    println!("{plan}");
    let telling = match (show.log, &show.html) {
        (LogLength::Full, _) | (_, Some(_)) => Telling::Full,
        (LogLength::Short, None) => Telling::Short,
        (LogLength::None, None) => Telling::Nothing,
    };
    let world: World = show.world.into();
    let replay = match world {
        World::Heap => replay.to_owned(),
        World::Madsim => format!("{replay} --world madsim"),
    };
    match run_safely(plan, world, Look { telling, traced: show.traced, ..Look::default() }) {
        Ok(report) => {
            let code = tell(report, show, &replay);
            if code != 0 {
                println!("replay: {replay}");
            }
            code
        }
        Err(text) => {
            println!("violated unwinds: {text}\nreplay: {replay}");
            Class::Crash.exit_code()
        }
    }
}

fn tell(mut report: Report, show: &Show, replay: &str) -> u8 {
    report.story.options.push((REPLAY.to_owned(), replay.to_owned()));
    match show.log {
        LogLength::None => {}
        LogLength::Short => {
            report.story.moments.retain(|moment| !moment.what.is_detail());
            print_log(&report);
        }
        LogLength::Full => print_log(&report),
    }
    if let Some(path) = &show.html
        && let Err(error) = fs::write(path, page::render(&report.story))
    {
        return refuse(&format!("{}: {error}", path.display()));
    }
    println!(
        "{:.3} s simulated, {} turns, {} writes acknowledged, {} reads, {} starts, hash {:016x}",
        report.simulated.as_secs_f64(),
        report.counts.turns,
        report.counts.acked,
        report.counts.read,
        report.counts.starts,
        report.hash
    );
    for (checker, count) in &report.comparisons {
        println!("{count:>10} comparisons by {checker}");
    }
    for found in &report.violations {
        println!("violated {}: {} (at {:.6} s)", found.checker, found.text, found.at.as_secs_f64());
    }
    report.violation().map_or(0, |found| Class::of(&found.checker).exit_code())
}

fn print_log(report: &Report) {
    let mut log = Log::new(&report.story.hosts);
    println!("{}", log.header());
    for moment in &report.story.moments {
        println!("{}", log.line(moment));
    }
}

pub(crate) fn shrink(
    what: &str,
    world: World,
    seconds: u64,
    mutant: Option<String>,
    out: Option<PathBuf>,
) -> u8 {
    let plan = match what.parse::<u64>() {
        Ok(seed) => plan_of(seed, mutant),
        Err(_) => read(Path::new(what)),
    };
    let plan = match plan {
        Ok(plan) => plan,
        Err(reason) => return refuse(&reason),
    };
    let before = (plan.faults(), plan.steps.len());
    let limits = Limits { time: Duration::from_secs(seconds), ..Limits::default() };
    let Some(shrunk) = shrink::shrink(&plan, world, limits) else {
        println!("nothing is violated");
        return 0;
    };
    let name = shrunk.checker.replace(' ', "-");
    let seed = plan.options.seed;
    let out = out.unwrap_or_else(|| PathBuf::from(format!("sim/corpus/{name}-{seed}.plan")));
    let head = format!("# {}: {}\n# Made smaller from {what}.\n", shrunk.checker, shrunk.text);
    if let Err(error) = fs::write(&out, format!("{head}{}", shrunk.plan)) {
        return refuse(&format!("{}: {error}", out.display()));
    }
    println!("{}", shrunk.plan);
    println!(
        "{} faults of {} steps became {} of {} in {} runs",
        before.0,
        before.1,
        shrunk.plan.faults(),
        shrunk.plan.steps.len(),
        shrunk.runs
    );
    println!("violated {}: {}", shrunk.checker, shrunk.text);
    println!("replay: {SELF} replay {}", out.display());
    Class::of(&shrunk.checker).exit_code()
}

/// The hash of a traced run of a seed.
pub(crate) fn hash_here(plan: &Plan, world: World) -> Result<u64, String> {
    let look = Look { traced: true, ..Look::default() };
    run_safely(plan, world, look).map(|report| report.hash)
}

/// The same in another process.
pub(crate) fn hash_elsewhere(seed: u64, world: World) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let world = match world {
        World::Heap => "heap",
        World::Madsim => "madsim",
    };
    let arguments = ["run", &seed.to_string(), "--traced", "--world", world];
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let hash = text.lines().find_map(|line| line.split_once(", hash ").map(|(_, hash)| hash));
    let hash = hash.and_then(|hash| u64::from_str_radix(hash.trim(), 16).ok());
    hash.ok_or_else(|| "the other process prints no hash".to_owned())
}

pub(crate) fn twice(seed: u64) -> u8 {
    let plan = match plan_of(seed, None) {
        Ok(plan) => plan,
        Err(reason) => return refuse(&reason),
    };
    for world in [World::Heap, World::Madsim] {
        let hashes =
            [hash_here(&plan, world), hash_here(&plan, world), hash_elsewhere(seed, world)];
        println!("{world:?}: {hashes:016x?}");
        if hashes[0].is_err() || hashes.windows(2).any(|pair| pair[0] != pair[1]) {
            println!("violated determinism: the same seed gives different runs");
            println!("replay: {SELF} twice {seed}");
            return Class::Correctness.exit_code();
        }
    }
    0
}
