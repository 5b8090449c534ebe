//! Clusters of 1 to 7 servers: with the tolerated number of them lost the cluster works, with one
//! more lost it stops, and when they return nothing is lost, invented or done twice.
//!
//! With n servers T = n - (n / 2 + 1) may be lost. Each plan of `sim/scenarios/quorum/` takes the
//! power of T servers at once, restarts them, takes the power of T + 1, restarts one (which is
//! enough), then the rest; once the leader is among them, and once it is not.

use std::collections::BTreeSet;

use cronclave_sim::both;
use cronclave_sim::plan::{Action, Expect};

const DIRECTORY: &str = "scenarios/quorum";

fn size(size: usize) {
    for name in plans(size) {
        assert_eq!(both::replay(DIRECTORY, &name), Ok(()));
    }
}

/// The only one of a single server is the leader.
fn plans(size: usize) -> impl Iterator<Item = String> {
    let places = if size == 1 { &["lost"][..] } else { &["lost", "spared"] };
    places.iter().map(move |place| format!("{size}_leader_{place}"))
}

#[test]
fn one_server() {
    size(1);
}

#[test]
fn two_servers() {
    size(2);
}

#[test]
fn three_servers() {
    size(3);
}

#[test]
fn four_servers() {
    size(4);
}

#[test]
fn five_servers() {
    size(5);
}

#[test]
fn six_servers() {
    size(6);
}

#[test]
fn seven_servers() {
    size(7);
}

#[test]
fn every_plan_loses_as_many_as_the_table_says() {
    let listed: BTreeSet<String> = (1..=7).flat_map(plans).collect();
    assert_eq!(both::names(DIRECTORY).expect("it is there"), listed);
    for size in 1..=7 {
        let tolerated = size - (size / 2 + 1);
        for name in plans(size) {
            let plan = both::read(DIRECTORY, &name).expect("it is a plan");
            assert_eq!(plan.options.servers, size, "{name}");
            let crashes = plan.steps.iter().filter(|step| matches!(step.action, Action::Crash(..)));
            assert_eq!(crashes.count(), tolerated + tolerated + 1, "{name}");
            let is_still = |action: &Action| matches!(action, Action::Expect(Expect::Still(_)));
            assert_eq!(plan.steps.iter().filter(|step| is_still(&step.action)).count(), 1);
        }
    }
}
