//! The data directory of a server of version 1, which every later version has to start on: its log,
//! its snapshot with the state in it, and its history, as a real server wrote them.
//!
//! `tests/golden/v1/data` was made once, by a server that ran jobs, made a snapshot and went on.
//! The answers that it gave before it stopped are beside it. Neither is ever made anew under the
//! same version: what cannot read them, or reads something else, fails here.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cluster::{Cluster, Role, wait};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the directory is ours");
    for entry in fs::read_dir(from).expect("it is part of the sources") {
        let entry = entry.expect("it is part of the sources");
        let (from, name) = (entry.path(), entry.file_name());
        if from.is_dir() {
            copy(&from, &to.join(name));
        } else {
            fs::copy(from, to.join(name)).expect("the directory is ours");
        }
    }
}

/// A server on a copy of the directory, in which `change` changed something first.
fn start(change: impl FnOnce(&Path)) -> Cluster {
    let mut cluster = Cluster::empty();
    let node = cluster.add("golden", Role::Server);
    cluster.nodes[node].args.extend(["--bootstrap-expect".into(), "1".into()]);
    let data = cluster.nodes[node].dir.join("data");
    copy(&golden().join("data"), &data);
    change(&data);
    cluster.spawn(node);
    wait("a leader", || cluster.agreed_leader(1));
    cluster
}

#[track_caller]
fn answers_as_it_did(cluster: &Cluster) {
    for (name, path) in [
        ("jobs", "/v1/jobs"),
        ("hello", "/v1/jobs/hello/executions?_sort=id&_order=ASC"),
        ("fails", "/v1/jobs/fails/executions?_sort=id&_order=ASC"),
    ] {
        let text = fs::read_to_string(golden().join(format!("answers/{name}.json")));
        let text = text.expect("it is part of the sources");
        let before: Value = serde_json::from_str(&text).expect("it is JSON");
        let answer = wait("an answer", || cluster.get(0, path).filter(|found| found.status == 200));
        assert_eq!(answer.json(), before, "{path}");
    }
}

#[test]
fn a_server_starts_on_what_version_1_wrote_and_goes_on() {
    let mut cluster = start(|_| ());
    answers_as_it_did(&cluster);
    cluster.put_job(
        0,
        &serde_json::json!({
            "name": "later",
            "schedule": "@manually",
            "executor": "shell",
            "executor_config": { "command": "true" },
        }),
    );
    cluster.kill(0);
    cluster.spawn(0);
    wait("the job", || cluster.get(0, "/v1/jobs/later").filter(|found| found.status == 200));
}

#[test]
fn the_history_of_version_1_is_made_anew_from_its_snapshot_and_its_log() {
    let cluster = start(|data| {
        fs::remove_dir_all(data.join("history")).expect("the directory is ours");
    });
    answers_as_it_did(&cluster);
}
