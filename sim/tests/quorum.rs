//! Clusters of 1 to 7 servers.

use std::time::Duration;
use cronclave_sim::cluster::{Cluster, Shape, Traced};
use cronclave_sim::seed::simulate;

#[test]
fn one_server_elects_itself() {
    simulate("quorum", &[1], |seed| async move {
        let n = std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
        let cluster = Cluster::start(Shape { seed, servers: n, agents: 1, traced: Traced::No });
        let leader = cluster.await_leader(Duration::from_secs(20)).await;
        cluster.tell();
        println!("leader {leader} at {} turns {}", cluster.now(), cluster.turns());
    });
}
