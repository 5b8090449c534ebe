//! The processes of the demo: where they live, how they start and how they end.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rand::RngExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::shell::config::{GOSSIP_PORT, HTTP_PORT, PEER_PORT};
use crate::shell::exit::ExitError;

/// The servers of the demo.
pub(super) const SERVERS: [&str; 3] = ["s1", "s2", "s3"];
/// The agent of the demo.
pub(super) const AGENT: &str = "a1";
/// How often free addresses are sought.
const NET_TRIES_MAX: usize = 1_000;
/// The last number of the address of the first node.
const FIRST_HOST: u8 = 11;
/// How long the nodes may take to stop by themselves.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// How much of a log is shown when its process ends by itself.
const LOG_LINES_SHOWN: usize = 8;
/// How many notes are kept for the table.
const NOTES_MAX: usize = 5;
/// The configuration file of all nodes, which says nothing.
const CONFIG: &str = "cronclave.yml";
/// The file that says that a directory is a demo's, locked while one uses it.
const MARKER: &str = ".cronclave-demo";

/// A directory that this demo has for itself.
pub(super) struct Directory {
    path: PathBuf,
    /// Locked as long as it is open.
    _marker: File,
}

impl Directory {
    /// Makes the directory, or empties it if a demo has made it.
    pub(super) fn prepare(path: &Path) -> Result<Self, ExitError> {
        let fail = |cause: &dyn std::fmt::Display| {
            ExitError::Environment(format!("cannot use {}: {cause}", path.display()))
        };
        fs::create_dir_all(path).map_err(|cause| fail(&cause))?;
        let path = path.canonicalize().map_err(|cause| fail(&cause))?;
        let entries = || fs::read_dir(&path).map_err(|cause| fail(&cause));
        let marker = path.join(MARKER);
        if !marker.exists() && entries()?.next().is_some() {
            return Err(fail(&"it holds files, and no demo has made it"));
        }
        let file = File::create(&marker).map_err(|cause| fail(&cause))?;
        if file.try_lock().is_err() {
            return Err(fail(&"another demo uses it"));
        }
        for entry in entries()? {
            let entry = entry.map_err(|cause| fail(&cause))?.path();
            let removed = match entry.is_dir() {
                _ if entry == marker => Ok(()),
                true => fs::remove_dir_all(&entry),
                false => fs::remove_file(&entry),
            };
            removed.map_err(|cause| fail(&cause))?;
        }
        let text = "# The demo says everything by flags.\n";
        fs::write(path.join(CONFIG), text).map_err(|cause| fail(&cause))?;
        Ok(Self { path, _marker: file })
    }
}

/// All nodes of the demo, killed when this is dropped.
pub(super) struct Nodes {
    directory: Directory,
    nodes: Vec<Process>,
    notes: Vec<String>,
}

struct Process {
    name: &'static str,
    addr: Ipv4Addr,
    child: Option<Child>,
}

impl Nodes {
    /// Finds addresses and starts every node.
    pub(super) fn start(directory: Directory) -> Result<Self, ExitError> {
        let names = SERVERS.into_iter().chain([AGENT]);
        let addrs = free_addrs(SERVERS.len() + 1)?;
        let nodes = names.zip(addrs).map(|(name, addr)| Process { name, addr, child: None });
        let mut nodes = Self { nodes: nodes.collect(), directory, notes: Vec::new() };
        for node in 0..nodes.nodes.len() {
            nodes.spawn(node)?;
        }
        Ok(nodes)
    }

    /// Starts the process of a node, in a process group of its own: Ctrl-C is for the demo alone.
    pub(super) fn spawn(&mut self, node: usize) -> Result<(), ExitError> {
        let node = &self.nodes[node];
        let fail = |cause: io::Error| {
            ExitError::Environment(format!("cannot start {}: {cause}", node.name))
        };
        let log = File::options().create(true).append(true).open(self.log_path(node.name));
        let log = log.map_err(fail)?;
        let mut command = Command::new(std::env::current_exe().map_err(fail)?);
        command.args(["agent", "--node-name", node.name, "--bind-addr", &node.addr.to_string()]);
        command.arg("--data-dir").arg(self.directory.path.join(node.name));
        command.args(["--retry-interval", "1s", "--drain-timeout", "2s", "--profile", "local"]);
        for peer in self.servers() {
            command.args(["--retry-join", &peer.1.to_string()]);
        }
        if SERVERS.contains(&node.name) {
            let http = format!("{}:{HTTP_PORT}", node.addr);
            let expect = SERVERS.len().to_string();
            command.args(["--server", "--bootstrap-expect", &expect, "--http-addr", &http]);
        } else {
            command.args(["--tag", "kind=agent"]);
        }
        // What is set for real nodes on this machine is not for these, be it a file or a variable.
        command.arg("--config").arg(self.directory.path.join(CONFIG));
        let variables = std::env::vars_os().map(|(name, _)| name);
        let ours = |name: &std::ffi::OsString| {
            let name = name.to_string_lossy();
            name.starts_with("CRONCLAVE_") || name.starts_with("DKRON_")
        };
        for name in variables.filter(ours) {
            command.env_remove(name);
        }
        command.env("HOME", &self.directory.path).current_dir(&self.directory.path);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(fail)?).stderr(log);
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().map_err(fail)?;
        let name = node.name;
        if let Some(node) = self.nodes.iter_mut().find(|other| other.name == name) {
            node.child = Some(child);
        }
        Ok(())
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self, node: usize) {
        // Dropped, which sends the signal, and reaped by the runtime.
        self.nodes[node].child = None;
    }

    /// Fails if a process has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), ExitError> {
        for node in &mut self.nodes {
            let Some(child) = &mut node.child else { continue };
            let Ok(Some(status)) = child.try_wait() else { continue };
            node.child = None;
            let log = self.directory.path.join(format!("{}.log", node.name));
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n  ");
            return Err(ExitError::Environment(format!(
                "{} has ended ({status}); its log {} ends with\n  {tail}",
                node.name,
                log.display()
            )));
        }
        Ok(())
    }

    /// Stops every process with SIGTERM, and those that do not follow with SIGKILL.
    pub(super) async fn stop(&mut self) {
        for node in &self.nodes {
            if let Some(pid) = node.pid() {
                // It may have ended by itself.
                let _ = kill(pid, Signal::SIGTERM);
            }
        }
        let ended = async {
            for node in &mut self.nodes {
                if let Some(child) = &mut node.child {
                    // An error says that there is no such process.
                    let _ = child.wait().await;
                    node.child = None;
                }
            }
        };
        let _ = timeout(STOP_TIMEOUT, ended).await;
    }

    /// Keeps a sentence for the table.
    pub(super) fn note(&mut self, text: String) {
        if self.notes.len() == NOTES_MAX {
            self.notes.remove(0);
        }
        let time = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now());
        self.notes.push(format!("{} {text}", time.format("%H:%M:%S")));
    }

    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory.path
    }

    pub(super) fn name(&self, node: usize) -> &'static str {
        self.nodes[node].name
    }

    /// The index of the node of this name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// Whether the process of the node of this name is down.
    pub(super) fn is_down(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| node.name == name && node.child.is_none())
    }

    /// Names and addresses of all servers.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&'static str, Ipv4Addr)> {
        let servers = self.nodes.iter().filter(|node| SERVERS.contains(&node.name));
        servers.map(|node| (node.name, node.addr))
    }

    /// Where the servers that run answer HTTP.
    pub(super) fn urls(&self) -> Vec<String> {
        let up = self.servers().filter(|(name, _)| !self.is_down(name));
        up.map(|(_, addr)| format!("http://{addr}:{HTTP_PORT}")).collect()
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.directory.path.join(format!("{name}.log"))
    }
}

impl Process {
    fn pid(&self) -> Option<Pid> {
        let pid = self.child.as_ref()?.id()?;
        i32::try_from(pid).ok().map(Pid::from_raw)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            // The whole group; its executions are in groups of their own and end within moments.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

/// As many addresses of 127.0.0.0/8 where nobody listens on the default ports.
fn free_addrs(count: usize) -> Result<Vec<Ipv4Addr>, ExitError> {
    let mut rng = rand::rng();
    let mut refusal = String::new();
    for _ in 0..NET_TRIES_MAX {
        // 127.0.x.y is where other programs have theirs.
        let (a, b) = (rng.random_range(1..=254), rng.random_range(0..=255));
        let hosts = FIRST_HOST..=u8::MAX;
        let addrs: Vec<_> = hosts.take(count).map(|host| Ipv4Addr::new(127, a, b, host)).collect();
        match addrs.iter().try_for_each(|addr| check_free(*addr)) {
            Ok(()) => return Ok(addrs),
            Err(cause) => refusal = cause.to_string(),
        }
    }
    Err(ExitError::Environment(format!("no free addresses in 127.0.0.0/8 for the demo: {refusal}")))
}

fn check_free(addr: Ipv4Addr) -> io::Result<()> {
    TcpListener::bind((addr, PEER_PORT))?;
    TcpListener::bind((addr, HTTP_PORT))?;
    UdpSocket::bind((addr, GOSSIP_PORT))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_no_demo_has_made_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "data").unwrap();
        let refused = Directory::prepare(dir.path()).err().unwrap();
        assert_eq!(refused.code(), 1);
        assert_eq!(fs::read_to_string(dir.path().join("precious")).unwrap(), "data");
    }

    #[test]
    fn a_demos_directory_is_emptied_and_used_by_one_demo_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let first = Directory::prepare(&path).unwrap();
        fs::create_dir(path.join("s1")).unwrap();
        fs::write(path.join("s1.log"), "old").unwrap();
        assert!(Directory::prepare(&path).is_err(), "the first uses it");
        assert!(path.join("s1.log").exists());
        drop(first);
        Directory::prepare(&path).unwrap();
        assert!(!path.join("s1.log").exists());
        assert!(!path.join("s1").exists());
    }

    #[test]
    fn addresses_are_distinct_and_on_loopback() {
        let addrs = free_addrs(4).unwrap();
        assert!(addrs.iter().all(Ipv4Addr::is_loopback));
        assert!(addrs.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
