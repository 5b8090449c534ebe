//! SIGTERM stops a server and changes nothing else; `cronclave leave` removes it.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::cluster::{Cluster, lines, wait};

#[test]
fn sigterm_hands_over_drains_and_keeps_the_membership() {
    let mut cluster = Cluster::start(3, 0);
    let leader = cluster.leader();
    let file = cluster.path("drained");
    let go = cluster.path("go");
    // It runs until it is told to end: the stop has to wait for it.
    let command = format!(
        "echo start >> {file}; while [ ! -e {go} ]; do sleep 0.05; done; echo end >> {file}",
        file = file.display(),
        go = go.display(),
    );
    cluster.put_job(
        leader,
        &json!({
            "name": "slow",
            "schedule": "@manually",
            "executor": "shell",
            "executor_config": { "shell": "true", "command": command },
        }),
    );
    let run = cluster.post(leader, "/v1/jobs/slow/run", "").expect("the server answers");
    assert_eq!(run.status, 202, "{run:?}");
    // No tags: every node runs it.
    wait("three runs", || (lines(&file).len() == 3).then_some(()));

    cluster.signal(leader, Signal::SIGTERM);
    let rest: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    wait("another leader", || {
        let status = cluster.status(rest[0])?;
        let name = status["raft"]["leader"].as_str().unwrap_or_default();
        (!name.is_empty() && name != cluster.nodes[leader].name).then_some(())
    });
    cluster.put_job(
        rest[1],
        &json!({
            "name": "meanwhile",
            "schedule": "@manually",
            "executor": "shell",
            "executor_config": { "command": "true" },
        }),
    );
    assert!(cluster.has_process(leader), "the stop waits for what runs");
    std::fs::write(&go, "").expect("the directory is ours");
    assert_eq!(cluster.wait_exit(leader).code(), Some(0));
    assert_eq!(lines(&file).iter().filter(|line| *line == "end").count(), 3);
    let rows = wait("all rows to end", || {
        let rows = cluster.rows(rest[0], "slow")?;
        rows.iter().all(crate::cluster::Row::has_ended).then_some(rows)
    });
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.outcome == "succeeded"), "{rows:?}");
    let name = cluster.nodes[leader].name.clone();
    let role = wait("its role", || cluster.raft_role(rest[0], &name));
    assert_eq!(role, "voter", "a stop is no leave");
    cluster.spawn(leader);
    cluster.settle(3, 0);
}

#[test]
fn a_second_signal_ends_a_draining_server_at_once() {
    let mut cluster = Cluster::start(1, 0);
    let file = cluster.path("started");
    cluster.put_job(
        0,
        &json!({
            "name": "long",
            "schedule": "@manually",
            "executor": "shell",
            "executor_config": {
                "shell": "true",
                "command": format!("echo start >> {}; sleep 30", file.display()),
            },
        }),
    );
    let run = cluster.post(0, "/v1/jobs/long/run", "").expect("the server answers");
    assert_eq!(run.status, 202, "{run:?}");
    wait("the run", || (!lines(&file).is_empty()).then_some(()));
    cluster.signal(0, Signal::SIGTERM);
    wait("the stop to begin", || cluster.log(0).contains("told to stop").then_some(()));
    cluster.signal(0, Signal::SIGINT);
    assert_eq!(cluster.wait_exit(0).code(), Some(1));
}

#[test]
fn executions_past_the_drain_timeout_are_ended_and_recorded() {
    let mut cluster = Cluster::start(1, 0);
    let file = cluster.path("started");
    cluster.put_job(
        0,
        &json!({
            "name": "long",
            "schedule": "@manually",
            "executor": "shell",
            "executor_config": {
                "shell": "true",
                "command": format!("echo start >> {}; sleep 30", file.display()),
            },
        }),
    );
    let args = ["--drain-timeout".to_owned(), "1s".to_owned()];
    cluster.signal(0, Signal::SIGTERM);
    assert_eq!(cluster.wait_exit(0).code(), Some(0));
    cluster.nodes[0].args.extend(args);
    cluster.spawn(0);
    wait("a leader", || cluster.agreed_leader(1));
    let run = cluster.post(0, "/v1/jobs/long/run", "").expect("the server answers");
    assert_eq!(run.status, 202, "{run:?}");
    wait("the run", || (!lines(&file).is_empty()).then_some(()));
    cluster.signal(0, Signal::SIGTERM);
    assert_eq!(cluster.wait_exit(0).code(), Some(0));
    cluster.spawn(0);
    wait("a leader", || cluster.agreed_leader(1));
    let rows = wait("its row to end", || {
        let rows = cluster.rows(0, "long")?;
        rows.iter().all(crate::cluster::Row::has_ended).then_some(rows)
    });
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].outcome, "failed", "{rows:?}");
    assert_eq!(lines(&file).len(), 1);
}

#[test]
fn leave_removes_a_voter_and_its_process_ends() {
    let mut cluster = Cluster::start(3, 0);
    let leader = cluster.leader();
    let url = format!("http://{}:8080", cluster.addr_of(leader));
    let output = Command::new(env!("CARGO_BIN_EXE_cronclave"))
        .args(["leave", "--http-addr", &url])
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(cluster.wait_exit(leader).code(), Some(0));
    let rest = (leader + 1) % 3;
    let name = cluster.nodes[leader].name.clone();
    wait("two voters", || {
        let status = cluster.status(rest)?;
        let voters = status["raft"]["voters"].as_str()?;
        (voters.split(',').count() == 2 && !voters.contains(&name)).then_some(())
    });
    assert_ne!(cluster.raft_role(rest, &name).as_deref(), Some("voter"));
    assert_ne!(cluster.leader(), leader);
    // Nothing keeps it from coming back.
    cluster.spawn(leader);
    cluster.settle(3, 0);
    wait("three voters", || {
        let status = cluster.status(rest)?;
        let voters = status["raft"]["voters"].as_str()?;
        (voters.split(',').count() == 3 && voters.contains(&name)).then_some(())
    });
}
