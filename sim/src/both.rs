//! A plan in both worlds, which have to agree that all is well: [`judge`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::plan::Plan;
use crate::run::{Look, Report, World, run};

/// Both worlds.
pub const WORLDS: [World; 2] = [World::Heap, World::Madsim];

/// A directory of this package.
pub fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The names of all plans in a directory of this package, without their extension.
///
/// # Errors
/// If it cannot be read.
pub fn names(of: &str) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory(of))? {
        let name = entry?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".plan"));
        names.extend(name.map(str::to_owned));
    }
    Ok(names)
}

/// The plan of this name in a directory of this package.
///
/// # Errors
/// If there is none, or it is no plan.
pub fn read(of: &str, name: &str) -> Result<Plan, String> {
    let path = directory(of).join(format!("{name}.plan"));
    let told = |error: String| format!("{}: {error}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| told(error.to_string()))?;
    text.parse().map_err(|error| told(format!("{error}")))
}

/// Replays a plan of a directory of this package.
///
/// # Errors
/// See [`judge`].
pub fn replay(of: &str, name: &str) -> Result<(), String> {
    judge(&read(of, name)?, &format!("replay sim/{of}/{name}.plan"))
}

/// Runs a plan in both worlds. `command` is what the simulator does to run it again.
///
/// # Errors
/// If something does not hold, or if a checker had something to compare in one world and nothing
/// in the other. The last line is the command that runs it again.
pub fn judge(plan: &Plan, command: &str) -> Result<(), String> {
    let reports = WORLDS.map(|world| run(plan, world, Look::default()));
    let again = |world: World| {
        let world = format!("{world:?}").to_lowercase();
        let simulator = "cargo run --release -p cronclave-sim --features sim --";
        format!("replay: {simulator} {command} --world {world}")
    };
    for (world, report) in WORLDS.into_iter().zip(&reports) {
        if let Some(first) = report.violation() {
            let (checker, at, text) = (&first.checker, first.at, &first.text);
            return Err(format!("{world:?}: {checker} at {at:?}: {text}\n{}", again(world)));
        }
    }
    let [heap, madsim] = reports.each_ref().map(checkers);
    if heap != madsim {
        let told =
            format!("{heap:?} had something to compare in one world, {madsim:?} in the other");
        return Err(format!("{told}\n{}", again(World::Madsim)));
    }
    Ok(())
}

/// Who had something to compare.
fn checkers(report: &Report) -> BTreeSet<&str> {
    let busy = report.comparisons.iter().filter(|(_, count)| *count > 0);
    busy.map(|(checker, _)| checker.as_str()).collect()
}
