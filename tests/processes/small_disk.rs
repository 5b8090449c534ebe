//! File systems of a few mebibytes, in a mount namespace of their own: nothing of them is ever seen
//! outside, and nothing is left when the test ends, however it ends.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set in a process that has its mounts to itself.
const INSIDE: &str = "CRONCLAVE_TEST_OWN_MOUNTS";

/// How much is written at once to fill a file system: a page, so that none is left.
const CHUNK: [u8; 4_096] = [0xff; 4_096];

/// What the system says where no user may have mounts of his own, as in many a container.
const FORBIDDEN: [&str; 3] = ["not permitted", "denied", "No such file"];

/// A file system with a limit.
pub(crate) struct SmallDisk {
    dir: PathBuf,
}

/// Whether this process has its mounts to itself. If not, the test of this name runs again in one
/// that has, and is judged here; its caller has nothing left to do then.
#[track_caller]
pub(crate) fn has_own_mounts(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if let Some(reason) = forbidden() {
        let known = FORBIDDEN.iter().any(|known| reason.contains(known));
        assert!(known, "mounts of its own fail for a reason that is no prohibition: {reason}");
        eprintln!("NOT RUN: {test}: this system gives nobody mounts of his own: {reason}");
        return false;
    }
    // The directories of the test are made in this one, which outlives its mounts.
    let dir = tempfile::tempdir().expect("there is room for a directory");
    let output = unshare()
        .arg(std::env::current_exe().expect("a process knows its program"))
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(INSIDE, "1")
        .env("TMPDIR", dir.path())
        .output()
        .expect("unshare was there a moment ago");
    let told = String::from_utf8_lossy(&output.stdout);
    eprintln!("{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} failed in a mount namespace of its own");
    assert!(told.contains("1 passed"), "{test} is not the name of a test");
    false
}

/// Why nobody gets mounts of his own here, if nobody does.
fn forbidden() -> Option<String> {
    let dir = tempfile::tempdir().expect("there is room for a directory");
    let probe = unshare().args(["mount", "-t", "tmpfs", "tmpfs"]).arg(dir.path()).output();
    match probe {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// Runs a program with mounts of its own; whoever is not root is so in there.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.arg(if nix::unistd::geteuid().is_root() { "-m" } else { "-Urm" });
    command
}

impl SmallDisk {
    /// A file system of `mebibytes` at `dir`, which is made.
    pub(crate) fn mount(dir: &Path, mebibytes: usize) -> Self {
        std::fs::create_dir_all(dir).expect("the directory is ours");
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir);
        let output = mount.output().expect("mount is where unshare is");
        assert!(output.status.success(), "{output:?}");
        Self { dir: dir.to_owned() }
    }

    /// Takes all space that is left.
    pub(crate) fn fill(&self) {
        let filler = File::options().create(true).append(true).open(self.filler());
        let mut filler = filler.expect("the directory is ours");
        loop {
            match filler.write(&CHUNK) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("filler")
    }
}
