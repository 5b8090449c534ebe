//! Runs the processes of executions: [`Executor`].
//!
//! Each execution is one task, which starts the process as the leader of a group of its own, reads
//! what it writes, ends it where a limit or an order says so, and reports once.
//!
//! **Invariants**
//! - Every launch is answered by one [`ExecEvent::Finished`], after an [`ExecEvent::Started`] if
//!   there was a process. None is dropped: where the receiver is slow, the report waits, and the
//!   process is supervised all the while.
//! - An execution ends when its process ends. What the process left behind may hold its output open
//!   for [`DRAIN_TIMEOUT`], and no longer keeps the execution open.
//! - A group is signalled only while its leader is not reaped, or while it still has members, so
//!   the id cannot have passed to somebody else.
//!
//! **Left out on purpose**
//! - A bound on how many run at once: the cluster decides what runs.
//! - Supplementary groups of another account: it runs with none.
//! - Ending what has left the process group (`setsid`).

mod command;
mod output;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::pending;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use procfs::WithCurrentSystemInfo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, ChildStdin};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use self::command::{Limits, ShellCommand, StartError, Started};
use self::output::Tail;
use crate::dispatch::launch::LaunchSpec;
use crate::id::ExecutionId;
use crate::jobs::job::{Outcome, RunResult};

/// How long an ended process's output may stay open before it is left.
pub const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

/// How long a process that is asked to end may take before it is killed.
pub const KILL_GRACE: Duration = Duration::from_secs(2);

/// How often memory is measured where it is limited.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);

/// How often a group that is asked to end is looked at after its leader has ended.
const GROUP_INTERVAL: Duration = Duration::from_millis(20);

/// How many outputs are read on, and dropped, after their executions ended. Past it they are
/// closed, and what still writes to them gets SIGPIPE.
const LEFT_OPEN_MAX: usize = 256;

/// What an [`Executor`] reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecEvent {
    /// The process runs.
    Started {
        /// Of this execution.
        execution: ExecutionId,
    },
    /// The execution is over, or could not be started.
    Finished {
        /// This execution.
        execution: ExecutionId,
        /// How it ended.
        result: RunResult,
    },
}

/// Starts, watches and ends the processes of executions.
#[derive(Clone, Debug)]
pub struct Executor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    events: mpsc::Sender<ExecEvent>,
    runtime: Handle,
    /// What runs, and how to end it; `None` once it was told to.
    running: Mutex<BTreeMap<ExecutionId, Option<oneshot::Sender<String>>>>,
    left_open: Arc<Semaphore>,
}

impl Executor {
    /// An executor that reports to `events`, and whose tasks are on `runtime`.
    pub fn new(events: mpsc::Sender<ExecEvent>, runtime: Handle) -> Self {
        let left_open = Arc::new(Semaphore::new(LEFT_OPEN_MAX));
        let running = Mutex::default();
        Self { shared: Arc::new(Shared { events, runtime, running, left_open }) }
    }

    /// Runs one execution. An id that is already running is not started again.
    pub fn launch(&self, spec: LaunchSpec) {
        let (kill, killed) = oneshot::channel();
        match self.shared.running().entry(spec.execution) {
            Entry::Vacant(entry) => entry.insert(Some(kill)),
            Entry::Occupied(_) => {
                tracing::warn!(execution = %spec.execution, "launched twice, runs once");
                return;
            }
        };
        self.shared.runtime.spawn(run(Arc::clone(&self.shared), spec, killed));
    }

    /// Asks the execution's process group to end, and kills it after [`KILL_GRACE`]. It fails with
    /// `reason`. Nothing happens if it does not run, or was told before.
    pub fn kill(&self, execution: ExecutionId, reason: String) {
        let kill = self.shared.running().get_mut(&execution).and_then(Option::take);
        if let Some(kill) = kill {
            // It fails only if the process has ended by itself in this moment.
            let _ = kill.send(reason);
        }
    }

    /// How many executions have not reported their end.
    pub fn running(&self) -> usize {
        self.shared.running().len()
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, BTreeMap<ExecutionId, Option<oneshot::Sender<String>>>> {
        self.running.lock().expect("no holder of this lock panics")
    }
}

async fn run(shared: Arc<Shared>, spec: LaunchSpec, killed: oneshot::Receiver<String>) {
    let execution = spec.execution;
    let result = match start(spec).await {
        Ok((started, command)) => {
            let started_event = async {
                // It fails only if nobody listens any more.
                let _ = shared.events.send(ExecEvent::Started { execution }).await;
            };
            let supervised = supervise(&shared, started, command, killed);
            tokio::join!(started_event, supervised).1
        }
        Err(reason) => failed(reason),
    };
    let permit = shared.events.reserve().await;
    // Who sees the event must not find the execution still counted.
    shared.running().remove(&execution);
    if let Ok(permit) = permit {
        permit.send(ExecEvent::Finished { execution, result });
    }
}

async fn start(spec: LaunchSpec) -> Result<(Started, ShellCommand), String> {
    let started = spawn_blocking(move || {
        let command = ShellCommand::parse(&spec)?;
        Ok((command.start()?, command))
    });
    match started.await {
        Ok(started) => started.map_err(|error: StartError| error.to_string()),
        Err(error) => Err(format!("cannot start: {error}")),
    }
}

async fn supervise(
    shared: &Shared,
    started: Started,
    command: ShellCommand,
    mut killed: oneshot::Receiver<String>,
) -> RunResult {
    let Started { mut child, output } = started;
    let ShellCommand { payload, limits, .. } = command;
    let tail = Arc::new(Mutex::new(Tail::default()));
    let reader = tokio::spawn(read_output(output, Arc::clone(&tail)));
    let writer = child.stdin.take().map(|stdin| tokio::spawn(write_payload(stdin, payload)));
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let group = group.expect("a child that was not waited for has its id");
    let (status, stopped) = tokio::select! {
        biased;
        status = child.wait() => (status, None),
        stop = stop_of(&limits, group, &mut killed) => {
            (end(&mut child, group, &stop).await, Some(stop.reason()))
        }
    };
    if let Some(writer) = writer {
        writer.abort();
    }
    drain(shared, reader).await;
    let text = lock(&tail).finish();
    let mut result = match status {
        Ok(status) => result_of(status),
        Err(error) => RunResult {
            outcome: Outcome::Lost,
            ..failed(format!("cannot learn how the process ended: {error}"))
        },
    };
    if let Some(reason) = stopped {
        result.outcome = Outcome::Failed;
        result.reason = reason;
    }
    RunResult { output: text.text, output_truncated: text.truncated, ..result }
}

/// Why a process is ended.
#[derive(Debug)]
enum Stop {
    Killed(String),
    Timeout(String),
    Memory { used: u64, max: u64 },
}

impl Stop {
    fn reason(self) -> String {
        match self {
            Self::Killed(reason) => reason,
            Self::Timeout(text) => format!("timeout after {text}"),
            Self::Memory { used, max } => {
                format!("mem_limit exceeded: {used} bytes resident, {max} allowed")
            }
        }
    }
}

/// Waits until there is a reason to end the process.
async fn stop_of(limits: &Limits, group: Pid, killed: &mut oneshot::Receiver<String>) -> Stop {
    let killed = async {
        match killed.await {
            Ok(reason) => reason,
            Err(_) => pending().await,
        }
    };
    let timed_out = async {
        match &limits.timeout {
            Some((duration, text)) => {
                sleep(*duration).await;
                text.clone()
            }
            None => pending().await,
        }
    };
    let over_memory = async {
        match limits.memory_max {
            Some(max) => (memory_above(group, max).await, max),
            None => pending().await,
        }
    };
    tokio::select! {
        reason = killed => Stop::Killed(reason),
        text = timed_out => Stop::Timeout(text),
        (used, max) = over_memory => Stop::Memory { used, max },
    }
}

async fn memory_above(group: Pid, max: u64) -> u64 {
    loop {
        sleep(MEMORY_INTERVAL).await;
        // What cannot be measured is not over its limit.
        let used = spawn_blocking(move || group_memory(group)).await.unwrap_or(0);
        if used > max {
            return used;
        }
    }
}

/// The resident memory of all processes of the group, in bytes.
fn group_memory(group: Pid) -> u64 {
    let Ok(processes) = procfs::process::all_processes() else {
        return 0;
    };
    // A process may end while the list is read.
    let stats = processes.filter_map(|process| process.ok()?.stat().ok());
    let group = stats.filter(|stat| stat.pgrp == group.as_raw());
    group.map(|stat| stat.rss_bytes().get()).sum()
}

/// Ends the process group, and waits for its leader.
async fn end(child: &mut Child, group: Pid, stop: &Stop) -> io::Result<ExitStatus> {
    let grace_over = Instant::now() + KILL_GRACE;
    let graceful = match stop {
        Stop::Killed(_) => {
            signal(group, Signal::SIGTERM);
            timeout_at(grace_over, child.wait()).await.ok()
        }
        Stop::Timeout(_) | Stop::Memory { .. } => None,
    };
    let Some(status) = graceful else {
        signal(group, Signal::SIGKILL);
        return child.wait().await;
    };
    // The leader has ended; what it started may still be about to.
    while group_lives(group) {
        if Instant::now() >= grace_over {
            signal(group, Signal::SIGKILL);
            break;
        }
        sleep_until(grace_over.min(Instant::now() + GROUP_INTERVAL)).await;
    }
    status
}

fn signal(group: Pid, signal: Signal) {
    match killpg(group, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => tracing::warn!(%group, %signal, %errno, "cannot signal a process group"),
    }
}

fn group_lives(group: Pid) -> bool {
    killpg(group, None).is_ok()
}

async fn read_output(output: io::PipeReader, tail: Arc<Mutex<Tail>>) {
    let Ok(mut output) = Receiver::from_owned_fd(output.into()) else {
        return;
    };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match output.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(len) => lock(&tail).push(&buffer[..len]),
        }
    }
}

async fn write_payload(mut stdin: ChildStdin, payload: Vec<u8>) {
    // A process need not read its input.
    let _ = stdin.write_all(&payload).await;
}

/// Reads what the process wrote before it ended. Where others hold its output open, it is read on
/// and dropped, because a daemon that a job started must not die of its output.
async fn drain(shared: &Shared, mut reader: JoinHandle<()>) {
    if timeout(DRAIN_TIMEOUT, &mut reader).await.is_ok() {
        return;
    }
    match Arc::clone(&shared.left_open).try_acquire_owned() {
        Ok(permit) => {
            tokio::spawn(async move {
                let _ = reader.await;
                drop(permit);
            });
        }
        Err(_) => reader.abort(),
    }
}

fn lock(tail: &Mutex<Tail>) -> MutexGuard<'_, Tail> {
    tail.lock().expect("no holder of this lock panics")
}

fn result_of(status: ExitStatus) -> RunResult {
    match (status.code(), status.signal()) {
        (Some(0), _) => {
            RunResult { outcome: Outcome::Succeeded, exit_code: Some(0), ..failed(String::new()) }
        }
        (Some(code), _) => {
            RunResult { exit_code: Some(code), ..failed(format!("exit code {code}")) }
        }
        (None, Some(number)) => {
            let name = Signal::try_from(number).map_or("unknown", Signal::as_str);
            failed(format!("killed by signal {number} ({name})"))
        }
        (None, None) => failed(format!("ended with {status}")),
    }
}

fn failed(reason: String) -> RunResult {
    RunResult {
        outcome: Outcome::Failed,
        reason,
        exit_code: None,
        output: String::new(),
        output_truncated: false,
    }
}

#[cfg(test)]
mod tests;
