//! Who the node is, and who may use the directory: [`DataDir`].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::files::{self, TEMPORARY};
use super::log_files::{self, LogFiles};
use super::moves::{self, Moves};
use super::replaced;
use super::snapshot_files::{self, Blocks, Damaged, SnapshotFiles};
use super::versions;
use crate::codec::log::{
    DamageReason, LOG_FORMAT, LogDamage, LogLimits, Owner, RecoverError, Recovery, recover,
};
use crate::codec::record::{Recovered, Snapshot};
use crate::codec::snapshot::{self, Origin, SnapshotDamage, SnapshotFile};
use crate::id::{Boot, ClusterId, Incarnation, NodeId, NodeName};

/// The format of the whole directory. Any change of any file in it raises this.
pub(super) const FORMAT: u64 = 1;

/// How much is written to see whether the disk takes anything: more than a start needs.
const PROBE_LEN: usize = 64 << 10;

pub(super) const NODE_FILE: &str = "node.json";
pub(super) const LOCK_FILE: &str = "lock";
const PROBE_FILE: &str = "probe.tmp";
pub(super) const LOG_DIR: &str = "log";
pub(super) const SNAPSHOT_DIR: &str = "snapshots";
/// Where the history of executions is.
pub(in crate::shell) const HISTORY_DIR: &str = "history";
/// What is to become `node.json`.
const NEXT_FILE: &str = "next-node.json";

/// What the program's exit code says about an error of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitClass {
    /// The machine or its configuration has to change: code 1.
    Environment,
    /// The data is damaged: code 3.
    Damaged,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The system refused something; the source names the path and the cause.
    #[error("data-dir cannot be used: {0}")]
    Io(#[source] io::Error),
    /// Another process uses it.
    #[error("data-dir {} is in use by process {pid}", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that has locked it, or `unknown`.
        pid: String,
    },
    /// A newer version wrote it. Nothing was changed.
    #[error("{} has format {found}, this version knows only {known}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format of such a file that this version knows.
        known: u64,
    },
    /// It belongs to a node of another name.
    #[error(
        "data-dir {} belongs to node {stored}, and node-name is {given}: \
         a node keeps its name, and a new node needs a new data-dir", path.display()
    )]
    OtherName {
        /// The directory.
        path: PathBuf,
        /// The name of its node.
        stored: NodeName,
        /// The name that was configured.
        given: NodeName,
    },
    /// The node is a member of another cluster already.
    #[error("data-dir {} belongs to cluster {stored}, not to {given}", path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster of its node.
        stored: ClusterId,
        /// The cluster that it was to become a member of.
        given: ClusterId,
    },
    /// What says who the node is cannot be read, or is gone.
    #[error("{} is damaged: {reason}. {}", path.display(), repair(path.parent()))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The log is damaged.
    #[error("data-dir {}: {damage}. {}", path.display(), repair(Some(path)))]
    Log {
        /// The directory.
        path: PathBuf,
        /// What is wrong where.
        damage: LogDamage,
    },
}

/// What an operator does about a damaged directory. Nothing of it was changed.
fn repair(dir: Option<&Path>) -> String {
    let dir = dir.unwrap_or(Path::new(".")).display();
    format!(
        "Nothing was changed. `cronclave log inspect {dir}` shows what is damaged. \
         `cronclave log repair {dir}` puts it aside: \
         the server then joins as a new one and gets its state from its peers"
    )
}

impl DataDirError {
    /// What the exit code has to say.
    pub fn exit_class(&self) -> ExitClass {
        match self {
            Self::Io(_)
            | Self::Locked { .. }
            | Self::NewerFormat { .. }
            | Self::OtherName { .. }
            | Self::OtherCluster { .. } => ExitClass::Environment,
            Self::Damaged { .. } | Self::Log { .. } => ExitClass::Damaged,
        }
    }
}

/// A data directory that this process has locked. The lock is held until this and all
/// [`LogFiles`] of it are gone.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: Arc<File>,
    node: NodeFacts,
    log_limits: LogLimits,
}

/// What `node.json` says.
#[derive(Clone, Debug)]
pub(super) struct NodeFacts {
    pub(super) id: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) name: NodeName,
    pub(super) cluster: Option<ClusterId>,
    pub(super) joins: Option<ClusterId>,
    pub(super) boot: Boot,
}

/// `node.json` as it is written: ids as the hexadecimal text that logs and errors show.
#[derive(Serialize, Deserialize)]
struct NodeFile {
    format: u64,
    id: String,
    incarnation: String,
    name: NodeName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    /// The only cluster that it may belong to, before it belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    joins: Option<String>,
    /// The version that wrote it last, for people.
    version: String,
    boot: Boot,
}

/// The part of `node.json` that every version can read.
#[derive(Deserialize)]
struct FormatOnly {
    format: u64,
}

impl DataDir {
    /// Locks the directory `path` of the node `name`, and makes it if there is none. The boot that
    /// this is counts once [`DataDir::recover`] has not refused the log.
    ///
    /// # Errors
    /// If it is in use, of another node or a newer version, damaged, or cannot be written.
    pub fn open(path: &Path, name: &NodeName) -> Result<Self, DataDirError> {
        if path.is_dir() {
            versions::check(path)?;
            read_node(path)?;
        }
        files::create_dir(path).map_err(DataDirError::Io)?;
        let lock = Arc::new(lock(path)?);
        moves::finish(path)?;
        // By name: in the directory itself there may be files of other owners.
        let half_written =
            [NODE_FILE, NEXT_FILE, moves::FILE].map(|name| format!("{name}.{TEMPORARY}"));
        let left_over = [PROBE_FILE, NEXT_FILE].map(str::to_owned);
        for left in half_written.into_iter().chain(left_over) {
            files::remove_if_there(&path.join(left)).map_err(DataDirError::Io)?;
        }
        let known = read_node(path)?;
        let is_new = known.is_none();
        let mut node = match known {
            Some(node) => node,
            None => new_node(path, name)?,
        };
        if node.name != *name {
            let (stored, given) = (node.name, name.clone());
            return Err(DataDirError::OtherName { path: path.to_owned(), stored, given });
        }
        probe(path).map_err(DataDirError::Io)?;
        node.boot = Boot(node.boot.0.saturating_add(1));
        if is_new {
            write_node(path, &node).map_err(DataDirError::Io)?;
        }
        for dir in [path.join(LOG_DIR), path.join(SNAPSHOT_DIR)] {
            files::create_dir(&dir).map_err(DataDirError::Io)?;
            files::remove_temporary(&dir).map_err(DataDirError::Io)?;
        }
        Ok(Self { path: path.to_owned(), lock, node, log_limits: LogLimits::default() })
    }

    /// Has the parts of the log get as large as `limits` say, from the next recovery on.
    pub fn with_log_limits(mut self, limits: LogLimits) -> Self {
        self.log_limits = limits;
        self
    }

    /// Reads the log and the newest snapshot, and repairs what a crash left half written. To be
    /// called once, before anything is written.
    ///
    /// # Errors
    /// If the log is damaged or of a newer version, and then nothing in the directory was changed;
    /// or if it cannot be read or repaired.
    pub fn recover(&self) -> Result<(Recovered, LogFiles), DataDirError> {
        let (log_dir, snapshot_dir) = (self.path.join(LOG_DIR), self.path.join(SNAPSHOT_DIR));
        let segments = log_files::segment_numbers(&log_dir).map_err(DataDirError::Io)?;
        let snapshot = self.newest_snapshot(&snapshot_dir)?;
        let owner = Owner { node: self.node.id, cluster: self.node.cluster };
        let load = |segment| log_files::read_segment(&log_dir, segment);
        let recovery = recover(owner, self.log_limits, &segments, load, snapshot);
        let recovery = recovery.map_err(|error| match error {
            RecoverError::Load(error) => DataDirError::Io(error),
            RecoverError::Damage(damage) => self.log_error(damage),
        })?;
        let Recovery { recovered, writer, repairs, cut } = recovery;
        if let Some(reason) = self.node.emptied(&recovered) {
            return Err(DataDirError::Damaged { path: log_dir, reason });
        }
        // A directory that is refused stays as it is, so a boot counts from here on.
        write_node(&self.path, &self.node).map_err(DataDirError::Io)?;
        if let Some(cut) = cut {
            let (segment, offset, len) = (cut.segment.0, cut.offset, cut.len);
            tracing::warn!(segment, offset, len, "cut the end of the log, half written at a crash");
        }
        let lock = Arc::clone(&self.lock);
        let files = LogFiles::new(log_dir, writer, self.log_limits, lock);
        let mut files = files.map_err(DataDirError::Io)?;
        files.perform(repairs).map_err(|error| DataDirError::Io(error.into()))?;
        Ok((recovered, files))
    }

    /// The snapshot files, for the one thread that is to write them.
    pub fn snapshots(&self) -> SnapshotFiles {
        let cluster = self.node.cluster.unwrap_or_default();
        let origin = Origin { cluster, node: self.node.id };
        SnapshotFiles::new(self.path.join(SNAPSHOT_DIR), origin, Arc::clone(&self.lock))
    }

    /// The blocks of history in a snapshot that was recovered.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn history_of(&self, file: SnapshotFile) -> Result<Blocks, DataDirError> {
        snapshot_files::history(&self.path.join(SNAPSHOT_DIR), file).map_err(DataDirError::Io)
    }

    fn newest_snapshot(&self, dir: &Path) -> Result<Option<Snapshot>, DataDirError> {
        let found = snapshot_files::newest(dir).map_err(DataDirError::Io)?;
        let (snapshot, damaged) = found;
        for Damaged { path, damage } in damaged {
            match damage {
                SnapshotDamage::NewerFormat(found) => {
                    let (found, known) = (found.into(), snapshot::FORMAT.into());
                    return Err(DataDirError::NewerFormat { path, found, known });
                }
                // It is fatal only if the log needs it, which recovery finds out.
                SnapshotDamage::Checksum | SnapshotDamage::Unreadable => {
                    tracing::warn!(path = %path.display(), %damage, "a snapshot is left aside");
                }
            }
        }
        Ok(snapshot)
    }

    /// Notes durably that the node is a member of `cluster`. Nothing to do if it is noted.
    ///
    /// # Errors
    /// If another cluster is noted, or it cannot be written.
    pub fn set_cluster(&mut self, cluster: ClusterId) -> Result<(), DataDirError> {
        match self.node.cluster {
            Some(stored) if stored == cluster => return Ok(()),
            Some(stored) => {
                let path = self.path.clone();
                return Err(DataDirError::OtherCluster { path, stored, given: cluster });
            }
            None => {}
        }
        if let Some(stored) = self.node.joins.filter(|joins| *joins != cluster) {
            let path = self.path.clone();
            return Err(DataDirError::OtherCluster { path, stored, given: cluster });
        }
        let node = NodeFacts { cluster: Some(cluster), joins: None, ..self.node.clone() };
        write_node(&self.path, &node).map_err(DataDirError::Io)?;
        self.node = node;
        Ok(())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node's id, derived from its name and its incarnation.
    pub fn id(&self) -> NodeId {
        self.node.id
    }

    /// Which life of the directory this is.
    pub fn incarnation(&self) -> Incarnation {
        self.node.incarnation
    }

    /// How often the directory was opened, with this time.
    pub fn boot(&self) -> Boot {
        self.node.boot
    }

    /// Begins another life of the directory, after its disk was set back: draws an incarnation that
    /// may belong to `cluster` alone, and puts what the old one held into a directory of its own,
    /// which stays for the operator. The node is made anew by the next [`DataDir::open`]. Nothing
    /// may be writing to the directory.
    ///
    /// # Errors
    /// If something cannot be written or renamed. What was begun is finished by the next open.
    pub fn put_aside(self, cluster: ClusterId) -> Result<PathBuf, DataDirError> {
        let aside = replaced::name(self.node.boot, self.node.incarnation);
        let node = NodeFacts { joins: Some(cluster), ..new_facts(&self.node.name)? };
        write_facts(&self.path.join(NEXT_FILE), &node).map_err(DataDirError::Io)?;
        let mut moves = Moves::default();
        for part in [NODE_FILE, LOG_DIR, SNAPSHOT_DIR, HISTORY_DIR] {
            moves.add(part, &format!("{aside}/{part}"));
        }
        moves.add(NEXT_FILE, NODE_FILE);
        moves.perform(&self.path)?;
        replaced::forget_oldest(&self.path, &aside).map_err(DataDirError::Io)?;
        Ok(self.path.join(aside))
    }

    /// The only cluster that the node may belong to, if it belongs to none yet and an earlier life
    /// of the directory belonged to one.
    pub fn joins(&self) -> Option<ClusterId> {
        self.node.joins
    }

    /// The cluster that the node is a member of.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.node.cluster
    }

    fn log_error(&self, damage: LogDamage) -> DataDirError {
        let path = self.path.clone();
        if let DamageReason::NewerFormat(found) = damage.reason {
            let (found, known) = (found.into(), LOG_FORMAT.into());
            return DataDirError::NewerFormat { path, found, known };
        }
        DataDirError::Log { path, damage }
    }
}

/// How often a lock is tried before its holder is named. A process that was killed while it started
/// another leaves its lock with that one until it has become its program, which takes milliseconds.
const LOCK_TRIES: u32 = 25;

/// The pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Locks the directory for this process and writes its id where the next one can read it.
pub(super) fn lock(path: &Path) -> Result<File, DataDirError> {
    let path_of_lock = path.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let io = |error| DataDirError::Io(files::at(&path_of_lock, error));
    let mut file = file.open(&path_of_lock).map_err(io)?;
    let mut tries = LOCK_TRIES;
    while tries > 1 && matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        std::thread::sleep(LOCK_PAUSE);
        tries -= 1;
    }
    // Taken twice by one file, the lock is still taken once.
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let is_number = file.read_to_string(&mut pid).is_ok_and(|_| {
                let digits = pid.trim();
                !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
            });
            let pid = if is_number { pid.trim().to_owned() } else { "unknown".to_owned() };
            return Err(DataDirError::Locked { path: path.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    file.set_len(0).map_err(io)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(io)?;
    Ok(file)
}

/// Writes and removes a file, so that a full or read-only disk is found at the start and not at
/// the first vote.
fn probe(path: &Path) -> io::Result<()> {
    let path = path.join(PROBE_FILE);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0x5a; PROBE_LEN])?;
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    written.and(removed).map_err(|error| files::at(&path, error))
}

/// Reads who the node is; `None` if the directory does not say.
pub(super) fn read_node(dir: &Path) -> Result<Option<NodeFacts>, DataDirError> {
    let path = dir.join(NODE_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataDirError::Io(files::at(&path, error))),
    };
    let damaged = |reason: String| DataDirError::Damaged { path: path.clone(), reason };
    let FormatOnly { format } =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if format > FORMAT {
        return Err(DataDirError::NewerFormat { path, found: format, known: FORMAT });
    }
    let file: NodeFile =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let id = |text: &str| {
        let number = u64::from_str_radix(text, 16);
        number.map_err(|error| damaged(format!("{text:?} is no id: {error}")))
    };
    let node = NodeFacts {
        id: NodeId(id(&file.id)?),
        incarnation: Incarnation(id(&file.incarnation)?),
        cluster: file.cluster.as_deref().map(id).transpose()?.map(ClusterId),
        joins: file.joins.as_deref().map(id).transpose()?.map(ClusterId),
        name: file.name,
        boot: file.boot,
    };
    if node.id != NodeId::derive(&node.name, node.incarnation) {
        return Err(damaged("id does not belong to name and incarnation".to_owned()));
    }
    Ok(Some(node))
}

/// A node in its first life. A directory with a log and without a node has lost a file.
fn new_node(dir: &Path, name: &NodeName) -> Result<NodeFacts, DataDirError> {
    for part in [LOG_DIR, SNAPSHOT_DIR] {
        let has_files = fs::read_dir(dir.join(part)).is_ok_and(|mut files| files.next().is_some());
        if has_files {
            let reason = format!("it is missing, and {part} is not empty");
            return Err(DataDirError::Damaged { path: dir.join(NODE_FILE), reason });
        }
    }
    new_facts(name)
}

/// A node of this name with an incarnation that nobody has seen, and no cluster.
pub(super) fn new_facts(name: &NodeName) -> Result<NodeFacts, DataDirError> {
    let incarnation = Incarnation(random().map_err(DataDirError::Io)?);
    let (id, name) = (NodeId::derive(name, incarnation), name.clone());
    Ok(NodeFacts { id, incarnation, name, cluster: None, joins: None, boot: Boot(0) })
}

impl NodeFacts {
    /// Why `recovered` cannot be this node's log, if it cannot: a member of a cluster has noted
    /// that in its log first. With its name and an empty log it would vote again where it had.
    pub(super) fn emptied(&self, recovered: &Recovered) -> Option<String> {
        let cluster = self.cluster.filter(|_| *recovered == Recovered::default())?;
        Some(format!("the log is empty, and {NODE_FILE} names the cluster {cluster}"))
    }
}

/// Writes who the node is, synced.
pub(super) fn write_node(dir: &Path, node: &NodeFacts) -> io::Result<()> {
    write_facts(&dir.join(NODE_FILE), node)
}

fn write_facts(path: &Path, node: &NodeFacts) -> io::Result<()> {
    let file = NodeFile {
        format: FORMAT,
        id: node.id.to_string(),
        incarnation: node.incarnation.to_string(),
        name: node.name.clone(),
        cluster: node.cluster.map(|cluster| cluster.to_string()),
        joins: node.joins.map(|cluster| cluster.to_string()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot: node.boot,
    };
    let mut text = serde_json::to_string_pretty(&file).map_err(io::Error::other)?;
    text.push('\n');
    files::write_beside(path, &[text.as_bytes()])
}

/// Eight bytes of the system's randomness.
pub(super) fn random() -> io::Result<u64> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| files::at(path, error))?;
    Ok(u64::from_le_bytes(bytes))
}
