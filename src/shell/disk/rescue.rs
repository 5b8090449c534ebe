//! What an operator does to a server that cannot go on: [`RepairPlan`], [`RecoverPlan`] and Dkron's
//! file for the latter, [`PeersFile`].
//!
//! A plan is worked out first and changes nothing, so that it can be shown and confirmed.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::data_dir::{self, DataDirError, HISTORY_DIR, NodeFacts, SNAPSHOT_DIR};
use super::files;
use super::inspect::{Held, Inspection, Place, history_look};
use super::offline::{Offline, Stage, ToolError};
use crate::codec::record::{Record, Recovered};
use crate::id::{ClusterId, LogIndex, NodeId, NodeName};
use crate::node::rescue::{self, NodeSurvey, RescueError};
use crate::shell::archive::Depth;

/// Dkron's file for a recovery, below the data directory.
const PEERS_FILE: &str = "raft/peers.json";

/// The longest such file that is read, in bytes.
const PEERS_LEN_MAX: u64 = 1 << 20;

/// How a server that has lost its data comes back: as a new one, whose files start empty.
pub struct RepairPlan {
    /// The node's name, if its file can be read.
    pub name: Option<NodeName>,
    /// The cluster that it may join; `None` if that is not known.
    pub cluster: Option<ClusterId>,
    /// The cluster that it belonged to.
    pub old_cluster: Option<ClusterId>,
    /// What is damaged, one sentence each; empty if nothing is.
    pub damage: Vec<String>,
    /// What the log says, if it is whole.
    pub survey: Option<NodeSurvey>,
    /// Which entries the log held, as far as that is known.
    pub held: Option<Held>,
    /// Set for a node without Raft, whose own facts are whole: it keeps them and its identity.
    keeps: Option<(NodeFacts, Vec<Record>)>,
}

impl RepairPlan {
    /// Works out how to repair the directory. A whole one is given up only for another cluster,
    /// `cluster`, which is one that went on without this server.
    ///
    /// # Errors
    /// If there is nothing to repair, nobody to get the data from, or a file cannot be read.
    pub fn new(dir: &Offline, cluster: Option<ClusterId>) -> Result<Self, ToolError> {
        let seen = Inspection::of(&dir.path, None, Depth::Whole, |_| ())?;
        let damage: Vec<String> = seen.damage.iter().map(Place::describe).collect();
        let node = dir.node().ok().cloned();
        let mut survey = None;
        let mut recovered = None;
        if let Some(node) = &node
            && let Ok(found) = dir.recover(node.id)?
            && let Ok(said) = rescue::survey(&found)
        {
            survey = Some(said);
            recovered = Some(found);
        }
        let known = survey.as_ref().and_then(|survey| survey.cluster);
        let stored = node.as_ref().and_then(|node| node.cluster.or(node.joins));
        let old_cluster = stored.or(known);
        let moves = cluster.is_some_and(|cluster| Some(cluster) != old_cluster);
        let cluster = cluster.or(old_cluster);
        if damage.is_empty() && !moves {
            return Err(ToolError::Refused(format!(
                "{} is not damaged, so nothing is repaired",
                dir.path.display()
            )));
        }
        let keeps = match (&node, &survey, &recovered, cluster) {
            (Some(node), Some(survey), Some(found), Some(cluster))
                if survey.has_no_raft() && damage.is_empty() =>
            {
                let records = rescue::rehome(found, cluster);
                let cluster = Some(cluster);
                let node = NodeFacts { cluster, joins: None, ..node.clone() };
                Some((node, records))
            }
            _ => None,
        };
        let plan = Self {
            name: node.as_ref().map(|node| node.name.clone()),
            cluster,
            old_cluster,
            damage,
            survey,
            held: seen.held(),
            keeps,
        };
        Ok(plan)
    }

    /// Whether the node keeps its identity and its own facts, as an agent that only moves to
    /// another cluster does.
    pub fn keeps_identity(&self) -> bool {
        self.keeps.is_some()
    }

    /// Does it for the node `name`. Gives the directory in which the old files are.
    ///
    /// # Errors
    /// If anything cannot be written or renamed.
    pub fn perform(self, dir: Offline, name: &NodeName) -> Result<PathBuf, DataDirError> {
        let mut note = format!("The data of node {name}, put aside by `cronclave log repair`.\n");
        for damage in &self.damage {
            note.push_str(damage);
            note.push('\n');
        }
        let stage = match self.keeps {
            Some((node, records)) => Stage {
                node,
                records,
                also: Vec::new(),
                aside: "before-move",
                more: Vec::new(),
                note,
            },
            None => Stage {
                node: NodeFacts { joins: self.cluster, ..data_dir::new_facts(name)? },
                records: Vec::new(),
                also: vec![SNAPSHOT_DIR, HISTORY_DIR],
                aside: "damaged",
                more: Vec::new(),
                note,
            },
        };
        dir.replace(stage)
    }
}

/// How one server goes on alone after the others are gone for good.
pub struct RecoverPlan {
    /// The server.
    pub name: NodeName,
    /// Its id, which it keeps.
    pub id: NodeId,
    /// The cluster that is given up.
    pub old_cluster: Option<ClusterId>,
    /// The cluster that goes on.
    pub cluster: ClusterId,
    /// What the log says.
    pub survey: NodeSurvey,
    node: NodeFacts,
    recovered: Recovered,
    history: HistoryPlan,
    peers_file: Option<PeersFile>,
}

impl RecoverPlan {
    /// Works out how the server goes on as the only voter of a new cluster.
    ///
    /// # Errors
    /// If it leads without that, is no member, or its data is damaged.
    pub fn new(dir: &Offline) -> Result<Self, ToolError> {
        Self::with(dir, None)
    }

    fn with(dir: &Offline, peers_file: Option<PeersFile>) -> Result<Self, ToolError> {
        let (node, recovered, survey) = read_whole(dir)?;
        if survey.raft.voters.iter().eq([&node.id]) {
            return Err(ToolError::Refused(format!(
                "{} is the only voter of its cluster already: it leads without a recovery",
                node.name
            )));
        }
        let history = history_plan(dir, &survey)?;
        // Worked out once to see whether it can be done, and again when it is done.
        let id = data_dir::random().map_err(DataDirError::Io)?;
        let plan = Self {
            name: node.name.clone(),
            id: node.id,
            old_cluster: node.cluster.or(survey.cluster),
            cluster: ClusterId(id),
            survey,
            node,
            recovered,
            history,
            peers_file,
        };
        plan.records().map(drop).map_err(|reason| {
            let path = dir.path.clone();
            ToolError::Rescue { path, reason }
        })?;
        Ok(plan)
    }

    /// The last entry of which this server knows that a quorum had it.
    pub fn certain(&self) -> Option<LogIndex> {
        self.survey.raft.committed.map(|at| at.index)
    }

    /// The last entry of this server's log.
    pub fn last(&self) -> Option<LogIndex> {
        self.survey.raft.last.map(|at| at.index)
    }

    fn records(&self) -> Result<Vec<Record>, RescueError> {
        let addr = self.peers_file.as_ref().map(|file| file.address.as_str());
        rescue::refound(&self.recovered, self.id, addr, self.cluster)
    }

    /// Does it. Gives the directory in which the old files are.
    ///
    /// # Errors
    /// If anything cannot be written or renamed.
    pub fn perform(self, dir: Offline) -> Result<PathBuf, ToolError> {
        let records = self.records().map_err(|reason| {
            let path = dir.path.clone();
            ToolError::Rescue { path, reason }
        })?;
        let old = self.old_cluster.map_or_else(|| "none".to_owned(), |old| old.to_string());
        let note = format!(
            "The log of server {} as it was when it went on alone: cluster {old} became cluster \
             {}. Snapshots stayed where they were.\n",
            self.name, self.cluster
        );
        let mut more = Vec::new();
        if self.peers_file.is_some() {
            let done = dir.free_name(&format!("{PEERS_FILE}.done"))?;
            more.push((PEERS_FILE.to_owned(), done));
        }
        let stage = Stage {
            node: NodeFacts { cluster: Some(self.cluster), joins: None, ..self.node },
            records,
            also: match self.history {
                HistoryPlan::Stays => Vec::new(),
                HistoryPlan::IsMadeAnew => vec![HISTORY_DIR],
            },
            aside: "before-recovery",
            more,
            note,
        };
        Ok(dir.replace(stage)?)
    }
}

/// What becomes of the history in a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HistoryPlan {
    /// It holds nothing that the log does not have.
    Stays,
    /// It is made anew from snapshot and log at the next start.
    IsMadeAnew,
}

/// A history that is ahead of the log, whose own copy of what was applied was lost, would skip the
/// entries that come in their place. One that is damaged is of no use either.
fn history_plan(dir: &Offline, survey: &NodeSurvey) -> Result<HistoryPlan, DataDirError> {
    let seen = history_look(&dir.path, Depth::Summary)?;
    let last = survey.raft.last.map(|at| at.index);
    let is_good = seen.is_none_or(|seen| seen.damage.is_none() && seen.upto <= last);
    Ok(if is_good { HistoryPlan::Stays } else { HistoryPlan::IsMadeAnew })
}

/// Reads a directory that has to be whole.
fn read_whole(dir: &Offline) -> Result<(NodeFacts, Recovered, NodeSurvey), ToolError> {
    let damaged =
        |reason: String| ToolError::Damaged(format!("data-dir {}: {reason}", dir.path.display()));
    let node = dir.node().map_err(|error| damaged(reason_of(error)))?.clone();
    let recovered = dir.recover(node.id)?.map_err(|damage| damaged(damage.to_string()))?;
    let survey = rescue::survey(&recovered).map_err(|error| damaged(error.to_string()))?;
    if let Some(reason) = node.emptied(&recovered) {
        return Err(damaged(reason));
    }
    Ok((node, recovered, survey))
}

/// What a server's log says, for comparing servers.
///
/// # Errors
/// If the directory is damaged.
pub fn show(dir: &Offline) -> Result<(NodeName, NodeId, Option<ClusterId>, NodeSurvey), ToolError> {
    let (node, _, survey) = read_whole(dir)?;
    let cluster = node.cluster.or(node.joins).or(survey.cluster);
    Ok((node.name, node.id, cluster, survey))
}

/// What is wrong, without what to do about it, which the tool is about to do.
fn reason_of(error: &DataDirError) -> String {
    match error {
        DataDirError::Damaged { path, reason } => {
            format!("{} is damaged: {reason}", path.display())
        }
        DataDirError::Log { damage, .. } => damage.to_string(),
        DataDirError::Io(_)
        | DataDirError::Locked { .. }
        | DataDirError::NewerFormat { .. }
        | DataDirError::OtherName { .. }
        | DataDirError::OtherCluster { .. } => error.to_string(),
    }
}

/// Dkron's `raft/peers.json`: who is to vote after a recovery. It stands for an operator's decision
/// and is carried out once, without questions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PeersFile {
    /// Where the one voter is reached by its peers.
    address: String,
}

/// One entry of the file.
#[derive(Deserialize)]
struct PeerEntry {
    id: String,
    address: String,
    #[serde(default)]
    non_voter: bool,
}

impl PeersFile {
    /// Reads the text of the file on the server `name`.
    ///
    /// # Errors
    /// If it is not such a file, or lists another voter than this server.
    fn parse(text: &[u8], name: &NodeName) -> Result<Self, String> {
        let entries: Vec<PeerEntry> = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        let mut voters = entries.iter().filter(|entry| !entry.non_voter);
        let one = "A recovery goes on with one server, so that no two logs are mixed; \
                   the others lose their data (`cronclave log repair`) and join it";
        match (voters.next(), voters.next()) {
            (Some(voter), None) if voter.id == name.as_str() => {
                Ok(Self { address: voter.address.clone() })
            }
            (Some(voter), None) => {
                Err(format!("it lists the voter {:?}, and this server is {name}. {one}", voter.id))
            }
            (None, _) => Err(format!("it lists no voter. {one}")),
            (Some(_), Some(_)) => {
                let count = entries.iter().filter(|entry| !entry.non_voter).count();
                Err(format!("it lists {count} voters, and must list this server alone. {one}"))
            }
        }
    }
}

/// Carries out the file `raft/peers.json` in the data directory of the server `name`, if there is
/// one, and renames it. Gives what was done and where the old files are.
///
/// # Errors
/// If it does not list this server alone, or the server cannot go on; nothing is changed then.
pub fn recover_by_peers_file(
    dir: &Path,
    name: &NodeName,
) -> Result<Option<(NodeSurvey, ClusterId, PathBuf)>, ToolError> {
    let path = dir.join(PEERS_FILE);
    match fs::metadata(&path) {
        Ok(file) if file.len() > PEERS_LEN_MAX => {
            let text = format!("{} is longer than {PEERS_LEN_MAX} bytes", path.display());
            return Err(ToolError::Refused(text));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_at(&path, error).into()),
    }
    let text = fs::read(&path).map_err(|error| io_at(&path, error))?;
    let refused = |reason: String| ToolError::Refused(format!("{}: {reason}", path.display()));
    let file = PeersFile::parse(&text, name).map_err(refused)?;
    let dir = Offline::open(dir)?;
    if let Some(stored) = dir.name().filter(|stored| *stored != name) {
        return Err(refused(format!("the directory belongs to node {stored}, not to {name}")));
    }
    let plan = RecoverPlan::with(&dir, Some(file))?;
    let (survey, cluster) = (plan.survey.clone(), plan.cluster);
    let aside = plan.perform(dir)?;
    Ok(Some((survey, cluster, aside)))
}

fn io_at(path: &Path, error: io::Error) -> DataDirError {
    DataDirError::Io(files::at(path, error))
}

#[cfg(test)]
mod tests;
