//! Files by number, written whole or not at all, and errors that name them.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a file is called while it is not whole.
pub(super) const TEMPORARY: &str = "tmp";

/// How the names of segments end.
pub(super) const SEGMENT: &str = "log";

/// Makes the directory `path` for the owner alone, and what is above it; syncs its name.
pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| at(path, error))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        Some(_) | None => sync_dir(Path::new(".")),
    }
}

/// Writes the file `path` so that a crash leaves either the old one or the new one, whole.
pub(super) fn write_beside(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(TEMPORARY);
    let beside = PathBuf::from(name);
    let mut file = create_file(&beside)?;
    for part in parts {
        file.write_all(part).map_err(|error| at(&beside, error))?;
    }
    file.sync_all().map_err(|error| at(&beside, error))?;
    fs::rename(&beside, path).map_err(|error| at(path, error))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Removes the files in `dir` that a crash left half written.
pub(super) fn remove_temporary(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir).map_err(|error| at(dir, error))? {
        let path = entry.map_err(|error| at(dir, error))?.path();
        if path.extension().is_some_and(|extension| extension == TEMPORARY) {
            fs::remove_file(&path).map_err(|error| at(&path, error))?;
        }
    }
    Ok(())
}

/// Removes the file `path`, unless it is gone already.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(at(path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Names `path` in an error of the system, which does not.
pub(super) fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Makes the file `path` for the owner alone, or empties it.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.map_err(|error| at(path, error))
}

/// Waits until the names in the directory `path` are on the disk.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| at(path, error))
}

/// Twenty digits hold every number, and sort as the numbers do.
pub(super) fn file_path(dir: &Path, number: u64, extension: &str) -> PathBuf {
    dir.join(format!("{number:020}.{extension}"))
}

/// The files in `dir` that are named by a number and end with `extension`.
pub(super) fn list(dir: &Path, extension: &str) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|error| at(dir, error))? {
        let path = entry.map_err(|error| at(dir, error))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let Some(number) = stem.and_then(|stem| stem.parse().ok()) else { continue };
        if path == file_path(dir, number, extension) {
            files.insert(number, path);
        }
    }
    Ok(files)
}
