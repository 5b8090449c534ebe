//! What a second process is refused: a data directory, a port, a name.

use crate::cluster::{Cluster, Role, wait};

#[test]
fn a_second_process_on_a_data_directory_exits_naming_the_first() {
    let mut cluster = Cluster::start(1, 0);
    let second = cluster.add("second", Role::Server);
    let data = cluster.nodes[0].dir.join("data").display().to_string();
    let args = &mut cluster.nodes[second].args;
    args.extend(["--data-dir".into(), data, "--bootstrap-expect".into(), "1".into()]);
    cluster.spawn(second);
    assert_eq!(cluster.wait_exit(second).code(), Some(1));
    let (log, pid) = (cluster.log(second), cluster.pid(0).to_string());
    assert!(log.contains(&pid), "the log does not name {pid}: {log}");
    assert_eq!(cluster.get(0, "/health").map(|answer| answer.status), Some(200));
}

#[test]
fn a_taken_port_exits_naming_the_address() {
    let mut cluster = Cluster::start(1, 0);
    let addr = cluster.addr_of(0);
    let own = cluster.add("second", Role::Server);
    for (flag, taken, named) in [
        ("--http-addr", format!("{addr}:8080"), format!("{addr}:8080")),
        ("--bind-addr", format!("{addr}:9999"), format!("{addr}:6868")),
    ] {
        let args = cluster.nodes[own].args.clone();
        let more = [flag.to_owned(), taken, "--bootstrap-expect".into(), "1".into()];
        cluster.nodes[own].args.extend(more);
        cluster.spawn(own);
        assert_eq!(cluster.wait_exit(own).code(), Some(1), "{flag}");
        let log = cluster.log(own);
        assert!(log.contains(&named), "{flag}: the log does not name {named}: {log}");
        cluster.nodes[own].args = args;
    }
}

#[test]
fn a_second_live_node_of_a_taken_name_is_refused() {
    let mut cluster = Cluster::start(3, 0);
    let twin = cluster.add("twin", Role::Agent);
    let join = cluster.addr_of(0).to_string();
    let args = &mut cluster.nodes[twin].args;
    args.extend(["--retry-join".into(), join, "--node-name".into(), "s1".into()]);
    cluster.spawn(twin);
    wait("the refusal in a log", || {
        let said = "node-name s1 is taken";
        (0..4).any(|node| cluster.log(node).contains(said)).then_some(())
    });
    let members = wait("the members", || cluster.members(0));
    let named: Vec<_> = members.iter().filter(|member| member["Name"] == "s1").collect();
    assert_eq!(named.len(), 1, "{members:?}");
    assert_eq!(named[0]["Addr"], cluster.addr_of(1).to_string());
    assert_eq!(named[0]["statusText"], "alive");
}
