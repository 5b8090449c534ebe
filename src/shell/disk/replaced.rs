//! What is left of earlier lives of a data directory, kept for the operator.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::files;
use crate::id::{Boot, Incarnation};

/// How many are kept. A disk that is set back again and again must not fill up.
const KEPT_MAX: usize = 3;

const PREFIX: &str = "replaced-";

/// What the directory of a life is called that ended in this boot.
pub(super) fn name(boot: Boot, incarnation: Incarnation) -> String {
    format!("{PREFIX}{boot}-{incarnation}")
}

/// Removes the oldest but for the last [`KEPT_MAX`]; `newest` always stays.
///
/// # Errors
/// If the directory cannot be read, or one cannot be removed.
pub(super) fn forget_oldest(dir: &Path, newest: &str) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| files::at(dir, error))? {
        let entry = entry.map_err(|error| files::at(dir, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && name != newest {
            let path = entry.path();
            let changed = entry.metadata().and_then(|metadata| metadata.modified());
            found.push((changed.map_err(|error| files::at(&path, error))?, path));
        }
    }
    found.sort();
    let surplus = (found.len() + 1).saturating_sub(KEPT_MAX);
    for (_, path) in found.into_iter().take(surplus) {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(files::at(&path, error));
            }
            Ok(()) | Err(_) => {
                tracing::warn!(path = %path.display(), "removed what an earlier life had left");
            }
        }
    }
    Ok(())
}
