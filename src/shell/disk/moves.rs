//! Renames inside a data directory that happen all or not at all: [`Moves`].
//!
//! A repair puts aside more than one file and puts others in their place. A crash in between must
//! not leave a node with its name and without its log, which would forget what it has voted. So the
//! renames are written down first, in one file that appears with one rename; from then on they are
//! carried out by whoever opens the directory next, and the file is removed last.
//!
//! **Invariants**
//! - Nothing is overwritten: a rename whose target is there has been done.
//! - Nothing is removed but the list itself.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::data_dir::DataDirError;
use super::files;

/// The version of the list. An unknown newer one is refused.
const FORMAT: u64 = 1;

/// What the list is called.
pub(super) const FILE: &str = "moves.json";

/// The most renames of one list; a repair needs about ten.
const MOVES_MAX: usize = 64;

/// Renames that are to happen, in order; all paths are relative to the data directory.
#[derive(Debug, Default)]
pub(super) struct Moves {
    moves: Vec<Move>,
}

/// One rename.
#[derive(Debug, Serialize, Deserialize)]
struct Move {
    from: String,
    to: String,
}

/// `moves.json` as it is written.
#[derive(Serialize, Deserialize)]
struct List {
    format: u64,
    moves: Vec<Move>,
}

/// The part of it that every version can read.
#[derive(Deserialize)]
struct FormatOnly {
    format: u64,
}

impl Moves {
    /// Adds the rename of `from` to `to`. It is left out if there is no `from` when it is due.
    pub(super) fn add(&mut self, from: &str, to: &str) {
        self.moves.push(Move { from: from.to_owned(), to: to.to_owned() });
    }

    /// Has all renames happen. The caller holds the directory's lock, and everything that is moved
    /// is synced.
    ///
    /// # Errors
    /// If the list cannot be written: nothing has happened then. Or if a rename fails: it is
    /// carried out when the directory is opened next.
    pub(super) fn perform(self, dir: &Path) -> Result<(), DataDirError> {
        let list = List { format: FORMAT, moves: self.moves };
        let text = serde_json::to_string_pretty(&list).map_err(io::Error::other);
        let mut text = text.map_err(DataDirError::Io)?;
        text.push('\n');
        files::write_beside(&dir.join(FILE), &[text.as_bytes()]).map_err(DataDirError::Io)?;
        finish(dir)
    }
}

/// Carries out what a list in `dir` says, if there is one. The caller holds the directory's lock.
///
/// # Errors
/// If the list cannot be read or is of a newer version, or a rename fails.
pub(super) fn finish(dir: &Path) -> Result<(), DataDirError> {
    let Some(list) = read(dir)? else { return Ok(()) };
    for Move { from, to } in &list.moves {
        rename(&dir.join(from), &dir.join(to)).map_err(DataDirError::Io)?;
    }
    files::remove_if_there(&dir.join(FILE)).map_err(DataDirError::Io)?;
    files::sync_dir(dir).map_err(DataDirError::Io)
}

/// Fails if there is a list in `dir` that this version cannot carry out; changes nothing.
///
/// # Errors
/// As [`finish`].
pub(super) fn check(dir: &Path) -> Result<(), DataDirError> {
    read(dir).map(drop)
}

fn read(dir: &Path) -> Result<Option<List>, DataDirError> {
    let path = dir.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataDirError::Io(files::at(&path, error))),
    };
    // No tool can tell what was to move where, so none is named here.
    let damaged = |reason: String| {
        let text = format!("{} is damaged: {reason}", path.display());
        DataDirError::Io(io::Error::new(ErrorKind::InvalidData, text))
    };
    let FormatOnly { format } =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if format > FORMAT {
        return Err(DataDirError::NewerFormat { path, found: format, known: FORMAT });
    }
    let list: List = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let inside = |path: &str| {
        let mut parts = Path::new(path).components().peekable();
        parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
    };
    let wrong = list.moves.iter().find(|step| !inside(&step.from) || !inside(&step.to));
    if let Some(Move { from, to }) = wrong {
        return Err(damaged(format!("{from:?} to {to:?} leads out of the directory")));
    }
    if list.moves.len() > MOVES_MAX {
        return Err(damaged(format!("it lists {} renames", list.moves.len())));
    }
    Ok(Some(list))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if !from.exists() || to.exists() {
        return Ok(());
    }
    let above = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
    files::create_dir(&above(to))?;
    fs::rename(from, to).map_err(|error| files::at(from, error))?;
    // The new name first: a file with two names after a crash is better than one with none.
    files::sync_dir(&above(to))?;
    files::sync_dir(&above(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    fn swap() -> Moves {
        let mut moves = Moves::default();
        moves.add("log", "old/log");
        moves.add("new/log", "log");
        moves.add("absent", "old/absent");
        moves
    }

    #[test]
    fn a_swap_is_whole_wherever_a_crash_interrupts_it() {
        for done in 0..=3 {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            for (path, content) in [("log", "old"), ("new/log", "new")] {
                fs::create_dir_all(dir.join(path)).unwrap();
                fs::write(dir.join(path).join("a"), content).unwrap();
            }
            let list = List { format: FORMAT, moves: swap().moves };
            fs::write(dir.join(FILE), serde_json::to_vec(&list).unwrap()).unwrap();
            for Move { from, to } in list.moves.iter().take(done) {
                rename(&dir.join(from), &dir.join(to)).unwrap();
            }
            finish(dir).unwrap();
            finish(dir).unwrap();
            assert_eq!(text(&dir.join("log/a")).as_deref(), Some("new"), "{done}");
            assert_eq!(text(&dir.join("old/log/a")).as_deref(), Some("old"), "{done}");
            assert!(!dir.join(FILE).exists());
        }
    }

    #[test]
    fn a_list_that_leads_out_of_the_directory_or_is_newer_moves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::write(dir.join("a"), "a").unwrap();
        for (list, said) in [
            (r#"{"format":1,"moves":[{"from":"a","to":"../b"}]}"#, "leads out"),
            (r#"{"format":1,"moves":[{"from":"/etc","to":"b"}]}"#, "leads out"),
            (r#"{"format":1,"moves":[{"from":"a","to":""}]}"#, "leads out"),
            (r#"{"format":2,"moves":7}"#, "has format 2"),
            ("{", "damaged"),
        ] {
            fs::write(dir.join(FILE), list).unwrap();
            let error = finish(dir).unwrap_err().to_string();
            assert!(error.contains(said), "{list}: {error}");
            assert_eq!(text(&dir.join("a")).as_deref(), Some("a"));
            assert!(dir.join(FILE).exists());
        }
    }
}
