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
    use cronclave_sim::cluster::{Cluster, Shape, Traced};
    use cronclave_sim::seed::{run, runs};
    use std::time::{Duration, Instant};

    let real = Instant::now();
    let (turns, simulated) = run("guard", 1, || async {
        let begun = Instant::now();
        let shape = Shape { seed: 1, servers: 1, agents: 0, traced: Traced::No };
        let cluster = Cluster::start(shape);
        cluster.await_leader(Duration::from_secs(20)).await;
        madsim::time::sleep(Duration::from_secs(60)).await;
        (cluster.turns(), begun.elapsed())
    });
    assert_eq!(runs(), 1);
    assert!(turns > 100, "{turns} turns of a node in a minute");
    assert!(simulated >= Duration::from_secs(60), "{simulated:?} have passed for the node");
    assert!(real.elapsed() < simulated, "simulated time is not real time");
}
