//! Looking at a data directory without changing anything: [`Inspection`].
//!
//! Nothing is locked, cut or repaired. If a node uses the directory meanwhile, its log may grow
//! while it is read, and what is then found at the very end means nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::data_dir::{
    self, DataDirError, HISTORY_DIR, LOCK_FILE, LOG_DIR, NODE_FILE, SNAPSHOT_DIR,
};
use super::files::SEGMENT;
use super::log_files::SPARE;
use super::snapshot_files::{self, SNAPSHOT};
use super::{files, log_files, moves, offline, versions};
use crate::codec::log::{
    DamageReason, LOG_FORMAT, Owner, Seen, SegmentEnd, SegmentNumber, SegmentSurvey, survey_segment,
};
use crate::codec::record::Recovered;
use crate::codec::snapshot;
use crate::id::{LogIndex, NodeId};
use crate::node::rescue::{self, Position, Survey};
use crate::shell::archive::{ArchiveError, Depth, HISTORY_FILE, Look, look};

/// What a data directory holds. The names of the fields are those of the JSON that
/// `cronclave log inspect --json` prints, and stay.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The directory.
    pub path: String,
    /// The process that uses it, if one does: the end of the log may move then.
    pub used_by: Option<String>,
    /// Who the node is.
    pub node: Option<NodeView>,
    /// The versions that this program writes.
    pub known_formats: Formats,
    /// What the log and the newest snapshot say about Raft, if the log is whole.
    pub raft: Option<RaftView>,
    /// The segments of the log, oldest first.
    pub segments: Vec<SegmentView>,
    /// Files that are kept to become segments.
    pub spares: Vec<FileView>,
    /// What the next start cuts off, because it was half written at a crash.
    pub torn: Option<Place>,
    /// What earlier starts have cut, as long as it is not known to be harmless.
    pub doubt: Option<DoubtView>,
    /// The snapshots, oldest first.
    pub snapshots: Vec<SnapshotView>,
    /// The history of executions.
    pub history: Option<HistoryView>,
    /// Whether renames of a repair are still to happen, which the next start does.
    pub moves_pending: bool,
    /// What is damaged.
    pub damage: Vec<Place>,
    /// The command that repairs it, if anything is.
    pub repair: Option<String>,
}

/// What `node.json` says.
#[derive(Clone, Debug, Serialize)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Which life of the directory this is.
    pub incarnation: String,
    /// The cluster that it belongs to.
    pub cluster: Option<String>,
    /// How often it was started.
    pub boot: u64,
}

/// Versions of the files.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Formats {
    /// Of `node.json`, and of the directory as a whole.
    pub node: u64,
    /// Of the log's segments.
    pub log: u32,
    /// Of snapshots.
    pub snapshot: u32,
}

/// What the log says about Raft.
#[derive(Clone, Debug, Serialize)]
pub struct RaftView {
    /// The term of the last vote.
    pub term: Option<u64>,
    /// For whom it was.
    pub voted_for: Option<String>,
    /// The first entry that is kept.
    pub first: Option<u64>,
    /// The last entry.
    pub last: Option<At>,
    /// The last entry known to be committed; there may be more.
    pub committed: Option<At>,
    /// The last entry that a snapshot covers.
    pub snapshot: Option<At>,
    /// The last entry that was purged.
    pub purged: Option<At>,
    /// Who votes.
    pub voters: Vec<String>,
}

/// A position in the log.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct At {
    /// The term of the entry.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

/// One segment.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentView {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub file: String,
    /// The length of the file, in bytes.
    pub len: u64,
    /// How much of it is used, in bytes.
    pub used: u64,
    /// The index of the next entry when it was begun.
    pub begins: Option<u64>,
    /// The index of its first entry.
    pub first: Option<u64>,
    /// The index of its last entry.
    pub last: Option<u64>,
    /// The term of its first entry.
    pub term_first: Option<u64>,
    /// The term of its last entry.
    pub term_last: Option<u64>,
    /// How many entries stand in it.
    pub entries: u64,
    /// How many votes stand in it.
    pub votes: u64,
    /// Everything below this offset was known to be on the disk.
    pub sealed: u64,
    /// The last life of the log that wrote to it; 0 if none did.
    pub life: u32,
    /// Whether it continues the segment before.
    pub chained: Option<bool>,
    /// How it ends: `clean`, `unused`, or `broken`.
    pub end: &'static str,
}

/// One file.
#[derive(Clone, Debug, Serialize)]
pub struct FileView {
    /// Its path.
    pub file: String,
    /// Its length, in bytes.
    pub len: u64,
}

/// A place in a file where something is wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The segment, if it is one.
    pub segment: Option<u64>,
    /// Where, in bytes from its start.
    pub offset: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

impl Place {
    /// Where it is and what is wrong, for people.
    pub fn describe(&self) -> String {
        match (self.segment, self.offset) {
            (Some(segment), Some(offset)) => {
                format!("log segment {segment} is damaged at byte {offset}: {}", self.reason)
            }
            _ => format!("{} is damaged: {}", self.file, self.reason),
        }
    }
}

/// What was cut at a start.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DoubtView {
    /// Entries from here on may have been lost.
    pub next: u64,
    /// The segment that was cut.
    pub segment: u64,
    /// Where.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// One snapshot.
#[derive(Clone, Debug, Serialize)]
pub struct SnapshotView {
    /// Its file.
    pub file: String,
    /// The length of the file, in bytes.
    pub len: u64,
    /// The last entry that it covers, if it is whole.
    pub index: Option<u64>,
    /// What is wrong with it.
    pub damage: Option<String>,
}

/// The history of executions.
#[derive(Clone, Debug, Serialize)]
pub struct HistoryView {
    /// Its file.
    pub file: String,
    /// The length of the file, in bytes.
    pub len: u64,
    /// The last entry whose changes it holds. Not read while a node uses it.
    pub upto: Option<u64>,
    /// How many rows there are. Not read while a node uses it.
    pub rows: Option<u64>,
    /// What is wrong with it.
    pub damage: Option<String>,
}

/// Which entries a damaged log held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The first entry of which there is a trace.
    pub first: LogIndex,
    /// The last one.
    pub last: LogIndex,
    /// The first entry that cannot be read, and the last one if that is known.
    pub unreadable: Option<(LogIndex, Option<LogIndex>)>,
}

/// One record, for a list of them.
#[derive(Debug)]
pub struct Listed<'a> {
    /// The segment in which it stands.
    pub segment: u64,
    /// Where, in bytes from its start.
    pub offset: u64,
    /// How long it is there, in bytes.
    pub len: u64,
    /// What it is.
    pub seen: &'a Seen,
}

impl Inspection {
    /// Looks at the directory `path`, or at the one whose log it is. `visit` is told of every
    /// record of its log, in order.
    ///
    /// # Errors
    /// If there is no such directory, it cannot be read, or it is of a newer version.
    pub fn read(
        path: &Path,
        depth: Depth,
        visit: impl FnMut(&Listed<'_>),
    ) -> Result<Self, DataDirError> {
        let path = directory(path)?;
        let used_by = user_of(&path)?;
        Self::of(&path, used_by, depth, visit)
    }

    /// Looks at the data directory `path`, which the process `used_by` uses.
    pub(super) fn of(
        path: &Path,
        used_by: Option<String>,
        depth: Depth,
        mut visit: impl FnMut(&Listed<'_>),
    ) -> Result<Self, DataDirError> {
        let mut damage = Vec::new();
        versions::check(path)?;
        let node = match data_dir::read_node(path) {
            Ok(Some(node)) => Some(node),
            Ok(None) => {
                damage.push(place(&path.join(NODE_FILE), "it is missing".to_owned()));
                None
            }
            Err(DataDirError::Damaged { path, reason }) => {
                damage.push(place(&path, reason));
                None
            }
            Err(error) => return Err(error),
        };
        let segments = read_segments(&path.join(LOG_DIR), &mut visit)?;
        let snapshots = read_snapshots(&path.join(SNAPSHOT_DIR))?;
        let header = segments.iter().find_map(|(_, survey)| survey.header);
        let id = node.as_ref().map(|node| node.id).or(header.map(|header| header.node));
        let views: io::Result<Vec<SegmentView>> =
            segments.iter().map(|(file, survey)| view_of_segment(file, survey)).collect();
        let views = views.map_err(DataDirError::Io)?;
        let mut inspection = Self {
            path: path.display().to_string(),
            history: history_of(path, used_by.as_ref(), depth)?,
            used_by,
            node: node.as_ref().map(view_of_node),
            known_formats: Formats {
                node: data_dir::FORMAT,
                log: LOG_FORMAT,
                snapshot: snapshot::FORMAT,
            },
            raft: None,
            segments: views,
            spares: read_spares(&path.join(LOG_DIR))?,
            torn: None,
            doubt: None,
            snapshots,
            moves_pending: path.join(moves::FILE).exists(),
            damage,
            repair: None,
        };
        if let Some(id) = id {
            inspection.judge(path, id, node.as_ref())?;
        }
        if let Some(history) = &inspection.history
            && let Some(reason) = &history.damage
        {
            inspection.damage.push(place(Path::new(&history.file), reason.clone()));
        }
        if !inspection.damage.is_empty() {
            inspection.repair = Some(format!("cronclave log repair {}", path.display()));
        }
        Ok(inspection)
    }

    /// Says what a start would say.
    fn judge(
        &mut self,
        path: &Path,
        id: NodeId,
        node: Option<&data_dir::NodeFacts>,
    ) -> Result<(), DataDirError> {
        let log = path.join(LOG_DIR);
        let owner = Owner { node: id, cluster: node.and_then(|node| node.cluster) };
        let recovery = offline::recover_in(path, owner).map_err(DataDirError::Io)?;
        match recovery {
            Ok(recovery) => {
                let file = |segment: SegmentNumber| files::file_path(&log, segment.0, SEGMENT);
                self.torn = recovery.cut.map(|cut| Place {
                    file: file(cut.segment).display().to_string(),
                    segment: Some(cut.segment.0),
                    offset: Some(cut.offset),
                    reason: format!("the last {} bytes were half written at a crash", cut.len),
                });
                self.take(&recovery.recovered);
                let emptied = node.and_then(|node| node.emptied(&recovery.recovered));
                self.damage.extend(emptied.map(|reason| place(&log, reason)));
            }
            Err(damage) => {
                if let DamageReason::NewerFormat(found) = damage.reason {
                    let path = files::file_path(&log, damage.segment.0, SEGMENT);
                    let (found, known) = (found.into(), LOG_FORMAT.into());
                    return Err(DataDirError::NewerFormat { path, found, known });
                }
                let file = files::file_path(&log, damage.segment.0, SEGMENT);
                self.damage.push(Place {
                    file: file.display().to_string(),
                    segment: Some(damage.segment.0),
                    offset: Some(damage.offset),
                    reason: damage.reason.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Which entries the log held, as far as its segments still say; `None` if they say nothing.
    pub fn held(&self) -> Option<Held> {
        let first = self.segments.iter().find_map(|segment| segment.first.or(segment.begins))?;
        let last = self.segments.iter().rev().find_map(|segment| segment.last.or(segment.begins));
        let damaged = self.damage.iter().find_map(|place| place.segment);
        let unreadable = damaged.map(|damaged| {
            let before = self.segments.iter().filter(|segment| segment.number <= damaged);
            let read = before.filter_map(|segment| segment.last).next_back();
            let after = self.segments.iter().find(|segment| segment.number > damaged);
            let next = after.and_then(|segment| segment.begins).filter(|next| *next > 0);
            let from = read.map_or(first, |read| read.saturating_add(1));
            (LogIndex(from), next.map(|next| LogIndex(next - 1)))
        });
        let last = last.unwrap_or(first).max(first);
        Some(Held { first: LogIndex(first), last: LogIndex(last), unreadable })
    }

    fn take(&mut self, recovered: &Recovered) {
        self.doubt = recovered.doubt.map(|doubt| DoubtView {
            next: doubt.next.0,
            segment: doubt.segment,
            offset: doubt.offset,
            len: doubt.len,
        });
        match rescue::survey(recovered) {
            Ok(survey) => {
                let first = recovered.entries.first().map(|entry| entry.0);
                self.raft = Some(view_of_raft(&survey.raft, first));
            }
            Err(error) => {
                let log = Path::new(&self.path).join(LOG_DIR);
                self.damage.push(place(&log, error.to_string()));
            }
        }
    }
}

/// The data directory that is meant, also if its log is named.
fn directory(path: &Path) -> Result<PathBuf, DataDirError> {
    let above = path.parent().filter(|_| path.file_name().is_some_and(|name| name == LOG_DIR));
    let found = [Some(path), above]
        .into_iter()
        .flatten()
        .find(|path| [LOG_DIR, NODE_FILE, moves::FILE].iter().any(|name| path.join(name).exists()));
    found.map(Path::to_owned).ok_or_else(|| {
        let text =
            format!("{} is no data directory: it has neither log nor node.json", path.display());
        DataDirError::Io(io::Error::new(ErrorKind::NotFound, text))
    })
}

/// The process that has locked the directory, `unknown` if it does not say which it is.
fn user_of(path: &Path) -> Result<Option<String>, DataDirError> {
    let path = path.join(LOCK_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataDirError::Io(files::at(&path, error))),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            let pid = pid.trim();
            Ok(Some(if pid.is_empty() { "unknown".to_owned() } else { pid.to_owned() }))
        }
        Err(TryLockError::Error(error)) => Err(DataDirError::Io(files::at(&path, error))),
    }
}

/// The files in `dir` by number; none if it is not there.
fn list(dir: &Path, extension: &str) -> io::Result<BTreeMap<u64, PathBuf>> {
    match dir.is_dir() {
        true => files::list(dir, extension),
        false => Ok(BTreeMap::new()),
    }
}

/// Reads the history, unless a node writes it meanwhile.
fn history_of(
    path: &Path,
    used_by: Option<&String>,
    depth: Depth,
) -> Result<Option<HistoryView>, DataDirError> {
    if used_by.is_some() {
        let file = path.join(HISTORY_DIR).join(HISTORY_FILE);
        let view = file.exists().then(|| view_of_file(&file)).transpose();
        let view = view.map_err(DataDirError::Io)?;
        return Ok(view.map(|FileView { file, len }| HistoryView {
            file,
            len,
            upto: None,
            rows: None,
            damage: None,
        }));
    }
    let seen = history_look(path, depth)?;
    Ok(seen.map(|seen| HistoryView {
        file: seen.path.display().to_string(),
        len: seen.len,
        upto: seen.upto.map(|upto| upto.0),
        rows: seen.damage.is_none().then_some(seen.rows),
        damage: seen.damage,
    }))
}

/// Looks at the history of a stopped node.
pub(super) fn history_look(path: &Path, depth: Depth) -> Result<Option<Look>, DataDirError> {
    look(path, depth).map_err(|error| match error {
        ArchiveError::Io(error) => DataDirError::Io(error),
        ArchiveError::NewerFormat { path, found, known } => {
            DataDirError::NewerFormat { path, found: found.into(), known: known.into() }
        }
        ArchiveError::Damaged { path, reason } => DataDirError::Damaged { path, reason },
    })
}

type Segments = Vec<(PathBuf, SegmentSurvey)>;

/// Surveys every segment, one at a time.
fn read_segments(
    dir: &Path,
    visit: &mut impl FnMut(&Listed<'_>),
) -> Result<Segments, DataDirError> {
    let io = DataDirError::Io;
    let mut segments: Segments = Vec::new();
    for (number, file) in list(dir, SEGMENT).map_err(io)? {
        let number = SegmentNumber(number);
        let bytes = log_files::read_segment(dir, number).map_err(io)?;
        let last = segments.last().filter(|(_, last)| last.number.next() == number);
        let before = last.map(|(_, last)| last.chain);
        let survey = survey_segment(number, &bytes, before, |offset, len, seen| {
            visit(&Listed { segment: number.0, offset, len, seen });
        });
        segments.push((file, survey));
    }
    Ok(segments)
}

/// Files that become segments; what they hold means nothing.
fn read_spares(dir: &Path) -> Result<Vec<FileView>, DataDirError> {
    let files = list(dir, SPARE).map_err(DataDirError::Io)?;
    let views: io::Result<Vec<FileView>> = files.values().map(|path| view_of_file(path)).collect();
    views.map_err(DataDirError::Io)
}

fn read_snapshots(dir: &Path) -> Result<Vec<SnapshotView>, DataDirError> {
    let mut views = Vec::new();
    for path in list(dir, SNAPSHOT).map_err(DataDirError::Io)?.into_values() {
        let read = snapshot_files::read(&path).map_err(DataDirError::Io)?;
        let FileView { file, len } = view_of_file(&path).map_err(DataDirError::Io)?;
        views.push(SnapshotView {
            file,
            len,
            index: read.as_ref().ok().map(|snapshot| snapshot.index().0),
            damage: read.err().map(|error| error.to_string()),
        });
    }
    Ok(views)
}

fn view_of_file(path: &Path) -> io::Result<FileView> {
    let meta = fs::metadata(path).map_err(|error| files::at(path, error))?;
    Ok(FileView { file: path.display().to_string(), len: meta.len() })
}

fn view_of_node(node: &data_dir::NodeFacts) -> NodeView {
    NodeView {
        name: node.name.to_string(),
        id: node.id.to_string(),
        incarnation: node.incarnation.to_string(),
        cluster: node.cluster.map(|cluster| cluster.to_string()),
        boot: node.boot.0,
    }
}

fn view_of_raft(raft: &Survey, first: Option<LogIndex>) -> RaftView {
    let at = |at: Option<Position>| at.map(|at| At { term: at.term.0, index: at.index.0 });
    let name = |id: &NodeId| {
        let known = raft.members.get(id).map(|peer| peer.name.clone());
        known.filter(|name| !name.is_empty()).unwrap_or_else(|| id.to_string())
    };
    RaftView {
        term: raft.term.map(|term| term.0),
        voted_for: raft.voted_for.as_ref().map(name),
        first: first.map(|first| first.0),
        last: at(raft.last),
        committed: at(raft.committed),
        snapshot: at(raft.snapshot),
        purged: at(raft.purged),
        voters: raft.voters.iter().map(name).collect(),
    }
}

fn view_of_segment(path: &Path, survey: &SegmentSurvey) -> io::Result<SegmentView> {
    let FileView { file, len } = view_of_file(path)?;
    Ok(SegmentView {
        number: survey.number.0,
        file,
        len,
        used: survey.used,
        begins: survey.begins.map(|index| index.0),
        first: survey.first.map(|index| index.0),
        last: survey.last.map(|index| index.0),
        term_first: survey.terms.map(|terms| terms.0.0),
        term_last: survey.terms.map(|terms| terms.1.0),
        entries: survey.entries,
        votes: survey.votes,
        sealed: survey.sealed,
        life: survey.life,
        chained: survey.is_chained,
        end: match survey.end {
            SegmentEnd::Clean => "clean",
            SegmentEnd::NeverBegun => "unused",
            SegmentEnd::Broken { .. } => "broken",
        },
    })
}

fn place(path: &Path, reason: String) -> Place {
    Place { file: path.display().to_string(), segment: None, offset: None, reason }
}
