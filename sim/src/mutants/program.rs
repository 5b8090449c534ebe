//! Runs of a simulator that was built apart: [`Program`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::RunSummary;

/// A run that takes longer than this hangs, and is ended.
const RUN_MAX: Duration = Duration::from_secs(300);

/// How often a run is looked at whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What stands in for a checker when a run crashes before any can say something.
pub const CRASH: &str = "crash";

/// What stands in for a checker when a run does not come to its end.
pub const HANG: &str = "hang";

/// A simulator that was built apart.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// The program in this file.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Runs a seed.
    ///
    /// # Errors
    /// If it cannot be run at all.
    pub fn run(&self, seed: u64) -> Result<RunSummary, String> {
        self.run_with([OsString::from("run"), OsString::from(seed.to_string())])
    }

    /// Replays a plan.
    ///
    /// # Errors
    /// If it cannot be run at all.
    pub fn replay(&self, plan: PathBuf) -> Result<RunSummary, String> {
        self.run_with([OsString::from("replay"), plan.into_os_string()])
    }

    fn run_with<const N: usize>(&self, arguments: [OsString; N]) -> Result<RunSummary, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.path.display());
        let mut child = Command::new(&self.path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let mut stdout = child.stdout.take().ok_or("its output is not there")?;
        // Read beside the waiting: a full pipe would stop it.
        let reader = thread::spawn(move || {
            let mut said = Vec::new();
            let read = stdout.read_to_end(&mut said);
            read.map(|_| said)
        });
        let status = wait(&mut child).map_err(failed)?;
        let said = reader.join().map_err(|_| "its output could not be read".to_owned())?;
        let said = String::from_utf8_lossy(&said.map_err(failed)?).into_owned();
        judge(status.map(|status| status.code()), &said)
    }
}

/// Waits for the end of a run, and ends it when it takes too long: `None`.
fn wait(child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let until = Instant::now() + RUN_MAX;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What a run came to, by its exit code and what it printed. The codes: 0 green, 127 a crash, 128
/// no progress, 129 a violation; a `code` of `None` inside is a signal, outside a run that hangs.
fn judge(code: Option<Option<i32>>, said: &str) -> Result<RunSummary, String> {
    let mut violated: Vec<String> = said
        .lines()
        .filter_map(|line| line.strip_prefix("violated ")?.split_once(": "))
        .map(|(checker, _)| checker.to_owned())
        .collect();
    violated.sort();
    violated.dedup();
    match code {
        Some(Some(0)) if violated.is_empty() => {}
        Some(Some(0)) => return Err("it exits with 0 and says that something is violated".into()),
        Some(Some(128 | 129)) if violated.is_empty() => {
            return Err("it exits with a violation and does not say which".to_owned());
        }
        Some(Some(128 | 129)) => {}
        Some(Some(127) | None) => violated.push(CRASH.to_owned()),
        // A panic that nobody took for a crash of the simulated node.
        Some(Some(101)) => violated.push(CRASH.to_owned()),
        Some(Some(other)) => return Err(format!("it exits with {other}, which says nothing")),
        None => violated.push(HANG.to_owned()),
    }
    Ok(RunSummary { violated, counts: BTreeMap::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violated(code: Option<Option<i32>>, said: &str) -> Vec<String> {
        judge(code, said).unwrap().violated
    }

    #[test]
    fn a_run_is_judged_by_its_exit_code_and_its_last_lines() {
        assert_eq!(violated(Some(Some(0)), "all is well\n"), [""; 0]);
        let said = "t=1\nviolated log matching: a: b\nviolated durability: c\nreplay: run 7\n";
        assert_eq!(violated(Some(Some(129)), said), ["durability", "log matching"]);
        assert_eq!(violated(Some(Some(128)), "violated liveness: no leader"), ["liveness"]);
        assert_eq!(violated(Some(Some(127)), "violated no halt: n1"), ["no halt", CRASH]);
        assert_eq!(violated(Some(None), ""), [CRASH]);
        assert_eq!(violated(None, ""), [HANG]);
    }

    #[test]
    fn a_run_that_contradicts_itself_is_no_kill() {
        assert!(judge(Some(Some(0)), "violated durability: c").is_err());
        assert!(judge(Some(Some(129)), "no line of that kind").is_err());
        assert!(judge(Some(Some(2)), "usage").is_err());
    }

    #[test]
    fn a_program_is_run_and_read() {
        // `echo` gets the arguments of a run and prints them, which violates nothing.
        let echo = Program::new(PathBuf::from("echo"));
        assert_eq!(echo.run(7).unwrap(), RunSummary::default());
        assert_eq!(echo.replay(PathBuf::from("a.plan")).unwrap(), RunSummary::default());
        assert!(Program::new(PathBuf::from("/no/such/program")).run(1).is_err());
    }
}
