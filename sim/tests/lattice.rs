//! A slice of the quorum lattice: every kind of fault and every size of cluster is in it, and a
//! planted fault that has to be noticed at three servers and can do no harm at four.

use std::path::PathBuf;

use cronclave_sim::lattice::{Options, Planted, Slice, page, run};
use cronclave_sim::run::World;

#[test]
fn a_slice_of_the_lattice_is_as_it_has_to_be() {
    let options = Options {
        slice: Slice::Test,
        only: None,
        planted: vec![Planted::OldIdentity],
        workspace: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")),
        world: World::Heap,
        jobs: 2,
        plans: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("lattice"),
    };
    let mut told = Vec::new();
    let summary = run(&options, &mut told).expect("a vector takes everything");
    let told = String::from_utf8(told).expect("it is text");
    assert!(summary.is_green(), "{told}");
    assert_eq!(summary.planted_rows.len(), 2, "{told}");
    let page = page(&summary);
    assert!(page.contains("all red") && page.contains("all green"), "{page}");
    assert!(!page.contains("RED"), "{page}");
}
