//! One node and its surroundings: its file, its signals, its disk, what its processes are told.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Role, lines, micros, wait};

#[test]
fn a_server_without_its_peers_says_what_is_missing() {
    let mut cluster = Cluster::empty();
    let node = cluster.add("alone", Role::Server);
    let absent = cluster.addr_of(1).to_string();
    let args = &mut cluster.nodes[node].args;
    args.extend(["--bootstrap-expect".into(), "3".into(), "--retry-join".into(), absent.clone()]);
    cluster.spawn(node);
    wait("the line that says what is missing", || {
        let log = cluster.log(node);
        let line = log.lines().find(|line| line.contains("waiting for 3 servers"))?;
        line.contains(&absent).then_some(())
    });
    let health = wait("an answer", || cluster.get(node, "/health"));
    assert_eq!(health.status, 200);
    let ready = wait("an answer", || cluster.get(node, "/health?ready"));
    assert_eq!(ready.status, 503);
    assert!(ready.json()["error"].as_str().unwrap_or_default().contains("waiting for 3 servers"));
}

#[test]
fn sighup_reads_tags_and_log_level_again() {
    let mut cluster = Cluster::start(1, 0);
    let file = cluster.path("own.yml");
    fs::write(&file, "tags: {colour: red}\n").expect("the directory is ours");
    cluster.signal(0, Signal::SIGTERM);
    assert_eq!(cluster.wait_exit(0).code(), Some(0));
    cluster.nodes[0].args.extend(["--config".into(), file.display().to_string()]);
    cluster.spawn(0);
    let colour = |wanted: &str| {
        wait("the tag", || {
            let members = cluster.members(0)?;
            (members.first()?["Tags"]["colour"] == wanted).then_some(())
        });
    };
    colour("red");
    fs::write(&file, "tags: {colour: blue}\nlog-level: debug\n").expect("the directory is ours");
    cluster.signal(0, Signal::SIGHUP);
    colour("blue");
    wait("the new level", || cluster.log(0).contains("log_level=debug").then_some(()));
}

#[test]
fn a_process_finds_its_run_in_its_environment() {
    let cluster = Cluster::start(1, 0);
    let file = cluster.path("environment");
    cluster.put_job(
        0,
        &json!({
            "name": "environment",
            "schedule": "* * * * * *",
            "executor": "shell",
            "executor_config": {
                "shell": "true",
                "command": format!(
                    "echo $CRONCLAVE_JOB $ENV_JOB_NAME $CRONCLAVE_EXECUTION $CRONCLAVE_DUE \
                     $CRONCLAVE_ATTEMPT >> {}; echo said",
                    file.display()
                ),
            },
        }),
    );
    wait("a run", || (!lines(&file).is_empty()).then_some(()));
    cluster.finish_job(0, "environment");
    let path = "/v1/jobs/environment/executions?_sort=due&_order=ASC";
    let rows = wait("the rows", || cluster.get(0, path)).json();
    let first = rows.as_array().and_then(|rows| rows.first()).expect("it has run");
    let text = |field: &str| first[field].as_str().unwrap_or_default();
    let said = lines(&file).first().cloned().unwrap_or_default();
    let wanted = ["environment", "environment", text("id"), text("due"), "1"].join(" ");
    assert_eq!(said, wanted);
    assert_eq!(micros(text("due")) % 1_000_000, 0, "cron falls on whole seconds");
    assert_eq!(text("output"), "said\n");
    assert_eq!((text("trigger"), &first["exit_code"]), ("schedule", &Value::from(0)));
}

#[test]
fn a_dev_server_prints_where_it_is_and_answers_there() {
    let mut cluster = Cluster::empty();
    let node = cluster.add("dev", Role::Server);
    cluster.nodes[node].args = vec!["agent".into(), "--dev".into()];
    cluster.spawn(node);
    let url = wait("its address", || {
        let log = cluster.log(node);
        let line = log.lines().find(|line| line.trim_start().starts_with("curl http://"))?;
        let (url, _) = line.trim_start().strip_prefix("curl ")?.split_once("/v1/")?;
        Some(url.to_owned())
    });
    wait("a leader", || {
        let ready = cluster.ask(&format!("{url}/health?ready"))?;
        (ready.status == 200).then_some(())
    });
    cluster.signal(node, Signal::SIGINT);
    assert_eq!(cluster.wait_exit(node).code(), Some(0));
}
