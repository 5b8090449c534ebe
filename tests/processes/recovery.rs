//! What an operator does when a server or a quorum is lost for good.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Role, wait};

fn job(name: &str) -> Value {
    json!({
        "name": name,
        "schedule": "@manually",
        "executor": "shell",
        "executor_config": { "command": "true" },
    })
}

/// Runs the program to its end, without a terminal.
fn cronclave(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cronclave"));
    command.env_clear().args(args).stdin(Stdio::null());
    command.output().expect("the binary starts")
}

/// Runs the program, and gives what it printed if its exit code is `code`.
#[track_caller]
fn expect(code: i32, args: &[&str]) -> String {
    let output = cronclave(args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    said
}

fn data(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.nodes[node].dir.join("data")
}

fn stop(cluster: &mut Cluster, node: usize) {
    cluster.signal(node, Signal::SIGTERM);
    assert_eq!(cluster.wait_exit(node).code(), Some(0));
}

fn shown(dir: &Path) -> Value {
    let said = expect(0, &["raft", "show", "--json", &dir.display().to_string()]);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn wait_for_voters(cluster: &Cluster, node: usize, names: &[&str]) {
    wait("the voters", || {
        let members = cluster.members(node)?;
        let votes = |member: &&Value| ["voter", "leader"].iter().any(|r| member["raft"] == *r);
        let mut voters: Vec<&str> =
            members.iter().filter(votes).filter_map(|member| member["Name"].as_str()).collect();
        voters.sort_unstable();
        (voters == names).then_some(())
    });
}

#[test]
fn one_server_goes_on_when_the_others_are_gone_and_they_never_come_back_by_themselves() {
    let mut cluster = Cluster::start(3, 1);
    for n in 0..20 {
        cluster.put_job(n % 3, &job(&format!("job-{n}")));
    }
    (0..4).for_each(|node| stop(&mut cluster, node));
    // Acknowledged writes are on two servers at least: the operator takes the longest log.
    let best = (0..3).max_by_key(|&node| {
        let last = shown(&data(&cluster, node))["last"].clone();
        (last["term"].as_u64(), last["index"].as_u64())
    });
    let best = best.expect("there are three");
    let (gone, old) = ((best + 1) % 3, (best + 2) % 3);
    fs::remove_dir_all(data(&cluster, gone)).expect("the directory is ours");

    let dir = data(&cluster, best).display().to_string();
    let name = cluster.nodes[best].name.clone();
    let before = shown(&data(&cluster, best));
    let said = expect(2, &["raft", "recover", &dir]);
    assert!(said.contains("--unsafe"), "{said}");
    let said = expect(2, &["raft", "recover", &dir, "--unsafe"]);
    assert!(said.contains("--yes") && said.contains("LOST"), "{said}");
    let wrong = ["raft", "recover", &dir, "--unsafe", "--yes", "other"];
    assert!(expect(2, &wrong).contains("nothing was changed"));
    assert_eq!(shown(&data(&cluster, best)), before);
    let said = expect(0, &["raft", "recover", &dir, "--unsafe", "--yes", &name]);
    let after = shown(&data(&cluster, best));
    let id = after["cluster"].as_str().expect("it has a cluster").to_owned();
    assert_ne!(before["cluster"], after["cluster"]);
    assert!(said.contains(&format!("log repair DIR --cluster {id}")), "{said}");
    assert_eq!(after["voters"].as_array().map(Vec::len), Some(1));
    assert!(data(&cluster, best).join("before-recovery-1/log").is_dir());
    let again = expect(1, &["raft", "recover", &dir, "--unsafe", "--yes", &name]);
    assert!(again.contains("only voter"), "{again}");

    cluster.spawn(best);
    wait("it to lead", || (cluster.get(best, "/health?ready")?.status == 200).then_some(()));
    for n in 0..20 {
        let answer = cluster.get(best, &format!("/v1/jobs/job-{n}")).expect("it answers");
        assert_eq!(answer.status, 200, "job-{n}: {answer:?}");
    }
    cluster.put_job(best, &job("after"));

    // What belongs to the old cluster is refused, and cannot outvote what goes on.
    cluster.spawn(old);
    let refusal = format!("a datagram of cluster {id}");
    wait("the refusal", || cluster.log(old).contains(&refusal).then_some(()));
    let join = cluster.addr_of(best).to_string();
    let fresh: Vec<usize> = ["f0", "f1"].map(|name| cluster.add(name, Role::Server)).into();
    for &node in &fresh {
        cluster.nodes[node].args.extend(["--retry-join".into(), join.clone()]);
        cluster.spawn(node);
    }
    wait_for_voters(&cluster, best, &["f0", "f1", &name]);
    let refused = cluster.get(old, "/v1/jobs/after").map(|answer| answer.status);
    assert_eq!(refused, Some(503));

    cluster.kill(old);
    let old_dir = data(&cluster, old).display().to_string();
    let old_name = cluster.nodes[old].name.clone();
    let said = expect(1, &["log", "repair", &old_dir, "--yes", &old_name]);
    assert!(said.contains("not damaged"), "{said}");
    expect(0, &["log", "repair", &old_dir, "--cluster", &id, "--yes", &old_name]);
    cluster.spawn(old);
    let agent = data(&cluster, 3).display().to_string();
    let said = expect(0, &["log", "repair", &agent, "--cluster", &id, "--yes", "a0"]);
    assert!(said.contains("keeps its identity"), "{said}");
    cluster.spawn(3);
    wait("all to be members", || {
        let members = cluster.members(fresh[0])?;
        (members.iter().filter(|member| member["statusText"] == "alive").count() == 5).then_some(())
    });
    wait("a read on the one that came back", || {
        (cluster.get(old, "/v1/jobs/after")?.status == 200).then_some(())
    });
}

#[test]
fn a_peers_file_means_the_same_recovery_and_is_carried_out_once() {
    let mut cluster = Cluster::start(3, 0);
    cluster.put_job(0, &job("kept"));
    (0..3).for_each(|node| stop(&mut cluster, node));
    let holds_it =
        (0..3).max_by_key(|&node| shown(&data(&cluster, node))["last"]["index"].as_u64());
    let node = holds_it.expect("there are three");
    let before = shown(&data(&cluster, node));
    let dir = data(&cluster, node).join("raft");
    fs::create_dir(&dir).expect("the directory is ours");
    let file = dir.join("peers.json");
    let entry = |node: usize| {
        let (name, addr) = (&cluster.nodes[node].name, cluster.addr_of(node));
        json!({ "id": name, "address": format!("{addr}:6868"), "non_voter": false })
    };
    let all = json!([entry(0), entry(1), entry(2)]).to_string();
    let other = json!([entry((node + 1) % 3)]).to_string();
    let alone = json!([entry(node)]).to_string();
    for (text, said) in [(all, "it lists 3 voters"), (other, "it lists the voter")] {
        fs::write(&file, text).expect("the directory is ours");
        cluster.spawn(node);
        assert_eq!(cluster.wait_exit(node).code(), Some(1));
        assert!(cluster.log(node).contains(said), "{}", cluster.log(node));
    }
    assert_eq!(shown(&data(&cluster, node)), before);

    fs::write(&file, alone).expect("the directory is ours");
    cluster.spawn(node);
    wait("it to lead", || (cluster.get(node, "/health?ready")?.status == 200).then_some(()));
    assert_eq!(cluster.get(node, "/v1/jobs/kept").map(|answer| answer.status), Some(200));
    assert!(!file.exists() && dir.join("peers.json.done-1").exists());
    stop(&mut cluster, node);
    let after = shown(&data(&cluster, node));
    assert_ne!(after["cluster"], before["cluster"]);
    cluster.spawn(node);
    wait("it to lead", || (cluster.get(node, "/health?ready")?.status == 200).then_some(()));
    stop(&mut cluster, node);
    assert_eq!(shown(&data(&cluster, node))["cluster"], after["cluster"]);
}

#[test]
fn a_server_with_a_damaged_log_is_refused_repaired_and_comes_back_as_a_new_one() {
    let mut cluster = Cluster::start(3, 0);
    cluster.put_job(0, &job("kept"));
    let node = (cluster.leader() + 1) % 3;
    let running = data(&cluster, node).display().to_string();
    let said = expect(0, &["log", "inspect", &running]);
    assert!(said.contains("in use") && said.contains("voters        s"), "{said}");
    let said = expect(1, &["raft", "show", &running]);
    assert!(said.contains(&format!("in use by process {}", cluster.pid(node))), "{said}");
    stop(&mut cluster, node);
    let said = expect(0, &["log", "verify", &running]);
    assert!(said.contains("ok") && !said.contains("DAMAGED"), "{said}");
    let said = expect(0, &["log", "inspect", &running, "--records"]);
    assert!(said.contains("put job kept") && said.contains("voters: "), "{said}");
    let before = shown(&data(&cluster, node));
    let segment = data(&cluster, node).join("log/00000000000000000001.log");
    let mut bytes = fs::read(&segment).expect("the first segment is there");
    bytes[100] ^= 0x40;
    fs::write(&segment, bytes).expect("the directory is ours");
    let dir = data(&cluster, node).display().to_string();
    let name = cluster.nodes[node].name.clone();

    cluster.spawn(node);
    assert_eq!(cluster.wait_exit(node).code(), Some(3));
    let log = cluster.log(node);
    let named = format!("`cronclave log repair {dir}`");
    assert!(log.contains("log segment 1 is damaged at byte") && log.contains(&named), "{log}");
    let said = expect(3, &["log", "verify", &dir]);
    assert!(said.contains("DAMAGED") && said.contains("segment 1, byte"), "{said}");
    let said = expect(0, &["log", "inspect", &dir]);
    assert!(said.contains(&format!("To repair it: cronclave log repair {dir}")), "{said}");
    let said = expect(0, &["log", "inspect", "--json", &dir]);
    let seen: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert_eq!(seen["damage"][0]["segment"], 1, "{said}");
    let said = expect(3, &["raft", "show", &dir]);
    assert!(said.contains("log segment 1 is damaged at byte"), "{said}");
    let said = expect(2, &["log", "repair", &dir]);
    assert!(said.contains("NOT for a single server") && said.contains("--yes"), "{said}");
    expect(0, &["log", "repair", &dir, "--yes", &name]);
    assert!(data(&cluster, node).join("damaged-1/log/00000000000000000001.log").is_file());
    let repaired = shown(&data(&cluster, node));
    assert_eq!((&repaired["cluster"], &repaired["last"]), (&before["cluster"], &Value::Null));
    assert_ne!(repaired["id"], before["id"]);

    cluster.spawn(node);
    wait("the job", || (cluster.get(node, "/v1/jobs/kept")?.status == 200).then_some(()));
    wait_for_voters(&cluster, node, &["s0", "s1", "s2"]);
    wait("its old self to be gone", || {
        let leader = cluster.agreed_leader(3)?;
        let status = cluster.status(leader)?;
        (!status.to_string().contains(before["id"].as_str()?)).then_some(())
    });
}
