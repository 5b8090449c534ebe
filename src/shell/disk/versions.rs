//! Refusing a directory that a newer version wrote, before anything in it is changed.
//!
//! A newer version raises the format of `node.json` with that of any other file, so this one alone
//! would do. The others are looked at all the same: a file may have been put back or moved here.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::data_dir::{DataDirError, LOG_DIR, SNAPSHOT_DIR, read_node};
use super::files::SEGMENT;
use super::snapshot_files::SNAPSHOT;
use super::{files, moves};
use crate::codec::log::{LOG_FORMAT, newer_format};
use crate::codec::snapshot::{self, SnapshotDamage};

/// Longer than the header of any file with a version of its own.
const START_LEN: u64 = 256;

/// Fails if any file in the data directory `path` is of a newer version. Damage is left to whoever
/// reads the files.
///
/// # Errors
/// [`DataDirError::NewerFormat`], or if a file cannot be read.
pub(super) fn check(path: &Path) -> Result<(), DataDirError> {
    moves::check(path)?;
    match read_node(path) {
        Ok(_) | Err(DataDirError::Damaged { .. }) => {}
        Err(error) => return Err(error),
    }
    let newer_snapshot = |start: &[u8]| match snapshot::Header::decode(start) {
        Err(SnapshotDamage::NewerFormat(found)) => Some(found),
        Ok(_) | Err(_) => None,
    };
    check_files(&path.join(LOG_DIR), SEGMENT, LOG_FORMAT, newer_format)?;
    check_files(&path.join(SNAPSHOT_DIR), SNAPSHOT, snapshot::FORMAT, newer_snapshot)
}

fn check_files(
    dir: &Path,
    extension: &str,
    known: u32,
    newer: impl Fn(&[u8]) -> Option<u32>,
) -> Result<(), DataDirError> {
    if !dir.is_dir() {
        return Ok(());
    }
    for path in files::list(dir, extension).map_err(DataDirError::Io)?.into_values() {
        let start = start_of(&path).map_err(|error| DataDirError::Io(files::at(&path, error)))?;
        if let Some(found) = newer(&start) {
            let (found, known) = (found.into(), known.into());
            return Err(DataDirError::NewerFormat { path, found, known });
        }
    }
    Ok(())
}

fn start_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(START_LEN).read_to_end(&mut start)?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::super::data_dir::write_node;
    use super::*;
    use crate::id::{Boot, ClusterId, Incarnation, NodeId, NodeName};

    /// A file of the first version. It is never written again, and every later version reads it.
    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name)
    }

    #[test]
    fn the_first_versions_node_files_are_read_and_written_as_they_were() {
        let cluster = Some(ClusterId(0xcd91_01a9_3d43_ea15));
        for (file, cluster, joins, boot) in
            [("node.json", cluster, None, 7), ("node-joins.json", None, cluster, 0)]
        {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            fs::copy(golden(file), dir.join("node.json")).unwrap();
            let node = read_node(dir).unwrap().unwrap();
            assert_eq!(node.name, NodeName::new("alpha").unwrap());
            assert_eq!(node.id, NodeId(0x6f6d_0f92_83e5_925a));
            assert_eq!(node.incarnation, Incarnation(0x5b0c_6a1f_0e0b_9a11));
            assert_eq!((node.cluster, node.joins, node.boot), (cluster, joins, Boot(boot)));
            write_node(dir, &node).unwrap();
            let written = fs::read_to_string(dir.join("node.json")).unwrap();
            let version = concat!("\"version\": \"", env!("CARGO_PKG_VERSION"), "\"");
            let written = written.replace(version, "\"version\": \"0.1.0\"");
            assert_eq!(written, fs::read_to_string(golden(file)).unwrap());
        }
    }

    #[test]
    fn the_first_versions_list_of_renames_is_carried_out() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::create_dir_all(dir.join("log")).unwrap();
        fs::create_dir_all(dir.join("stage.tmp/log")).unwrap();
        fs::write(dir.join("stage.tmp/log/new"), "").unwrap();
        fs::copy(golden("moves.json"), dir.join("moves.json")).unwrap();
        moves::finish(dir).unwrap();
        assert!(dir.join("damaged-1/log").is_dir() && dir.join("log/new").is_file());
        assert!(!dir.join("moves.json").exists());
    }
}
