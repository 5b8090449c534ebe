//! A data directory under a tool instead of a node: [`Offline`].
//!
//! A tool holds the lock that a node would hold, so no node can start meanwhile. It counts no boot
//! and cuts nothing. What it changes it writes beside, whole and synced, and then has it take its
//! place by [`Moves`]; what was there before is put aside and never removed.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::data_dir::{self, DataDirError, LOG_DIR, NODE_FILE, NodeFacts, SNAPSHOT_DIR};
use super::files;
use super::log_files::{self, LogFiles};
use super::moves::{self, Moves};
use super::{snapshot_files, versions};
use crate::codec::log::{
    LogDamage, LogLimits, LogWriter, Owner, RECORD_LEN_MAX, RecoverError, Recovery, recover,
};
use crate::codec::record::{Record, Recovered};
use crate::id::{ClusterId, NodeId, NodeName};
use crate::node::rescue::RescueError;

/// What a tool writes before it takes its place.
const STAGE: &str = "stage.tmp";

/// Bytes of entries that are written as one group.
const GROUP_LEN: usize = 4 << 20;

/// How many directories may have been put aside under one name.
const ASIDE_MAX: u32 = 10_000;

/// Why a tool does nothing. The directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The directory cannot be used.
    #[error(transparent)]
    Dir(#[from] DataDirError),
    /// The log says that it cannot be done.
    #[error("{}: {reason}", path.display())]
    Rescue {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: RescueError,
    },
    /// The data is damaged, and the tool needs it whole.
    #[error("{0}")]
    Damaged(String),
    /// It would do harm, or there is nothing to do. The text says which.
    #[error("{0}")]
    Refused(String),
}

/// A data directory that a tool has locked. The lock is held until this is gone.
#[derive(Debug)]
pub struct Offline {
    pub(super) path: PathBuf,
    lock: Arc<File>,
    node: Result<NodeFacts, DataDirError>,
}

/// What is to take the place of a node's log and of its name.
pub(super) struct Stage {
    pub(super) node: NodeFacts,
    pub(super) records: Vec<Record>,
    /// What moves aside besides.
    pub(super) also: Vec<&'static str>,
    /// How the directory is called to which the old ones move; a number follows.
    pub(super) aside: &'static str,
    /// What else is renamed.
    pub(super) more: Vec<(String, String)>,
    /// A text for whoever finds that directory.
    pub(super) note: String,
}

impl Offline {
    /// Locks the directory `path`, which has to be there, and finishes what a tool has begun.
    ///
    /// # Errors
    /// If there is none, a process uses it, or it is of a newer version.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let is_there =
            [LOG_DIR, NODE_FILE, moves::FILE].iter().any(|name| path.join(name).exists());
        if !is_there {
            let text = format!(
                "{} is no data directory: it has neither log nor node.json",
                path.display()
            );
            return Err(DataDirError::Io(io::Error::new(ErrorKind::NotFound, text)));
        }
        versions::check(path)?;
        let lock = Arc::new(data_dir::lock(path)?);
        moves::finish(path)?;
        let node = refuse_newer(data_dir::read_node(path))?.and_then(|node| {
            node.ok_or_else(|| DataDirError::Damaged {
                path: path.join(NODE_FILE),
                reason: "it is missing".to_owned(),
            })
        });
        Ok(Self { path: path.to_owned(), lock, node })
    }

    /// Who the node is.
    ///
    /// # Errors
    /// If its file is damaged or missing.
    pub(super) fn node(&self) -> Result<&NodeFacts, &DataDirError> {
        self.node.as_ref()
    }

    /// The node's name, if that can be read.
    pub fn name(&self) -> Option<&NodeName> {
        self.node.as_ref().ok().map(|node| &node.name)
    }

    /// What the log and the newest snapshot say, a half written end left out.
    ///
    /// # Errors
    /// If a file cannot be read; the inner one if the log is damaged.
    pub(super) fn recover(
        &self,
        node: NodeId,
    ) -> Result<Result<Recovered, LogDamage>, DataDirError> {
        let cluster = self.node().ok().and_then(|node| node.cluster);
        let owner = Owner { node, cluster };
        let read = recover_in(&self.path, owner).map_err(DataDirError::Io)?;
        Ok(read.map(|recovery| recovery.recovered))
    }

    /// Where the next directory that is put aside under this name goes.
    pub(super) fn free_name(&self, name: &str) -> Result<String, DataDirError> {
        let names = (1..=ASIDE_MAX).map(|number| format!("{name}-{number}"));
        let free = names.into_iter().find(|name| !self.path.join(name).exists());
        free.ok_or_else(|| {
            let text = format!("{} holds too many directories {name}-*", self.path.display());
            DataDirError::Io(io::Error::new(ErrorKind::AlreadyExists, text))
        })
    }

    /// Writes what `stage` says beside, puts the old files aside, and has the new ones take their
    /// place. Gives the directory in which the old ones are.
    ///
    /// # Errors
    /// If anything cannot be written or renamed. Unless it says otherwise the directory is as it
    /// was; if renames had begun, they go on when it is opened next.
    pub(super) fn replace(self, stage: Stage) -> Result<PathBuf, DataDirError> {
        let beside = self.path.join(STAGE);
        if beside.exists() {
            let removed = fs::remove_dir_all(&beside);
            removed.map_err(|error| DataDirError::Io(files::at(&beside, error)))?;
        }
        let log = beside.join(LOG_DIR);
        for dir in [&beside, &log] {
            files::create_dir(dir).map_err(DataDirError::Io)?;
        }
        self.write_log(&log, &stage.node, stage.records).map_err(DataDirError::Io)?;
        data_dir::write_node(&beside, &stage.node).map_err(DataDirError::Io)?;
        let note = beside.join("README.txt");
        files::write_beside(&note, &[stage.note.as_bytes()]).map_err(DataDirError::Io)?;
        let aside = self.free_name(stage.aside)?;
        let mut moves = Moves::default();
        for part in [LOG_DIR, NODE_FILE].into_iter().chain(stage.also) {
            moves.add(part, &format!("{aside}/{part}"));
        }
        moves.add(&format!("{STAGE}/README.txt"), &format!("{aside}/README.txt"));
        for part in [LOG_DIR, NODE_FILE] {
            moves.add(&format!("{STAGE}/{part}"), part);
        }
        for (from, to) in &stage.more {
            moves.add(from, to);
        }
        moves.perform(&self.path)?;
        // Empty by now. If it stays, the next tool removes it.
        let _ = fs::remove_dir(&beside);
        Ok(self.path.join(aside))
    }

    /// A whole log in the empty directory `dir`, synced.
    fn write_log(&self, dir: &Path, node: &NodeFacts, records: Vec<Record>) -> io::Result<()> {
        // What is in the log already may be longer than what may be written now.
        let limits = LogLimits { record_len_max: RECORD_LEN_MAX, ..LogLimits::default() };
        let lock = Arc::clone(&self.lock);
        let writer = LogWriter::new(Owner { node: node.id, cluster: node.cluster }, limits);
        let mut log = LogFiles::new(dir.to_owned(), writer, limits, lock)?;
        let (mut group, mut len) = (Vec::new(), 0);
        for record in records {
            if let Record::Entry { body, .. } = &record {
                len += body.len();
            }
            group.push(record);
            if len >= GROUP_LEN {
                log.write(&std::mem::take(&mut group))?;
                len = 0;
            }
        }
        log.write(&group)?;
        log.seal()?;
        files::sync_dir(dir)
    }
}

/// Reads the log and the newest snapshot in the data directory `path`, and changes nothing.
pub(super) fn recover_in(path: &Path, owner: Owner) -> io::Result<Result<Recovery, LogDamage>> {
    let (log, snapshots) = (path.join(LOG_DIR), path.join(SNAPSHOT_DIR));
    let segments = match log.is_dir() {
        true => log_files::segment_numbers(&log)?,
        false => Vec::new(),
    };
    let newest = match snapshots.is_dir() {
        true => snapshot_files::newest(&snapshots)?.0,
        false => None,
    };
    let load = |segment| log_files::read_segment(&log, segment);
    match recover(owner, LogLimits::default(), &segments, load, newest) {
        Ok(recovery) => Ok(Ok(recovery)),
        Err(RecoverError::Damage(damage)) => Ok(Err(damage)),
        Err(RecoverError::Load(error)) => Err(error),
    }
}

/// A node of a newer version stops every tool; a damaged one is what a tool may be for.
fn refuse_newer<T>(read: Result<T, DataDirError>) -> Result<Result<T, DataDirError>, DataDirError> {
    match read {
        Err(error @ DataDirError::Damaged { .. }) => Ok(Err(error)),
        Err(error) => Err(error),
        Ok(read) => Ok(Ok(read)),
    }
}

/// The cluster that a text names, as logs and errors show it.
///
/// # Errors
/// If the text is no hexadecimal number.
pub fn parse_cluster(text: &str) -> Result<ClusterId, String> {
    let id = text.trim().parse::<ClusterId>();
    id.map_err(|error| format!("{text:?} is no cluster id, such as 0123456789abcdef: {error}"))
}
