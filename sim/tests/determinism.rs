//! A run is a pure function of its plan, in this process and in any other.

use std::process::Command;

use cronclave_sim::both::WORLDS;
use cronclave_sim::plan::{Plan, generate};
use cronclave_sim::run::{Look, World, run};

/// Fewer turns than this would mean that the cluster did nothing.
const TURNS_MIN: u64 = 2_000;

/// Tells the other process which world's hash it is to print.
const ASKED: &str = "CRONCLAVE_SIM_HASH_OF";

/// What stands before the hash.
const ANSWER: &str = "hash of the run: ";

/// Of a seed that crashes, cuts and slows.
fn plan(seed: u64) -> Plan {
    generate(seed)
}

/// The chained hash of all inputs, outputs and draws.
fn hash(plan: &Plan, world: World) -> u64 {
    let report = run(plan, world, Look { traced: true, ..Look::default() });
    assert!(report.counts.turns >= TURNS_MIN, "{:?}", report.counts);
    report.hash
}

/// The same, in another process: this test binary, which runs the test that answers.
fn hash_elsewhere(world: World) -> u64 {
    let binary = std::env::current_exe().expect("a test has a file");
    let output = Command::new(binary)
        .args(["--exact", "--nocapture", "the_other_process_answers"])
        .env(ASKED, format!("{world:?}"))
        .output()
        .expect("it can be run again");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| Some(line.split_once(ANSWER)?.1));
    let number = line.and_then(|line| line.trim().parse().ok());
    number.unwrap_or_else(|| panic!("no hash is in {text}"))
}

/// The seed of the plan that is run again and again.
const SEED: u64 = 7;

/// The worlds side by side.
#[test]
fn the_same_plan_gives_the_same_hash_and_another_seed_another() {
    let in_a_world = |world| {
        let first = hash(&plan(SEED), world);
        assert_eq!(hash(&plan(SEED), world), first, "{world:?}, again");
        assert_eq!(hash_elsewhere(world), first, "{world:?}, in another process");
        let mut other = plan(SEED);
        other.options.seed += 1;
        assert_ne!(hash(&other, world), first, "{world:?}, another seed");
    };
    std::thread::scope(|scope| {
        for world in WORLDS {
            scope.spawn(move || in_a_world(world));
        }
    });
}

/// Is the other process if it was asked, and nothing otherwise.
#[test]
fn the_other_process_answers() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let world = WORLDS.into_iter().find(|world| format!("{world:?}") == asked);
    let world = world.expect("a world is asked for");
    println!("{ANSWER}{}", hash(&plan(SEED), world));
}
