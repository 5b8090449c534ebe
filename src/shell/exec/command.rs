//! From a job's settings to a process: [`ShellCommand`].

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::unistd::{Gid, Group, Uid, User};
use tokio::process::{Child, Command};

use crate::dispatch::launch::LaunchSpec;
use crate::schedule::parse_go_duration;

/// What the settings of the `shell` executor ask for. Keys and meanings are Dkron's.
#[derive(Debug)]
pub(super) struct ShellCommand {
    /// `command` as the job has it, to name it in errors.
    text: String,
    program: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    directory: Option<PathBuf>,
    account: Option<String>,
    /// What the process finds on its standard input.
    pub(super) payload: Vec<u8>,
    /// When it is ended.
    pub(super) limits: Limits,
}

/// When a process is ended whether it is done or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// After this time; the text is the job's own.
    pub(super) timeout: Option<(Duration, String)>,
    /// With more than this resident memory in its process group, in bytes.
    pub(super) memory_max: Option<u64>,
}

/// A process that was started, and what it writes.
pub(super) struct Started {
    /// The process, the leader of a group of its own.
    pub(super) child: Child,
    /// Both of its output streams, in the order in which it wrote.
    pub(super) output: io::PipeReader,
}

/// Why an execution could not be started. Its text becomes the reason in the execution's row.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// There is no such executor.
    #[error("executor {0:?} is not present, expected \"shell\"")]
    Executor(String),
    /// There is nothing to run.
    #[error("executor_config has no \"command\"")]
    NoCommand,
    /// The command cannot be taken apart into words.
    #[error("cannot split command {0:?} into words: {1}")]
    Words(String, shell_words::ParseError),
    /// A setting is wrong.
    #[error("{0} {1:?} is not valid: {2}")]
    Setting(&'static str, String, String),
    /// The working directory cannot be used.
    #[error("cannot run {0:?} in cwd {1:?}: {2}")]
    Directory(String, PathBuf, io::Error),
    /// The system refused.
    #[error("cannot run {0:?}: {1}")]
    Spawn(String, io::Error),
    /// The system refused to run it under another account.
    #[error("cannot run {0:?} as {1:?}: {2}")]
    SpawnAs(String, String, io::Error),
}

impl ShellCommand {
    /// Reads a launch's settings.
    ///
    /// # Errors
    /// If the executor is not `shell`, or a setting is wrong.
    pub(super) fn parse(spec: &LaunchSpec) -> Result<Self, StartError> {
        if spec.executor != "shell" {
            return Err(StartError::Executor(spec.executor.clone()));
        }
        let text = setting(&spec.config, "command").ok_or(StartError::NoCommand)?;
        let mut words = if setting(&spec.config, "shell").is_some_and(is_true) {
            vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()]
        } else {
            shell_words::split(text).map_err(|error| StartError::Words(text.to_owned(), error))?
        };
        if words.is_empty() {
            return Err(StartError::NoCommand);
        }
        let program = words.remove(0);
        Ok(Self {
            text: text.to_owned(),
            program,
            arguments: words,
            environment: environment(spec),
            directory: setting(&spec.config, "cwd").map(PathBuf::from),
            account: setting(&spec.config, "su").map(str::to_owned),
            payload: payload(setting(&spec.config, "payload").unwrap_or_default())?,
            limits: Limits::parse(&spec.config)?,
        })
    }

    /// Starts the process. Blocks: looks up accounts, forks, and waits for the new program to load.
    ///
    /// # Errors
    /// If the account or the directory is not there, or the system refuses.
    pub(super) fn start(&self) -> Result<Started, StartError> {
        let account = self.account.as_deref().map(Account::look_up).transpose()?;
        if let Some(directory) = &self.directory {
            self.check_directory(directory)?;
        }
        self.spawn(account).map_err(|error| match &self.account {
            Some(account) => StartError::SpawnAs(self.text.clone(), account.clone(), error),
            None => StartError::Spawn(self.text.clone(), error),
        })
    }

    /// Told apart here: of a failed spawn the system does not say whether the program or the
    /// directory was missing.
    fn check_directory(&self, directory: &PathBuf) -> Result<(), StartError> {
        let error = match std::fs::metadata(directory) {
            Ok(metadata) if metadata.is_dir() => return Ok(()),
            Ok(_) => io::Error::from(io::ErrorKind::NotADirectory),
            Err(error) => error,
        };
        Err(StartError::Directory(self.text.clone(), directory.clone(), error))
    }

    fn spawn(&self, account: Option<Account>) -> io::Result<Started> {
        // One pipe for both streams, because two could not be put back into the order of writing.
        let (output, writer) = io::pipe()?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.stdin(if self.payload.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.stdout(writer.try_clone()?);
        command.stderr(writer);
        command.process_group(0);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if let Some(Account { user, group }) = account {
            command.uid(user.as_raw()).gid(group.as_raw());
        }
        Ok(Started { child: command.spawn()?, output })
    }
}

impl Limits {
    fn parse(config: &BTreeMap<String, String>) -> Result<Self, StartError> {
        let timeout = match setting(config, "timeout") {
            None => None,
            Some(text) => match parse_go_duration(text) {
                Ok(Duration::ZERO) => return Err(wrong("timeout", text, "must be above 0")),
                Ok(duration) => Some((duration, text.to_owned())),
                Err(error) => return Err(wrong("timeout", text, error)),
            },
        };
        let memory_max = setting(config, "mem_limit").map(memory).transpose()?;
        Ok(Self { timeout, memory_max })
    }
}

/// Who runs the process.
#[derive(Clone, Copy, Debug)]
struct Account {
    user: Uid,
    group: Gid,
}

impl Account {
    /// Finds `user` or `user:group`, each a name or a number; without a group it is the user's.
    fn look_up(text: &str) -> Result<Self, StartError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let known = User::from_name(user).map_err(|errno| wrong("su", text, errno))?;
        let known = match (known, user.parse()) {
            (None, Ok(id)) => {
                User::from_uid(Uid::from_raw(id)).map_err(|errno| wrong("su", text, errno))?
            }
            (known, _) => known,
        };
        let Some(known) = known else {
            return Err(wrong("su", text, format!("there is no user {user:?}")));
        };
        let group = match group {
            None => known.gid,
            Some(group) => look_up_group(text, group)?,
        };
        Ok(Self { user: known.uid, group })
    }
}

fn look_up_group(text: &str, group: &str) -> Result<Gid, StartError> {
    let known = Group::from_name(group).map_err(|errno| wrong("su", text, errno))?;
    match (known, group.parse()) {
        (Some(known), _) => Ok(known.gid),
        (None, Ok(id)) => Ok(Gid::from_raw(id)),
        (None, Err(_)) => Err(wrong("su", text, format!("there is no group {group:?}"))),
    }
}

/// A setting that is there and not empty.
fn setting<'a>(config: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    config.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
}

/// What Go's `strconv.ParseBool` takes for true.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// The job's own variables, then ours, which win.
fn environment(spec: &LaunchSpec) -> Vec<(String, String)> {
    let own = spec.config.get("env").map_or("", String::as_str);
    // As in Dkron a comma always separates, and a piece without `=` sets nothing.
    let own = own.split(',').filter_map(|piece| piece.split_once('='));
    let own = own.map(|(key, value)| (key.trim().to_owned(), value.to_owned()));
    let ours = [
        ("CRONCLAVE_JOB", spec.job.to_string()),
        ("CRONCLAVE_EXECUTION", spec.execution.to_string()),
        ("CRONCLAVE_DUE", spec.due.to_string()),
        ("CRONCLAVE_ATTEMPT", spec.attempt.to_string()),
        ("ENV_JOB_NAME", spec.job.to_string()),
    ];
    let own = own.filter(|(key, _)| !key.is_empty());
    own.chain(ours.map(|(key, value)| (key.to_owned(), value))).collect()
}

fn payload(text: &str) -> Result<Vec<u8>, StartError> {
    STANDARD.decode(text).map_err(|error| wrong("payload", text, error))
}

/// A number of bytes with an optional unit, each 1,024 times the one before it.
fn memory(text: &str) -> Result<u64, StartError> {
    let upper = text.to_ascii_uppercase();
    let units = [("TB", 4), ("GB", 3), ("MB", 2), ("KB", 1), ("B", 0)];
    let unit = units.iter().find_map(|&(unit, power)| Some((upper.strip_suffix(unit)?, power)));
    let (number, power) = unit.unwrap_or((&upper, 0));
    let bytes = number.trim().parse::<u64>().ok();
    let bytes = bytes.and_then(|number| number.checked_mul(1_024_u64.pow(power)));
    match bytes {
        Some(bytes) if bytes > 0 => Ok(bytes),
        Some(_) | None => {
            Err(wrong("mem_limit", text, "expected bytes, or a number with B, KB, MB, GB or TB"))
        }
    }
}

fn wrong(key: &'static str, text: &str, cause: impl ToString) -> StartError {
    // A payload may be as long as a request.
    let text = text.chars().take(100).collect();
    StartError::Setting(key, text, cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ExecutionId, JobName, LogIndex};
    use crate::time::Wall;

    #[test]
    fn a_command_is_split_into_words_unless_a_shell_is_asked_for() {
        let plain = parse(&[("command", "echo 'a b' c")]).unwrap();
        assert_eq!((plain.program.as_str(), plain.arguments), ("echo", words(&["a b", "c"])));
        let shell = parse(&[("command", "echo a | wc"), ("shell", "true")]).unwrap();
        assert_eq!(shell.program, "/bin/sh");
        assert_eq!(shell.arguments, words(&["-c", "echo a | wc"]));
    }

    #[test]
    fn a_launch_without_a_command_names_what_is_missing() {
        for config in [&[][..], &[("command", " ")], &[("command", "# nothing")]] {
            let error = parse(config).unwrap_err();
            assert_eq!(error.to_string(), "executor_config has no \"command\"");
        }
        assert_eq!(
            parse(&[("command", "echo 'a")]).unwrap_err().to_string(),
            "cannot split command \"echo 'a\" into words: missing closing quote"
        );
    }

    #[test]
    fn our_variables_win_over_the_jobs() {
        let config = [("command", "true"), ("env", "A=1=2,junk,B=,ENV_JOB_NAME=x,=y")];
        let environment = parse(&config).unwrap().environment;
        let own = [("A", "1=2"), ("B", ""), ("ENV_JOB_NAME", "x")];
        let ours = [
            ("CRONCLAVE_JOB", "nightly"),
            ("CRONCLAVE_EXECUTION", "7-1"),
            ("CRONCLAVE_DUE", "1970-01-01T00:01:00Z"),
            ("CRONCLAVE_ATTEMPT", "2"),
            ("ENV_JOB_NAME", "nightly"),
        ];
        let expected: Vec<_> = own.into_iter().chain(ours).collect();
        let seen: Vec<_> = environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn memory_limits_count_in_1024s() {
        for (text, bytes) in [
            ("1000", 1_000),
            ("10B", 10),
            ("2KB", 2_048),
            ("3 mb", 3 << 20),
            ("1GB", 1 << 30),
            ("1TB", 1 << 40),
        ] {
            assert_eq!(memory(text).unwrap(), bytes, "{text}");
        }
        for text in ["0", "-1", "lots", "1PB", "99999999TB", "B"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_settings_are_named_with_their_value() {
        let error = parse(&[("command", "true"), ("mem_limit", "1XB")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "mem_limit \"1XB\" is not valid: expected bytes, or a number with B, KB, MB, GB or TB"
        );
        let error = parse(&[("command", "true"), ("timeout", "soon")]).unwrap_err();
        assert!(error.to_string().starts_with("timeout \"soon\" is not valid: "), "{error}");
        let error = parse(&[("command", "true"), ("timeout", "0s")]).unwrap_err();
        assert_eq!(error.to_string(), "timeout \"0s\" is not valid: must be above 0");
        let error = parse(&[("command", "true"), ("payload", "?")]).unwrap_err();
        assert!(error.to_string().starts_with("payload \"?\" is not valid: "), "{error}");
    }

    #[test]
    fn an_unknown_account_is_named() {
        let error = Account::look_up("no-such-user").unwrap_err();
        assert_eq!(
            error.to_string(),
            "su \"no-such-user\" is not valid: there is no user \"no-such-user\""
        );
        let error = Account::look_up("root:no-such-group").unwrap_err();
        assert!(error.to_string().contains("there is no group \"no-such-group\""), "{error}");
        assert_eq!(Account::look_up("root:7").unwrap().group, Gid::from_raw(7));
        assert_eq!(Account::look_up("0").unwrap().user, Uid::from_raw(0));
    }

    fn parse(config: &[(&str, &str)]) -> Result<ShellCommand, StartError> {
        ShellCommand::parse(&launch(config))
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

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }
}
