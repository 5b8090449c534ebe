//! Patches that plant a fault inside openraft or inside the node: [`Patch`].
//!
//! A patch is a unified diff with a head of lines `# key: value`:
//!
//! | key | what |
//! |---|---|
//! | `name` | its name, which is that of its file without `.patch` |
//! | `row` | the rows of the design's tables that it stands for: `M` a mutant, `B` a real bug |
//! | `target` | what it changes: `openraft` or `cronclave` |
//! | `about` | what is wrong, in one sentence |
//! | `real` | where the world has seen this bug, if it has |
//! | `killed-by` | the checkers of which one has to find it, with commas |
//! | `seeds` | the seeds that it is run with, `first..=last` |
//! | `plan` | a plan beside it that is replayed before any seed, for what chance seldom brings |
//!
//! `row`, `real` and `plan` may be left out.

use std::fmt;
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a patch changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A copy of the sources of openraft.
    Openraft,
    /// A copy of the sources of this workspace.
    Cronclave,
}

/// One fault as a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Its name.
    pub name: String,
    /// The rows of the design's tables that it stands for.
    pub row: String,
    /// What it changes.
    pub target: Target,
    /// What is wrong, in one sentence.
    pub about: String,
    /// Where the world has seen this bug.
    pub real: Option<String>,
    /// The checkers of which one has to find it.
    pub killers: Vec<String>,
    /// The seeds that it is run with.
    pub seeds: RangeInclusive<u64>,
    /// A plan that is replayed before any seed: the name of a file beside the patch.
    pub plan: Option<String>,
    /// The unified diff.
    pub diff: String,
}

/// Why a text is no patch, or why it could not be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatchError {
    /// A line of the head is not `# key: value`.
    BadLine(String),
    /// A key is not known.
    UnknownKey(String),
    /// A key stands twice.
    Repeated(String),
    /// A key is missing.
    Missing(&'static str),
    /// The value of a key makes no sense.
    BadValue(&'static str, String),
    /// There is no diff under the head.
    NoDiff,
    /// The name is not that of the file.
    WrongName(String),
    /// A file could not be read, or `patch` could not be run.
    Io(String),
    /// `patch` did not take it: it was made against another version.
    DoesNotApply(String),
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadLine(line) => write!(f, "{line:?} is not `# key: value`"),
            Self::UnknownKey(key) => write!(f, "the key {key:?} is not known"),
            Self::Repeated(key) => write!(f, "the key {key:?} stands twice"),
            Self::Missing(key) => write!(f, "the key {key:?} is missing"),
            Self::BadValue(key, value) => write!(f, "{value:?} is no {key}"),
            Self::NoDiff => f.write_str("there is no diff under the head"),
            Self::WrongName(name) => write!(f, "its name is {name:?}, that of its file another"),
            Self::Io(reason) => f.write_str(reason),
            Self::DoesNotApply(said) => {
                write!(f, "it was made against another version of the sources: {said}")
            }
        }
    }
}

impl std::error::Error for PatchError {}

/// The head of a patch, as it is read.
#[derive(Default)]
struct Head {
    values: std::collections::BTreeMap<&'static str, String>,
}

const KEYS: [&str; 8] = ["name", "row", "target", "about", "real", "killed-by", "seeds", "plan"];

impl Head {
    fn take_line(&mut self, line: &str) -> Result<(), PatchError> {
        let (key, value) = line
            .strip_prefix("# ")
            .and_then(|rest| rest.split_once(": "))
            .ok_or_else(|| PatchError::BadLine(line.to_owned()))?;
        let known = KEYS.into_iter().find(|known| *known == key);
        let known = known.ok_or_else(|| PatchError::UnknownKey(key.to_owned()))?;
        match self.values.insert(known, value.trim().to_owned()) {
            None => Ok(()),
            Some(_) => Err(PatchError::Repeated(key.to_owned())),
        }
    }

    fn must(&mut self, key: &'static str) -> Result<String, PatchError> {
        let value = self.values.remove(key).filter(|value| !value.is_empty());
        value.ok_or(PatchError::Missing(key))
    }
}

impl Patch {
    /// Reads a patch.
    ///
    /// # Errors
    /// If a part of its head is missing or makes no sense, or there is no diff.
    pub fn parse(text: &str) -> Result<Self, PatchError> {
        let mut head = Head::default();
        let lines: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        for line in &lines {
            head.take_line(line)?;
        }
        let head_len: usize = text.split_inclusive('\n').take(lines.len()).map(str::len).sum();
        let diff = text.get(head_len..).unwrap_or_default();
        if !diff.starts_with("--- ") || !diff.contains("\n@@ ") {
            return Err(PatchError::NoDiff);
        }
        let name = head.must("name")?;
        let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if !name.chars().all(is_letter) {
            return Err(PatchError::BadValue("name", name));
        }
        let target = match head.must("target")?.as_str() {
            "openraft" => Target::Openraft,
            "cronclave" => Target::Cronclave,
            other => return Err(PatchError::BadValue("target", other.to_owned())),
        };
        let killers = head.must("killed-by")?;
        let killers = killers.split(',').map(|name| name.trim().to_owned()).collect();
        let seeds = head.must("seeds")?;
        Ok(Self {
            name,
            target,
            about: head.must("about")?,
            killers,
            seeds: parse_seeds(&seeds).ok_or(PatchError::BadValue("seeds", seeds))?,
            row: head.values.remove("row").unwrap_or_default(),
            real: head.values.remove("real"),
            plan: head.values.remove("plan"),
            diff: diff.to_owned(),
        })
    }

    /// Reads the patch in a file, which is called after it.
    ///
    /// # Errors
    /// If the file cannot be read, is no patch, or has another name.
    pub fn load(path: &Path) -> Result<Self, PatchError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| PatchError::Io(format!("{}: {error}", path.display())))?;
        let patch = Self::parse(&text)?;
        match path.file_stem().is_some_and(|stem| stem == patch.name.as_str()) {
            true => Ok(patch),
            false => Err(PatchError::WrongName(patch.name)),
        }
    }

    /// Changes the sources in `dir`.
    ///
    /// # Errors
    /// If they are not the ones that it was made against, or there is no program `patch`.
    pub fn apply(&self, dir: &Path) -> Result<(), PatchError> {
        let failed = |error: std::io::Error| PatchError::Io(format!("the program patch: {error}"));
        // Without fuzz: what moved is found, what changed is not guessed at.
        let mut child = Command::new("patch")
            .args(["-p1", "--batch", "--forward", "--fuzz=0", "--no-backup-if-mismatch"])
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let written = match child.stdin.take() {
            Some(mut stdin) => stdin.write_all(self.diff.as_bytes()),
            None => Ok(()),
        };
        let output = child.wait_with_output().map_err(failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).trim().replace('\n', "; ");
            return Err(PatchError::DoesNotApply(said));
        }
        written.map_err(failed)
    }
}

fn parse_seeds(text: &str) -> Option<RangeInclusive<u64>> {
    let (first, last) = text.split_once("..=")?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..=last)
}

/// All patches in a directory, by name.
///
/// # Errors
/// If the directory cannot be read, or a file that ends in `.patch` is no patch.
pub fn load_all(dir: &Path) -> Result<Vec<Patch>, PatchError> {
    let failed = |error| PatchError::Io(format!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            paths.push(path);
        }
    }
    paths.sort();
    let load = |path: &PathBuf| {
        let in_file = |error| PatchError::Io(format!("{}: {error}", path.display()));
        Patch::load(path).map_err(in_file)
    };
    paths.iter().map(load).collect()
}

#[cfg(test)]
mod tests;
