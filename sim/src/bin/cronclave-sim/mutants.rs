//! The two whole proofs: that checkers find planted faults, and the quorum lattice.

use std::collections::BTreeMap;
use std::fs;
use std::io::stdout;
use std::path::PathBuf;

use cronclave_sim::check::coverage::Coverage;
use cronclave_sim::lattice::{self, Planted, Slice};
use cronclave_sim::mutant::Mutant;
use cronclave_sim::mutants::{Options, RunSummary, Simulator, run};
use cronclave_sim::run::{Look, World};
use cronclave_sim::shrink::run_safely;

use crate::one::plan_of;
use crate::refuse;

/// Runs of this process.
struct Here;

impl Simulator for Here {
    fn run(&self, seed: u64, mutant: Option<Mutant>) -> RunSummary {
        let plan = plan_of(seed, mutant.map(|mutant| mutant.name().to_owned()));
        let plan = plan.expect("a mutant's name makes a sound plan");
        match run_safely(&plan, World::Heap, Look::default()) {
            Ok(report) => {
                let mut violated: Vec<String> =
                    report.violations.iter().map(|found| found.checker.clone()).collect();
                violated.sort();
                violated.dedup();
                let counts = report.coverage.counts();
                let counts =
                    counts.map(|(situation, count)| (situation.as_str().to_owned(), count));
                RunSummary { violated, counts: counts.collect() }
            }
            Err(_) => RunSummary { violated: vec!["unwinds".to_owned()], counts: BTreeMap::new() },
        }
    }

    fn gates(&self, runs: &[RunSummary]) -> Vec<String> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (situation, count) in runs.iter().flat_map(|run| &run.counts) {
            *sums.entry(situation).or_default() += count;
        }
        let missing = Coverage::default().missing().into_iter().map(|situation| situation.as_str());
        let missing = missing.filter(|situation| sums.get(situation).is_none_or(|sum| *sum == 0));
        missing.map(|situation| format!("coverage: {situation}")).collect()
    }
}

pub(crate) fn mutants(names: Vec<String>, seeds: Option<u64>, jobs: usize) -> u8 {
    let workspace = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let options = Options { names, seeds, jobs: jobs.max(1), workspace };
    match run(&options, &Here, &mut stdout()) {
        Ok(is_well) => u8::from(!is_well),
        Err(error) => refuse(&error.to_string()),
    }
}

pub(crate) fn lattice(
    jobs: usize,
    page: Option<PathBuf>,
    only: Option<String>,
    unpatched: bool,
) -> u8 {
    let workspace = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let options = lattice::Options {
        slice: Slice::Whole,
        only,
        planted: match unpatched {
            true => vec![Planted::OldIdentity],
            false => Planted::ALL.to_vec(),
        },
        workspace,
        world: World::Heap,
        jobs: jobs.max(1),
        plans: PathBuf::from("target").join("sim"),
    };
    let summary = match lattice::run(&options, &mut stdout()) {
        Ok(summary) => summary,
        Err(error) => return refuse(&error.to_string()),
    };
    if let Some(path) = page
        && let Err(error) = fs::write(&path, lattice::page(&summary))
    {
        return refuse(&format!("{}: {error}", path.display()));
    }
    u8::from(!summary.is_green())
}
