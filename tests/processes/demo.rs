//! `cronclave demo`, which a reader runs before anything else.

use std::fs::File;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::{lines, wait};

#[test]
fn the_demo_shows_runs_through_the_death_of_a_leader_and_leaves_no_process_behind() {
    let dir = tempfile::tempdir().expect("there is room for a directory");
    let shown = dir.path().join("shown");
    let out = File::create(&shown).expect("the directory is ours");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_cronclave"))
        .args(["demo", "--kill-leader", "--dir"])
        .arg(dir.path().join("demo"))
        .stdin(Stdio::null())
        .stderr(out.try_clone().expect("the file is open"))
        .stdout(out)
        .spawn()
        .expect("the binary starts");
    wait("a run after the kill of a leader", || {
        let lines = lines(&shown);
        let killed = lines.iter().position(|line| line.contains("kill -9"))?;
        let elected = killed + lines[killed..].iter().position(|l| l.starts_with("leader "))?;
        lines[elected..].iter().find(|line| line.contains(": succeeded")).map(|_| ())
    });
    let pid = i32::try_from(demo.id()).expect("a pid is positive");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("the process is ours");
    let status = wait("the end of the demo", || demo.try_wait().expect("the process is ours"));
    assert_eq!(status.code(), Some(0), "{:?}", lines(&shown));
    let urls: Vec<String> = lines(&shown)
        .iter()
        .filter_map(|line| Some(line.split_once("http://")?.1.split_once('/')?.0.to_owned()))
        .collect();
    assert_eq!(urls.len(), 3);
    for url in urls {
        assert!(TcpStream::connect(&url).is_err(), "{url} still answers");
    }
}
