//! The proof that the checkers check: every known fault is planted, and one of the checkers that
//! are named for it has to find it ([`run`]).
//!
//! A fault around the node is a layer ([`Mutant`]), and is simulated in this process; one inside
//! the node or inside openraft is a patch ([`patch`]), and is built apart ([`build`]) and run as a
//! program ([`program`]). The simulator without a mutant runs first and has to be green, and what
//! is found at a seed that is not green without the mutant is not its doing.
//!
//! A mutant has 200 seeds, or 60 seconds of one core if these are more, to be found in. One that
//! survives fails the whole, and so does one that was found by others than were named for it: they
//! may have found something else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::mutant::{Mutant, Watch};

pub mod build;
pub mod patch;
pub mod program;
pub mod table;

use build::Workshop;
use patch::Patch;
use program::Program;
use table::{Fate, Row, render};

/// The seeds that a layer is run with.
const SEEDS: RangeInclusive<u64> = 1..=200;

/// How long a mutant may live, on one core, if its seeds are through before that.
const TIME_MAX: Duration = Duration::from_secs(60);

/// How many seeds the simulator without a mutant has to be green for.
const CONTROL_SEEDS: u64 = 50;

/// How many seeds a campaign has that gates judge as a whole.
const CAMPAIGN_SEEDS: u64 = 100;

/// What the simulator without a mutant is called.
pub const CONTROL: &str = "none";

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunSummary {
    /// The checkers that found something, by name. None: the run is green.
    pub violated: Vec<String>,
    /// How often each situation came up that a campaign has to have seen.
    pub counts: BTreeMap<String, u64>,
}

/// What runs simulations.
pub trait Simulator: Sync {
    /// Runs a seed, with a mutant or as it should be. Never panics: a crash is a violation.
    fn run(&self, seed: u64, mutant: Option<Mutant>) -> RunSummary;

    /// The gates that do not let a campaign of these runs pass: their names, each alone or with
    /// what is missing behind `: `.
    fn gates(&self, runs: &[RunSummary]) -> Vec<String>;
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which mutants, by name; all if there are none.
    pub names: Vec<String>,
    /// How many seeds each gets at most, instead of what is said for it.
    pub seeds: Option<u64>,
    /// How many runs go on at a time, at least 1.
    pub jobs: usize,
    /// The root of the workspace, where the sources of the patches are.
    pub workspace: PathBuf,
}

/// Why no mutant was run.
#[derive(Debug)]
pub enum MutantsError {
    /// There is none of this name.
    Unknown(String),
    /// The patches could not be read.
    Patches(patch::PatchError),
    /// The workspace is not there, or the table could not be written.
    Io(io::Error),
}

impl fmt::Display for MutantsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "there is no mutant {name:?}"),
            Self::Patches(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MutantsError {}

impl From<io::Error> for MutantsError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One thing that is judged.
enum Subject {
    /// The simulator as it should be.
    Control,
    /// With a layer around the node.
    Layer(Mutant),
    /// With a fault inside.
    Patch(Patch),
}

impl Subject {
    fn name(&self) -> &str {
        match self {
            Self::Control => CONTROL,
            Self::Layer(mutant) => mutant.name(),
            Self::Patch(patch) => &patch.name,
        }
    }
}

/// Runs mutants, tells of each when it is through, and prints the table. Gives whether all is well.
///
/// # Errors
/// If a name is not known, or the patches cannot be read.
pub fn run<S: Simulator>(
    options: &Options,
    simulator: &S,
    out: &mut impl Write,
) -> Result<bool, MutantsError> {
    let workshop = Workshop::new(&options.workspace)?;
    let patches = patch::load_all(&workshop.patches()).map_err(MutantsError::Patches)?;
    let subjects = choose(patches, &options.names)?;
    let mut rows = Vec::new();
    for subject in &subjects {
        writeln!(out, "{} ...", subject.name())?;
        out.flush()?;
        rows.push(judge(options, simulator, &workshop, subject));
    }
    out.write_all(render(&rows).as_bytes())?;
    Ok(rows.iter().all(Row::is_well))
}

/// All subjects, or those with these names. The simulator as it should be always comes first.
fn choose(patches: Vec<Patch>, names: &[String]) -> Result<Vec<Subject>, MutantsError> {
    let layers = Mutant::ALL.into_iter().map(Subject::Layer);
    let mut all: Vec<Subject> = layers.chain(patches.into_iter().map(Subject::Patch)).collect();
    let known: BTreeSet<&str> = all.iter().map(Subject::name).chain([CONTROL]).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(name.as_str())) {
        return Err(MutantsError::Unknown(name.clone()));
    }
    all.retain(|subject| names.is_empty() || names.iter().any(|name| name == subject.name()));
    all.insert(0, Subject::Control);
    Ok(all)
}

fn judge<S: Simulator>(
    options: &Options,
    simulator: &S,
    workshop: &Workshop,
    subject: &Subject,
) -> Row {
    let simulated = |mutant| move |seed| Ok(simulator.run(seed, mutant));
    let layered = |mutant| move |seed| Ok(caused(simulator, seed, simulator.run(seed, mutant)));
    match subject {
        Subject::Control => {
            let count = options.seeds.unwrap_or(CONTROL_SEEDS);
            let hunt =
                Hunt { first: *SEEDS.start(), count, time: Duration::ZERO, until: Until::Any };
            let caught = hunt.go(options.jobs, simulated(None));
            control_row(caught)
        }
        Subject::Layer(mutant) => {
            let row = |expected: &[&str], (fate, seeds, time)| Row {
                name: mutant.name().to_owned(),
                row: mutant.row().to_owned(),
                expected: expected.iter().map(|&name| name.to_owned()).collect(),
                fate,
                seeds,
                time,
            };
            match mutant.watch() {
                Watch::Checkers(names) => {
                    let expected: Vec<String> = names.iter().map(|&name| name.into()).collect();
                    let hunt = Hunt::new(options, &SEEDS, &expected);
                    row(names, hunt.go(options.jobs, layered(Some(*mutant))).fate(&expected))
                }
                Watch::Gates(names) => row(names, compare(options, simulator, *mutant, names)),
            }
        }
        Subject::Patch(patch) => {
            let (fate, seeds, time) = judge_patch(options, simulator, workshop, patch);
            let expected = patch.killers.clone();
            Row { name: patch.name.clone(), row: patch.row.clone(), expected, fate, seeds, time }
        }
    }
}

/// What a mutant has caused: nothing, where the same seed is not green without it.
fn caused<S: Simulator>(simulator: &S, seed: u64, mut summary: RunSummary) -> RunSummary {
    if !summary.violated.is_empty() && !simulator.run(seed, None).violated.is_empty() {
        summary.violated.clear();
    }
    summary
}

fn control_row(caught: Caught) -> Row {
    let (seeds, time) = (caught.runs.len() as u64, caught.time);
    let by = caught.violated();
    let fate = match (caught.failed, by.is_empty()) {
        (Some(reason), _) => Fate::Failed(reason),
        (None, true) => Fate::Green,
        (None, false) => Fate::Misjudged { by: by.join(", ") },
    };
    let name = CONTROL.to_owned();
    Row { name, row: String::new(), expected: Vec::new(), fate, seeds, time }
}

/// Builds a patch and runs it: its plan, if it has one, and then its seeds.
fn judge_patch<S: Simulator>(
    options: &Options,
    simulator: &S,
    workshop: &Workshop,
    patch: &Patch,
) -> (Fate, u64, Duration) {
    let program = match workshop.build(patch) {
        Ok(path) => Program::new(path),
        Err(error) => return (Fate::Failed(error.to_string()), 0, Duration::ZERO),
    };
    let mut time = Duration::ZERO;
    if let Some(plan) = &patch.plan {
        let begun = Instant::now();
        let summary = program.replay(workshop.patches().join(plan));
        time = begun.elapsed();
        match summary {
            Err(reason) => return (Fate::Failed(reason), 0, time),
            Ok(summary) => {
                if let Some(by) = first_of(&summary.violated, &patch.killers) {
                    return (Fate::Killed { by, seed: 0 }, 0, time);
                }
            }
        }
    }
    let hunt = Hunt::new(options, &patch.seeds, &patch.killers);
    let run = |seed| program.run(seed).map(|summary| caused(simulator, seed, summary));
    let caught = hunt.go(options.jobs, run);
    let (fate, seeds, taken) = caught.fate(&patch.killers);
    (fate, seeds, time + taken)
}

/// Judges a campaign with a mutant beside the same without: only a gate that lets the one pass and
/// not the other has found it.
fn compare<S: Simulator>(
    options: &Options,
    simulator: &S,
    mutant: Mutant,
    gates: &[&str],
) -> (Fate, u64, Duration) {
    let campaign = |mutant| {
        let count = options.seeds.unwrap_or(CAMPAIGN_SEEDS);
        let hunt = Hunt { first: *SEEDS.start(), count, time: Duration::ZERO, until: Until::End };
        let caught = hunt.go(options.jobs, |seed| Ok(simulator.run(seed, mutant)));
        let runs: Vec<RunSummary> = caught.runs.into_values().collect();
        let closed: BTreeSet<String> = simulator.gates(&runs).into_iter().collect();
        (closed, runs.len() as u64, caught.time)
    };
    let (without, _, _) = campaign(None);
    let (with, seeds, time) = campaign(Some(mutant));
    let new: Vec<String> = with.difference(&without).cloned().collect();
    let is_of = |gate: &str, name: &str| {
        gate.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
    };
    let found = new.iter().find(|gate| gates.iter().any(|name| is_of(gate, name)));
    let fate = match found {
        Some(gate) => Fate::Killed { by: gate.clone(), seed: *SEEDS.start() + seeds - 1 },
        None if new.is_empty() => Fate::Survived,
        None => Fate::Misjudged { by: new.join(", ") },
    };
    (fate, seeds, time)
}

fn first_of(violated: &[String], expected: &[String]) -> Option<String> {
    violated.iter().find(|name| expected.contains(name)).cloned()
}

/// Seeds that are run until something is found.
struct Hunt<'a> {
    first: u64,
    /// So many seeds at least, and more until `time` is over.
    count: u64,
    time: Duration,
    until: Until<'a>,
}

/// When a hunt is over before its end.
#[derive(Clone, Copy)]
enum Until<'a> {
    /// When one of these has found something.
    One(&'a [String]),
    /// When anybody has.
    Any,
    /// Never.
    End,
}

/// What a hunt has come to.
#[derive(Default)]
struct Caught {
    runs: BTreeMap<u64, RunSummary>,
    time: Duration,
    /// Why a run could not be made.
    failed: Option<String>,
}

impl<'a> Hunt<'a> {
    fn new(options: &Options, seeds: &RangeInclusive<u64>, expected: &'a [String]) -> Self {
        let given = seeds.end() - seeds.start() + 1;
        Self {
            first: *seeds.start(),
            count: options.seeds.unwrap_or(given),
            time: if options.seeds.is_some() { Duration::ZERO } else { TIME_MAX },
            until: Until::One(expected),
        }
    }

    fn go(&self, jobs: usize, run: impl Fn(u64) -> Result<RunSummary, String> + Sync) -> Caught {
        let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let caught = Mutex::new(Caught::default());
        let lock = || caught.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || {
            while !is_over.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.count && lock().time >= self.time {
                    return;
                }
                let begun = Instant::now();
                let summary = run(self.first + number);
                let mut caught = lock();
                caught.time += begun.elapsed();
                match summary {
                    Ok(summary) => {
                        is_over.fetch_or(self.until.is_met(&summary), Ordering::Relaxed);
                        caught.runs.insert(self.first + number, summary);
                    }
                    Err(reason) => {
                        is_over.store(true, Ordering::Relaxed);
                        caught.failed.get_or_insert(reason);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(work);
            }
        });
        caught.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Until<'_> {
    fn is_met(self, summary: &RunSummary) -> bool {
        match self {
            Self::One(expected) => first_of(&summary.violated, expected).is_some(),
            Self::Any => !summary.violated.is_empty(),
            Self::End => false,
        }
    }
}

impl Caught {
    /// Everybody who has found something.
    fn violated(&self) -> Vec<String> {
        let all = self.runs.values().flat_map(|summary| summary.violated.iter().cloned());
        all.collect::<BTreeSet<String>>().into_iter().collect()
    }

    /// What became of a mutant that `expected` have to find.
    fn fate(self, expected: &[String]) -> (Fate, u64, Duration) {
        let by = self.violated();
        let found = |(&seed, summary): (&u64, &RunSummary)| {
            first_of(&summary.violated, expected).map(|by| Fate::Killed { by, seed })
        };
        let killed = self.runs.iter().find_map(found);
        let seeds = self.runs.len() as u64;
        let fate = match (killed, self.failed) {
            (Some(killed), _) => killed,
            (None, Some(reason)) => Fate::Failed(reason),
            (None, None) if by.is_empty() => Fate::Survived,
            (None, None) => Fate::Misjudged { by: by.join(", ") },
        };
        (fate, seeds, self.time)
    }
}

#[cfg(test)]
mod tests;
