//! The binary itself: exit codes, and what it says.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

/// The binary in a directory of its own, with an environment that says nothing.
fn cronclave(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cronclave"));
    command.env_clear().env("HOME", home).current_dir(home).args(args);
    command.output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn expect(home: &Path, args: &[&str], code: i32, parts: &[&str]) {
    let output = cronclave(home, args);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{args:?} does not say {part:?}: {said}");
    }
}

#[test]
fn an_unknown_flag_exits_2_with_the_nearest_name() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    expect(home, &["agent", "--sever"], 2, &["--sever", "'--server'"]);
    expect(home, &["agent", "--retry-jion", "a"], 2, &["'--retry-join'"]);
    expect(home, &["agnet"], 2, &["agent"]);
    expect(home, &[], 2, &["Usage"]);
    expect(home, &["agent", "--server=maybe"], 2, &["maybe", "true"]);
}

#[test]
fn a_wrong_setting_exits_2_and_a_bad_file_1() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    expect(home, &["agent"], 2, &["--server", "--retry-join"]);
    expect(home, &["agent", "--server", "--raft-multiplier", "0"], 2, &["1 to 10"]);
    expect(home, &["agent", "--server", "--encrypt", "x"], 2, &["refusing to run unencrypted"]);
    expect(home, &["agent", "--config", "none.yml"], 1, &["none.yml", "No such file"]);
    std::fs::write(home.join("bad.yml"), "server: true\nretry-join: [a\nx: 1\n").unwrap();
    expect(home, &["agent", "--config", "bad.yml"], 1, &["bad.yml:"]);
    std::fs::write(home.join("bad.json"), "{\n  \"server\": yes\n}").unwrap();
    expect(home, &["agent", "--config", "bad.json"], 1, &["bad.json:2:"]);
}

#[test]
fn print_config_shows_values_and_origins_and_exits_0() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    std::fs::create_dir(home.join(".dkron")).unwrap();
    std::fs::write(home.join(".dkron/dkron.yml"), "server: true\nbootstrap-expcet: 1\n").unwrap();
    let args = ["agent", "--print-config", "--bind-addr", "127.0.0.1", "--node-name", "alpha"];
    let found = home.join(".dkron/dkron.yml").display().to_string();
    let hint = "unknown key bootstrap-expcet; did you mean bootstrap-expect?";
    expect(home, &args, 0, &["alpha", "--node-name", &found, "default", hint]);
    expect(home, &["agent", "--print-config", "--dev"], 0, &["--dev", "127.0.0.1:"]);
}

#[test]
fn the_version_names_the_time_zone_database() {
    let home = tempfile::tempdir().unwrap();
    let parts = [env!("CARGO_PKG_VERSION"), "time zone database"];
    expect(home.path(), &["version"], 0, &parts);
    expect(home.path(), &["--version"], 0, &parts);
}

/// Takes one request and answers it; gives the request's first line.
fn answer(listener: &TcpListener, reply: &str) -> String {
    let (mut stream, _) = listener.accept().expect("a client comes");
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut bytes = [0; 1024];
        let len = stream.read(&mut bytes).expect("the client writes");
        assert_ne!(len, 0, "the request has an end");
        request.extend_from_slice(&bytes[..len]);
    }
    stream.write_all(reply.as_bytes()).expect("the client reads");
    text(&request).lines().next().expect("a request has a first line").to_owned()
}

#[test]
fn leave_asks_the_server_and_prints_what_it_says() {
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\n";
    let server = std::thread::spawn(move || {
        let first = answer(&listener, &format!("{head}{{\"a\":\"b\"}}"));
        let reply = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\
                     connection: close\r\n\r\nno leader";
        answer(&listener, reply);
        first
    });
    let args = ["leave", "--http-addr", &url, "--rpc-addr", "x:6868"];
    expect(home.path(), &args, 0, &["{\"a\":\"b\"}", "rpc-addr is ignored"]);
    expect(home.path(), &["leave", "--http-addr", &url], 1, &["503", "no leader"]);
    assert_eq!(server.join().unwrap(), "POST /v1/leave HTTP/1.1");
    expect(home.path(), &["leave", "--http-addr", &url], 1, &["no answer from", "refused"]);
    expect(home.path(), &["leave", "--http-addr", "https://a"], 2, &["http://host:port"]);
}

#[test]
fn the_tools_for_data_say_what_they_need() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    for args in [["log", "inspect"], ["log", "verify"], ["log", "repair"], ["raft", "show"]] {
        expect(home, &[&args[..], &["none"]].concat(), 1, &["none is no data directory"]);
        expect(home, &args, 2, &["<DIR>"]);
    }
    expect(home, &["raft", "recover", "none"], 2, &["--unsafe", "lost for good"]);
    expect(home, &["raft", "recover", "none", "--unsafe"], 1, &["none is no data directory"]);
    expect(home, &["log", "repair", "none", "--cluster", "x"], 2, &["no cluster id"]);
    expect(home, &["log", "inspect", "none", "--records", "9..3"], 2, &["right is FROM..TO"]);
    assert_eq!(std::fs::read_dir(home).unwrap().count(), 0, "nothing is made by looking");
}
