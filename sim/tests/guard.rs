//! A green `cargo test --features sim` has simulated something.
//!
//! With a feature `sim` in the root package, or without this package among the default members,
//! that command would be green and simulate nothing. Without the feature only this file is built.

/// The workspace's manifest.
fn manifest() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    std::fs::read_to_string(path).expect("the workspace has a manifest")
}

#[test]
fn the_feature_sim_is_this_packages_alone() {
    let manifest = manifest();
    let members = manifest.lines().find(|line| line.starts_with("default-members"));
    assert!(members.is_some_and(|line| line.contains("\"sim\"")), "sim is tested by default");
    let features = manifest.lines().skip_while(|line| line.trim() != "[features]").skip(1);
    let mut features = features.take_while(|line| !line.starts_with('['));
    let own = features.any(|line| line.split('=').next().is_some_and(|name| name.trim() == "sim"));
    assert!(!own, "the root package has a feature sim: `--features sim` may not reach this one");
}

#[cfg(not(feature = "sim"))]
#[test]
fn whoever_asks_for_the_feature_gets_it() {
    // On Linux a process can read what its parent, cargo, was asked for.
    let parent = format!("/proc/{}/cmdline", std::os::unix::process::parent_id());
    let Ok(command) = std::fs::read_to_string(parent) else { return };
    let words: Vec<&str> = command.split('\0').collect();
    let names = |list: &str| list.split([',', ' ']).any(|name| name.ends_with("sim"));
    let asked = words.iter().enumerate().any(|(at, word)| match word.split_once('=') {
        Some(("--features", list)) => names(list),
        _ if matches!(*word, "--features" | "-F") => {
            words.get(at + 1).is_some_and(|list| names(list))
        }
        _ => *word == "--all-features",
    });
    assert!(!asked, "the feature sim was asked for, and this package was built without it");
}

#[cfg(feature = "sim")]
#[test]
fn a_run_is_simulated() {
    use cronclave_sim::plan::Plan;
    use cronclave_sim::run::{Look, World, run};
    use std::time::{Duration, Instant};

    let plan: Plan = "plan 1\nservers 1\nagents 0\nt=60 end".parse().expect("it is a plan");
    for world in [World::Heap, World::Madsim] {
        let real = Instant::now();
        let report = run(&plan, world, Look::default());
        assert_eq!(report.violations, []);
        let turns = report.counts.turns;
        assert!(turns > 100, "{world:?}: {turns} turns of a node in a minute");
        let simulated = report.simulated;
        assert!(simulated >= Duration::from_secs(60), "{world:?}: {simulated:?} have passed");
        assert!(real.elapsed() < simulated, "{world:?}: simulated time is not real time");
    }
}
