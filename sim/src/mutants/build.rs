//! Builds a simulator with a fault inside: [`Workshop`].
//!
//! The sources of the workspace, and of openraft where that is what a patch changes, are copied
//! under one directory, always to the same places, and built there with one directory of artefacts
//! for all mutants, so that only what a patch changes is built again. Nothing of the checkout is
//! touched, its `Cargo.lock` included.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::patch::{Patch, PatchError, Target};

/// What of the workspace no build needs.
const LEFT_OUT: [&str; 4] = ["target", ".git", "fuzz", "node_modules"];

/// Where mutants are built.
#[derive(Clone, Debug)]
pub struct Workshop {
    /// The root of the workspace, which is only read.
    workspace: PathBuf,
    /// Where everything is put.
    dir: PathBuf,
    /// The cargo that builds.
    cargo: PathBuf,
}

/// Why a mutant could not be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// Files could not be copied.
    Copy(String),
    /// The sources of openraft were not found.
    NoOpenraft(String),
    /// The patch does not fit.
    Patch(PatchError),
    /// It does not compile: the end of what cargo said.
    Compile(String),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy(reason) => write!(f, "its sources could not be copied: {reason}"),
            Self::NoOpenraft(reason) => write!(f, "openraft was not found: {reason}"),
            Self::Patch(error) => error.fmt(f),
            Self::Compile(said) => write!(f, "it does not compile: {said}"),
        }
    }
}

impl std::error::Error for BuildError {}

impl From<PatchError> for BuildError {
    fn from(error: PatchError) -> Self {
        Self::Patch(error)
    }
}

impl Workshop {
    /// A workshop for the workspace with this root, in its `target/mutants`.
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn new(workspace: &Path) -> io::Result<Self> {
        let workspace = workspace.canonicalize()?;
        let dir = workspace.join("target").join("mutants");
        // Cargo says to those it runs which one it is.
        let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        Ok(Self { workspace, dir, cargo })
    }

    /// Where the patches of the workspace are.
    pub fn patches(&self) -> PathBuf {
        self.workspace.join("sim").join("mutants")
    }

    /// Builds the simulator with the fault of `patch`, and gives the program.
    ///
    /// # Errors
    /// If the sources cannot be copied, the patch does not fit, or the result does not compile.
    pub fn build(&self, patch: &Patch) -> Result<PathBuf, BuildError> {
        let tree = self.dir.join("cronclave");
        self.refresh(&self.workspace, &tree)?;
        let mut command = Command::new(&self.cargo);
        // All settings stand behind the subcommand: with others there, one before it is ignored.
        command.args(["build", "--offline", "--quiet", "--release", "-p", "cronclave-sim"]);
        match patch.target {
            Target::Cronclave => patch.apply(&tree)?,
            Target::Openraft => {
                let copy = self.dir.join("openraft");
                self.refresh(&self.openraft()?, &copy)?;
                patch.apply(&copy)?;
                let setting = format!("patch.crates-io.openraft.path={}", quoted(&copy));
                command.arg("--config").arg(setting);
            }
        }
        command
            .current_dir(&tree)
            .args(["--features", "sim", "--bin", "cronclave-sim", "--target-dir"])
            .arg(self.dir.join("target"))
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .env("CARGO_TERM_COLOR", "never");
        // Most mutants are found within seconds, and optimising takes minutes. Dependencies are
        // built as they ship, once.
        for package in ["cronclave", "cronclave-sim", "openraft"] {
            command.arg("--config").arg(format!("profile.release.package.{package}.opt-level=1"));
        }
        let output = command.output().map_err(|error| BuildError::Compile(error.to_string()))?;
        if !output.status.success() {
            return Err(BuildError::Compile(first_error(&String::from_utf8_lossy(&output.stderr))));
        }
        // The next mutant is built over it.
        let built = self.dir.join("target").join("release").join("cronclave-sim");
        let program = self.dir.join("bin").join(&patch.name);
        let copied = fs::create_dir_all(self.dir.join("bin")).and(fs::copy(&built, &program));
        copied.map_err(|error| BuildError::Copy(format!("{}: {error}", built.display())))?;
        Ok(program)
    }

    /// Makes `to` a copy of `from`, and takes away whatever an earlier mutant has left there.
    fn refresh(&self, from: &Path, to: &Path) -> Result<(), BuildError> {
        let failed = |error: io::Error| BuildError::Copy(format!("{}: {error}", from.display()));
        if to.exists() {
            fs::remove_dir_all(to).map_err(failed)?;
        }
        copy_tree(from, to).map_err(failed)
    }

    /// Where the sources of openraft are that the workspace is built with.
    fn openraft(&self) -> Result<PathBuf, BuildError> {
        // What other platforms need may never have been downloaded.
        let rustc = said_by(Command::new("rustc").arg("-vV").current_dir(&self.workspace))?;
        let host = rustc.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.ok_or_else(|| BuildError::NoOpenraft("rustc names no host".to_owned()))?;
        let metadata = said_by(
            Command::new(&self.cargo)
                .current_dir(&self.workspace)
                .args(["metadata", "--format-version", "1", "--offline", "--locked"])
                .args(["--filter-platform", host]),
        )?;
        let found = manifest_of("openraft", &metadata);
        let found = found.and_then(|manifest| manifest.parent().map(Path::to_owned));
        found.ok_or_else(|| BuildError::NoOpenraft("cargo metadata does not name it".to_owned()))
    }
}

/// What a command prints, which has to succeed.
fn said_by(command: &mut Command) -> Result<String, BuildError> {
    let output = command.output().map_err(|error| BuildError::NoOpenraft(error.to_string()))?;
    if !output.status.success() {
        let said = first_error(&String::from_utf8_lossy(&output.stderr));
        return Err(BuildError::NoOpenraft(said));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The manifest of a package, from what `cargo metadata` prints.
fn manifest_of(package: &str, metadata: &str) -> Option<PathBuf> {
    let metadata: serde_json::Value = serde_json::from_str(metadata).ok()?;
    let packages = metadata.get("packages")?.as_array()?;
    let found = packages.iter().find(|found| found["name"] == package)?;
    Some(PathBuf::from(found["manifest_path"].as_str()?))
}

/// A path as a string of TOML.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The first error in what cargo said, or the end of it.
fn first_error(said: &str) -> String {
    let mut lines = said.lines().skip_while(|line| !line.starts_with("error"));
    match (lines.next(), lines.next()) {
        (Some(error), Some(place)) => format!("{error} {}", place.trim()),
        (Some(error), None) => error.to_owned(),
        (None, _) => said.lines().last().unwrap_or("cargo said nothing").to_owned(),
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if LEFT_OUT.iter().any(|left_out| name == *left_out) {
            continue;
        }
        let target = to.join(&name);
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_found_by_the_name_of_its_package() {
        let metadata = r#"{ "packages": [
            { "name": "openraft-rt", "manifest_path": "/src/openraft-rt/Cargo.toml" },
            { "name": "openraft", "manifest_path": "/src/openraft/Cargo.toml" } ] }"#;
        let found = manifest_of("openraft", metadata);
        assert_eq!(found, Some(PathBuf::from("/src/openraft/Cargo.toml")));
        assert_eq!(manifest_of("raft", metadata), None);
        assert_eq!(manifest_of("openraft", "no JSON"), None);
    }

    #[test]
    fn the_first_error_is_told_with_its_place() {
        let said = "warning: unused\n --> a.rs\nerror[E1]: no\n --> b.rs:1\nerror: two\n";
        assert_eq!(first_error(said), "error[E1]: no --> b.rs:1");
        assert_eq!(first_error("failed"), "failed");
    }

    #[test]
    fn a_copy_is_whole_and_has_no_artefacts() {
        let dir = std::env::temp_dir().join(format!("cronclave-workshop-{}", std::process::id()));
        let (from, to) = (dir.join("from"), dir.join("to"));
        for part in ["src/node", "target/debug", ".git"] {
            fs::create_dir_all(from.join(part)).unwrap();
        }
        fs::write(from.join("src/node/mod.rs"), "//! A node.").unwrap();
        fs::write(from.join("target/debug/big"), "big").unwrap();
        copy_tree(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("src/node/mod.rs")).unwrap(), "//! A node.");
        assert!(!to.join("target").exists());
        assert!(!to.join(".git").exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_path_is_quoted_for_toml() {
        assert_eq!(quoted(Path::new("/a\"b")), "\"/a\\\"b\"");
    }
}
