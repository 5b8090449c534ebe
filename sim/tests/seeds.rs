//! Plans that seeds make: a few fixed ones, or those that the environment names
//! (`make sim SEED=7 N=100`).

use std::ops::Range;

use cronclave_sim::both;
use cronclave_sim::plan::generate;

/// The variable that holds the first seed to be run, instead of the fixed ones.
const FIRST: &str = "CRONCLAVE_SIM_SEED";

/// The variable that says how many seeds are run from that one on; 1 if it is not set.
const COUNT: &str = "CRONCLAVE_SIM_COUNT";

fn given() -> Option<Range<u64>> {
    let first = number(FIRST)?;
    Some(first..first.saturating_add(number(COUNT).unwrap_or(1)))
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")))
}

fn seed(seed: u64) {
    assert_eq!(both::judge(&generate(seed), &format!("run {seed}")), Ok(()));
}

/// Every other of these, so that two threads share the work.
fn seeds(fixed: &[u64], place: usize) {
    match given() {
        Some(seeds) => seeds.skip(place).step_by(2).for_each(seed),
        None => fixed.iter().copied().skip(place).step_by(2).for_each(seed),
    }
}

/// Short ones of all sizes, with most kinds of faults among them.
const FIXED: [u64; 8] = [3, 4, 7, 8, 12, 13, 16, 20];

#[test]
fn every_other_seed_is_green_in_both_worlds() {
    seeds(&FIXED, 0);
}

#[test]
fn the_seeds_between_are_green_in_both_worlds() {
    seeds(&FIXED, 1);
}
