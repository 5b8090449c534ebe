//! Names and ids, each a type of its own, so that one cannot stand for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            Serialize, Deserialize,
        )]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            Serialize, Deserialize,
        )]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                u64::from_str_radix(text, 16).map(Self)
            }
        }
    };
}

hex_id!(
    /// One life of a data directory: drawn at random when the directory is made, and never changed.
    Incarnation
);
hex_id!(
    /// A node to Raft and to its peers: a hash of its name and its incarnation, so that a server
    /// whose disk was wiped is not its old self. See [`NodeId::derive`].
    NodeId
);
hex_id!(
    /// A cluster, drawn at random when it is founded. Nodes of two clusters refuse each other.
    ClusterId
);
number_id!(
    /// How often a node has started on its data directory, from 1. Raised and synced before each
    /// start.
    Boot
);
number_id!(
    /// A Raft term.
    Term
);
number_id!(
    /// A position in the Raft log, from 0.
    LogIndex
);
number_id!(
    /// One connection between two peers. The driver draws it, never twice in the life of a node.
    SessionId
);
number_id!(
    /// A group of durable writes, in the order of their completion.
    WriteId
);
number_id!(
    /// A client's request to this node. The driver draws it, never twice in the life of a node.
    RequestId
);
number_id!(
    /// How often a job's definition has changed: the log index of its last change.
    Revision
);

impl NodeId {
    /// The id of the node `name` in its life `incarnation`: the first 8 bytes of FNV-1a over both,
    /// never 0.
    pub fn derive(name: &NodeName, incarnation: Incarnation) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let bytes = name.0.bytes().chain([0xff]).chain(incarnation.0.to_le_bytes());
        for byte in bytes {
            hash ^= u64::from(byte);
            hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self(hash.max(1))
    }
}

/// A node's name, unique in the cluster: 1 to 128 characters, none of them white space or control.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// The most characters that a [`NodeName`] may have.
pub const NODE_NAME_LEN_MAX: usize = 128;

/// Why a text is not a [`NodeName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "node-name {0:?} is not valid: 1 to {NODE_NAME_LEN_MAX} characters, no white space, no control"
)]
pub struct NodeNameError(String);

impl NodeName {
    /// Checks `text` and makes a name of it.
    ///
    /// # Errors
    /// If it is empty, longer than [`NODE_NAME_LEN_MAX`], or holds white space or control
    /// characters.
    pub fn new(text: impl Into<String>) -> Result<Self, NodeNameError> {
        let text = text.into();
        let len = text.chars().count();
        let bad = text.chars().any(|c| c.is_whitespace() || c.is_control());
        if len == 0 || len > NODE_NAME_LEN_MAX || bad {
            return Err(NodeNameError(text.chars().take(NODE_NAME_LEN_MAX).collect()));
        }
        Ok(Self(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NodeName {
    type Error = NodeNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

/// A job's name: 1 to 255 of `[\p{Ll}0-9_-]`, which is Dkron's rule with a bound on the length.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobName(std::sync::Arc<str>);

/// The most characters that a [`JobName`] may have.
pub const JOB_NAME_LEN_MAX: usize = 255;

/// Why a text is not a [`JobName`]. The wording of the first two is Dkron's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobNameError {
    /// The name is empty.
    #[error("name cannot be empty")]
    Empty,
    /// The name holds a character that is not allowed.
    #[error("name contains illegal character '{0}'")]
    Illegal(char),
    /// The name is too long.
    #[error("name is {0} characters long, at most {JOB_NAME_LEN_MAX} are allowed")]
    TooLong(usize),
}

impl JobName {
    /// Checks `text` and makes a name of it.
    ///
    /// # Errors
    /// If it is empty, too long, or holds a character outside `[\p{Ll}0-9_-]`.
    pub fn new(text: &str) -> Result<Self, JobNameError> {
        let len = text.chars().count();
        if len == 0 {
            return Err(JobNameError::Empty);
        }
        if len > JOB_NAME_LEN_MAX {
            return Err(JobNameError::TooLong(len));
        }
        let legal = |c: char| c.is_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        match text.chars().find(|&c| !legal(c)) {
            Some(c) => Err(JobNameError::Illegal(c)),
            None => Ok(Self(text.into())),
        }
    }

    /// Sorts before every valid name, so that a range of names can begin with it.
    pub(crate) fn least() -> Self {
        Self("".into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for JobName {
    type Error = JobNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<JobName> for String {
    fn from(name: JobName) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// One attempt to run a job on one node: the log index of its claim, and a number within the claim.
///
/// Unique in the life of a cluster, and ordered as the claims are.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ExecutionId {
    /// The log entry that claimed it.
    pub claim: LogIndex,
    /// Its number among the executions of that entry.
    pub slot: u32,
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.claim, self.slot)
    }
}

impl FromStr for ExecutionId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (claim, slot) = text.split_once('-').unwrap_or((text, ""));
        Ok(Self { claim: LogIndex(claim.parse()?), slot: slot.parse()? })
    }
}

/// A write, wherever it is sent or repeated: who asked, in which life, and its number there.
///
/// Replicated state remembers the ids that it has carried out, so a repeated write is done once.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct CommandId {
    /// The node that the client spoke to.
    pub node: NodeId,
    /// Which start of that node.
    pub boot: Boot,
    /// The number of the write in that start, from 1.
    pub seq: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_names_follow_dkrons_rule() {
        assert!(JobName::new("backup_2-n\u{e4}chtlich").is_ok());
        assert_eq!(JobName::new(""), Err(JobNameError::Empty));
        assert_eq!(JobName::new("Backup"), Err(JobNameError::Illegal('B')));
        assert_eq!(JobName::new("a b"), Err(JobNameError::Illegal(' ')));
        assert_eq!(JobName::new(&"a".repeat(256)), Err(JobNameError::TooLong(256)));
    }

    #[test]
    fn a_wiped_disk_makes_another_node_id() {
        let name = NodeName::new("alpha").unwrap();
        let first = NodeId::derive(&name, Incarnation(1));
        assert_eq!(first, NodeId::derive(&name, Incarnation(1)));
        assert_ne!(first, NodeId::derive(&name, Incarnation(2)));
    }

    #[test]
    fn an_execution_id_reads_back_from_its_text() {
        let id = ExecutionId { claim: LogIndex(81), slot: 3 };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("81".parse::<ExecutionId>().is_err());
    }
}
