use super::*;
use crate::id::{JobName, LogIndex};
use crate::jobs::job::OUTPUT_LEN_MAX;
use crate::time::Wall;

#[tokio::test]
async fn output_and_exit_code_are_reported() {
    let result = run_shell("echo out; echo err >&2; echo out again; exit 3", &[]).await;
    assert_eq!(result.outcome, Outcome::Failed);
    assert_eq!(result.reason, "exit code 3");
    assert_eq!(result.exit_code, Some(3));
    assert_eq!(result.output, "out\nerr\nout again\n");
    assert!(!result.output_truncated);
}

#[tokio::test]
async fn success_has_no_reason() {
    let result = run_one(&[("command", "echo 'a  b'")]).await;
    assert_eq!(result.outcome, Outcome::Succeeded);
    assert_eq!(result.reason, "");
    assert_eq!(result.exit_code, Some(0));
    assert_eq!(result.output, "a  b\n");
}

#[tokio::test]
async fn a_start_is_reported_before_the_end_and_then_nothing_runs() {
    let (executor, mut events) = executor();
    executor.launch(launch(&[("command", "true")]));
    assert_eq!(executor.running(), 1);
    let execution = launch(&[]).execution;
    assert_eq!(events.recv().await, Some(ExecEvent::Started { execution }));
    assert!(matches!(events.recv().await, Some(ExecEvent::Finished { .. })));
    assert_eq!(executor.running(), 0);
}

#[tokio::test]
async fn an_id_that_runs_is_not_started_again() {
    let (executor, mut events) = executor();
    executor.launch(launch(&[("command", "cat"), ("payload", "b25jZQ==")]));
    executor.launch(launch(&[("command", "echo twice")]));
    drop(executor);
    let mut seen = Vec::new();
    while let Some(event) = events.recv().await {
        seen.push(event);
    }
    let [ExecEvent::Started { .. }, ExecEvent::Finished { result, .. }] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!(result.output, "once");
}

#[tokio::test]
async fn the_process_finds_its_execution_in_the_environment() {
    let command = "echo $CRONCLAVE_JOB $CRONCLAVE_EXECUTION $CRONCLAVE_DUE $CRONCLAVE_ATTEMPT \
                   $ENV_JOB_NAME $OWN; test -n \"$PATH\"";
    let result = run_shell(command, &[("env", "OWN=yes")]).await;
    assert_eq!(result.output, "nightly 7-1 1970-01-01T00:01:00Z 2 nightly yes\n");
    assert_eq!(result.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn the_process_runs_in_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let path = path.to_str().unwrap();
    let result = run_shell("pwd", &[("cwd", path)]).await;
    assert_eq!(result.output.trim_end(), path);

    let result = run_shell("pwd", &[("cwd", "/no/such/place")]).await;
    assert_eq!(
        result.reason,
        "cannot run \"pwd\" in cwd \"/no/such/place\": No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn the_payload_is_the_input_and_without_one_there_is_none() {
    let result = run_one(&[("command", "cat"), ("payload", "aGVsbG8=")]).await;
    assert_eq!(result.output, "hello");
    let result = run_one(&[("command", "cat")]).await;
    assert_eq!((result.outcome, result.output.as_str()), (Outcome::Succeeded, ""));
}

#[tokio::test]
async fn a_payload_that_nobody_reads_does_not_hold_the_execution_open() {
    let payload = "AAAA".repeat(100_000);
    let result = run_one(&[("command", "true"), ("payload", &payload)]).await;
    assert_eq!(result.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_timeout_kills_the_grandchildren_too() {
    let command = "sleep 600 & echo $!; wait";
    let started = Instant::now();
    let result = run_shell(command, &[("timeout", "300ms")]).await;
    assert_eq!(result.outcome, Outcome::Failed);
    assert_eq!(result.reason, "timeout after 300ms");
    assert_eq!(result.exit_code, None);
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_ended(pid_in(&result.output)).await;
}

#[tokio::test]
async fn what_holds_the_output_open_does_not_hold_the_execution_open() {
    // What it starts leaves the process group, as a daemon does, and keeps the output.
    let command = "mkfifo up; setsid sh -c 'echo $$; echo > up; exec sleep 600' & \
                   read line < up; echo done";
    let directory = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let result = run_shell(command, &[("cwd", directory.path().to_str().unwrap())]).await;
    assert_eq!(result.outcome, Outcome::Succeeded);
    assert!(result.output.ends_with("done\n"), "{:?}", result.output);
    assert!(started.elapsed() < Duration::from_secs(60));
    let daemon = pid_in(&result.output);
    nix::sys::signal::kill(daemon, Signal::SIGKILL).expect("the daemon was left alone");
}

#[tokio::test]
async fn output_is_cut_to_its_last_bytes() {
    let command = "head -c 1000000 /dev/zero | tr '\\0' a; echo end";
    let result = run_shell(command, &[]).await;
    assert_eq!(result.output.len(), OUTPUT_LEN_MAX);
    assert!(result.output.ends_with("aend\n"));
    assert!(result.output_truncated);
}

#[tokio::test]
async fn a_process_over_its_memory_is_killed_and_both_numbers_are_named() {
    // The child of the shell holds the memory: the whole group counts.
    let command = "head -c 30000000 /dev/zero | tail -c 30000000 | (sleep 600; cat) ; true";
    let result = run_shell(command, &[("mem_limit", "8MB"), ("timeout", "60s")]).await;
    assert_eq!(result.outcome, Outcome::Failed);
    let text = result.reason.strip_prefix("mem_limit exceeded: ").expect(&result.reason);
    let used: u64 = text.split(' ').next().unwrap().parse().unwrap();
    assert!(used > 8 << 20, "{text}");
    assert!(text.ends_with(" bytes resident, 8388608 allowed"), "{text}");
}

#[tokio::test]
async fn a_process_within_its_memory_is_left_alone() {
    let result = run_shell("sleep 1.2; echo ok", &[("mem_limit", "1GB")]).await;
    assert_eq!((result.outcome, result.output.as_str()), (Outcome::Succeeded, "ok\n"));
}

#[tokio::test]
async fn a_command_that_cannot_be_started_is_named_with_the_cause() {
    let result = run_one(&[("command", "no-such-program --flag")]).await;
    assert_eq!(result.outcome, Outcome::Failed);
    assert_eq!(
        result.reason,
        "cannot run \"no-such-program --flag\": No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn another_executor_is_not_present() {
    let (executor, events) = executor();
    executor.launch(LaunchSpec { executor: "kafka".to_owned(), ..launch(&[]) });
    let (result, was_started) = finished(events).await;
    assert_eq!(result.reason, "executor \"kafka\" is not present, expected \"shell\"");
    assert!(!was_started);
}

#[tokio::test]
async fn an_end_by_signal_is_named() {
    let result = run_shell("kill -SEGV $$", &[]).await;
    assert_eq!(result.outcome, Outcome::Failed);
    assert_eq!(result.reason, "killed by signal 11 (SIGSEGV)");
    assert_eq!(result.exit_code, None);
}

#[tokio::test]
async fn a_kill_gives_the_process_time_to_end_well() {
    let command = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let result = kill_when_ready(command, "stopped by the test").await;
    assert_eq!(result.outcome, Outcome::Failed);
    assert_eq!(result.reason, "stopped by the test");
    assert_eq!(result.exit_code, Some(0));
    assert!(result.output.ends_with("bye\n"), "{:?}", result.output);
}

#[tokio::test]
async fn a_process_that_ignores_a_kill_is_killed_after_the_grace() {
    let command = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
    let started = Instant::now();
    let result = kill_when_ready(command, "enough").await;
    assert_eq!((result.reason.as_str(), result.exit_code), ("enough", None));
    assert!(started.elapsed() >= KILL_GRACE);
}

#[tokio::test]
async fn a_kill_reaches_what_outlives_the_leader_of_the_group() {
    let command = "sh -c 'trap \"\" TERM; echo $$ ready; while :; do sleep 0.01; done' & \
                   trap 'exit 0' TERM; while :; do sleep 0.01; done";
    let result = kill_when_ready(command, "enough").await;
    assert_eq!(result.reason, "enough");
    assert_ended(pid_in(&result.output)).await;
}

#[tokio::test]
async fn a_kill_of_what_does_not_run_is_nothing() {
    let (executor, _events) = executor();
    executor.kill(launch(&[]).execution, "nothing".to_owned());
    assert_eq!(executor.running(), 0);
}

#[tokio::test]
async fn another_account_is_taken_or_refused_by_the_system() {
    let result = run_one(&[("command", "id -u"), ("su", "nobody")]).await;
    if nix::unistd::geteuid().is_root() {
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        assert_eq!(result.output, format!("{}\n", nobody.uid), "{result:?}");
    } else {
        assert!(result.reason.starts_with("cannot run \"id -u\" as \"nobody\": "), "{result:?}");
    }
}

#[tokio::test]
async fn no_report_is_lost_while_the_receiver_is_slow() {
    let (events, mut receiver) = mpsc::channel(1);
    let executor = Executor::new(events, Handle::current());
    let count = 20;
    for slot in 0..count {
        let execution = ExecutionId { claim: LogIndex(1), slot };
        executor.launch(LaunchSpec { execution, ..launch(&[("command", "true")]) });
    }
    let mut ended = 0;
    while ended < count {
        // Every task has its turn before the next event is taken.
        tokio::task::yield_now().await;
        match receiver.recv().await.expect("the executor lives") {
            ExecEvent::Started { .. } => {}
            ExecEvent::Finished { result, .. } => {
                assert_eq!(result.outcome, Outcome::Succeeded);
                ended += 1;
            }
        }
    }
    assert_eq!(executor.running(), 0);
}

fn executor() -> (Executor, mpsc::Receiver<ExecEvent>) {
    let (sender, receiver) = mpsc::channel(16);
    (Executor::new(sender, Handle::current()), receiver)
}

fn launch(config: &[(&str, &str)]) -> LaunchSpec {
    let config = config.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
    LaunchSpec {
        execution: ExecutionId { claim: LogIndex(7), slot: 1 },
        job: JobName::new("nightly").unwrap(),
        due: Wall::from_secs(60),
        attempt: 2,
        executor: "shell".to_owned(),
        config: config.collect(),
    }
}

async fn run_shell(command: &str, more: &[(&str, &str)]) -> RunResult {
    run_one(&[&[("command", command), ("shell", "true")], more].concat()).await
}

async fn run_one(config: &[(&str, &str)]) -> RunResult {
    let (executor, events) = executor();
    executor.launch(launch(config));
    finished(events).await.0
}

/// The result, and whether a process was started.
async fn finished(mut events: mpsc::Receiver<ExecEvent>) -> (RunResult, bool) {
    let mut was_started = false;
    loop {
        match events.recv().await.expect("every launch ends") {
            ExecEvent::Started { .. } => was_started = true,
            ExecEvent::Finished { result, .. } => return (result, was_started),
        }
    }
}

/// Runs a command, and kills it once it has said that it is ready. A named pipe tells when.
async fn kill_when_ready(command: &str, reason: &str) -> RunResult {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("ready");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let ready = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&fifo).unwrap();
    let command = command.replace("ready;", "ready; echo ready > $FIFO;");
    let (executor, events) = executor();
    let env = format!("FIFO={}", fifo.to_str().unwrap());
    executor.launch(launch(&[("command", &command), ("shell", "true"), ("env", &env)]));
    ready.readable().await.unwrap();
    executor.kill(launch(&[]).execution, reason.to_owned());
    finished(events).await.0
}

fn pid_in(output: &str) -> Pid {
    let digits: String = output.chars().take_while(char::is_ascii_digit).collect();
    Pid::from_raw(digits.parse().expect("the output begins with a process id"))
}

/// Waits until the process is gone, or is left over only for its parent to take note of.
async fn assert_ended(process: Pid) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while procfs::process::Process::new(process.as_raw())
        .and_then(|process| process.stat())
        .is_ok_and(|stat| stat.state != 'Z')
    {
        assert!(Instant::now() < deadline, "process {process} still runs");
        tokio::task::yield_now().await;
    }
}
