//! Runs experiments, and counts what was seen.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Experiment, Kind, Planted, Slice, experiments};
use crate::mutants::program::Program;
use crate::plan::{Action, Expect, Plan};
use crate::run::{Look, Report, World};
use crate::shrink::run_safely;

/// How many experiments are told of at once.
const TELL_EVERY: usize = 100;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much of the lattice.
    pub slice: Slice,
    /// Only experiments whose id begins so; of those of a mutant the mutant's name comes first.
    pub only: Option<String>,
    /// Which known faults it is run with beside, which have to make it red.
    pub planted: Vec<Planted>,
    /// The root of the workspace, from which those faults that are patches are built.
    pub workspace: PathBuf,
    /// In which world.
    pub world: World,
    /// How many runs go on at a time, at least 1.
    pub jobs: usize,
    /// Where plans of red experiments are put, and those that a program is given.
    pub plans: PathBuf,
}

/// How often each verdict was given, and held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// P: whoever had a quorum worked.
    pub progress: usize,
    /// Z: whoever had none granted nothing.
    pub zero: usize,
    /// R: with exactly a quorum back it worked.
    pub recovers: usize,
    /// Only safety was judged where it might work or not.
    pub either: usize,
    /// L: nothing was lost, and all came to one state.
    pub loses_nothing: usize,
}

impl Seen {
    /// What a plan asks for.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most actions are none of these")]
    fn asked_by(plan: &Plan) -> Self {
        let mut seen = Self { loses_nothing: 1, ..Self::default() };
        let mark = plan.steps.iter().position(|step| step.action == Action::Mark);
        // What comes before the fault is the load.
        for step in plan.steps.iter().skip(mark.unwrap_or(0)) {
            match &step.action {
                Action::Expect(Expect::Progress(_)) if is_over(plan, step.at) => {
                    seen.recovers += 1;
                }
                Action::Expect(Expect::Progress(_)) => seen.progress += 1,
                Action::Expect(Expect::Still(_) | Expect::ReadOnly(_)) => seen.zero += 1,
                Action::Expect(Expect::Either(_)) => seen.either += 1,
                _ => {}
            }
        }
        seen
    }

    /// Adds what was seen elsewhere.
    pub fn add(&mut self, other: Self) {
        self.progress += other.progress;
        self.zero += other.zero;
        self.recovers += other.recovers;
        self.either += other.either;
        self.loses_nothing += other.loses_nothing;
    }
}

/// Whether servers have stood still before this, long enough ago that they were not asked
/// meanwhile: what works then has recovered.
fn is_over(plan: &Plan, at: Duration) -> bool {
    const LONG_AGO: Duration = Duration::from_secs(5);
    let is_still = |action: &Action| {
        matches!(action, Action::Expect(Expect::Still(_) | Expect::ReadOnly(_) | Expect::Either(_)))
    };
    plan.steps.iter().any(|step| is_still(&step.action) && step.at + LONG_AGO <= at)
}

/// Experiments of one size, kind and side of what may be lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// How many ran.
    pub ran: usize,
    /// How many of them were not as they have to be.
    pub red: usize,
    /// What was seen in the others.
    pub seen: Seen,
}

/// An experiment that is not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub id: String,
    /// What does not hold: a checker and its words.
    pub what: Vec<(String, String)>,
    /// Where its plan is.
    pub plan: PathBuf,
}

/// What came of a lattice.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// By size, kind, and whether more was lost than may be.
    pub rows: BTreeMap<(usize, Kind, bool), Row>,
    /// With a known fault, by that, size, and whether it has to be red.
    pub planted_rows: BTreeMap<(Planted, usize, bool), Row>,
    /// What was not as it has to be.
    pub failures: Vec<Failure>,
    /// Simulated time, in all.
    pub simulated: Duration,
    /// Time of all threads.
    pub took: Duration,
}

impl Summary {
    /// Whether everything was as it has to be.
    pub fn is_green(&self) -> bool {
        self.failures.is_empty()
    }

    /// How many experiments ran.
    pub fn ran(&self) -> usize {
        self.rows.values().chain(self.planted_rows.values()).map(|row| row.ran).sum()
    }
}

/// Runs the lattice, and tells of what is red with the command that replays it.
///
/// # Errors
/// If nothing can be told, a plan cannot be put down, or a planted fault cannot be built.
pub fn run(options: &Options, out: &mut dyn Write) -> io::Result<Summary> {
    let all = cases(options, out)?;
    let mut summary = Summary::default();
    let mut result = Ok(());
    writeln!(out, "{} experiments", all.len())?;
    let work = |case: &Case| look_at(case, options);
    in_parallel(options.jobs, &all, work, |case, looked| {
        if result.is_ok() {
            result = looked.and_then(|looked| book(&mut summary, options, case, looked, out));
        }
        if result.is_ok() && summary.ran().is_multiple_of(TELL_EVERY) {
            result = tell(&summary, all.len(), out);
        }
    });
    result?;
    tell(&summary, all.len(), out)?;
    Ok(summary)
}

/// An experiment, and what is wanted of it.
struct Case {
    experiment: Experiment,
    /// A fault that is planted, whether it has to be noticed, and in which program it is.
    planted: Option<(Planted, bool, Option<Program>)>,
}

impl Case {
    /// Whether it has to be red.
    fn is_red(&self) -> bool {
        self.planted.as_ref().is_some_and(|(_, is_red, _)| *is_red)
    }
}

fn cases(options: &Options, out: &mut dyn Write) -> io::Result<Vec<Case>> {
    let is_chosen = |experiment: &Experiment| {
        options.only.as_ref().is_none_or(|only| experiment.id.starts_with(only))
    };
    let control = experiments(options.slice).into_iter().filter(is_chosen);
    let mut all: Vec<Case> = control.map(|experiment| Case { experiment, planted: None }).collect();
    for &planted in &options.planted {
        let mut shown = planted.experiments(options.slice);
        shown.retain(|(experiment, _)| is_chosen(experiment));
        if shown.is_empty() {
            continue;
        }
        writeln!(out, "{} ...", planted.name())?;
        out.flush()?;
        let program = planted.program(&options.workspace).map_err(io::Error::other)?;
        all.extend(shown.into_iter().map(|(experiment, is_red)| Case {
            experiment,
            planted: Some((planted, is_red, program.clone())),
        }));
    }
    Ok(all)
}

/// What came of one run.
struct Looked {
    /// What does not hold.
    what: Vec<(String, String)>,
    simulated: Duration,
    took: Duration,
}

fn look_at(case: &Case, options: &Options) -> io::Result<Looked> {
    let begun = Instant::now();
    let Experiment { id, plan, .. } = &case.experiment;
    if let Some((_, _, Some(program))) = &case.planted {
        let path = put_down(&options.plans, id, plan)?;
        let summary = program.replay(path).map_err(io::Error::other)?;
        let what = summary.violated.into_iter().map(|checker| (checker, String::new()));
        let (what, took) = (what.collect(), begun.elapsed());
        return Ok(Looked { what, simulated: plan.end, took });
    }
    let ran = run_safely(plan, options.world, Look::default());
    let took = begun.elapsed();
    let report = match ran {
        Ok(report) => report,
        Err(text) => {
            let what = vec![("unwinds".to_owned(), text)];
            return Ok(Looked { what, simulated: Duration::ZERO, took });
        }
    };
    let mut what: Vec<(String, String)> =
        report.violations.iter().map(|it| (it.checker.clone(), it.text.clone())).collect();
    if what.is_empty() && !is_judged(plan, &report) {
        let text = format!("not all was judged: {:?}", report.comparisons);
        what.push(("lattice".to_owned(), text));
    }
    Ok(Looked { what, simulated: report.simulated, took })
}

/// Whether everything that the plan expects was looked at.
fn is_judged(plan: &Plan, report: &Report) -> bool {
    let asked = Seen::asked_by(plan);
    let compared = |name: &str| {
        let found = report.comparisons.iter().find(|(checker, _)| checker == name);
        found.map_or(0, |(_, count)| usize::try_from(*count).unwrap_or(usize::MAX))
    };
    // The load is one more.
    compared("progress") == asked.progress + asked.recovers + 1
        && compared("stands still") >= asked.zero
        && compared("settles") == 1
}

fn book(
    summary: &mut Summary,
    options: &Options,
    case: &Case,
    looked: Looked,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Experiment { id, size, kind, beyond, plan } = &case.experiment;
    summary.simulated += looked.simulated;
    summary.took += looked.took;
    let row = match &case.planted {
        None => summary.rows.entry((*size, *kind, *beyond)).or_default(),
        Some((planted, is_red, _)) => {
            summary.planted_rows.entry((*planted, *size, *is_red)).or_default()
        }
    };
    row.ran += 1;
    let Some(what) = complaint(case, looked.what) else {
        if !case.is_red() {
            row.seen.add(Seen::asked_by(plan));
        }
        return Ok(());
    };
    row.red += 1;
    let path = put_down(&options.plans, id, plan)?;
    writeln!(out, "RED {id}")?;
    for (checker, text) in &what {
        writeln!(out, "  {checker}: {text}")?;
    }
    writeln!(out, "  {}", replay(&path))?;
    out.flush()?;
    summary.failures.push(Failure { id: id.clone(), what, plan: path });
    Ok(())
}

/// What is not as it has to be.
fn complaint(case: &Case, what: Vec<(String, String)>) -> Option<Vec<(String, String)>> {
    let Some((planted, true, _)) = &case.planted else {
        return (!what.is_empty()).then_some(what);
    };
    let is_killer = |(checker, _): &(String, String)| planted.killers().contains(&&**checker);
    if what.iter().any(is_killer) {
        return None;
    }
    let text = format!("{} is noticed by none of {:?}", planted.name(), planted.killers());
    Some(std::iter::once(("lattice".to_owned(), text)).chain(what).collect())
}

/// Saves the plan of an experiment.
fn put_down(dir: &Path, id: &str, plan: &Plan) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let path = dir.join(format!("{}.plan", id.replace('/', "_")));
    fs::write(&path, format!("# {id}\n{plan}"))?;
    Ok(path)
}

/// The command that runs a plan again.
fn replay(plan: &Path) -> String {
    let plan = plan.display();
    format!("cargo run --release -p cronclave-sim --features sim -- replay {plan}")
}

fn tell(summary: &Summary, of: usize, out: &mut dyn Write) -> io::Result<()> {
    let (ran, red) = (summary.ran(), summary.failures.len());
    let simulated = summary.simulated.as_secs_f64();
    let speed = simulated / summary.took.as_secs_f64().max(1e-9);
    writeln!(
        out,
        "{ran} of {of} ran, {red} red, {simulated:.0} simulated s, {speed:.0} a thread-s"
    )?;
    out.flush()
}

/// Does something with each, `jobs` at a time, and gives what comes of it to `done` in this thread.
fn in_parallel<T: Sync, R: Send>(
    jobs: usize,
    all: &[T],
    work: impl Fn(&T) -> R + Sync,
    mut done: impl FnMut(&T, R),
) {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send((one, work(one))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        receiver.into_iter().for_each(|(one, result)| done(one, result));
    });
}
