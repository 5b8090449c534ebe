//! Disks that are lost, set back or copied: who comes back, and as whom.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Role, lines, ticking, wait};

fn job(name: &str) -> Value {
    json!({
        "name": name,
        "schedule": "@manually",
        "executor": "shell",
        "executor_config": { "command": "true" },
    })
}

fn id(cluster: &Cluster, node: usize) -> String {
    let status = wait("its status", || cluster.status(node));
    status["raft"]["node_id"].as_str().unwrap_or_default().to_owned()
}

fn data(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.nodes[node].dir.join("data")
}

/// Stops a node, and copies its data directory.
fn take_image(cluster: &mut Cluster, node: usize) -> PathBuf {
    cluster.signal(node, Signal::SIGTERM);
    assert_eq!(cluster.wait_exit(node).code(), Some(0));
    let image = cluster.nodes[node].dir.join("image");
    copy_directory(&data(cluster, node), &image);
    image
}

/// Puts an image in the place of a dead node's data directory, and starts it.
fn put_back(cluster: &mut Cluster, node: usize, image: &Path) {
    let data = data(cluster, node);
    fs::remove_dir_all(&data).expect("the directory is ours");
    fs::rename(image, data).expect("the directory is ours");
    cluster.spawn(node);
}

/// What earlier lives of a node have left.
fn replaced(cluster: &Cluster, node: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(data(cluster, node)).expect("the directory is ours");
    let paths = entries.map(|entry| entry.expect("the directory is ours").path());
    let is_left = |path: &PathBuf| {
        let name = path.file_name().expect("entries have names").to_string_lossy();
        name.starts_with("replaced-")
    };
    paths.filter(is_left).collect()
}

/// Waits until `node` votes everywhere under another id than `old`, which is a voter no more.
fn await_reborn(cluster: &Cluster, node: usize, old: &str) {
    wait("a new incarnation", || {
        let status = cluster.status(node)?;
        let id = status["raft"]["node_id"].as_str()?;
        (!id.is_empty() && id != old).then_some(())
    });
    let new = id(cluster, node);
    for asked in cluster.running_servers() {
        wait("its vote", || has_replaced(cluster, asked, &new));
    }
    assert_eq!(replaced(cluster, node).len(), 1);
    let kept = &replaced(cluster, node)[0];
    assert!(kept.join("node.json").exists() && kept.join("log").is_dir(), "{kept:?}");
}

#[test]
fn an_older_image_comes_back_as_another_voter_with_everything_acknowledged() {
    let mut cluster = Cluster::start(3, 0);
    cluster.put_job(0, &job("first"));
    let old = (cluster.leader() + 1) % 3;
    let old_id = id(&cluster, old);
    let image = take_image(&mut cluster, old);
    for name in ["second", "third"] {
        cluster.spawn(old);
        cluster.settle(3, 0);
        assert_eq!(id(&cluster, old), old_id);
        cluster.put_job(old, &job(name));
        cluster.kill(old);
    }
    put_back(&mut cluster, old, &image);
    await_reborn(&cluster, old, &old_id);
    // It counts again: with another one dead, it and the third are a quorum.
    cluster.kill((old + 1) % 3);
    cluster.leader();
    for name in ["first", "second", "third"] {
        let path = format!("/v1/jobs/{name}");
        wait("its job", || (cluster.get(old, &path)?.status == 200).then_some(()));
    }
    cluster.put_job(old, &job("fourth"));
    // It stays who it is.
    let new = id(&cluster, old);
    cluster.kill(old);
    cluster.spawn(old);
    cluster.leader();
    assert_eq!(id(&cluster, old), new);
    assert_eq!(replaced(&cluster, old).len(), 1);
}

#[test]
fn servers_that_restart_do_not_forget_which_boot_of_another_they_have_seen() {
    let mut cluster = Cluster::start(3, 0);
    let old = (cluster.leader() + 1) % 3;
    let old_id = id(&cluster, old);
    let image = take_image(&mut cluster, old);
    cluster.spawn(old);
    cluster.settle(3, 0);
    cluster.put_job(old, &job("acknowledged"));
    // Its boot is the next one after the image's, and so will be that of the image.
    (0..3).for_each(|node| cluster.kill(node));
    for node in [(old + 1) % 3, (old + 2) % 3] {
        cluster.spawn(node);
    }
    cluster.leader();
    put_back(&mut cluster, old, &image);
    await_reborn(&cluster, old, &old_id);
    let path = "/v1/jobs/acknowledged";
    wait("its job", || (cluster.get(old, path)?.status == 200).then_some(()));
}

#[test]
fn an_agent_that_was_set_back_runs_jobs_again() {
    let mut cluster = Cluster::start(1, 1);
    let has_said = |cluster: &Cluster, what: &str, times: usize| {
        wait(what, || (cluster.log(1).matches(what).count() >= times).then_some(()));
    };
    has_said(&cluster, "belongs to cluster", 1);
    let image = take_image(&mut cluster, 1);
    for life in 2..=3 {
        cluster.spawn(1);
        has_said(&cluster, "leads in term", life);
        cluster.kill(1);
    }
    put_back(&mut cluster, 1, &image);
    wait("what its old life left", || (replaced(&cluster, 1).len() == 1).then_some(()));
    let file = cluster.path("ticks");
    cluster.put_job(0, &ticking("ticks", &file, ("kind", "agent")));
    wait("a run", || (!lines(&file).is_empty()).then_some(()));
}

#[test]
fn a_copy_beside_the_living_original_is_refused_and_neither_loses_anything() {
    let mut cluster = Cluster::start(3, 0);
    // Of two servers the one with the lower id dials: its copy dials both others.
    let original = (0..3).min_by_key(|node| id(&cluster, *node)).expect("there are three");
    let name = cluster.nodes[original].name.clone();
    let original_id = id(&cluster, original);
    let twin = cluster.add("twin", Role::Server);
    let args = cluster.nodes[original].args.clone();
    let joins = args.chunks(2).filter(|pair| pair[0] == "--retry-join").flatten().cloned();
    let joins: Vec<String> = joins.collect();
    for arg in cluster.nodes[twin].args.iter_mut().filter(|arg| *arg == "twin") {
        arg.clone_from(&name);
    }
    cluster.nodes[twin].args.extend(joins);
    copy_directory(&data(&cluster, original), &data(&cluster, twin));
    cluster.spawn(twin);
    wait("the refusal in a log", || {
        (0..3).any(|node| cluster.log(node).contains("a copy")).then_some(())
    });
    for node in 0..3 {
        wait("its write", || {
            let answer = cluster.post(node, "/v1/jobs", &job("after").to_string())?;
            (answer.status == 201).then_some(())
        });
    }
    assert_eq!(id(&cluster, original), original_id);
    assert!(replaced(&cluster, original).is_empty() && replaced(&cluster, twin).is_empty());
    assert!(cluster.has_process(twin));
}

#[test]
fn a_server_that_lost_its_disk_comes_back_as_another_voter() {
    let mut cluster = Cluster::start(3, 0);
    cluster.put_job(0, &job("kept"));
    let wiped = (cluster.leader() + 1) % 3;
    let old = id(&cluster, wiped);
    cluster.kill(wiped);
    fs::remove_dir_all(data(&cluster, wiped)).expect("the directory is ours");
    cluster.spawn(wiped);
    cluster.settle(3, 0);
    assert_ne!(id(&cluster, wiped), old);
    let new = id(&cluster, wiped);
    (0..3).for_each(|node| wait("its vote", || has_replaced(&cluster, node, &new)));
    // It counts again: with another one dead, it and the third are a quorum.
    cluster.kill((wiped + 1) % 3);
    cluster.leader();
    wait("its job", || (cluster.get(wiped, "/v1/jobs/kept")?.status == 200).then_some(()));
}

/// Whether `node` knows the server `id` as a voter, and the voter that it was before no more. While
/// one takes the place of the other, both stand in the list, and both halves need a quorum.
fn has_replaced(cluster: &Cluster, node: usize, id: &str) -> Option<()> {
    let members = cluster.members(node)?;
    let role = members.iter().find(|member| member["id"] == id)?["raft"].as_str()?;
    let status = cluster.status(node)?;
    let voters = status["raft"]["voters"].as_str()?.split(',').count();
    (["voter", "leader"].contains(&role) && voters == 3).then_some(())
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).expect("the directory is ours");
    for entry in fs::read_dir(from).expect("the directory is ours") {
        let path = entry.expect("the directory is ours").path();
        let name = path.file_name().expect("entries have names");
        match path.is_dir() {
            true => copy_directory(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).expect("the directory is ours")),
        }
    }
}
