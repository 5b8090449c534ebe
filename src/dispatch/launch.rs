//! What a node is told to run: [`LaunchSpec`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{ExecutionId, JobName};
use crate::time::Wall;

/// All that an executor needs to run one execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// Which execution this is. Its node starts it at most once.
    pub execution: ExecutionId,
    /// Its job.
    pub job: JobName,
    /// When it was due.
    pub due: Wall,
    /// From 1; a retry raises it.
    pub attempt: u32,
    /// The executor's name.
    pub executor: String,
    /// The executor's settings.
    pub config: BTreeMap<String, String>,
}
