//! Tests of the judgement on mutants, with simulators that simulate nothing.

use super::*;

/// Finds every layer with the first checker that is named for it, at seed 5 and later.
struct Watchful;

/// Finds nothing, and lets every campaign pass.
struct Blind;

/// Complains about everything, the control included.
struct Nervous;

/// Complains about everything but the control.
struct Hasty;

fn summary(violated: &[&str]) -> RunSummary {
    let violated = violated.iter().map(|&name| name.to_owned()).collect();
    RunSummary { violated, counts: BTreeMap::new() }
}

impl Simulator for Watchful {
    fn run(&self, seed: u64, mutant: Option<Mutant>) -> RunSummary {
        match mutant.map(Mutant::watch) {
            Some(Watch::Checkers(names)) if seed >= 5 => summary(&names[..1]),
            Some(Watch::Checkers(_)) => summary(&["another"]),
            Some(Watch::Gates(names)) => {
                RunSummary { counts: BTreeMap::from([(names[0].to_owned(), 1)]), ..summary(&[]) }
            }
            None => summary(&[]),
        }
    }

    fn gates(&self, runs: &[RunSummary]) -> Vec<String> {
        let mut closed = vec!["coverage: never seen anyway".to_owned()];
        closed.extend(runs[0].counts.keys().map(|gate| format!("{gate}: missing")));
        closed
    }
}

impl Simulator for Blind {
    fn run(&self, _: u64, _: Option<Mutant>) -> RunSummary {
        summary(&[])
    }

    fn gates(&self, _: &[RunSummary]) -> Vec<String> {
        vec!["coverage".to_owned(), "rate".to_owned()]
    }
}

impl Simulator for Nervous {
    fn run(&self, _: u64, _: Option<Mutant>) -> RunSummary {
        summary(&["nerves"])
    }

    fn gates(&self, _: &[RunSummary]) -> Vec<String> {
        Vec::new()
    }
}

impl Simulator for Hasty {
    fn run(&self, _: u64, mutant: Option<Mutant>) -> RunSummary {
        summary(if mutant.is_some() { &["haste"] } else { &[] })
    }

    fn gates(&self, _: &[RunSummary]) -> Vec<String> {
        Vec::new()
    }
}

fn options(names: &[&str]) -> Options {
    Options {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        seeds: Some(9),
        jobs: 1,
        workspace: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".."),
    }
}

fn fates(simulator: &impl Simulator) -> Vec<Fate> {
    let options = options(&[]);
    let workshop = Workshop::new(&options.workspace).unwrap();
    let subjects = choose(Vec::new(), &[]).unwrap();
    let rows = subjects.iter().map(|subject| judge(&options, simulator, &workshop, subject));
    rows.map(|row| row.fate).collect()
}

#[test]
fn a_mutant_is_dead_when_one_that_was_named_for_it_has_found_it() {
    let fates = fates(&Watchful);
    assert_eq!(fates[0], Fate::Green);
    for (mutant, fate) in Mutant::ALL.into_iter().zip(&fates[1..]) {
        let (by, seed) = match mutant.watch() {
            Watch::Checkers(names) => (names[0].to_owned(), 5),
            Watch::Gates(names) => (format!("{}: missing", names[0]), 9),
        };
        assert_eq!(*fate, Fate::Killed { by, seed }, "{mutant}");
    }
}

#[test]
fn a_mutant_that_nobody_finds_has_survived_though_a_gate_is_always_closed() {
    let fates = fates(&Blind);
    assert_eq!(fates[0], Fate::Green);
    assert!(fates[1..].iter().all(|fate| *fate == Fate::Survived), "{fates:?}");
}

#[test]
fn a_complaint_of_another_is_no_kill() {
    let haste = Fate::Misjudged { by: "haste".to_owned() };
    for (mutant, fate) in Mutant::ALL.into_iter().zip(&fates(&Hasty)[1..]) {
        match mutant.watch() {
            Watch::Checkers(_) => assert_eq!(*fate, haste, "{mutant}"),
            Watch::Gates(_) => assert_eq!(*fate, Fate::Survived, "{mutant}"),
        }
    }
}

#[test]
fn a_complaint_that_is_there_without_a_mutant_is_an_error_and_no_kill() {
    let fates = fates(&Nervous);
    assert_eq!(fates[0], Fate::Misjudged { by: "nerves".to_owned() });
    assert!(fates[1..].iter().all(|fate| *fate == Fate::Survived), "{fates:?}");
}

#[test]
fn all_is_well_only_if_every_row_is() {
    let mut text = Vec::new();
    assert!(run(&options(&["canary", CONTROL]), &Watchful, &mut text).unwrap());
    let told = String::from_utf8(text).unwrap();
    assert!(told.starts_with("none ...\ncanary ...\nmutant "), "{told}");
    assert!(told.ends_with("2 of 2 are as they should be\n"), "{told}");
    assert!(!run(&options(&["canary"]), &Blind, &mut Vec::new()).unwrap());
    let unknown = run(&options(&["nobody"]), &Blind, &mut Vec::new());
    assert!(matches!(unknown, Err(MutantsError::Unknown(name)) if name == "nobody"));
}

#[test]
fn several_jobs_find_the_same_as_one() {
    let expected = ["late".to_owned()];
    let run = |seed| Ok(summary(if seed % 10 == 0 { &["late"] } else { &["early"] }));
    let mut options = options(&[]);
    options.seeds = Some(100);
    for jobs in [1, 4] {
        let (fate, seeds, _) = Hunt::new(&options, &SEEDS, &expected).go(jobs, run).fate(&expected);
        assert!(matches!(fate, Fate::Killed { ref by, .. } if by == "late"), "{fate:?}");
        assert!((1..=100).contains(&seeds));
    }
}

#[test]
fn a_run_that_cannot_be_made_ends_the_hunt() {
    let expected = ["late".to_owned()];
    let hunt = Hunt::new(&options(&[]), &SEEDS, &expected);
    let (fate, seeds, _) = hunt.go(1, |_| Err("no program".to_owned())).fate(&expected);
    assert_eq!((fate, seeds), (Fate::Failed("no program".to_owned()), 0));
}

#[test]
fn a_hunt_without_a_number_goes_on_until_its_time_is_over() {
    let hunt = Hunt { first: 1, count: 1, time: Duration::from_nanos(1), until: Until::End };
    assert!(!hunt.go(1, |_| Ok(summary(&[]))).runs.is_empty());
    let over = Hunt { time: Duration::ZERO, ..hunt };
    assert_eq!(over.go(1, |_| Ok(summary(&[]))).runs.len(), 1);
}
