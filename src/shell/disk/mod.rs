//! The data directory on a real disk: who the node is, its log, its snapshots.
//!
//! | file | what |
//! |---|---|
//! | `node.json` | format, id, incarnation, name, cluster, version, boot |
//! | `lock` | locked while a process uses the directory, and holds its id |
//! | `log/NUMBER.log` | the segments of the log, see [`codec::log`](crate::codec::log) |
//! | `moves.json` | renames of a repair that are still to happen |
//! | `replaced-BOOT-INCARNATION/` | what earlier lives held whose disk was set back |
//! | `log/NUMBER.spare` | files that become segments; what they hold means nothing |
//! | `snapshots/INDEX.snap` | the newest snapshot, see [`snapshot`](crate::codec::snapshot) |
//!
//! [`DataDir::open`] locks the directory. [`DataDir::recover`] counts a boot, reads and repairs
//! the log. [`Disk::start`] gives the files to one thread that writes group by group: whatever
//! waits when a sync ends is the next group. [`Snapshots::start`] gives those of the snapshots to
//! another.
//!
//! **Invariants**
//! - A file that is not a segment is written beside, synced, renamed, and its name synced.
//! - A disk that has no space loses nothing: the group waits and is tried again, until there is
//!   space or the process ends.
//! - Any other error of the disk is final: after a failed sync nobody knows what is on it, so the
//!   thread reports it once and stops. Only a new start reads what is there.
//! - A directory of a newer format is refused before anything in it is changed.
//!
//! **Left out on purpose**
//! - Any rule of Raft: what has to be durable before what, the node knows.

mod data_dir;
mod files;
mod inspect;
mod log_files;
mod moves;
mod offline;
mod replaced;
mod rescue;
mod snapshot_files;
mod snapshots;
mod versions;
mod writer;

pub(super) use self::data_dir::HISTORY_DIR;
pub use self::data_dir::{DataDir, DataDirError, ExitClass};
pub use self::inspect::{At, FileView, Held, Inspection, Listed, Place};
pub use self::log_files::LogFiles;
pub use self::offline::{Offline, ToolError, parse_cluster};
pub use self::rescue::{RecoverPlan, RepairPlan, recover_by_peers_file, show};
pub use self::snapshot_files::{Blocks, SnapshotFiles};
pub use self::snapshots::{History, PutBlock, SnapshotEvent, Snapshots, SnapshotsStopped};
pub use self::writer::{Completion, Disk, DiskEvent, DiskStopped};

#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod tests;
