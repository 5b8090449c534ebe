//! Real `cronclave` processes on loopback: started, killed, stopped and asked over HTTP.
//!
//! Every cluster has a network of its own in 127.0.0.0/8, drawn from what the operating system has
//! free, and every node an address of its own in it with the default ports: no two tests meet.
//! Nothing waits for a length of time; whatever a test waits for is asked until it holds.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long anything that a test waits for may take on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The time between two looks at what is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// A node answers within 3 s; a call that takes longer is a fault.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How many lines of each node's log a failed test shows.
const LOG_LINES_SHOWN: usize = 60;
/// The last number of the address of a cluster's first node.
const FIRST_HOST: u8 = 11;

/// What a node is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Server,
    Agent,
}

/// One node: what it is started with, and its process while it has one.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) addr: Ipv4Addr,
    pub(crate) role: Role,
    pub(crate) dir: PathBuf,
    pub(crate) args: Vec<String>,
    child: Option<Child>,
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

/// A row of a job, as the API shows it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) due: String,
    pub(crate) outcome: String,
    #[expect(dead_code, reason = "a failed test shows it")]
    pub(crate) reason: String,
    pub(crate) lateness: Option<f64>,
}

/// Nodes that know of each other, their directories and logs; all of it ends with this value.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    dir: tempfile::TempDir,
    net: [u8; 2],
    http: Http,
}

/// A client that blocks.
pub(crate) struct Http {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

impl Cluster {
    /// No nodes yet.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().expect("there is room for a directory");
        Self { nodes: Vec::new(), dir, net: free_net(), http: Http::new() }
    }

    /// `servers` that expect each other, named `s0` and on, then `agents`, named `a0` and on, with
    /// the tag `kind=agent`. Ready when this returns.
    pub(crate) fn start(servers: usize, agents: usize) -> Self {
        Self::start_with(servers, agents, &[])
    }

    /// The same, with more arguments for every server.
    pub(crate) fn start_with(servers: usize, agents: usize, more: &[&str]) -> Self {
        let mut cluster = Self::prepare(servers, agents, more);
        (0..servers + agents).for_each(|node| cluster.spawn(node));
        cluster.settle(servers, agents);
        cluster
    }

    /// The same, and none is started yet.
    pub(crate) fn prepare(servers: usize, agents: usize, more: &[&str]) -> Self {
        let mut cluster = Self::empty();
        let join: Vec<String> = (0..servers).map(|i| cluster.addr_of(i).to_string()).collect();
        for i in 0..servers {
            let node = cluster.add(&format!("s{i}"), Role::Server);
            cluster.nodes[node].args.extend(["--bootstrap-expect".into(), servers.to_string()]);
            cluster.nodes[node].args.extend(more.iter().map(ToString::to_string));
        }
        for i in 0..agents {
            let node = cluster.add(&format!("a{i}"), Role::Agent);
            cluster.nodes[node].args.extend(["--tag".into(), "kind=agent".into()]);
        }
        for node in &mut cluster.nodes {
            for addr in &join {
                node.args.extend(["--retry-join".into(), addr.clone()]);
            }
        }
        cluster
    }

    /// Waits until all servers agree on a leader and all members are alive everywhere.
    pub(crate) fn settle(&self, servers: usize, agents: usize) {
        wait("a leader that all servers know", || self.agreed_leader(servers));
        for node in self.running_servers() {
            wait("every member to be known", || {
                let members = self.members(node)?;
                let alive = members.iter().filter(|m| m["statusText"] == "alive").count();
                (alive == servers + agents).then_some(())
            });
        }
    }

    /// One more node, not started yet; its index.
    pub(crate) fn add(&mut self, name: &str, role: Role) -> usize {
        let index = self.nodes.len();
        let addr = self.addr_of(index);
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir).expect("the directory is ours");
        let mut args: Vec<String> = ["agent", "--node-name", name].map(String::from).into();
        args.extend(["--bind-addr".into(), addr.to_string()]);
        args.extend(["--data-dir".into(), dir.join("data").display().to_string()]);
        args.extend(["--retry-interval".into(), "1s".into()]);
        if let Role::Server = role {
            args.extend(["--server".into(), "--http-addr".into(), format!("{addr}:8080")]);
        }
        self.nodes.push(Node { name: name.to_owned(), addr, role, dir, args, child: None });
        index
    }

    /// The address of the node with this index.
    pub(crate) fn addr_of(&self, index: usize) -> Ipv4Addr {
        let host = FIRST_HOST + u8::try_from(index).expect("clusters are small");
        Ipv4Addr::new(127, self.net[0], self.net[1], host)
    }

    /// A path in the directory of this cluster.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the process of a node.
    pub(crate) fn spawn(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        assert!(node.child.is_none(), "{} runs already", node.name);
        node.child = Some(node.command().spawn().expect("the binary starts"));
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        let mut child = node.child.take().expect("the node runs");
        child.kill().expect("the process is ours");
        child.wait().expect("the process is ours");
    }

    pub(crate) fn signal(&self, node: usize, signal: Signal) {
        let child = self.nodes[node].child.as_ref().expect("the node runs");
        let pid = i32::try_from(child.id()).expect("a pid is positive");
        kill(Pid::from_raw(pid), signal).expect("the process is ours");
    }

    /// Waits until the process of a node ends by itself.
    pub(crate) fn wait_exit(&mut self, node: usize) -> ExitStatus {
        let node = &mut self.nodes[node];
        let mut child = node.child.take().expect("the node runs");
        let status = poll(PATIENCE, || child.try_wait().expect("the process is ours"));
        let Some(status) = status else {
            node.child = Some(child);
            panic!("{} does not end within {PATIENCE:?}", node.name);
        };
        status
    }

    pub(crate) fn pid(&self, node: usize) -> u32 {
        self.nodes[node].child.as_ref().expect("the node runs").id()
    }

    /// Whether the process of a node has not ended by itself.
    pub(crate) fn has_process(&mut self, node: usize) -> bool {
        let child = self.nodes[node].child.as_mut().expect("the node runs");
        child.try_wait().expect("the process is ours").is_none()
    }

    pub(crate) fn is_running(&self, node: usize) -> bool {
        self.nodes[node].child.is_some()
    }

    pub(crate) fn running_servers(&self) -> Vec<usize> {
        let server = |i: &usize| matches!(self.nodes[*i].role, Role::Server) && self.is_running(*i);
        (0..self.nodes.len()).filter(server).collect()
    }

    /// What the node has written.
    pub(crate) fn log(&self, node: usize) -> String {
        fs::read_to_string(self.nodes[node].log_path()).unwrap_or_default()
    }

    pub(crate) fn get(&self, node: usize, path: &str) -> Option<Answer> {
        self.call(node, reqwest::Method::GET, path, Vec::new())
    }

    pub(crate) fn post(&self, node: usize, path: &str, body: &str) -> Option<Answer> {
        self.call(node, reqwest::Method::POST, path, body.into())
    }

    /// `None` if the node does not answer HTTP.
    pub(crate) fn call(
        &self,
        node: usize,
        method: reqwest::Method,
        path: &str,
        body: Vec<u8>,
    ) -> Option<Answer> {
        self.http.call(method, &self.url(node, path), body)
    }

    /// Asks whoever is at this address.
    pub(crate) fn ask(&self, url: &str) -> Option<Answer> {
        self.http.call(reqwest::Method::GET, url, Vec::new())
    }

    /// Where a server answers calls of this path.
    pub(crate) fn url(&self, node: usize, path: &str) -> String {
        format!("http://{}:8080{path}", self.nodes[node].addr)
    }

    /// What the node says of itself.
    pub(crate) fn status(&self, node: usize) -> Option<Value> {
        Some(self.get(node, "/v1")?.json())
    }

    pub(crate) fn members(&self, node: usize) -> Option<Vec<Value>> {
        self.get(node, "/v1/members").filter(|answer| answer.status == 200)?.list()
    }

    /// The Raft role of a member as `node` sees it.
    pub(crate) fn raft_role(&self, node: usize, member: &str) -> Option<String> {
        let members = self.members(node)?;
        let member = members.iter().find(|m| m["Name"] == member)?;
        member["raft"].as_str().map(String::from)
    }

    /// The leader, if `count` running servers name the same one and it is alive.
    pub(crate) fn agreed_leader(&self, count: usize) -> Option<usize> {
        let mut leaders = Vec::new();
        for node in self.running_servers() {
            let status = self.status(node)?;
            let leader = status["raft"]["leader"].as_str().unwrap_or_default().to_owned();
            leaders.push(self.nodes.iter().position(|n| n.name == leader)?);
        }
        let first = *leaders.first().filter(|first| self.is_running(**first))?;
        (leaders.len() == count && leaders.iter().all(|l| *l == first)).then_some(first)
    }

    pub(crate) fn leader(&self) -> usize {
        let count = self.running_servers().len();
        wait("a leader that all servers know", || self.agreed_leader(count))
    }

    /// Stores a job through `node`, and waits until that is acknowledged.
    pub(crate) fn put_job(&self, node: usize, job: &Value) {
        wait("the job to be stored", || {
            let answer = self.post(node, "/v1/jobs", &job.to_string())?;
            assert!([201, 503].contains(&answer.status), "{answer:?}");
            (answer.status == 201).then_some(())
        });
    }

    /// All rows of a job, the oldest due first.
    pub(crate) fn rows(&self, node: usize, job: &str) -> Option<Vec<Row>> {
        let path = format!("/v1/jobs/{job}/executions?_sort=due&_order=ASC");
        let rows = self.get(node, &path).filter(|answer| answer.status == 200)?.list()?;
        Some(rows.iter().map(Row::read).collect())
    }

    /// Stops new runs of a job, and waits until those under way have ended: its rows.
    pub(crate) fn finish_job(&self, node: usize, job: &str) -> Vec<Row> {
        wait("the job to be disabled", || {
            let answer = self.get(node, &format!("/v1/jobs/{job}"))?;
            if answer.status == 200 && answer.json()["disabled"] == true {
                return Some(());
            }
            self.post(node, &format!("/v1/jobs/{job}/toggle"), "");
            None
        });
        wait("the last runs to end", || {
            let rows = self.rows(node, job)?;
            rows.iter().all(Row::has_ended).then_some(rows)
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                // It may have ended by itself a moment ago.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        let mut told = String::new();
        for node in &self.nodes {
            let log = fs::read_to_string(node.log_path()).unwrap_or_default();
            if std::thread::panicking() {
                let lines: Vec<&str> = log.lines().collect();
                let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
                let _ = writeln!(told, "--- {}\n{}", node.name, lines[from..].join("\n"));
            } else {
                let bad = log.lines().find(|l| l.contains(" ERROR ") || l.contains("panicked at"));
                assert!(bad.is_none(), "{} logged an error: {bad:?}", node.name);
            }
        }
        eprint!("{told}");
    }
}

impl Node {
    pub(crate) fn command(&self) -> Command {
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.expect("the directory is ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cronclave"));
        command.env_clear().env("HOME", &self.dir);
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.current_dir(&self.dir).args(&self.args).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("the log is open")).stderr(log);
        command
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }
}

impl Row {
    fn read(row: &Value) -> Self {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        Self {
            due: text("due"),
            outcome: text("outcome"),
            reason: text("reason"),
            lateness: row["lateness"].as_f64(),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        ["succeeded", "failed", "skipped", "missed", "lost"].contains(&self.outcome.as_str())
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn list(&self) -> Option<Vec<Value>> {
        self.json().as_array().cloned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Http {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        // Every call is a connection of its own: a killed server leaves no stale one behind.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        let client = client.timeout(CALL_TIMEOUT).build().expect("the settings are plain");
        Self { runtime: runtime.expect("the system gives a runtime"), client }
    }

    /// `None` if there is no answer.
    pub(crate) fn call(&self, method: reqwest::Method, url: &str, body: Vec<u8>) -> Option<Answer> {
        self.runtime.block_on(async {
            let response = self.client.request(method, url).body(body).send().await.ok()?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Some(Answer { status, headers, text: response.text().await.ok()? })
        })
    }
}

/// Asks until there is an answer, for [`PATIENCE`] at most.
#[track_caller]
pub(crate) fn wait<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    match poll(PATIENCE, ask) {
        Some(answer) => answer,
        None => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Asks until there is an answer, for `patience` at most.
pub(crate) fn poll<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if start.elapsed() >= patience {
            return None;
        }
        std::thread::park_timeout(POLL_INTERVAL);
    }
}

/// A job that appends its due instant to `file`, on one node with the tag `key=value`.
pub(crate) fn ticking(name: &str, file: &Path, (key, value): (&str, &str)) -> Value {
    serde_json::json!({
        "name": name,
        "schedule": "@every 1s",
        "tags": { key: format!("{value}:1") },
        "executor": "shell",
        "executor_config": {
            "shell": "true",
            "command": format!("echo \"$CRONCLAVE_DUE\" >> {}", file.display()),
        },
    })
}

/// The lines of a file; none if it is not there.
pub(crate) fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(String::from).collect()
}

/// Fails unless the due instants are `from`, a second later, and so on without gap or repetition.
#[track_caller]
pub(crate) fn assert_every_second(dues: &[String]) {
    assert!(!dues.is_empty(), "there are no due instants");
    let micros: Vec<i64> = dues.iter().map(|due| micros(due)).collect();
    for (pair, texts) in micros.windows(2).zip(dues.windows(2)) {
        assert_eq!(pair[1] - pair[0], 1_000_000, "{} is followed by {}", texts[0], texts[1]);
    }
}

/// Microseconds since 1970 of an RFC 3339 time.
#[track_caller]
pub(crate) fn micros(text: &str) -> i64 {
    let time = chrono::DateTime::parse_from_rfc3339(text);
    time.unwrap_or_else(|error| panic!("{text}: {error}")).timestamp_micros()
}

/// Waits for the given part of a second of the wall clock, so that faults meet every phase.
pub(crate) fn wait_for_phase(tenth: u128) {
    wait("a phase of the clock", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        ((now.as_millis() / 100) % 10 == tenth % 10).then_some(())
    });
}

/// The two middle numbers of a network in 127.0.0.0/8 where nobody listens.
pub(crate) fn free_net() -> [u8; 2] {
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    let wanted = |_| {
        // Golden-ratio steps from the process id: runs side by side start far from each other.
        let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
        let seed = std::process::id().wrapping_mul(40_503).wrapping_add(drawn.wrapping_mul(7_919));
        let [_, _, high, low] = seed.to_be_bytes();
        [high.max(1), low]
    };
    let free = |net: &[u8; 2]| {
        let addr = |host| Ipv4Addr::new(127, net[0], net[1], FIRST_HOST + host);
        (0..8).all(|host| TcpListener::bind((addr(host), 6868)).is_ok())
    };
    (0..1_000).map(wanted).find(free).expect("most of 127.0.0.0/8 is free")
}
