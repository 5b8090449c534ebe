//! What a cluster answers that has lost its quorum, and that any server takes any call.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{Answer, Cluster, wait};

/// How long an answer without a quorum may take: 3 s, and the way there and back.
const ANSWER_WITHIN: Duration = Duration::from_millis(3_300);

fn job(name: &str) -> serde_json::Value {
    json!({
        "name": name,
        "schedule": "@manually",
        "executor": "shell",
        "executor_config": { "command": "true" },
    })
}

#[track_caller]
fn assert_unavailable(ask: impl FnOnce() -> Option<Answer>) {
    let start = Instant::now();
    let answer = ask().expect("the server answers");
    let took = start.elapsed();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(took <= ANSWER_WITHIN, "{took:?}: {answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert!(answer.json()["error"].is_string(), "{answer:?}");
}

#[test]
fn without_a_quorum_calls_are_refused_in_time_and_stale_reads_go_on() {
    let mut cluster = Cluster::start(3, 0);
    cluster.put_job(0, &job("kept"));
    let left = cluster.leader();
    wait("the job on the server that stays", || {
        let answer = cluster.get(left, "/v1/jobs/kept?stale")?;
        (answer.status == 200).then_some(())
    });
    let others = [(left + 1) % 3, (left + 2) % 3];
    others.iter().for_each(|other| cluster.kill(*other));

    assert_unavailable(|| cluster.post(left, "/v1/jobs", &job("refused").to_string()));
    wait("the lease to end", || (cluster.get(left, "/health?ready")?.status == 503).then_some(()));
    assert_unavailable(|| cluster.post(left, "/v1/jobs", &job("refused").to_string()));
    assert_unavailable(|| cluster.get(left, "/v1/jobs/kept"));
    assert_unavailable(|| cluster.get(left, "/health?ready"));
    assert_unavailable(|| cluster.get(left, "/v1/leader"));
    let stale = cluster.get(left, "/v1/jobs/kept?stale").expect("the server answers");
    assert_eq!((stale.status, stale.header("x-cronclave-stale")), (200, Some("true")));
    let health = cluster.get(left, "/health").expect("the server answers");
    assert_eq!(health.status, 200);

    others.iter().for_each(|other| cluster.spawn(*other));
    cluster.leader();
    wait("a read", || (cluster.get(left, "/v1/jobs/kept")?.status == 200).then_some(()));
    cluster.put_job(others[0], &job("after"));
}

#[test]
fn any_server_takes_a_write_and_every_server_reads_it() {
    let cluster = Cluster::start(3, 0);
    for round in 0..5 {
        for writer in 0..3 {
            let name = format!("job-{round}-{writer}");
            cluster.put_job(writer, &job(&name));
            for reader in 0..3 {
                let path = format!("/v1/jobs/{name}");
                let answer = cluster.get(reader, &path).expect("the server answers");
                assert_eq!(answer.status, 200, "{reader} after {writer}: {answer:?}");
                assert_eq!(answer.header("x-cronclave-stale"), None);
            }
        }
    }
}

#[test]
fn a_body_over_one_mebibyte_is_refused() {
    let cluster = Cluster::start(1, 0);
    let mut big = job("big");
    big["displayname"] = "x".repeat(1 << 20).into();
    let answer = cluster.post(0, "/v1/jobs", &big.to_string()).expect("the server answers");
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(answer.json()["error"].is_string());
    let missing = cluster.get(0, "/v1/jobs/big").expect("the server answers");
    assert_eq!(missing.status, 404);
}
