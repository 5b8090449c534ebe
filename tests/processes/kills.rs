//! Promises 1 to 5 under `kill -9`: what runs, what does not run twice, what is still there.

use std::path::Path;

use nix::sys::signal::Signal;

use crate::cluster::{Cluster, Row, assert_every_second, lines, ticking, wait, wait_for_phase};

#[test]
fn every_due_instant_runs_once_through_ten_leader_kills() {
    let mut cluster = Cluster::start(3, 1);
    let file = cluster.path("dues");
    cluster.put_job(0, &ticking("tick", &file, ("kind", "agent")));
    wait("the first run", || (!lines(&file).is_empty()).then_some(()));
    for kill in 0..10 {
        let leader = cluster.leader();
        wait_for_phase(kill);
        let ran = lines(&file).len();
        cluster.kill(leader);
        // Every second time the next leader rules for a while before the old one is back.
        if kill % 2 == 0 {
            wait("a run under the next leader", || (lines(&file).len() > ran).then_some(()));
        }
        cluster.spawn(leader);
        wait("a leader of all three", || cluster.agreed_leader(3));
        wait("two more runs", || (lines(&file).len() > ran + 1).then_some(()));
    }
    let leader = cluster.leader();
    let rows = cluster.finish_job(leader, "tick");
    assert_each_ran_once(&rows, &file);
}

#[test]
fn a_killed_target_leaves_runs_and_lost_rows_and_no_line_twice() {
    let mut cluster = Cluster::empty();
    let servers: Vec<usize> =
        (0..3).map(|i| cluster.add(&format!("s{i}"), crate::cluster::Role::Server)).collect();
    let join: Vec<String> = servers.iter().map(|i| cluster.addr_of(*i).to_string()).collect();
    for &server in &servers {
        let args = &mut cluster.nodes[server].args;
        args.extend(["--bootstrap-expect".into(), "3".into(), "--tag".into()]);
        args.push(format!("seat=s{server}"));
        join.iter().for_each(|addr| args.extend(["--retry-join".into(), addr.clone()]));
        cluster.spawn(server);
    }
    cluster.settle(3, 0);
    let file = cluster.path("dues");
    // The target is a follower at first; that it may lead later makes the test only harder.
    let target = (cluster.leader() + 1) % 3;
    let mut job = ticking("tick", &file, ("seat", &format!("s{target}")));
    // It goes on after its line, so that a kill meets it in the middle.
    let command = format!("echo \"$CRONCLAVE_DUE\" >> {}; sleep 0.5", file.display());
    job["executor_config"]["command"] = command.into();
    cluster.put_job(target, &job);
    wait("the first run", || (!lines(&file).is_empty()).then_some(()));
    for kill in 0..5 {
        let ran = lines(&file).len();
        match kill % 2 {
            0 => wait("a run to begin", || (lines(&file).len() > ran).then_some(())),
            _ => wait_for_phase(2 * kill),
        }
        cluster.kill(target);
        cluster.spawn(target);
        wait("a leader of all three", || cluster.agreed_leader(3));
        wait("two more runs", || (lines(&file).len() > ran + 1).then_some(()));
    }
    let leader = cluster.leader();
    let rows = cluster.finish_job(leader, "tick");
    assert_lost_or_ran_once(&rows, &file);
}

#[test]
fn jobs_history_and_cursor_outlive_the_death_of_all_servers_at_once() {
    let mut cluster = Cluster::start(3, 1);
    let file = cluster.path("dues");
    cluster.put_job(0, &ticking("tick", &file, ("kind", "agent")));
    wait("three runs", || (lines(&file).len() >= 3).then_some(()));
    let before = wait("the rows", || cluster.rows(1, "tick"));
    (0..3).for_each(|server| cluster.kill(server));
    // The agent has nobody: what it has started meanwhile, it keeps.
    (0..3).for_each(|server| cluster.spawn(server));
    cluster.settle(3, 1);
    let ran = lines(&file).len();
    wait("three more runs", || (lines(&file).len() >= ran + 3).then_some(()));
    let rows = cluster.finish_job(2, "tick");
    for row in before.iter().filter(|row| row.has_ended()) {
        let after: Vec<&Row> = rows.iter().filter(|other| other.due == row.due).collect();
        assert_eq!(after.len(), 1, "{row:?}: {after:?}");
        assert_eq!(after[0].outcome, row.outcome, "{row:?}");
    }
    assert_each_ran_once(&rows, &file);
}

#[test]
fn a_leader_that_was_paused_wakes_up_as_a_follower_and_repeats_nothing() {
    let cluster = Cluster::start(3, 1);
    let file = cluster.path("dues");
    cluster.put_job(0, &ticking("tick", &file, ("kind", "agent")));
    wait("the first run", || (!lines(&file).is_empty()).then_some(()));
    for _ in 0..2 {
        let paused = cluster.leader();
        let witness = (paused + 1) % 3;
        cluster.signal(paused, Signal::SIGSTOP);
        let ran = lines(&file).len();
        wait("another leader", || {
            let leader = cluster.status(witness)?["raft"]["leader"].as_str()?.to_owned();
            (!leader.is_empty() && leader != cluster.nodes[paused].name).then_some(())
        });
        wait("two runs under it", || (lines(&file).len() > ran + 1).then_some(()));
        cluster.signal(paused, Signal::SIGCONT);
        wait("a leader of all three", || cluster.agreed_leader(3));
    }
    let leader = cluster.leader();
    let rows = cluster.finish_job(leader, "tick");
    assert_each_ran_once(&rows, &file);
}

#[test]
fn a_killed_agent_delivers_what_it_has_finished_and_loses_only_what_ran() {
    let mut cluster = Cluster::start(3, 1);
    let (agent, file) = (3, cluster.path("dues"));
    let mut job = ticking("tick", &file, ("kind", "agent"));
    let command = format!("echo \"$CRONCLAVE_DUE\" >> {}; sleep 0.5", file.display());
    job["executor_config"]["command"] = command.into();
    cluster.put_job(0, &job);
    wait("the first run", || (!lines(&file).is_empty()).then_some(()));
    for kill in 0..4 {
        let ran = lines(&file).len();
        match kill % 2 {
            0 => wait("a run to begin", || (lines(&file).len() > ran).then_some(())),
            _ => wait_for_phase(3 * kill),
        }
        cluster.kill(agent);
        cluster.spawn(agent);
        wait("two more runs", || (lines(&file).len() > ran + 2).then_some(()));
    }
    let leader = cluster.leader();
    let rows = cluster.finish_job(leader, "tick");
    assert_lost_or_ran_once(&rows, &file);
}

/// Every second of the span has one row, it succeeded, and its line stands in the file once.
#[track_caller]
fn assert_each_ran_once(rows: &[Row], file: &Path) {
    let bad: Vec<&Row> = rows.iter().filter(|row| row.outcome != "succeeded").collect();
    assert!(bad.is_empty(), "{bad:?}");
    let dues: Vec<String> = rows.iter().map(|row| row.due.clone()).collect();
    assert_every_second(&dues);
    let mut ran = lines(file);
    ran.sort_unstable();
    assert_eq!(ran, dues, "the file holds each due instant once");
    report(rows);
}

/// Every second of the span has one row, which succeeded or was lost in the middle; no line stands
/// in the file twice.
#[track_caller]
fn assert_lost_or_ran_once(rows: &[Row], file: &Path) {
    let mut dues: Vec<String> = rows.iter().map(|row| row.due.clone()).collect();
    assert_every_second(&dues);
    let known = ["succeeded", "lost"];
    let bad: Vec<&Row> = rows.iter().filter(|r| !known.contains(&&*r.outcome)).collect();
    assert!(bad.is_empty(), "{bad:?}");
    let mut ran = lines(file);
    ran.sort_unstable();
    let lost: Vec<&str> = rows.iter().filter(|r| r.outcome == "lost").map(|r| &*r.due).collect();
    assert!(!lost.is_empty(), "kills have met runs in their middle: {rows:?}");
    // A lost one may have written its line or not; every other one has, and once.
    dues.retain(|due| !lost.contains(&due.as_str()) || ran.contains(due));
    assert_eq!(ran, dues, "lost: {lost:?}");
    report(rows);
}

/// Tells how late runs were, for whoever reads the output of the test.
fn report(rows: &[Row]) {
    let lateness = || rows.iter().filter_map(|row| row.lateness);
    let late = lateness().filter(|late| *late > 0.1).count();
    let worst = lateness().fold(0.0, f64::max);
    let lost = rows.iter().filter(|row| row.outcome == "lost").count();
    eprintln!(
        "{} due instants, {lost} lost, {late} later than 0.1 s, the latest by {worst:.3} s",
        rows.len()
    );
}
