//! Runs of plans that have to be green, in both worlds, and with the same verdict.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use cronclave_sim::plan::Plan;
use cronclave_sim::run::{Look, Report, World, run};

/// Both worlds.
pub const WORLDS: [World; 2] = [World::Heap, World::Madsim];

/// A directory of plans of this package.
pub fn directory(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The names of all plans in a directory of this package, without their extension.
pub fn names(directory_name: &str) -> BTreeSet<String> {
    let path = directory(directory_name);
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let names = entries.filter_map(|entry| {
        let name = entry.expect("the directory can be read").file_name();
        let name = name.to_str().expect("plans have plain names").to_owned();
        name.strip_suffix(".plan").map(str::to_owned)
    });
    names.collect()
}

/// Replays a plan of this package's directory in both worlds.
///
/// # Panics
/// If something does not hold, with the command that replays it.
pub fn replay(directory_name: &str, name: &str) {
    let path = directory(directory_name).join(name).with_extension("plan");
    let told = path.display();
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{told}: {error}"));
    let plan: Plan = text.parse().unwrap_or_else(|error| panic!("{told}: {error}"));
    green(&plan, &format!("replay sim/{directory_name}/{name}.plan"));
}

/// Runs a plan in both worlds. `command` is what the simulator does to replay it.
///
/// # Panics
/// If something does not hold, with the command that replays it, or if a checker had something to
/// compare in one world and nothing in the other.
pub fn green(plan: &Plan, command: &str) {
    let reports = WORLDS.map(|world| run(plan, world, Look::default()));
    let verdicts = reports.each_ref().map(verdict);
    let replay =
        format!("replay: cargo run --release -p cronclave-sim --features sim -- {command}\n{plan}");
    for (world, (report, verdict)) in WORLDS.iter().zip(reports.iter().zip(&verdicts)) {
        assert!(verdict.is_none(), "{world:?}: {:?}\n{replay}", report.violations);
    }
    let [heap, madsim] = reports.each_ref().map(checkers);
    assert_eq!(heap, madsim, "both worlds ask the same\n{replay}");
}

/// The first checker that complains.
fn verdict(report: &Report) -> Option<&str> {
    report.violation().map(|violation| violation.checker.as_str())
}

/// Who had something to compare.
fn checkers(report: &Report) -> BTreeSet<&str> {
    let busy = report.comparisons.iter().filter(|(_, count)| *count > 0);
    busy.map(|(checker, _)| checker.as_str()).collect()
}
