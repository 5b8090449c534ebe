//! Scenarios: plans that are written by hand, each for one thing that is promised. Why is told in
//! each file of `sim/scenarios/`.

use std::collections::BTreeSet;

use cronclave_sim::both;

/// One test for each file.
macro_rules! scenarios {
    ($($name:ident,)*) => {
        const NAMES: &[&str] = &[$(stringify!($name),)*];
        $(
            #[test]
            fn $name() {
                assert_eq!(both::replay("scenarios", stringify!($name)), Ok(()));
            }
        )*
    };
}

scenarios! {
    clock_of_a_leader_of_five_ahead,
    clock_of_a_leader_of_three_ahead,
    clock_of_a_leader_of_three_back,
    cut_of_four_in_halves,
    cut_of_the_leader_of_five_and_one,
    cut_of_the_leader_of_three,
    cut_of_two_in_halves,
    doubt_after_a_power_cut_of_five,
    doubt_after_a_power_cut_of_one,
    doubt_after_a_power_cut_of_three,
    doubt_of_a_follower,
    doubt_of_one_rotten_end_of_five,
    doubt_of_one_rotten_end_of_three,
    doubt_without_quorum,
    full_agent,
    full_follower_and_dead_leader,
    full_leader_of_five,
    full_leader_of_three,
    full_leader_of_two,
    full_lone_server,
    full_three_of_five,
    full_two_of_three,
    snapshot_receiver_dies,
    snapshot_sender_dies,
    thousands_of_jobs,
}

#[test]
fn every_scenario_has_its_test() {
    let listed: BTreeSet<String> = NAMES.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(both::names("scenarios").expect("it is there"), listed);
}
