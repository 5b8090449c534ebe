//! How one server becomes a cluster of three.

use std::fmt::Write as _;
use std::fs;

use nix::sys::signal::Signal;

use crate::cluster::{Cluster, Role, lines, ticking, wait};

/// The first file of Dkron's page on clustering.
const ALONE: &str = "# dkron.yml\nserver: true\nbootstrap-expect: 1\n";

/// The second file, with these addresses.
fn together(addrs: &[String]) -> String {
    let mut text = "# dkron.yml\nserver: true\nbootstrap-expect: 3\nretry-join:\n".to_owned();
    for addr in addrs {
        writeln!(text, "- {addr}").expect("a string takes it");
    }
    text
}

#[test]
fn a_lone_server_becomes_a_cluster_of_three_with_its_jobs() {
    let mut cluster = Cluster::empty();
    let first = cluster.add("first", Role::Server);
    configure(&mut cluster, first, ALONE);
    cluster.spawn(first);
    wait("a leader", || cluster.agreed_leader(1));
    let file = cluster.path("dues");
    cluster.put_job(first, &ticking("tick", &file, ("dc", "dc1")));
    wait("a run", || (!lines(&file).is_empty()).then_some(()));
    let founded = wait("its status", || cluster.status(first))["raft"]["cluster_id"].clone();
    cluster.signal(first, Signal::SIGTERM);
    assert_eq!(cluster.wait_exit(first).code(), Some(0));

    let others = [cluster.add("second", Role::Server), cluster.add("third", Role::Server)];
    let all = [first, others[0], others[1]];
    let addrs = all.map(|node| cluster.addr_of(node).to_string());
    for node in all {
        configure(&mut cluster, node, &together(&addrs));
        cluster.spawn(node);
    }
    cluster.settle(3, 0);
    for node in all {
        wait("three voters", || {
            let status = cluster.status(node)?;
            let voters = status["raft"]["voters"].as_str()?.split(',').count();
            (voters == 3).then_some(())
        });
        let status = wait("its status", || cluster.status(node));
        assert_eq!(status["raft"]["cluster_id"], founded);
        let job = wait("its job", || cluster.get(node, "/v1/jobs/tick"));
        assert_eq!(job.status, 200, "{job:?}");
    }
    // The quorum is that of three: the first server is not needed any more.
    cluster.kill(first);
    cluster.leader();
    let ran = lines(&file).len();
    wait("two more runs", || (lines(&file).len() >= ran + 2).then_some(()));
}

/// Writes the node's `dkron.yml` where it is found without being named; the command line says only
/// what the page leaves to the machine: its addresses.
fn configure(cluster: &mut Cluster, node: usize, text: &str) {
    let node = &mut cluster.nodes[node];
    let config = node.dir.join("config");
    fs::create_dir_all(&config).expect("the directory is ours");
    fs::write(config.join("dkron.yml"), text).expect("the directory is ours");
    node.args.retain(|arg| arg != "--server");
}
