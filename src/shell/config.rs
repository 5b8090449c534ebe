//! What an agent is told at its start: [`AgentConfig`], checked, with no file or flag behind it.
//!
//! The command line makes it ([`crate::cli`]); the shell runs by it. Its parts cannot be wrong one
//! by one (newtypes, enums, `NonZero`), and what must fit together was checked when it was made.
//!
//! **Left out on purpose**
//! - Reading files, flags and the environment: `cli` does that, and leaves [`Reload`] for SIGHUP.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;

use crate::codec::log::LogLimits;
use crate::consensus::LogBounds;
use crate::id::NodeName;
use crate::jobs::history::change::Limits;
use crate::shell::exit::ExitError;

/// The port of gossip where an address names none.
pub const GOSSIP_PORT: u16 = 8946;
/// The port of peers where nothing else is set.
pub const PEER_PORT: u16 = 6868;
/// The port of HTTP where nothing else is set.
pub const HTTP_PORT: u16 = 8080;
/// The most bytes that all tags of a node have together, keys and values counted.
pub const TAGS_LEN_MAX: usize = 512;

/// Everything that an agent is told at its start.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The name of this node, unique in the cluster.
    pub node_name: NodeName,
    /// Whether it is a server (votes, schedules, answers HTTP) or only runs jobs.
    pub server: bool,
    /// How many servers found the cluster. `None`: this node never founds one.
    pub bootstrap_expect: Option<NonZeroU32>,
    /// Where the node keeps its data. Made if it is missing.
    pub data_dir: PathBuf,
    /// Where gossip listens. Peers listen on the same address, at [`rpc_port`](Self::rpc_port).
    pub bind: SocketAddr,
    /// Where others reach this node's gossip. Never an unspecified address.
    pub advertise: SocketAddr,
    /// The port where peers are accepted.
    pub rpc_port: u16,
    /// The port where others reach this node's peer listener.
    pub advertise_rpc_port: u16,
    /// Where a server answers HTTP. Port 0: any free port.
    pub http_addr: SocketAddr,
    /// Addresses (`host:port`, not resolved) to join. Empty if `retry_join` is not.
    pub join: Vec<String>,
    /// Addresses (`host:port`, not resolved) to join, asked again for ever.
    pub retry_join: Vec<String>,
    /// How long to wait between two rounds of `retry_join`.
    pub retry_interval: Duration,
    /// What jobs choose nodes by. `dc` and `region` are among them.
    pub tags: BTreeMap<String, String>,
    /// How fast gossip goes.
    pub profile: GossipProfile,
    /// Multiplies every time of Raft, 1 to 10.
    pub raft_multiplier: u8,
    /// How large the log gets before and after a snapshot.
    pub log_bounds: LogBounds,
    /// How large the parts of the log get.
    pub log_limits: LogLimits,
    /// The time zone that a cluster gets when this node founds it.
    pub timezone: Tz,
    /// How long a stopping node waits for its running executions.
    pub drain_timeout: Duration,
    /// How late a due instant may still run.
    pub misfire_grace: Duration,
    /// How much history of executions a server keeps. To be the same on all servers.
    pub history: Limits,
    /// How long a member that failed is remembered.
    pub reconnect_timeout: Duration,
    /// From which level on something is logged.
    pub log_level: LogLevel,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Normal, or a server alone for trying things out.
    pub mode: Mode,
    /// The file that was read, for the log.
    pub config_file: Option<PathBuf>,
    /// What the operator should know, one sentence each. To be logged at start.
    pub warnings: Vec<String>,
    /// Reads again what may change while the node runs.
    pub reload: Reload,
}

/// Normal, or a server alone for trying things out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A member of a cluster.
    Normal,
    /// One server on loopback in a temporary directory; prints its URL and a curl line.
    Dev,
}

/// What may change while the node runs, read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// As [`AgentConfig::tags`].
    pub tags: BTreeMap<String, String>,
    /// As [`AgentConfig::log_level`]. Already in force.
    pub log_level: LogLevel,
    /// As [`AgentConfig::config_file`].
    pub config_file: Option<PathBuf>,
    /// As [`AgentConfig::warnings`].
    pub warnings: Vec<String>,
}

/// Reads the sources of the configuration again; a handle, cheap to clone.
#[derive(Clone)]
pub struct Reload(Arc<dyn Fn() -> Result<Reloaded, ExitError> + Send + Sync>);

impl Reload {
    /// A handle that calls `read`.
    pub fn new(read: impl Fn() -> Result<Reloaded, ExitError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Reads tags and log level again, and puts the level in force.
    ///
    /// # Errors
    /// If a file or a value is wrong. Nothing has changed then.
    pub fn read(&self) -> Result<Reloaded, ExitError> {
        (self.0)()
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}

/// A text is none of the words that a setting takes. Displays what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("one of {0}")]
pub struct NotAWord(&'static str);

/// How fast gossip goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GossipProfile {
    /// One data center: a dead node is noticed within seconds.
    Lan,
    /// Links that are slow or lossy.
    Wan,
    /// All nodes on one machine.
    Local,
}

impl FromStr for GossipProfile {
    type Err = NotAWord;

    fn from_str(text: &str) -> Result<Self, NotAWord> {
        match text {
            "lan" => Ok(Self::Lan),
            "wan" => Ok(Self::Wan),
            "local" => Ok(Self::Local),
            _ => Err(NotAWord("lan, wan, local")),
        }
    }
}

/// From which level on something is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Failures only. Dkron's `fatal` and `panic` mean this too.
    Error,
    /// And what an operator should look at.
    Warn,
    /// And start, membership, leadership.
    Info,
    /// And each run.
    Debug,
    /// And each step.
    Trace,
}

impl FromStr for LogLevel {
    type Err = NotAWord;

    fn from_str(text: &str) -> Result<Self, NotAWord> {
        match text {
            "error" | "fatal" | "panic" => Ok(Self::Error),
            "warn" | "warning" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(NotAWord("trace, debug, info, warn, error, fatal, panic")),
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = NotAWord;

    fn from_str(text: &str) -> Result<Self, NotAWord> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(NotAWord("text, json")),
        }
    }
}
