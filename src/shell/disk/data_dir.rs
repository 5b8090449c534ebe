//! Who the node is, and who may use the directory: [`DataDir`].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::files::{self, TEMPORARY};
use super::log_files::{self, LogFiles, WriteError};
use crate::codec::log::{
    DamageReason, LogDamage, LogLimits, Owner, RecoverError, Recovery, recover,
};
use crate::codec::record::Recovered;
use crate::codec::snapshot::{self, SnapshotDamage};
use crate::id::{Boot, ClusterId, Incarnation, NodeId, NodeName};

/// The format of the whole directory. Any change of any file in it raises this.
const FORMAT: u64 = 1;

/// How much is written to see whether the disk takes anything: more than a start needs.
const PROBE_LEN: usize = 64 << 10;

const NODE_FILE: &str = "node.json";
const LOCK_FILE: &str = "lock";
const PROBE_FILE: &str = "probe.tmp";
const LOG_DIR: &str = "log";
const SNAPSHOT_DIR: &str = "snapshots";

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
    #[error("data-dir {} has format {found}, this version knows only {FORMAT}", path.display())]
    NewerFormat {
        /// The directory or the file.
        path: PathBuf,
        /// Its format.
        found: u64,
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
    #[error("{} is damaged: {reason}. {REPAIR}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The log is damaged.
    #[error("data-dir {}: {damage}. {REPAIR}", path.display())]
    Log {
        /// The directory.
        path: PathBuf,
        /// What is wrong where.
        damage: LogDamage,
    },
}

const REPAIR: &str = "Move the directory away and start again: \
                      the server then joins as a new one and gets its state from its peers";

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
}

/// What `node.json` says.
#[derive(Clone, Debug)]
struct NodeFacts {
    id: NodeId,
    incarnation: Incarnation,
    name: NodeName,
    cluster: Option<ClusterId>,
    boot: Boot,
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
    /// Locks the directory `path` of the node `name`, makes it if there is none, and counts a boot.
    ///
    /// # Errors
    /// If it is in use, of another node or a newer version, damaged, or cannot be written.
    pub fn open(path: &Path, name: &NodeName) -> Result<Self, DataDirError> {
        if path.is_dir() {
            read_node(path)?;
        }
        files::create_dir(path).map_err(DataDirError::Io)?;
        let lock = Arc::new(lock(path)?);
        // By name: in the directory itself there may be files of other owners.
        for left in [format!("{NODE_FILE}.{TEMPORARY}"), PROBE_FILE.to_owned()] {
            files::remove_if_there(&path.join(left)).map_err(DataDirError::Io)?;
        }
        let mut node = match read_node(path)? {
            Some(node) => node,
            None => new_node(path, name)?,
        };
        if node.name != *name {
            let (stored, given) = (node.name, name.clone());
            return Err(DataDirError::OtherName { path: path.to_owned(), stored, given });
        }
        probe(path).map_err(DataDirError::Io)?;
        node.boot = Boot(node.boot.0.saturating_add(1));
        write_node(path, &node).map_err(DataDirError::Io)?;
        for dir in [path.join(LOG_DIR), path.join(SNAPSHOT_DIR)] {
            files::create_dir(&dir).map_err(DataDirError::Io)?;
            files::remove_temporary(&dir).map_err(DataDirError::Io)?;
        }
        Ok(Self { path: path.to_owned(), lock, node })
    }

    /// Reads the log and the newest snapshot, and repairs what a crash left half written. To be
    /// called once, before anything is written.
    ///
    /// # Errors
    /// If the log is damaged, or of a newer version, or cannot be read or repaired.
    pub fn recover(&self, limits: LogLimits) -> Result<(Recovered, LogFiles), DataDirError> {
        let (log_dir, snapshot_dir) = (self.path.join(LOG_DIR), self.path.join(SNAPSHOT_DIR));
        let segments = log_files::segment_numbers(&log_dir).map_err(DataDirError::Io)?;
        let mut snapshots = Vec::new();
        for (path, bytes) in files::read_snapshots(&snapshot_dir).map_err(DataDirError::Io)? {
            match snapshot::decode(&bytes) {
                Ok(_) => snapshots.push(bytes),
                Err(SnapshotDamage::NewerFormat(found)) => {
                    return Err(DataDirError::NewerFormat { path, found: found.into() });
                }
                // It is fatal only if the log needs it, which recovery finds out.
                Err(error @ SnapshotDamage::Checksum) => {
                    tracing::warn!(path = %path.display(), %error, "a snapshot is left aside");
                }
            }
        }
        let owner = Owner { node: self.node.id, cluster: self.node.cluster };
        let load = |segment| log_files::read_segment(&log_dir, segment);
        let recovery = recover(owner, limits, &segments, load, &snapshots);
        let recovery = recovery.map_err(|error| match error {
            RecoverError::Load(error) => DataDirError::Io(error),
            RecoverError::Damage(damage) => self.log_error(damage),
        })?;
        let Recovery { recovered, writer, repairs, cut } = recovery;
        if let Some(cut) = cut {
            let (segment, offset, len) = (cut.segment.0, cut.offset, cut.len);
            tracing::warn!(segment, offset, len, "cut the end of the log, half written at a crash");
        }
        let lock = Arc::clone(&self.lock);
        let files = LogFiles::new(log_dir, snapshot_dir, writer, limits, lock);
        let mut files = files.map_err(DataDirError::Io)?;
        files.perform(repairs).map_err(|error| match error {
            WriteError::Failed(error) => DataDirError::Io(error),
            WriteError::Full(reason) => {
                DataDirError::Io(io::Error::new(ErrorKind::StorageFull, reason))
            }
        })?;
        Ok((recovered, files))
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
        let node = NodeFacts { cluster: Some(cluster), ..self.node.clone() };
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

    /// The cluster that the node is a member of.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.node.cluster
    }

    fn log_error(&self, damage: LogDamage) -> DataDirError {
        let path = self.path.clone();
        if let DamageReason::NewerFormat(found) = damage.reason {
            return DataDirError::NewerFormat { path, found: found.into() };
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
fn lock(path: &Path) -> Result<File, DataDirError> {
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

fn read_node(dir: &Path) -> Result<Option<NodeFacts>, DataDirError> {
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
        return Err(DataDirError::NewerFormat { path: dir.to_owned(), found: format });
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
    let incarnation = Incarnation(random().map_err(DataDirError::Io)?);
    let (id, name) = (NodeId::derive(name, incarnation), name.clone());
    Ok(NodeFacts { id, incarnation, name, cluster: None, boot: Boot(0) })
}

fn write_node(dir: &Path, node: &NodeFacts) -> io::Result<()> {
    let file = NodeFile {
        format: FORMAT,
        id: node.id.to_string(),
        incarnation: node.incarnation.to_string(),
        name: node.name.clone(),
        cluster: node.cluster.map(|cluster| cluster.to_string()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot: node.boot,
    };
    let mut text = serde_json::to_string_pretty(&file).map_err(io::Error::other)?;
    text.push('\n');
    files::write_beside(&dir.join(NODE_FILE), &[text.as_bytes()])
}

/// Eight bytes of the system's randomness.
fn random() -> io::Result<u64> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| files::at(path, error))?;
    Ok(u64::from_le_bytes(bytes))
}
